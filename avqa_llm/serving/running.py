"""An answer under way: in a task of its own, so that it can be given up at any moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from avqa_llm.serving.contract import Ask, Done, Event, Service
from avqa_llm.serving.refusals import Refusal

T = TypeVar("T")
_AHEAD = 64
"""Events that may wait for a slow reader."""
_PATIENCE_S = 5.0
"""How long cancelled work may take to tidy up before it is left to itself."""


class Deadline:
    """The moment at which a request is given up."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._limit_s = seconds

    def left_s(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> Refusal:
        """What is said then."""
        return Refusal(
            504, f"There was no answer within {self._limit_s:g} s; ask again.", code="timeout"
        )


class Running:
    """The events of one answer. `close` gives it up; it has to be called in any case."""

    def __init__(self, service: Service, ask: Ask, deadline: Deadline) -> None:
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue(_AHEAD)
        self._deadline = deadline
        self._is_answered = False
        self._task = asyncio.ensure_future(self._pump(service, ask))

    async def next(self) -> Event:
        """The next event.

        Raises:
            Refusal: (504) the deadline has passed.
            AVQAError: what the service raises.
        """
        try:
            event = await asyncio.wait_for(self._events.get(), self._deadline.left_s())
        except asyncio.TimeoutError:
            raise self._deadline.passed() from None
        if isinstance(event, BaseException):
            raise event
        return event

    async def rest(self) -> AsyncIterator[Event]:
        """All further events, up to and with `Done`. Raises as `next` does."""
        while True:
            event = await self.next()
            yield event
            if isinstance(event, Done):
                return

    async def close(self) -> None:
        """Stop the work if it has not ended; after the answer it may end by itself."""
        if self._is_answered:
            await asyncio.wait((self._task,), timeout=_PATIENCE_S)
        await stopped(self._task)

    async def _pump(self, service: Service, ask: Ask) -> None:
        events = service.answer(ask)
        try:
            async for event in events:  # to its end: closed at `Done` it would seem cancelled
                if self._is_answered:
                    continue
                self._is_answered = isinstance(event, Done)
                await self._events.put(event)
            if not self._is_answered:
                await self._events.put(RuntimeError("the service ended without a Done"))
        except Exception as error:
            await self._events.put(error)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()


async def stopped(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait a little until they have tidied up."""
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=_PATIENCE_S)
    for task in done:
        if not task.cancelled():
            task.exception()  # it was seen


async def while_connected(
    receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, T], deadline: Deadline
) -> T:
    """What work gives, unless the sender goes away or the deadline passes: then it is stopped.

    `receive`: of ASGI, after the whole body has come.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait(
            (task, gone), timeout=deadline.left_s(), return_when=asyncio.FIRST_COMPLETED
        )
        if task.done():
            return task.result()
        if gone.done():
            raise Refusal(499, "The sender went away.", code="gone")
        raise deadline.passed()
    finally:
        await stopped(task, gone)


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
