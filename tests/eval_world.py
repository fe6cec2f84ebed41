"""A small benchmark of real media files, and an engine that answers from a script."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.answer import Answer, Consumed
from avqa_llm.media import Clip, Uniform, read_clip
from eval.engines import Asked
from eval.job import Job
from tests.media_files import Picture, Sound, at_rate, make_media

QUESTIONS = (
    ('["Audio", "Counting"]', "How many musical instruments were heard throughout the video?"),
    ('["Visual", "Location"]', "Where is the performance?"),
    ('["Audio-Visual", "Existential"]', "Is there a voiceover?"),
)
_HEARD, _PLACE, _VOICE = ("one", "two", "three"), ("indoor", "outdoor"), ("yes", "no")


def gold(clip: int, question: int) -> str:
    """The answer to a question about the clip of a number."""
    answers = (_HEARD, _PLACE, _VOICE)[question]
    return answers[clip // (1 + question) % len(answers)]


def name(clip: int) -> str:
    """Its id: as those of real clips of MUSIC-AVQA."""
    return f"{clip:08d}"


def make_world(folder: Path, clips: int) -> Path:
    """Write `test.json` (clips interleaved, as in the benchmark) and a media file a clip."""
    rows = []
    for question, (kind, content) in enumerate(QUESTIONS):
        for clip in range(clips):
            row = {"video_id": name(clip), "type": kind, "question_content": content}
            row |= {"templ_values": "[]", "anser": gold(clip, question)}
            rows.append(row | {"question_id": 100 * question + clip})
    (folder / "test.json").write_text(json.dumps(rows))
    for clip in range(clips):
        # Not one file like another: scripted answers go by what was read.
        sound = Sound(seconds=1, volume=0.3 + 0.01 * clip)
        make_media(folder / f"{name(clip)}.mp4", Picture(times_s=at_rate(5, 1)), sound)
    return folder


def job(world: Path, out: Path, **changes: Any) -> Job:
    """A job on that world."""
    questions = world / "test.json"
    settings: dict[str, Any] = {
        "benchmark": "music-avqa",
        "annotations": questions,
        "fit": questions,
        "media": world,
        "out": out,
    }
    return Job(**(settings | changes))


class Scripted:
    """Reads real files, and answers from the script: where the modality is there, else a shrug."""

    def __init__(self, *, dies_at: str = "", seconds: float = 0.0) -> None:
        self.asked: list[tuple[str, str]] = []
        self.dies_at, self.seconds = dies_at, seconds

    def read(self, path: Path) -> Clip:
        return read_clip(path, sampling=Uniform(frames=2))

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        time.sleep(self.seconds)
        if self.dies_at in {Path(clip.path).stem for clip in clips}:
            raise KeyboardInterrupt
        self.asked += [(Path(clips[one.clip].path).stem, one.question) for one in asked]
        return [self.say(clips[one.clip], one.question) for one in asked]

    def say(self, clip: Clip, question: str) -> Answer:
        number = next(n for n, (_, text) in enumerate(QUESTIONS) if text in question)
        right = gold(int(Path(clip.path).stem), number)
        knows = clip.has_picture if number == 1 else clip.has_sound
        return Answer(
            answer=f"The answer is {right}." if knows else "I do not know \ud800",
            label=right,
            probability=1.00001 if knows else 0.25,
            consumed=Consumed(
                sound=clip.has_sound,
                picture=clip.has_picture,
                sound_tokens=3 * clip.has_sound,
                picture_tokens=2 * clip.has_picture,
            ),
            warnings=("unlike the training world",),
        )


def loudness(clip: Clip) -> float:
    """Of the sound as it reaches the engine; 0 without."""
    return float(np.abs(clip.sound_CS).mean()) if clip.has_sound else 0.0
