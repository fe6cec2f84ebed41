"""Joins the shards of a run, as if one machine had done it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.benchmarks import read_benchmark
from eval.benchmarks.base import QuestionSet
from eval.finish import finish
from eval.job import JOB, Job, plan, select
from eval.journal import CHUNKS, FILES, Journal, Mark, check_setting, kept_marks
from eval.provenance import Companions
from eval.runner import setting_of
from eval.samples import SETTING, RunError, read_json, write_json
from eval.scoring import canonical
from eval.tables import run_table

PATHS = ("annotations", "media", "fit", "train", "parent")


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval merge`."""
    moved = {name: path for name in PATHS if (path := getattr(args, name)) is not None}
    print(run_table(merge(args.shards, args.out, **moved)))


def merge(shards: Sequence[Path], out: Path, **moved: Path) -> dict[str, Any]:
    """Write the folder of the whole run, and return the content of its `results.json`.

    Args:
        shards: folders of `run --shard`, in any order.
        out: where to write.
        moved: where files of `PATHS` lie here, if not where the first shard had them.

    Raises:
        RunError: a shard is missing, unfinished, damaged or of another run, or `out` is in use.
    """
    jobs = [_job(shard) for shard in shards]
    _refuse_gaps(jobs)
    whole = replace(jobs[0], out=out, shard=(1, 1), **moved)  # type: ignore[arg-type]
    asked = read_benchmark(whole.benchmark, whole.annotations, parent=whole.parent)
    for folder, job in zip(shards, jobs, strict=True):
        check_setting(folder / SETTING, setting_of(replace(whole, shard=job.shard), asked))
    if (out / CHUNKS).exists():
        raise RunError(f"{out} holds a run already: choose another --out")
    known = Companions.read(asked, whole.fit, whole.train)
    questions = select(asked.questions, whole)
    with Journal.open(out, setting_of(whole, asked), size=None) as journal:
        write_json(out / JOB, whole.to_json())
        for folder, mark, starts in _in_order(shards, whole, asked):
            journal.copy(folder, mark, starts)
        return finish(whole, asked, questions, journal.marks, canonical, known)


def _in_order(
    shards: Sequence[Path], whole: Job, asked: QuestionSet
) -> list[tuple[Path, Mark, dict[str, int]]]:
    """The chunks of the whole run: where each lies, and where its lines start in the files."""
    pieces: dict[int, tuple[Path, Mark, dict[str, int]]] = {}
    for folder in shards:
        starts = dict.fromkeys(FILES, 0)
        for mark in kept_marks(folder, None):
            pieces[mark.number] = (folder, mark, starts)
            starts = dict(mark.ends)
    wanted = [chunk.number for chunk in plan(select(asked.questions, whole))]
    absent = sum(number not in pieces for number in wanted)
    if absent:
        raise RunError(
            f"{absent} of {len(wanted)} pieces are not answered yet: finish the shards first"
        )
    return [pieces[number] for number in wanted]


def _job(shard: Path) -> Job:
    try:
        return Job.from_json(read_json(shard / JOB))
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(f"{shard / JOB} does not describe a run: {error!r}") from error


def _refuse_gaps(jobs: Sequence[Job]) -> None:
    n = jobs[0].shard[-1]
    given = sorted(job.shard[0] for job in jobs)
    if given != list(range(1, n + 1)):
        raise RunError(f"shards {given} of {n} were given: name each of them once")
