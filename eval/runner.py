"""Lets an engine answer a benchmark, chunk by chunk, and scores what it said.

A run can be killed at any moment and goes on where it was; the result is that of a run that
was not. Several processes answer at once, and their answers are written down in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.benchmarks import read_benchmark
from eval.benchmarks.base import QuestionSet
from eval.control import Wording, asked_as
from eval.engines import Engine
from eval.finish import finish
from eval.job import JOB, Chunk, Job, Unit, plan, select
from eval.journal import Done, Journal
from eval.media import file_of, find_media
from eval.provenance import Companions
from eval.samples import RESULTS, RunError, write_json
from eval.scoring import Scorer, canonical
from eval.work import Task, work

Load = Callable[[], Engine]


def evaluate(
    job: Job,
    load: Load,
    *,
    workers: int = 1,
    wording: Wording = asked_as,
    score: Scorer = canonical,
) -> dict[str, Any]:
    """Answer what is not answered yet, write `results.json`, and return its content.

    Args:
        job: what to run.
        load: makes the engine, in each worker; called only if something is left to answer.
        workers: processes that answer; 1 answers in this one.
        wording: how a question's record becomes what is asked.
        score: what a text answers.

    Raises:
        AnnotationError: of the question files.
        RunError: of the folders, or where no clip could be read.
    """
    asked = read_benchmark(job.benchmark, job.annotations, parent=job.parent)
    known = Companions.read(asked, job.fit, job.train)
    files = find_media(job.media)
    questions = select(asked.questions, job)
    chunks = plan(questions, job.shard)
    mine = {question.number for chunk in chunks for u in chunk.units for question in u.questions}
    with Journal.open(
        job.out, setting_of(job, asked), size=lambda name: _size(file_of(files, name))
    ) as journal:
        write_json(job.out / JOB, job.to_json())
        tasks = _open_tasks(job, asked, chunks, files, journal)
        if tasks:  # what stands there is about fewer answers
            (job.out / RESULTS).unlink(missing_ok=True)
        total = sum(chunk.size for chunk in chunks)
        with tqdm(total=total, unit="question", desc=job.benchmark, disable=None) as bar:
            bar.update(total - sum(task.chunk.size for task in tasks))
            for task, answered in zip(
                tasks, _answered(tasks, load, workers, wording, score), strict=True
            ):
                journal.add(answered)
                bar.update(task.chunk.size)
        mine_asked = [question for question in questions if question.number in mine]
        return finish(job, asked, mine_asked, journal.marks, score, known)


def _open_tasks(
    job: Job,
    asked: QuestionSet,
    chunks: Sequence[Chunk],
    files: dict[str, Path],
    journal: Journal,
) -> list[Task]:
    """The chunks that are not answered yet."""
    done = {mark.number for mark in journal.marks}
    return [
        Task(
            chunk=chunk,
            files=_files_of(chunk.units, files),
            scenes={
                unit.video_id: asked.scenes[unit.video_id]
                for unit in chunk.units
                if unit.video_id in asked.scenes
            },
            probes=job.probes,
            mute=job.mute,
            blank=job.blank,
            evidence=job.evidence,
        )
        for chunk in chunks
        if chunk.number not in done
    ]


def setting_of(job: Job, asked: QuestionSet) -> dict[str, Any]:
    """What the answers of a folder depend on."""
    return {
        "benchmark": job.benchmark,
        "files": dict(asked.sha256),
        "model": job.model,
        "weights": job.weights,
        "server": dict(job.server),
        "mode": job.mode,
        "probes": list(job.probes),
        "mute": job.mute,
        "blank": job.blank,
        "limit": job.limit,
        "subset": job.subset,
        "shard": list(job.shard),
        "evidence": job.evidence,
    }


# -- processes -------------------------------------------------------------------------------


def _answered(
    tasks: Sequence[Task], load: Load, workers: int, wording: Wording, score: Scorer
) -> Iterator[Done]:
    """The chunks in order."""
    if not tasks:
        return
    if workers == 1:
        engine = load()
        for task in tasks:
            yield work(task, engine, score=score, wording=wording)
        return
    workers = min(workers, len(tasks))
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start,
        initargs=(load, _threads(workers)),
    )
    ahead: deque[Future[Done]] = deque()
    waiting = iter(tasks)
    try:
        for task in waiting:
            ahead.append(pool.submit(_work_here, task, score, wording))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise RunError(
            "a worker process was killed, for lack of memory perhaps: the same command goes on "
            "where it was; --workers 1 needs the least"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _threads(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


_engine: Engine | None = None  # of a worker process


def _start(load: Load, threads: int) -> None:
    global _engine
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what happens
    torch.set_num_threads(threads)
    _engine = load()


def _work_here(task: Task, score: Scorer, wording: Wording) -> Done:
    assert _engine is not None, "the initializer has run"
    return work(task, _engine, score=score, wording=wording)


def _files_of(units: Sequence[Unit], files: dict[str, Path]) -> dict[str, Path]:
    names = [name for unit in units for name in (unit.video_id, unit.sound_of) if name]
    paths = {name: file_of(files, name) for name in names}
    return {name: path for name, path in paths.items() if path is not None}


def _size(path: Path | None) -> int | None:
    return None if path is None else path.stat().st_size
