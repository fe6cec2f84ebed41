"""What a row of the plan does to tokens and training rows, beside what its recipe says.

These are experiments, not options of the model: sound pooled to one vector, seconds in a random
order, clips with one modality only. They wrap the features on their way to training and to the
questions alike, so that what is asked is what was learned.

Legend: N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from avqa_llm.encoders import Tokens
from avqa_llm.errors import RecipeError
from avqa_llm.media.changes import Cut
from avqa_llm.model import ClipTokens
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.features import ClipFeatures
from avqa_llm.training.rows import ClipRow, Question
from instruct_data.templates import TEMPLATES

SIDES = ("sound", "picture")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is done to the tokens of every clip. Raises RecipeError for what does not exist."""

    pool: tuple[str, ...] = ()
    """`sound`: all of a clip to one token, as CAT does. `picture`: those of each moment to one."""
    shuffle: str = ""
    """Seconds in a random order, another one for each clip: those of one modality, of both
    `together` (what was heard with what was seen stays so), or of each `apart`."""

    def __post_init__(self) -> None:
        if odd := [side for side in self.pool if side not in SIDES]:
            raise RecipeError(f"pool {odd[0]!r}: choose from {', '.join(SIDES)}")
        if self.shuffle not in ("", *SIDES, "together", "apart"):
            raise RecipeError(
                f"shuffle {self.shuffle!r}: choose one of {', '.join(SIDES)}, together, apart"
            )

    def __bool__(self) -> bool:
        return self != Change()


@dataclass(frozen=True, kw_only=True)
class Changed:
    """`ClipFeatures` with a change made to each clip."""

    features: ClipFeatures
    change: Change

    def __len__(self) -> int:
        return len(self.features)

    def timeline(self, index: int) -> int:
        """As it was."""
        return self.features.timeline(index)

    def present(self, index: int) -> tuple[bool, bool]:
        """As it was."""
        return self.features.present(index)

    def clip(self, index: int) -> ClipTokens:
        """Tokens of one clip; its random order depends on its number alone."""
        clip, change = self.features.clip(index), self.change
        rng = np.random.default_rng(index)
        first, second = (torch.from_numpy(rng.permutation(clip.timeline)) for _ in SIDES)
        orders = {
            "sound": {"sound": first},
            "picture": {"picture": first},
            "together": {"sound": first, "picture": first},
            "apart": {"sound": first, "picture": second},
        }.get(change.shuffle, {})
        tokens = {"sound": clip.sound, "picture": clip.picture}
        for side, order in orders.items():
            tokens[side] = reordered(tokens[side], order)
        if "sound" in change.pool:
            tokens["sound"] = pooled_sound(tokens["sound"], clip.seconds)
        if "picture" in change.pool:
            tokens["picture"] = pooled_moments(tokens["picture"])
        return replace(clip, **tokens)

    def batch(self, clips: Sequence[int]) -> tuple[TokenBatch, TokenBatch, Tensor]:
        """Sound and picture of some clips, and their timelines (B,)."""
        found = [self.clip(index) for index in clips]
        return (
            TokenBatch.of([clip.sound for clip in found]),
            TokenBatch.of([clip.picture for clip in found]),
            torch.tensor([clip.timeline for clip in found]),
        )


def reordered(tokens: Tokens, order_S: Tensor) -> Tokens:
    """The tokens with second s moved to `order_S[s]`, again in the order of time."""
    if not tokens.n:
        return tokens
    second_N = tokens.times_N.long().clamp(0, len(order_S) - 1)
    times_N = tokens.times_N - second_N + order_S[second_N]
    at_N = torch.argsort(times_N, stable=True)
    return replace(
        tokens,
        values_ND=tokens.values_ND[at_N],
        times_N=times_N[at_N],
        places_N2=tokens.places_N2[at_N],
    )


def pooled_sound(tokens: Tokens, seconds: float) -> Tokens:
    """One token, the mean of all, in the middle of the clip; none stay none."""
    if not tokens.n:
        return tokens
    return Tokens(
        values_ND=tokens.values_ND.mean(0, keepdim=True),
        times_N=torch.tensor([seconds / 2]),
        places_N2=torch.zeros(1, 2),
        length_s=seconds,
    )


def pooled_moments(tokens: Tokens) -> Tokens:
    """One token for each moment, the mean over the picture, in its middle."""
    if not tokens.n:
        return tokens
    times, moment_N = torch.unique(tokens.times_N, return_inverse=True)
    share_MN = torch.nn.functional.one_hot(moment_N).float().T
    return Tokens(
        values_ND=share_MN @ tokens.values_ND / share_MN.sum(1, keepdim=True),
        times_N=times,
        places_N2=torch.full((len(times), 2), 0.5),
        length_s=tokens.length_s,
    )


# -- rows ------------------------------------------------------------------------------------

DESCRIBE = "What happens in this clip?"


def captions(rows: Sequence[ClipRow]) -> list[ClipRow]:
    """Each clip with one question, whose answer is its whole event record."""
    return [
        replace(row, questions=(Question(question=DESCRIBE, steps="", answer=row.record),))
        for row in rows
    ]


def mixed(rows: Sequence[ClipRow]) -> list[ClipRow]:
    """A third as they are, a third with sound alone, a third with the picture alone.

    Of a clip with one modality the questions are asked that the benchmark says it answers
    (`Audio`, `Visual`). Where a clip has none it stays as it is.
    """
    given = {1: ("Audio", Cut(picture=False)), 2: ("Visual", Cut(sound=False))}
    made = []
    for number, row in enumerate(rows):
        modality, cut = given.get(number % 3, ("", row.cut))
        asked = tuple(q for q in row.questions if q.template and _needs(q.template) == modality)
        made.append(replace(row, cut=cut, questions=asked) if modality and asked else row)
    return made


def _needs(template: str) -> str:
    return TEMPLATES[template].modality


ROWS: dict[str, Callable[[Sequence[ClipRow]], list[ClipRow]]] = {
    "captions": captions,
    "mixed": mixed,
}
"""What a plan can do to the rows of a stage, by name."""
