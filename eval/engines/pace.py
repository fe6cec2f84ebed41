"""Several requests at once: in order, at a pace, and stopped together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Another request failed, or the person at the keyboard does not want to wait."""


class Pace:
    """When the next request may start; shared by all threads."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap_s = 60 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = self._held = 0.0

    def start(self, stop: threading.Event) -> None:
        """Wait for a turn. Raises Stopped."""
        with self._lock:
            mine = max(self._next, time.monotonic())
            self._next = mine + self._gap_s
        while (wait_s := max(mine, self._held) - time.monotonic()) > 0:
            stop.wait(wait_s)
            if stop.is_set():
                break
        if stop.is_set():
            raise Stopped

    def hold(self, wait_s: float) -> None:
        """Let nothing start for a while: what one request is told holds for all."""
        self._held = max(self._held, time.monotonic() + wait_s)


def in_order(jobs: Sequence[Callable[[threading.Event], T]], at_once: int) -> list[T]:
    """Do jobs in so many threads; the results are in the order of the jobs.

    The first error stops all and is raised. Neither it nor Ctrl-C waits for requests that are
    under way: the threads are daemons. A job is given the event that is set then.
    """
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    stop, lock = threading.Event(), threading.Lock()
    waiting = iter(enumerate(jobs))

    def work() -> None:
        while not stop.is_set():
            with lock:
                number, job = next(waiting, (-1, None))
            if job is None:
                return
            try:
                results[number] = job(stop)
            except BaseException as error:
                errors.append(error)
                stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(jobs)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not errors:
                thread.join(0.1)
    finally:
        stop.set()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(jobs))]
