"""Looking twice: the agent of `avqa_llm` on the way to an answer, with its steps as they happen."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from app.models import Models
from app.room import Step, Turn
from avqa_llm.agent import Agent, Report
from avqa_llm.agent import Step as AgentStep
from avqa_llm.engine import Engine
from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.media import Clip
from avqa_llm.serving.service import AVQAService

KEPT = 8
"""Clips that stay on an agent's bench: what it read and measured of them is not done again."""
NOT_HERE = "Looking twice needs a model that runs here, which {name} does not: untick it."


class Agents:
    """Agents that plan by rules, each with a clip. Their runs take turns in one thread."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._kept: OrderedDict[object, tuple[Agent, Clip]] = OrderedDict()

    async def run(self, turn: Turn) -> AsyncGenerator[Turn, None]:
        """The turn with its steps, one by one, and with its answer in the end.

        Raises:
            AVQAError: the clip or the question cannot be used, or the model is not here.
        """
        service = self._models.choice(turn.model).service
        if not isinstance(service, AVQAService):
            raise AVQAError(NOT_HERE.format(name=turn.model))
        here, found, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def work(engine: Engine) -> None:
            agent, clip = self._ready(engine, turn)
            for item in agent.run(clip, turn.asked):
                if gone.is_set():
                    return
                with suppress(RuntimeError):  # the page's loop may have ended
                    here.call_soon_threadsafe(found.put_nowait, item)

        done = asyncio.ensure_future(self._models.stage.do(service.use(turn.model, work)))
        done.add_done_callback(found.put_nowait)
        try:
            while (item := await found.get()) is not done:
                turn = _grown(turn, item)
                yield turn
            done.result()
        finally:
            gone.set()
            done.cancel()

    def _ready(self, engine: Engine, turn: Turn) -> tuple[Agent, Clip]:
        """In the service's thread. Raises MediaError."""
        assert turn.media is not None
        key = (turn.model, turn.media.sha256, turn.cut)
        if key not in self._kept:
            path = turn.media.path
            try:
                clip = engine.read(path, limits=self._models.limits, cut=turn.cut)
            except MediaError as error:
                raise MediaError(str(error).replace(str(path), turn.media.name)) from error
            self._kept[key] = (Agent.rules(engine), clip)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


def _grown(turn: Turn, item: AgentStep | Report) -> Turn:
    if isinstance(item, Report):
        return replace(turn, answer=item.answer)
    step = Step(kind=item.kind, tool=item.tool, result=item.result)
    return replace(turn, steps=(*turn.steps, step))
