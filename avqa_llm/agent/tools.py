"""The tools of a bench for LangChain: the same functions, with schemas that a model is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from langchain_core.tools import StructuredTool
from pydantic import BaseModel, ConfigDict, Field

from avqa_llm.acoustics import QUANTITIES
from avqa_llm.agent.bench import COMPARABLE, FROM_SIDE, MOST_QUESTION

Call = Callable[[str, dict[str, Any]], str]
"""Carries a call of a tool out and gives what the planning model is told."""

MOST_NAME = 80
_START = Field(description="start of the part in seconds")
_END = Field(description="end of the part in seconds")


class Nothing(BaseModel):
    """No arguments."""

    # Said in the schema too: a server that holds a model to it lets it invent none.
    model_config = ConfigDict(extra="forbid")


class Part(Nothing):
    """A part of the clip."""

    start_s: float = _START
    end_s: float = _END


class PartQuestion(Part):
    """A question about a part."""

    question: str = Field(max_length=MOST_QUESTION, description="what to ask about this part")


class Question(Nothing):
    """A question about the whole clip."""

    question: str = Field(
        max_length=MOST_QUESTION, description="what to ask, with sound and picture"
    )


class What(Nothing):
    """What to find."""

    what: str = Field(
        max_length=MOST_NAME,
        description="an instrument, or sound, silence, onsets, loudest, quietest, voice",
    )


class Measured(Nothing):
    """What to measure, and where."""

    quantity: str = Field(description=f"one of {', '.join(QUANTITIES)}")
    start_s: float | None = _START
    end_s: float | None = _END
    side: Literal["both", "left", "right"] = Field("both", description="of the stereo sound")


class MeasuredFrom(Nothing):
    """What to measure, from which side."""

    from_side: Literal["left", "middle", "right"] = Field(description="of the stereo sound")
    quantity: str = Field(description=f"one of {', '.join(FROM_SIDE)}")
    start_s: float | None = _START
    end_s: float | None = _END


class Compared(Nothing):
    """What to compare."""

    quantity: str = Field(max_length=MOST_NAME, description=f"one of {', '.join(COMPARABLE)}")
    one: str = Field(max_length=MOST_NAME, description="such as violin, left, or left violin")
    other: str = Field(max_length=MOST_NAME, description="what it is compared with")


SCHEMAS: dict[str, tuple[type[BaseModel], str]] = {
    "describe_clip": (
        Nothing,
        "What the clip is and what the model noted about it. Call it first.",
    ),
    "ask": (Question, "Ask the audio-visual model about the whole clip; it may be wrong."),
    "watch": (PartQuestion, "Ask the model about the picture of a part, without sound."),
    "listen": (PartQuestion, "Ask the model about the sound of a part, without picture."),
    "transcribe": (Part, "What is said in a part, or when somebody speaks."),
    "measure": (Measured, "Measure the sound of a part: exact, but of all instruments together."),
    "measure_from": (MeasuredFrom, "Measure only what sounds from one side of a stereo sound."),
    "find": (What, "When and where something happens."),
    "compare": (Compared, "Which of two instruments is louder, more rhythmic or plays longer."),
}
"""Schema and description of each tool, by the name of the bench's method."""


def tools_of(call: Call) -> list[StructuredTool]:
    """All tools; each hands its name and arguments to `call`."""
    return [
        StructuredTool.from_function(
            func=_caller(call, name), name=name, description=description, args_schema=schema
        )
        for name, (schema, description) in SCHEMAS.items()
    ]


def _caller(call: Call, name: str) -> Callable[..., str]:
    return lambda **arguments: call(name, arguments)
