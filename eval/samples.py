"""The answers of a run, one JSON line each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.answer import Alternative, Consumed, Evidence
from avqa_llm.errors import AVQAError

if TYPE_CHECKING:
    from eval.benchmarks.base import Question

SAMPLES, PROBES, SETTING, RESULTS = "samples.jsonl", "probes.jsonl", "run.json", "results.json"


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
    sound_of: str | None = None
    """The clip whose sound was heard instead of the clip's own (v2)."""
    answer: str
    """The model's own text, untouched."""
    label: str
    """What the scorer makes of the text: one of the answers, or `no_answer`."""
    engine_label: str | None = None
    """What the engine itself took the answer for; None for predictions from a file."""
    probability: float | None = None
    """Of the answer, 0..1; None where nobody said."""
    alternatives: tuple[Alternative, ...] = ()
    consumed: Consumed | None = None
    """What reached the model; None where nobody can prove it."""
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    """Reading and answering time, shared among the questions of a batch."""

    @classmethod
    def about(cls, question: Question, **said: Any) -> Sample:
        """An answer to a question; `said` are the fields that the question does not give."""
        return cls(
            row=question.number,
            video_id=question.video_id,
            question_id=question.question_id,
            template=question.template,
            type=question.type,
            question=question.question,
            gold=question.gold,
            sound_of=question.sound_of,
            **said,
        )

    @property
    def correct(self) -> bool:
        """Whether the label is the gold answer; `no_answer` never is."""
        return self.label == self.gold

    def to_line(self) -> str:
        """Return the JSON line, with its end; ASCII, so that no text can break it."""
        raw = vars(self) | {
            "alternatives": [vars(one) for one in self.alternatives],
            "consumed": None if self.consumed is None else vars(self.consumed),
            "evidence": [vars(one) for one in self.evidence],
        }
        return json.dumps(raw) + "\n"

    @classmethod
    def from_line(cls, line: bytes) -> Sample:
        """Read a JSON line. Raises ValueError, KeyError or TypeError if it is none of ours."""
        raw = json.loads(line)
        if not isinstance(raw["row"], int):
            raise TypeError(f"row is {raw['row']!r}, should be a number")
        raw["consumed"] = _consumed(raw["consumed"])
        raw["alternatives"] = tuple(Alternative(**one) for one in raw["alternatives"])
        raw["evidence"] = tuple(_evidence(one) for one in raw["evidence"])
        raw["warnings"] = tuple(raw["warnings"])
        return cls(**raw)


@dataclass(frozen=True, kw_only=True)
class ProbeSample:
    """One answer after the clip or the question was changed."""

    probe: str
    """Name of the change in `eval.probes.PROBES`."""
    row: int
    """The question that was changed: the `row` of its `Sample`."""
    question: str
    """As it was asked after the change."""
    expected: str | None
    """The right answer after the change; None where it cannot be known."""
    answer: str
    label: str
    probability: float | None
    consumed: Consumed | None

    def to_line(self) -> str:
        """Return the JSON line, with its end."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: bytes) -> ProbeSample:
        """Read a JSON line. Raises ValueError, KeyError or TypeError if it is none of ours."""
        raw = json.loads(line)
        raw["consumed"] = _consumed(raw["consumed"])
        return cls(**raw)


def _consumed(raw: Mapping[str, Any] | None) -> Consumed | None:
    return None if raw is None else Consumed(**raw)


def _evidence(raw: dict[str, Any]) -> Evidence:
    region = raw["region"]
    return Evidence(**(raw | {"region": None if region is None else tuple(region)}))


def read_samples(run: Path) -> list[Sample]:
    """Read the answers of a run by row number. Raises RunError that names the line."""
    samples: dict[int, Sample] = {}
    for number, line in _lines(run / SAMPLES):
        try:
            sample = Sample.from_line(line)
        except (ValueError, KeyError, TypeError) as error:
            raise _no_answer(run / SAMPLES, number, error) from error
        if sample.row in samples:
            raise RunError(
                f"{run / SAMPLES}, line {number} answers row {sample.row} a second time: two runs "
                "wrote to this folder; run again with another --out"
            )
        samples[sample.row] = sample
    return [samples[row] for row in sorted(samples)]


def read_probes(run: Path) -> list[ProbeSample]:
    """Read the answers after changes, in the order of the file; none where nothing was probed."""
    probes = []
    for number, line in _lines(run / PROBES):
        try:
            probes.append(ProbeSample.from_line(line))
        except (ValueError, KeyError, TypeError) as error:
            raise _no_answer(run / PROBES, number, error) from error
    return probes


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file; a half-written last one does not count."""
    if path.exists():
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield number, line


def _no_answer(path: Path, number: int, error: Exception) -> RunError:
    return RunError(f"{path}, line {number} is not an answer: {error!r}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write aside, then rename: a reader sees the old file or the new one, never a half."""
    aside = path.with_name(f"{path.name}.part")
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A path may hold half of a surrogate pair, which no file can.
    aside.write_text(text, encoding="utf-8", errors="backslashreplace")
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
