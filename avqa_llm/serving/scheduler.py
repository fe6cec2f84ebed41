"""A lane: jobs of many requests, done in batches by worker threads.

Jobs that can share a batch have the same group. A free worker takes the group whose first job has
waited longest, so no group starves; if more wait than a batch holds, it takes them in turn from
the clips (`fair`) that they are about, so nobody who asks a hundred questions about one clip
holds up those who ask one about another.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from avqa_llm.serving.contract import RetryableError

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Payloads of one group to their results, in order."""


@dataclass(eq=False)
class Job:
    """One thing to do."""

    group: Hashable
    fair: Hashable
    payload: Any
    work: Work
    most: int
    """Jobs in a batch of this group."""
    ends: float
    """`time.monotonic()` after which nobody waits for it any more."""
    since: float = field(default_factory=time.monotonic)
    done: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """Bounds of a lane."""

    name: str
    workers: int = 1
    most_batch: int = 64
    """Jobs in one batch."""
    most_waiting: int = 1024
    gather_s: float = 0.005
    """How long an idle worker waits for further jobs after the first."""


class Lane:
    """Worker threads with one queue. Jobs are given from one event loop, or from threads."""

    def __init__(self, settings: LaneSettings) -> None:
        self.settings = settings
        self.batches = 0
        self._groups: OrderedDict[Hashable, deque[Job]] = OrderedDict()
        self._wake = threading.Condition()
        self._waiting = 0
        self._is_closed = False
        self._pace_s = 0.1  # of one job, lately
        names = (f"{settings.name}-{n}" for n in range(settings.workers))
        self._threads = [
            threading.Thread(target=self._run, name=name, daemon=True) for name in names
        ]
        for thread in self._threads:
            thread.start()

    # -- giving jobs -----------------------------------------------------------------------

    async def do(
        self,
        work: Work,
        payload: Any,
        *,
        group: Hashable,
        fair: Hashable,
        within_s: float,
        most: int | None = None,
    ) -> Any:
        """What `work` makes of a payload, in a batch of at most `most` of its group.

        A caller who is cancelled takes the job out of the queue.

        Raises:
            RetryableError: too much is waiting, or it was not done in time.
        """
        most = min(most or self.settings.most_batch, self.settings.most_batch)
        job = Job(group, fair, payload, work, most, time.monotonic() + within_s)
        self._add(job)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.done), within_s)
        except asyncio.TimeoutError as error:
            raise self.late(within_s) from error
        finally:
            if not job.done.done() or job.done.cancelled():
                job.done.cancel()
                self._remove(job)

    def late(self, within_s: float) -> RetryableError:
        """Not done in time."""
        return RetryableError(
            f"no answer within {within_s:g} s: too much is being asked; ask again later",
            after_s=self.wait_s(),
        )

    def _add(self, job: Job) -> None:
        with self._wake:
            if self._is_closed:
                raise RetryableError("the service is shutting down; ask again later", after_s=5)
            if self._waiting >= self.settings.most_waiting:
                raise RetryableError(
                    f"{self._waiting} jobs are waiting, the limit is"
                    f" {self.settings.most_waiting}; ask again later",
                    after_s=self.wait_s(),
                )
            self._groups.setdefault(job.group, deque()).append(job)
            self._waiting += 1
            self._wake.notify()

    def _remove(self, job: Job) -> None:
        with self._wake:
            queue = self._groups.get(job.group)
            if queue is not None and job in queue:
                queue.remove(job)
                self._waiting -= 1
                if not queue:
                    del self._groups[job.group]

    @property
    def waiting(self) -> int:
        """Jobs that no worker has taken yet."""
        return self._waiting

    def wait_s(self) -> float:
        """About how long what waits now will take, 1 to 60 s."""
        return min(60.0, max(1.0, self._waiting * self._pace_s / self.settings.workers))

    # -- doing them ------------------------------------------------------------------------

    def _run(self) -> None:
        while (jobs := self._take()) is not None:
            started = time.monotonic()
            self._do(jobs)
            if jobs:
                each = (time.monotonic() - started) / len(jobs)
                self._pace_s = 0.8 * self._pace_s + 0.2 * each

    def _take(self) -> list[Job] | None:
        """The next batch; None when the lane is closed and nothing waits."""
        with self._wake:
            if not self._groups and not self._is_closed:
                self._wake.wait_for(lambda: self._groups or self._is_closed)
                self._gather()
            if not self._groups:
                return None if self._is_closed else []
            group = min(self._groups, key=lambda name: self._groups[name][0].since)
            jobs = in_turn(self._groups[group], self._groups[group][0].most)
            left = deque(job for job in self._groups[group] if job not in set(jobs))
            if left:
                self._groups[group] = left
            else:
                del self._groups[group]
            self._waiting -= len(jobs)
            return [job for job in jobs if job.done.set_running_or_notify_cancel()]

    def _gather(self) -> None:
        """Others come at about the same time; the lock is free meanwhile."""
        ends = time.monotonic() + self.settings.gather_s
        while not self._is_closed and self._waiting < self.settings.most_batch:
            if (left := ends - time.monotonic()) <= 0:
                return
            self._wake.wait(left)

    def _do(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        for job in jobs:
            if job.ends < now:
                job.done.set_exception(RetryableError("the request was too late", after_s=1))
        jobs = [job for job in jobs if job.ends >= now]
        if not jobs:
            return
        self.batches += 1
        try:
            results = list(jobs[0].work([job.payload for job in jobs]))
        except BaseException as error:
            self._failed(jobs, error)
            return
        for job, result in zip(jobs, results, strict=True):
            job.done.set_result(result)

    def _failed(self, jobs: list[Job], error: BaseException) -> None:
        """One of a batch must not take the others down: each is tried alone."""
        if len(jobs) == 1 or isinstance(error, RetryableError):
            for job in jobs:
                job.done.set_exception(error)
            return
        for job in jobs:
            try:
                (result,) = job.work([job.payload])
            except BaseException as own:
                job.done.set_exception(own)
            else:
                job.done.set_result(result)

    def close(self) -> None:
        """Take no more jobs, and wait for those that were given."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()


def in_turn(jobs: Sequence[Job], most: int) -> list[Job]:
    """At most so many, one of each clip in turn, the longest waiting first."""
    if len(jobs) <= most:
        return list(jobs)
    by_clip: OrderedDict[Hashable, deque[Job]] = OrderedDict()
    for job in jobs:
        by_clip.setdefault(job.fair, deque()).append(job)
    chosen: list[Job] = []
    while len(chosen) < most:
        for fair in list(by_clip):
            chosen.append(by_clip[fair].popleft())
            if not by_clip[fair]:
                del by_clip[fair]
            if len(chosen) == most:
                break
    return chosen
