"""`python -m eval score`: anybody's predictions, from a file, scored like a run of our own."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks import BENCHMARKS, read_benchmark
from eval.benchmarks.base import Question, QuestionSet
from eval.integrity import Check, overlapping, scorer
from eval.matching import match
from eval.prediction_rows import Prediction, read_predictions
from eval.provenance import Companions, provenance
from eval.results import summarise
from eval.samples import RESULTS, SAMPLES, SETTING, RunError, Sample, read_json, write_json
from eval.scoring import canonical
from eval.tables import run_table

ENGINE = "file"
"""What provenance and the setting call the engine of predictions that came from a file."""
WHOLE = {
    **{"mode": None, "limit": None, "subset": None, "shard": [1, 1]},
    **{"mute": False, "blank": False, "media": None},
}
"""What provenance says of what only a run of ours can have."""
SUSPICIOUS = 50
"""From so many answers on, all of them being the gold answer to the letter is told."""


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    results = score(
        benchmark=args.benchmark,
        annotations=args.annotations,
        predictions=args.predictions,
        out=args.out,
        fit=args.fit,
        train=args.train,
        parent=args.parent,
        partial=args.partial,
    )
    print(run_table(results))
    print(f"\nWritten to {args.out / RESULTS} and {args.out / SAMPLES}")
    print(f"A page to read: python -m eval report {args.out}")


def score(
    *,
    benchmark: str,
    annotations: Path,
    predictions: Path,
    out: Path,
    fit: Path | None = None,
    train: Path | None = None,
    parent: Path | None = None,
    partial: bool = False,
) -> dict[str, Any]:
    """Score a predictions file into a run folder, and return its `results.json`.

    Args:
        benchmark: of `eval.benchmarks.BENCHMARKS`.
        annotations: the questions, as their authors give them.
        predictions: JSONL or a JSON list.
        out: the folder; another run's is left alone.
        fit: where the blind floor counts answers.
        train: what the model was trained on, for the overlap.
        parent: v1's test file, which lends R and Fortis their templates.
        partial: whether to score what is there when questions have no prediction.

    Raises:
        AnnotationError: a question file is faulty.
        RunError: the predictions are faulty or do not fit, or the folder holds something else.
    """
    given, sha256 = read_predictions(predictions)
    asked = read_benchmark(benchmark, annotations, parent=parent)
    known = Companions.read(asked, fit, train)
    found = match(given, asked.questions, partial=partial)
    pairs = [
        (one, question)
        for one, question in zip(found, asked.questions, strict=True)
        if one is not None
    ]
    samples = [_sample(one, question) for one, question in pairs]
    questions = [question for _, question in pairs]
    setting = {
        "benchmark": benchmark,
        "engine": ENGINE,
        "files": dict(asked.sha256),
        "predictions": {predictions.name: sha256},
    }
    results: dict[str, Any] = {"benchmark": benchmark}
    results |= summarise(
        samples,
        questions,
        benchmark=BENCHMARKS[benchmark],
        floor=known.floor,
        fit=known.fit,
        seen=known.seen,
        probes=(),
        left_out={},
    )
    results["integrity"] = _integrity(samples, asked, known.overlap)
    results["provenance"] = {
        **setting,
        **WHOLE,
        "model": predictions.stem,
        "parent": None if parent is None else str(parent),
        **provenance(asked, known, samples, len(asked.questions)),
        **_missing(asked, found),
    }
    _write(out, setting, samples, results)
    return results


# --- scoring --------------------------------------------------------------------------------


def _sample(one: Prediction, question: Question) -> Sample:
    return Sample.about(
        question,
        answer=one.answer,
        label=canonical(one.answer, question),
        probability=one.probability,
    )


def file_only_checks(samples: Sequence[Sample]) -> dict[str, Check]:
    """The checks that need the engine itself: predictions from a file leave them unproven."""
    why = "the predictions came from a file: nothing shows how they were made"
    names = (
        *("no gold leak", "empty media at the floor"),
        *("sound delivered", "picture delivered", "sound matters", "picture matters"),
    )
    checks: dict[str, Check] = {name: {"state": "unproven", "says": why} for name in names}
    copied = sum(sample.answer == sample.gold for sample in samples)
    if copied == len(samples) >= SUSPICIOUS:
        checks["no gold leak"] = {
            "state": "warn",
            "says": f"all {copied} answers are the gold answer to the letter: is this the "
            "annotation file's own answer?",
        }
    return checks


def _integrity(
    samples: Sequence[Sample], asked: QuestionSet, shared: Mapping[str, Any] | None
) -> dict[str, Any]:
    checks = file_only_checks(samples) | {
        "scorer": scorer(canonical),
        "files": {
            "state": "pass",
            "says": f"{len(asked.sha256)} question files, each with its SHA-256",
        },
        "train overlap": overlapping(shared),
    }
    return {"valid": all(one["state"] != "fail" for one in checks.values()), "checks": checks}


def _missing(asked: QuestionSet, found: Sequence[Prediction | None]) -> dict[str, Any]:
    missing = [
        question for one, question in zip(found, asked.questions, strict=True) if one is None
    ]
    return {
        "missing_clips": _missing_clips(missing, asked.questions),
        "missing_rows": list(_ranges([question.number for question in missing])),
    }


def _missing_clips(missing: Sequence[Question], questions: Sequence[Question]) -> dict[str, str]:
    """Clips of which questions have no prediction, and how many."""
    asked = Counter(question.video_id for question in questions)
    return {
        clip: f"no prediction for {n} of its {asked[clip]} questions"
        for clip, n in Counter(question.video_id for question in missing).items()
    }


def _ranges(rows: Sequence[int]) -> Iterator[str]:
    """Row numbers as `4` and `7-9`."""
    start = 0
    for end, row in enumerate(rows, 1):
        if end == len(rows) or rows[end] != row + 1:
            yield f"{rows[start]}-{row}" if rows[start] != row else str(row)
            start = end


# --- writing --------------------------------------------------------------------------------


def _write(
    out: Path, setting: Mapping[str, Any], samples: Sequence[Sample], results: Mapping[str, Any]
) -> None:
    """Write the folder. Raises RunError if it holds a run, or other predictions."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        _refuse_other(out, setting)
        (out / RESULTS).unlink(missing_ok=True)  # results never stand beside another's samples
        write_json(out / SETTING, setting)
        aside = out / f"{SAMPLES}.part"
        aside.write_text("".join(sample.to_line() for sample in samples), encoding="ascii")
        aside.replace(out / SAMPLES)
        write_json(out / RESULTS, results)
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error.strerror}") from error


def _refuse_other(out: Path, setting: Mapping[str, Any]) -> None:
    if (out / SETTING).exists():
        there = read_json(out / SETTING)
        if {name: there.get(name) for name in setting} != dict(setting):
            what = "other predictions" if there.get("engine") == ENGINE else "a run"
            raise RunError(f"{out} holds {what}: choose another --out")
    elif (out / SAMPLES).exists():
        raise RunError(f"{out} holds answers of unknown origin: choose another --out")
