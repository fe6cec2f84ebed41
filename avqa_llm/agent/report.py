"""What an agent hands out: its steps as they happen, and at the end a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from avqa_llm.answer import Answer, Evidence

KINDS = ("measured", "model", "transcript", "plan")
"""Where a step's result comes from: an instrument of measurement, the model's opinion, a speech
model, or the planner itself."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that an agent did."""

    tool: str
    arguments: dict[str, Any]
    result: str
    """One line for a person."""
    evidence: tuple[Evidence, ...] = ()
    kind: str
    """One of `KINDS`."""
    seconds: float = 0.0
    failed: bool = False
    """Whether the tool refused; the result says why."""

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The end of a run."""

    answer: Answer
    steps: tuple[Step, ...]
    calls: int
    """Of tools; what an agent looks up twice counts twice."""
    seconds: float
    planner: str
    """`rules`, or the name of the language model that planned."""
    asked_model: int = 0
    """How many of the calls put a question to the model that watches and listens."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Of a served planner: how many calls it made, and how the run ended."""

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`."""
        return asdict(self)
