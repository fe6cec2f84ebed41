"""Who may ask now, where requests of different models must not run at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Requests of one name run together; those of another wait until these have ended.

    Once another name waits, no more of the present one are let in, so that nobody waits for ever;
    at the change all that wait for the next name go together. Names come in the order in which
    they began to wait.
    """

    def __init__(self, *, exclusive: bool = True) -> None:
        """`exclusive`: False lets everybody in at once."""
        self.exclusive = exclusive
        self._changed = threading.Condition()
        self._now: str | None = None
        self._running = 0
        self._waiting: Counter[str] = Counter()  # keeps the order in which names came
        self._let_in: Counter[str] = Counter()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Wait until it is the turn of `name`, and hold it."""
        if not self.exclusive:
            yield
            return
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, name: str) -> None:
        with self._changed:
            if self._running == 0 and not self._waiting:
                self._now = name
            if self._now == name and not self._waiting:
                self._running += 1
                return
            self._waiting[name] += 1
            self._changed.wait_for(lambda: self._let_in[name] > 0)
            self._let_in[name] -= 1  # counted as running by who let it in

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1
            if self._running or not self._waiting:
                return
            self._now = next(iter(self._waiting))
            together = self._waiting.pop(self._now)
            self._let_in[self._now] += together
            self._running = together
            self._changed.notify_all()
