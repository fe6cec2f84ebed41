"""Looking twice: the agent of `avqa_llm`, where it is there, on the way to an answer."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator

from app.models import Models
from app.room import Turn
from avqa_llm.errors import AVQAError

MISSING = "Looking twice needs the agent, which this installation does not have."


def is_there() -> bool:
    """Whether there is an agent to ask."""
    return importlib.util.find_spec("avqa_llm.agent") is not None


async def look_twice(turn: Turn, models: Models) -> AsyncGenerator[Turn, None]:
    """The turn as its steps and then its answer come. Raises AVQAError."""
    raise AVQAError(MISSING)
    yield turn
