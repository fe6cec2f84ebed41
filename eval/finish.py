"""The end of a run: from the files of its folder to `results.json`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from eval.benchmarks import BENCHMARKS
from eval.benchmarks.base import Question, QuestionSet
from eval.integrity import integrity
from eval.job import Job
from eval.journal import Delivered, Mark, Missing, read_control
from eval.provenance import Companions, provenance
from eval.results import summarise
from eval.samples import RESULTS, RunError, Sample, read_probes, read_samples, write_json
from eval.scoring import Scorer


def finish(
    job: Job,
    asked: QuestionSet,
    questions: Sequence[Question],
    marks: Sequence[Mark],
    score: Scorer,
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
    results: dict[str, Any] = {"benchmark": job.benchmark}
    results |= summarise(
        samples,
        scored,
        benchmark=BENCHMARKS[job.benchmark],
        floor=known.floor,
        fit=known.fit,
        seen=known.seen,
        probes=read_probes(job.out),
        left_out=_left_out(marks),
    )
    results["integrity"] = integrity(
        samples,
        control=read_control(job.out),
        questions=by_row,
        floor=known.floor,
        sound=_sum(marks, "sound"),
        picture=_sum(marks, "picture"),
        files=asked.sha256,
        overlap=known.overlap,
        score=score,
        taken=tuple(name for name in ("mute", "blank") if getattr(job, name)),
    )
    results["provenance"] = {
        **job.about(),
        **provenance(asked, known, samples, len(questions)),
        "missing_clips": {name: one.why for name, one in missing.items()},
    }
    write_json(job.out / RESULTS, results)
    return results


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
