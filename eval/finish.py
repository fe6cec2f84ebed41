"""The end of a run: from the files of its folder to `results.json`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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
from eval.samples import RESULTS, RunError, read_probes, read_samples, write_json

ODDITIES = 20
"""How many oddities of a file are named; all are counted."""


def finish(
    job: Job,
    asked: QuestionSet,
    questions: Sequence[Question],
    marks: Sequence[Mark],
    score: Score,
) -> dict[str, Any]:
    """Score the folder of a run, write `results.json`, and return its content.

    Raises:
        RunError: not one question was answered.
    """
    samples = read_samples(job.out)
    missing = {name: one for mark in marks for name, one in mark.missing.items()}
    if not samples:
        raise RunError(_nothing(job, missing))
    by_row = {question.number: question for question in questions}
    scored = [by_row[sample.row] for sample in samples]
    fit = read_benchmark(job.benchmark, job.fit, like=asked) if job.fit else None
    train = read_benchmark(job.benchmark, job.train, like=asked) if job.train else None
    known = [one for one in (fit, train) if one is not None]
    results: dict[str, Any] = {"benchmark": job.benchmark}
    results |= summarise(
        samples,
        scored,
        benchmark=BENCHMARKS[job.benchmark],
        floor=fit_floor(fit.questions) if fit else None,
        fit=fit,
        seen=frozenset().union(*(seen_videos(one) for one in known)) if known else None,
        probes=read_probes(job.out),
        left_out=_left_out(marks),
    )
    shared = overlap(asked, train) if train else None
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
        "engine": "openai" if job.model.startswith("openai:") else "local",
        "server": dict(job.server),
        "mode": job.mode,
        "files": dict(asked.sha256),
        "fit": dict(fit.sha256) if fit else None,
        "train": dict(train.sha256) if train else None,
        "version": asked.version,
        "oddities": [*asked.oddities[:ODDITIES]],
        "oddities_in_all": len(asked.oddities),
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
