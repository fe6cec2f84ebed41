"""The answers of a run on disk: one JSON line a question, appended clip by clip.

A folder holds the answers of one setting only: `run.json` says which, and another is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avqa_llm.answer import Consumed
from avqa_llm.errors import AVQAError

SAMPLES, SETTING, RESULTS = "samples.jsonl", "run.json", "results.json"


class RunError(AVQAError):
    """A run that cannot be started, continued or compared."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answered question: everything that scores are computed from."""

    row: int
    """Number of the row in the annotation file, from 1: what identifies the question."""
    video_id: str
    question_id: int | str | None
    template: str | None
    type: str
    question: str
    gold: str
    answer: str
    """The model's own text, untouched."""
    label: str
    """What the canonical scorer makes of the text: one of the 42 answers, or `no_answer`."""
    engine_label: str
    """What the engine itself took the answer for."""
    probability: float
    consumed: Consumed
    warnings: tuple[str, ...]
    seconds: float
    """The clip's reading and answering time, shared among its questions."""

    @property
    def correct(self) -> bool:
        """Whether the label is the gold answer; `no_answer` never is."""
        return self.label == self.gold

    def to_line(self) -> str:
        """Return the JSON line, with its end; ASCII, so that no text can break it."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: bytes) -> Sample:
        """Read a JSON line. Raises ValueError, KeyError or TypeError if it is none of ours."""
        raw = json.loads(line)
        raw["consumed"] = Consumed(**raw["consumed"])
        raw["warnings"] = tuple(raw["warnings"])
        return cls(**raw)


def open_run(out: Path, setting: Mapping[str, Any]) -> dict[int, Sample]:
    """Make or reopen the folder of a run; return what is already answered, by row number.

    A half-written last line is removed from the file. Raises RunError when the folder holds
    answers of another setting.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error.strerror}") from error
    samples = out / SAMPLES
    if samples.exists():
        os.truncate(samples, samples.read_bytes().rfind(b"\n") + 1)
    if samples.exists() and samples.stat().st_size:
        _check_setting(out / SETTING, setting)
    else:
        write_json(out / SETTING, setting)
    return {sample.row: sample for sample in read_samples(out)}


def _check_setting(known: Path, setting: Mapping[str, Any]) -> None:
    before = read_json(known)
    for key, value in setting.items():
        if before.get(key) != value:
            raise RunError(
                f"{known.parent} holds a run with {key} {before.get(key)!r}, and this one has "
                f"{value!r}; choose another --out"
            )


def append(file: Any, samples: Iterable[Sample]) -> None:
    """Write the answers about one clip, and hand them to the operating system at once."""
    file.write("".join(sample.to_line() for sample in samples))
    file.flush()


def read_samples(run: Path) -> list[Sample]:
    """Read the answers of a run by row number; a half-written last line does not count."""
    path = run / SAMPLES
    if not path.exists():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    samples: dict[int, Sample] = {}
    for number, line in enumerate(whole, 1):
        try:
            sample = Sample.from_line(line)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}, line {number} is not an answer: {error}") from error
        if sample.row in samples:
            raise RunError(
                f"{path}, line {number} answers row {sample.row} a second time: two runs wrote "
                "to this folder; run again with another --out"
            )
        samples[sample.row] = sample
    return [samples[row] for row in sorted(samples)]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write aside, then rename: a reader sees the old file or the new one, never a half."""
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(
        json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    os.replace(aside, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object. Raises RunError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} should hold a JSON object")
    return content
