"""Speech: where a voice is heard, and the way of a transcript with a miniature Whisper."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from avqa_llm.cli import main
from avqa_llm.media import Clip, Uniform, read_clip
from avqa_llm.speech import SpeechError, Transcriber, voice_spans
from tests.miniature_whisper import make_whisper
from tests.sounds import clip_of, no_sound, noise, struck, tone

pytest.importorskip("faster_whisper", reason="the extra `speech` is not installed")

SAMPLES = Path(__file__).resolve().parent.parent / "app" / "samples"
SAID = "Please listen to the violin on the left, and tell me when the drum begins to play."
RATE = 16000
EDGE_S = 0.35
"""Padding of 0.2 s and how far off voice detection may be."""


@pytest.fixture(scope="module")
def spoken_S(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """About four seconds of a synthetic voice, mono at 16 kHz."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not on this machine: there is no voice to listen to")
    path = tmp_path_factory.mktemp("voice") / "said.wav"
    subprocess.run(["espeak-ng", "-w", str(path), SAID], check=True)
    return read_clip(path).sound_at(RATE, 1)[0]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.fixture(scope="module")
def twice(spoken_S: np.ndarray) -> Clip:
    """Silence of 3 s, speech, silence of 4 s, the same speech again, silence of 2 s."""
    parts = [silence(3), spoken_S, silence(4), spoken_S, silence(2)]
    return clip_of(np.concatenate(parts), RATE)


# -- voices ------------------------------------------------------------------------------------


def test_a_voice_is_found_where_it_speaks(twice: Clip, spoken_S: np.ndarray) -> None:
    length = len(spoken_S) / RATE
    spans = [(span.start_s, span.end_s) for span in voice_spans(twice)]
    assert len(spans) == 2
    wanted = [(3, 3 + length), (7 + length, 7 + 2 * length)]
    assert np.allclose(spans, wanted, atol=EDGE_S)


@pytest.mark.parametrize(
    "clip",
    [
        no_sound(),
        clip_of(np.zeros((2, 5 * RATE)), RATE),
        clip_of(noise(5, 0.05, rate_hz=RATE), RATE),
        clip_of(tone(220, 5, rate_hz=RATE, harmonics=8), RATE),
        clip_of(struck(np.arange(0.5, 5, 0.5), 5, "note", RATE), RATE),
        clip_of(np.zeros(100), RATE),
    ],
    ids=["no sound", "silence", "noise", "tone", "notes", "six milliseconds"],
)
def test_no_voice_where_none_is(clip: Clip) -> None:
    assert voice_spans(clip) == ()


def test_no_voice_in_a_band_and_one_where_somebody_speaks_over_it() -> None:
    """The voiceover of offscreen.mp4 is synthetic: mouth resonances over buzz, no words."""
    band, over = (
        voice_spans(read_clip(SAMPLES / name, sampling=Uniform(frames=1)))
        for name in ("trio.mp4", "offscreen.mp4")
    )
    assert band == ()
    assert sum(span.seconds for span in over) > 3


# -- transcripts -------------------------------------------------------------------------------


def test_words_stand_on_the_clips_clock_where_the_voice_is(twice: Clip, whisper: Path) -> None:
    transcript = Transcriber.load(whisper, device="cpu").transcribe(twice)
    assert transcript.voice == voice_spans(twice) and transcript.language == "en"
    words = [word for segment in transcript.segments for word in segment.words]
    assert words, "a random Whisper says something to every voice"
    for word in words:
        assert any(
            span.start_s - 0.1 <= word.start_s <= word.end_s <= span.end_s + 0.1
            for span in transcript.voice
        )
        assert 0 <= word.probability <= 1 and word.text.isprintable()
    assert all(segment.end_s > segment.start_s for segment in transcript.segments)
    assert json.loads(json.dumps(transcript.to_json()))["text"] == transcript.text


def test_a_part_is_transcribed_on_the_clips_clock(
    twice: Clip, spoken_S: np.ndarray, whisper: Path
) -> None:
    again = 7 + len(spoken_S) / RATE
    transcript = Transcriber.load(whisper, device="cpu").transcribe(twice, again - 1, None)
    assert len(transcript.voice) == 1
    assert transcript.voice[0].start_s == pytest.approx(again, abs=EDGE_S)
    assert all(again - 1 <= segment.start_s for segment in transcript.segments)
    alone = Transcriber.load(whisper, device="cpu").transcribe(twice, again - 1, None)
    assert alone == transcript  # the same clip gives the same words


class Untouched:
    """Stands where a Whisper would, and fails the test if it is run."""

    def transcribe(self, *_: object, **__: object) -> None:
        raise AssertionError("Whisper ran although there is no voice")


@pytest.mark.parametrize(
    "clip, note",
    [
        (no_sound(), "the clip has no sound track"),
        (clip_of(np.zeros(3 * RATE), RATE), "no speech was found"),
        (clip_of(tone(220, 3, rate_hz=RATE, harmonics=8), RATE), "no speech was found"),
    ],
)
def test_where_there_is_no_voice_whisper_does_not_run(clip: Clip, note: str) -> None:
    transcript = Transcriber(Untouched()).transcribe(clip)
    assert transcript.note == note and transcript.says_nothing
    assert transcript.segments == transcript.voice == () and transcript.language == ""


def test_listen_writes_down_speech(
    whisper: Path, spoken_S: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["listen", str(SAMPLES / "trio.mp4"), "--speech", str(whisper)]) == 0
    assert "Speech: no speech was found" in capsys.readouterr().out
    path = tmp_path / "said.wav"
    subprocess.run(["espeak-ng", "-w", str(path), SAID], check=True)
    assert main(["listen", str(path), "--speech", str(whisper)]) == 0
    shown = capsys.readouterr().out
    assert "as Whisper heard it (language: en)" in shown and "s  a voice" in shown
    assert main(["listen", str(path), "--speech", str(whisper), "--json"]) == 0
    speech = json.loads(capsys.readouterr().out)["speech"]
    assert speech["voice"] and speech["language"] == "en"


# -- models that are not there -----------------------------------------------------------------


@pytest.mark.parametrize(
    "model, why",
    [
        ("base", "'base' does not load.*give the folder"),
        ("colossal", "'colossal' does not load.*expected one of: tiny"),
        ("./nowhere", "the folder nowhere does not exist"),
        (Path("nowhere"), "the folder nowhere does not exist"),
    ],
)
def test_a_missing_model_is_one_sentence(
    model: str | Path, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # an empty one
    with pytest.raises(SpeechError, match=why) as caught:
        Transcriber.load(model)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_format_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(SpeechError, match="no model.bin and no tokenizer.json.*ct2-transformers"):
        Transcriber.load(tmp_path)


def test_a_damaged_model_is_one_sentence(whisper: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(whisper, tmp_path / "damaged"))
    (damaged / "model.bin").write_bytes(b"not a model")
    with pytest.raises(SpeechError, match="does not load"):
        Transcriber.load(damaged, device="cpu")


def test_a_window_outside_of_the_clip_is_a_sentence() -> None:
    with pytest.raises(SpeechError, match="between 0 and 2 s"):
        Transcriber(Untouched()).transcribe(clip_of(tone(440)), 5.0, 6.0)
