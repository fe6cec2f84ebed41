"""What every `results.json` says about where its figures come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eval.benchmarks import overlap, read_benchmark, seen_videos
from eval.benchmarks.base import QuestionSet
from eval.floors import Floor, fit_floor
from eval.results import commit, versions
from eval.samples import Sample

ODDITIES = 20
"""How many oddities of a question file are named; all are counted."""


@dataclass(frozen=True, kw_only=True)
class Companions:
    """The files that go along with a test, and what follows from them."""

    fit: QuestionSet | None
    train: QuestionSet | None
    floor: Floor | None
    seen: frozenset[str] | None
    """Clips that one of them has; None where neither was named."""
    overlap: dict[str, Any] | None
    """With the training file."""

    @classmethod
    def read(cls, asked: QuestionSet, fit: Path | None, train: Path | None) -> Companions:
        """Read them. Raises AnnotationError where one cannot be read."""
        fitted, trained = (
            read_benchmark(asked.benchmark, path, like=asked) if path else None
            for path in (fit, train)
        )
        known = [one for one in (fitted, trained) if one is not None]
        return cls(
            fit=fitted,
            train=trained,
            floor=fit_floor(fitted.questions) if fitted else None,
            seen=frozenset().union(*map(seen_videos, known)) if known else None,
            overlap=overlap(asked, trained) if trained else None,
        )


def provenance(
    asked: QuestionSet, known: Companions, samples: Sequence[Sample], questions: int
) -> dict[str, Any]:
    """What runs and scored predictions have in common; `questions` is how many were asked."""
    oddities = [*_fitted_on_itself(asked, known.fit), *asked.oddities]
    return {
        "files": dict(asked.sha256),
        "fit": dict(known.fit.sha256) if known.fit else None,
        "train": dict(known.train.sha256) if known.train else None,
        "version": asked.version,
        "oddities": oddities[:ODDITIES],
        "oddities_in_all": len(oddities),
        "overlap": known.overlap,
        "commit": commit(),
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(sum(sample.seconds or 0.0 for sample in samples), 3),
        "clips": len({sample.video_id for sample in samples}),
        "questions": len(samples),
        "asked": questions,
        "missing_questions": questions - len(samples),
    }


def _fitted_on_itself(asked: QuestionSet, fit: QuestionSet | None) -> list[str]:
    if fit is None or not set(fit.sha256.values()) & set(asked.sha256.values()):
        return []
    return ["the floor was fitted on the very questions that it is scored on: name another --fit"]
