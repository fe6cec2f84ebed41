"""Questions by voice: what was heard becomes text beside what lies ready, to be read first.

The transcriber is a fake: speech models cannot be had without a network. What reads the recording
and what the page does with the words are real.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.handlers import Handlers
from app.voice import Voice
from avqa_llm.errors import AVQAError
from avqa_llm.media import Clip
from tests.app_world import DUO

NOTHING: Any = None


class Whisper:
    """Hears what it is told to hear."""

    def __init__(self, text: str) -> None:
        self.text, self.clips = text, list[Clip]()

    def transcribe(self, clip: Clip) -> SimpleNamespace:
        self.clips.append(clip)
        return SimpleNamespace(text=self.text, says_nothing=not self.text, note="only music")


def voice(text: str) -> tuple[Voice, Whisper]:
    made, whisper = Voice(), Whisper(text)
    made._transcriber = whisper
    return made, whisper


def test_words_stand_beside_what_lies_ready() -> None:
    made, whisper = voice(" Which one\x00 is louder? ")
    handlers = Handlers(NOTHING, made, NOTHING)
    ready = {"text": "Tell me.", "files": ["/up/a.mp4"]}
    found, said = asyncio.run(handlers.spoken(str(DUO), ready))
    assert found == {"text": "Tell me. Which one is louder?", "files": ["/up/a.mp4"]}
    assert "before you send" in said
    assert whisper.clips[0].has_sound and whisper.clips[0].duration_s == pytest.approx(10, abs=0.1)


def test_what_says_nothing_or_is_no_recording_is_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "a.wav"
    broken.write_bytes(b"nothing")
    for path, words in ((DUO, "only music"), (broken, "recording")):
        made, _ = voice("")
        found, said = asyncio.run(
            Handlers(NOTHING, made, NOTHING).spoken(str(path), {"text": "", "files": []})
        )
        assert found is None and words in said and str(tmp_path) not in said
    assert asyncio.run(Handlers(NOTHING, Voice(), NOTHING).spoken(None, {})) == (None, "")


def test_a_model_that_cannot_be_had_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AVQAError):
        Voice(str(tmp_path / "no-such-model"))
