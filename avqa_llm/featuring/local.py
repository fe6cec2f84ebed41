"""The processes of one machine: this one, or several that share the files out."""

from __future__ import annotations

import multiprocessing
import os
import queue
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from avqa_llm.errors import AVQAError
from avqa_llm.featuring.files import Job
from avqa_llm.featuring.work import Outcome, Plan, Worker

LOOK_S = 1.0
"""How often it is looked whether a worker died without a word."""


def run_local(
    plan: Plan, jobs: Sequence[Job], workers: int, report: Callable[[Outcome], object]
) -> None:
    """Encode files with this many processes, of which each loads the encoders.

    Raises:
        AVQAError: a worker died; what it had written stays.
    """
    from avqa_llm.devices import prepare_cpu

    if workers == 1:
        prepare_cpu(plan.threads)
        Worker.of(plan).run(jobs, report)
        return
    plan = replace(plan, threads=plan.threads or max(1, (os.cpu_count() or 1) // workers))
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    next_job: Any = context.Value("q", 0)
    given = (plan, list(jobs), next_job, told, os.getpid())
    team = [context.Process(target=_member, args=given, daemon=True) for _ in range(workers)]
    for process in team:
        process.start()
    try:
        _listen(team, told, report)
    finally:
        for process in team:
            process.join()


def _listen(team: list[Any], told: Any, report: Callable[[Outcome], object]) -> None:
    """Pass on what workers tell, until all have said that they are done."""
    running, errors = len(team), []
    while running:
        try:
            message = told.get(timeout=LOOK_S)
        except queue.Empty:
            dead = [p for p in team if p.exitcode not in (None, 0)]
            if len(dead) >= running:  # all that were to tell something
                codes = ", ".join(str(p.exitcode) for p in dead)
                errors.append(f"a worker ended without a word (status {codes}): out of memory?")
                break
            continue
        if isinstance(message, Outcome):
            report(message)
            continue
        running -= 1
        if message:
            errors.append(message)
    if errors:
        raise AVQAError(f"{errors[0]}\nWhat was written stays; run the same command to go on")


def _member(plan: Plan, jobs: list[Job], next_job: Any, told: Any, parent: int) -> None:
    """One worker process."""
    from avqa_llm.devices import prepare_cpu

    try:
        prepare_cpu(plan.threads)
        Worker.of(plan).run(_shared(jobs, next_job, parent), told.put)
    except KeyboardInterrupt:
        told.put("interrupted")
    except AVQAError as error:
        told.put(str(error))
    except Exception:
        told.put(traceback.format_exc())
    else:
        told.put("")


def _shared(jobs: list[Job], next_job: Any, parent: int) -> Iterator[Job]:
    """Files that no other worker has taken, while there is somebody to work for."""
    while os.getppid() == parent:
        with next_job.get_lock():
            number = next_job.value
            next_job.value += 1
        if number >= len(jobs):
            return
        yield jobs[number]
