"""What every engine returns for a question."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A place of the clip that the answer rests on."""

    modality: str
    """`sound` or `picture`."""
    start_s: float
    end_s: float
    region: tuple[float, float, float, float] | None
    """Left, top, right, bottom as parts of the picture (0..1); None for sound."""
    weight: float
    """Share of the attention of this modality's clues, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A runner-up."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Consumed:
    """What really reached the language model."""

    sound: bool
    picture: bool
    sound_tokens: int
    picture_tokens: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer with all that is needed to judge it."""

    answer: str
    """As text for people."""
    label: str
    """One of the closed answers, or `no_answer`."""
    probability: float | None
    """Of the label among the closed answers; of the text when the answer is open. A model with a
    calibration gives the chance of being right. None where a server does not say."""
    alternatives: tuple[Alternative, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    consumed: Consumed | None
    """None where a server proves neither that it took a part nor that it dropped it."""
    steps: str = ""
    """What the model looked up on the way, in its own words; may be empty."""
    record: str = ""
    """The events that the model wrote down about the clip; may be empty."""
    warnings: tuple[str, ...] = ()
    """What a careful reader has to know: missing modalities, a clip unlike the model's world."""
    pace: float = 1.0
    """Seconds of the clip in one second of the model, which sees long clips faster: times in record
    and steps count so many times as long. All other times are the clip's own."""
    signs: dict[str, float] = field(default_factory=dict, compare=False)
    """How sure the model was while writing; see `avqa_llm.calibrator`."""
    timing_s: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`."""
        return asdict(self)
