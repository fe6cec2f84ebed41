"""Joins the shards of a run, as if one machine had done it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.benchmarks import read_benchmark
from eval.finish import finish
from eval.job import JOB, Job, plan, select
from eval.journal import CHUNKS, FILES, Journal, Mark, kept_marks
from eval.runner import setting_of
from eval.samples import RunError, read_json
from eval.scoring import canonical
from eval.tables import run_table


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval merge`."""
    print(run_table(merge(args.shards, args.out)))


def merge(shards: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the folder of the whole run, and return the content of its `results.json`.

    Raises:
        RunError: a shard is missing, unfinished or of another run, or `out` is in use.
    """
    jobs = [_job(shard) for shard in shards]
    whole = replace(jobs[0], out=out, shard=(1, 1))
    for folder, job in zip(shards, jobs, strict=True):
        _refuse_other(folder, job, shards[0], jobs[0])
    _refuse_gaps(jobs)
    asked = read_benchmark(whole.benchmark, whole.annotations, parent=whole.parent)
    if (out / CHUNKS).exists():
        raise RunError(f"{out} holds a run already: choose another --out")
    questions = select(asked.questions, whole)
    pieces: dict[int, tuple[Path, Mark, dict[str, int]]] = {}
    for folder in shards:
        starts = dict.fromkeys(FILES, 0)
        for mark in kept_marks(folder, None):
            pieces[mark.number] = (folder, mark, starts)
            starts = dict(mark.ends)
    wanted = [chunk.number for chunk in plan(questions)]
    absent = [number for number in wanted if number not in pieces]
    if absent:
        raise RunError(
            f"{len(absent)} of {len(wanted)} pieces are not answered yet: finish the shards first"
        )
    journal = Journal.open(out, setting_of(whole, asked), size=None)
    for number in wanted:
        folder, mark, starts = pieces[number]
        journal.copy(folder, mark, starts)
    return finish(whole, asked, questions, journal.marks, canonical)


def _job(shard: Path) -> Job:
    try:
        return Job.from_json(read_json(shard / JOB))
    except (TypeError, KeyError) as error:
        raise RunError(f"{shard / JOB} does not describe a run: {error!r}") from error


def _refuse_other(folder: Path, job: Job, first: Path, other: Job) -> None:
    one, two = replace(job, out=other.out, shard=other.shard).to_json(), other.to_json()
    for name, value in one.items():
        if name not in ("media", "annotations", "fit", "train", "parent") and value != two[name]:
            raise RunError(f"{folder} has {name} {value!r}, {first} has {two[name]!r}: not one run")


def _refuse_gaps(jobs: Sequence[Job]) -> None:
    n = jobs[0].shard[1]
    given = sorted(job.shard[0] for job in jobs)
    if given != list(range(1, n + 1)):
        raise RunError(f"shards {given} of {n} were given: name each of them once")
