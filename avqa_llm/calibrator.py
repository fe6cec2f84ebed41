"""How sure an answer really is: a logistic model over what its writing shows.

A model that writes a record, then steps, then an answer is nearly always sure of the answer given
the steps, however doubtful these were. So the chance that the answer is right is computed from
its margin and from the log-probabilities of all tokens before it: Platt's scaling (1999, section
2) with more than one input; with the margin alone and no bias it is the temperature of Guo et al.
(2017, section 4.2). `python -m eval calibrate` learns the few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from avqa_llm.errors import CheckpointError

SIGNS = ("margin", "steps_mean", "steps_least", "record_mean", "record_least")
"""What is known of an answer: the log-odds of its probability given its steps, and the mean and
the least log-probability of the tokens of steps and record (0 where there are none)."""
SUREST = 15.0
"""Margins beyond this, either way, count as this: float32 cannot tell them apart."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `avqa.json` says under `calibration`.

    Raises:
        CheckpointError: a sign that does not exist, or a number that is none.
    """

    bias: float
    weights: Mapping[str, float]
    """Of each of `SIGNS`; one that is absent does not count."""
    fitted: Mapping[str, Any] | None = None
    """On what, and what came of it."""

    def __post_init__(self) -> None:
        if unknown := set(self.weights) - set(SIGNS):
            raise CheckpointError(
                f"calibration has a weight for {sorted(unknown)[0]!r}; signs are {', '.join(SIGNS)}"
            )
        for name, value in {"bias": self.bias, **self.weights}.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise CheckpointError(f"calibration: {name} is {value!r}, should be a number")

    def chance(self, signs: Mapping[str, float]) -> float:
        """That the answer is right, above 0 and below 1."""
        total = self.bias + sum(w * signs.get(name, 0.0) for name, w in self.weights.items())
        return 1 / (1 + math.exp(-max(-SUREST, min(SUREST, total))))

    def applied(self, signs: Mapping[str, float], shares: Sequence[float]) -> list[float]:
        """Probabilities of the answer and its runners-up.

        The order stays: a chance that would put the first runner-up first is raised to a tie.
        Between two answers that is one half, for a doubtful "yes" is no "no".

        Args:
            signs: of the answer.
            shares: of the runners-up in what the answer leaves, the largest first; sum at most 1.
        """
        chance = self.chance(signs)
        if shares:
            chance = max(chance, shares[0] / (1 + shares[0]))
        return [chance, *(min(chance, (1 - chance) * share) for share in shares)]

    def to_json(self) -> dict[str, Any]:
        """What is written to `avqa.json`."""
        return asdict(self)


def signs_of(
    margin: float, steps: Sequence[float], record: Sequence[float], *, rival: float = 0.0
) -> dict[str, float]:
    """The `SIGNS` of an answer, from the log-probabilities of the tokens before it, and `rival`.

    `rival`: the first runner-up's share in what the answer leaves. It has no weight, but sets how
    low the answer's probability can be.
    """
    found = {"margin": max(-SUREST, min(SUREST, margin)), "rival": rival}
    for name, tokens in (("steps", steps), ("record", record)):
        found[f"{name}_mean"] = sum(tokens) / len(tokens) if tokens else 0.0
        found[f"{name}_least"] = min(tokens, default=0.0)
    return {name: round(value, 5) for name, value in found.items()}


def log_odds(log_probability: float) -> float:
    """Of a probability that is given as its logarithm, at most 0."""
    if log_probability > -1e-12:
        return SUREST
    return log_probability - math.log(-math.expm1(log_probability))
