"""What the gateway asks, and what a service answers. Neither knows more of the other.

The gateway (`gateway.py`) speaks HTTP, checks strangers and owns uploads. A service
(`service.py`) owns models, features and generation. Between them there are only these types.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from avqa_llm.answer import Answer, Consumed
from avqa_llm.errors import AVQAError
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn


class RetryableError(AVQAError):
    """The request was right and could not be answered now; asking again may help."""

    def __init__(self, message: str, *, after_s: float = 1.0) -> None:
        super().__init__(message)
        self.after_s = after_s
        """Seconds that the caller should wait."""


class UnknownModelError(AVQAError):
    """No model of that name is served."""


@dataclass(frozen=True, kw_only=True)
class Attached:
    """One media file of a request, which the gateway has stored."""

    path: Path
    modality: str = "video"
    """`video` (with its sound) or `audio` (the sound alone is wanted)."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question about a clip, after what was said before."""

    model: str
    """The name of a served model: the base, or an adapter."""
    media: tuple[Attached, ...] = ()
    """Files of the whole conversation, in the order in which they came; the last one is asked
    about. Empty: the question cannot be answered, and the service says so."""
    question: str
    history: tuple[Turn, ...] = ()
    choices: tuple[str, ...] = ()
    """Answers to choose from; empty: the closed answer set of the model."""
    open_ended: bool = False
    """Free text instead of a choice."""
    most_tokens: int | None = None
    """Of an open answer."""
    mute: bool = False
    blank: bool = False
    cut: Cut = Cut()
    """What else is done to the clip before it is asked about: a part of it, or mirrored. Times of
    the answer then count from the start of the part."""
    logprobs: int = 0
    """How many runners-up of each token of an open answer are wanted; 0: none."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token that was written, with its logarithmic probability and those of runners-up."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Started:
    """The first event of every answer: the prompt stands."""

    consumed: Consumed | None
    prompt_tokens: int
    warnings: tuple[str, ...] = ()
    """Such as that the sound could not be decoded: said before the first word of the answer."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The answer goes on."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Done:
    """The last event: the whole answer."""

    answer: Answer
    completion_tokens: int
    finish_reason: str = "stop"
    """`stop` or `length`."""


Event = Started | Delta | Done


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A served model, for `/v1/models`."""

    name: str
    base: str | None = None
    """The name of the base whose language model an adapter shares; None: this is the base."""
    created: int = 0
    """Unix seconds."""
    about: dict[str, Any] = field(default_factory=dict)
    """World, longest clip, whether it hears and sees, closed answers or free text."""


class Service(Protocol):
    """What answers. All methods may be called from one event loop only."""

    def models(self) -> Sequence[ModelInfo]:
        """What is served now."""

    def answer(self, ask: Ask) -> AsyncIterator[Event]:
        """One `Started`, any number of `Delta`, one `Done`.

        Raises, before or between events:
            UnknownModelError: no such model.
            MediaError: the file cannot be read, or exceeds a limit.
            RetryableError: the engine is away, or too much is waiting.
        """

    async def prepare(self, ask: Ask) -> None:
        """Read the clip of a question that will come, so that it need not wait then.

        Raises as `answer` does.
        """

    async def add_adapter(self, name: str, folder: Path) -> ModelInfo:
        """Serve another adapter of the same base from now on.

        Raises:
            CheckpointError: it is of another base, incomplete, or would change nothing.
        """

    async def remove_adapter(self, name: str) -> None:
        """Serve an adapter no longer; requests in flight end first. Raises UnknownModelError."""

    def health(self) -> dict[str, Any]:
        """`status` (`ok`, `starting` or `degraded`) and why; plain types."""

    def counters(self) -> dict[str, float]:
        """Figures for `/metrics`: names in `counters.py`'s list to values that only grow, or
        gauges whose names end in `_now`.
        """

    async def close(self) -> None:
        """Stop what was started; waits for what is in flight."""
