"""What answers: a model on this machine, or any OpenAI-compatible server.

An engine is given clips and questions, never a gold answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from avqa_llm.answer import Answer
    from avqa_llm.media import Clip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about one of several clips."""

    clip: int
    """Which of the clips."""
    question: str
    choices: tuple[str, ...] = ()
    """The answers to choose from; empty: the 42."""


class Engine(Protocol):
    """What the runner needs of an engine."""

    def read(self, path: Path) -> Clip:
        """Decode a file the way the model wants it. Raises MediaError."""

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        """Answer all questions, each on its own; one `Answer` each, in order."""
