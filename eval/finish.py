"""The end of a run: from the files of its folder to `results.json`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import reduce
from typing import Any

from eval.benchmarks import BENCHMARKS, overlap, read_benchmark, seen_videos
from eval.benchmarks.base import Question, QuestionSet
from eval.floors import fit_floor
from eval.integrity import Score, integrity
from eval.job import Job
from eval.journal import Delivered, Mark, Missing, read_control
from eval.results import commit, summarise, versions
from eval.samples import RESULTS, RunError, Sample, read_probes, read_samples, write_json

ODDITIES = 20
"""How many oddities of a file are named; all are counted."""


def finish(
    job: Job,
    asked: QuestionSet,
    questions: Sequence[Question],
    marks: Sequence[Mark],
    score: Score,
    known: Companions,
) -> dict[str, Any]:
    """Score the folder of a run, write `results.json`, and return its content.

    Raises:
        RunError: not one question was answered, or the answers are not those to the questions.
    """
    samples = read_samples(job.out)
    missing = {name: one for mark in marks for name, one in mark.missing.items()}
    if not samples:
        raise RunError(_nothing(job, missing))
    by_row = {question.number: question for question in questions}
    _refuse_strange(job, samples, by_row, missing)
    scored = [by_row[sample.row] for sample in samples]
    fit, train = known.fit, known.train
    seen = [one for one in (fit, train) if one is not None]
    results: dict[str, Any] = {"benchmark": job.benchmark}
    results |= summarise(
        samples,
        scored,
        benchmark=BENCHMARKS[job.benchmark],
        floor=fit_floor(fit.questions) if fit else None,
        fit=fit,
        seen=frozenset().union(*(seen_videos(one) for one in seen)) if seen else None,
        probes=read_probes(job.out),
        left_out=_left_out(marks),
    )
    shared = overlap(asked, train) if train else None
    oddities = [*_fitted_on_itself(asked, fit), *asked.oddities]
    results["integrity"] = integrity(
        samples,
        control=read_control(job.out),
        questions=by_row,
        floor=fit_floor(fit.questions) if fit else None,
        sound=_sum(marks, "sound"),
        picture=_sum(marks, "picture"),
        files=asked.sha256,
        overlap=shared,
        score=score,
        taken=tuple(name for name in ("mute", "blank") if getattr(job, name)),
    )
    results["provenance"] = {
        "benchmark": job.benchmark,
        "model": job.model,
        "weights": job.weights or None,
        "engine": "openai" if job.model.startswith("openai:") else "local",
        "server": dict(job.server),
        "mode": job.mode,
        "files": dict(asked.sha256),
        "fit": dict(fit.sha256) if fit else None,
        "train": dict(train.sha256) if train else None,
        "version": asked.version,
        "oddities": oddities[:ODDITIES],
        "oddities_in_all": len(oddities),
        "overlap": shared,
        "limit": job.limit,
        "subset": job.subset,
        "probes": list(job.probes),
        "shard": list(job.shard),
        "mute": job.mute,
        "blank": job.blank,
        "command": job.command(),
        "commit": commit(),
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(sum(sample.seconds or 0.0 for sample in samples), 3),
        "clips": len({sample.video_id for sample in samples}),
        "questions": len(samples),
        "asked": len(questions),
        "missing_clips": {name: one.why for name, one in missing.items()},
        "missing_questions": len(questions) - len(samples),
        "media": str(job.media.resolve()),
    }
    write_json(job.out / RESULTS, results)
    return results


@dataclass(frozen=True, kw_only=True)
class Companions:
    """The files that go along with a test."""

    fit: QuestionSet | None
    train: QuestionSet | None


def companions(job: Job, asked: QuestionSet) -> Companions:
    """Read what the floor is fitted on and what the model was trained on, before anything else."""
    fit = read_benchmark(job.benchmark, job.fit, like=asked) if job.fit else None
    train = read_benchmark(job.benchmark, job.train, like=asked) if job.train else None
    return Companions(fit=fit, train=train)


def _fitted_on_itself(asked: QuestionSet, fit: QuestionSet | None) -> list[str]:
    if fit is None or not set(fit.sha256.values()) & set(asked.sha256.values()):
        return []
    return ["the floor was fitted on the very questions that it is scored on: name another --fit"]


def _refuse_strange(
    job: Job,
    samples: Sequence[Sample],
    by_row: Mapping[int, Question],
    missing: Mapping[str, Missing],
) -> None:
    """Raise RunError for answers to no question, and questions without answer or excuse."""
    answered = {sample.row for sample in samples}
    for row in answered:
        if row not in by_row:
            raise RunError(f"{job.out} has an answer to row {row}, which was not asked")
    for row, question in by_row.items():
        if row not in answered and not {question.video_id, question.sound_of} & set(missing):
            raise RunError(f"{job.out} has no answer to row {row}, and its clip is not missing")


def _nothing(job: Job, missing: Mapping[str, Missing]) -> str:
    name, one = next(iter(missing.items()))
    return f"none of the {len(missing)} clips could be read from {job.media}; {name}: {one.why}"


def _left_out(marks: Sequence[Mark]) -> dict[str, dict[str, int]]:
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for mark in marks:
        for probe, reasons in mark.left_out.items():
            totals[probe].update(reasons)
    return {probe: dict(sorted(reasons.items())) for probe, reasons in totals.items()}


def _sum(marks: Sequence[Mark], modality: str) -> Delivered:
    return reduce(Delivered.__add__, (getattr(mark, modality) for mark in marks), Delivered())
