"""What is kept in memory, within bounds; and work that is done once for all who want it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The most recently used values, as many as a number and a number of bytes allow."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.bytes = self.evicted = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> T | None:
        """The value, which has now been used; or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Keep a value of so many bytes; others leave for it. One too large is not kept."""
        self.drop(lambda known: known == key)
        if size > self.most_bytes:
            return
        self._values[key] = (value, size)
        self.bytes += size
        while len(self._values) > self.most or self.bytes > self.most_bytes:
            _, (_, freed) = self._values.popitem(last=False)
            self.bytes -= freed
            self.evicted += 1

    def drop(self, which: Callable[[Hashable], bool]) -> None:
        """Forget the values of some keys."""
        for key in [key for key in self._values if which(key)]:
            self.bytes -= self._values.pop(key)[1]


@dataclass
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class Flights(Generic[T]):
    """Work by name: who asks for what is under way waits for it and gets the same."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    async def once(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The result of `make`, or of the one under way; its error is everybody's.

        It is given up when everybody who waited for it has gone away.
        """
        if (flight := self._flights.get(key)) is None:

            async def run() -> T:
                return await make()

            flight = self._flights[key] = _Flight(asyncio.ensure_future(run()))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._landed(key, flight.task)
                flight.task.cancel()

    def _landed(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]
        if task.done() and not task.cancelled():
            task.exception()  # seen, though all who waited may be gone
