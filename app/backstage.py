"""The event loop of the services: they belong to one loop, and never hold up the page's.

What is asked from the page's loop runs in that of the services; giving up there reaches the work
here, so that a stopped answer frees its place.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from avqa_llm.serving.contract import Ask, Event, Service

T = TypeVar("T")
_END = object()


class Backstage:
    """A loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="services", daemon=True)
        self._thread.start()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; cancelled with the caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def do_blocking(self, work: Coroutine[Any, Any, T]) -> T:
        """The same, from a thread without a loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def events(self, service: Service, ask: Ask) -> AsyncGenerator[Event, None]:
        """The events of an answer. Closing this stops the work. Raises what the service raises."""
        here, heard = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def tell(item: object) -> None:
            with suppress(RuntimeError):  # the page's loop may have ended
                here.call_soon_threadsafe(heard.put_nowait, item)

        async def listen() -> None:
            try:
                async for event in service.answer(ask):
                    tell(event)
                tell(_END)
            except Exception as error:
                tell(error)

        work = asyncio.run_coroutine_threadsafe(listen(), self._loop)
        try:
            while (item := await heard.get()) is not _END:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            work.cancel()

    def end(self) -> None:
        """Stop the loop; what runs in it is not waited for."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
