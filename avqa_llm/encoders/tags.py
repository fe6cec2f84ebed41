"""Audio tags: which instruments sound, how loud and how fast, by the sound encoder's own word.

A sound encoder that was taught to tag carries linear heads beside its weights
(`tags.safetensors`): how likely each kind of sound is at each token, and where it stands on a
few scales. Learned from dense truth, they say more of loudness and rhythm than a language model
reads out of a bridge's soft tokens; `avqa_llm.values` puts its records right by them.

Legend: N tokens, D features, K kinds, S scales.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from avqa_llm.encoders.tokens import Tokens
from avqa_llm.errors import CheckpointError

HEADS = "tags.safetensors"
"""Beside the weights of a sound encoder."""
HEARD = 0.3
"""A kind sounds at a token where it is likelier than this."""


@dataclass(frozen=True, kw_only=True)
class TagHeads:
    """Linear heads on a sound encoder's tokens."""

    weight: Tensor
    """((1 + S) K, D): for each kind the logit that it sounds, then its place on each scale."""
    bias: Tensor
    """((1 + S) K,)"""
    kinds: tuple[str, ...]
    scales: tuple[tuple[str, ...], ...]
    """Words of each scale; value i is the i-th word."""

    def __post_init__(self) -> None:
        rows = (1 + len(self.scales)) * len(self.kinds)
        if self.weight.dim() != 2 or len(self.weight) != rows or self.bias.shape != (rows,):
            raise CheckpointError(
                f"heads of {tuple(self.weight.shape)} and {tuple(self.bias.shape)}, should have"
                f" {rows} rows: {len(self.kinds)} kinds, one logit and {len(self.scales)} scales"
            )
        if not self.kinds or any(len(words) < 2 for words in self.scales):
            raise CheckpointError("heads need at least one kind, and two words for each scale")

    @property
    def width(self) -> int:
        """Features of the tokens that they read."""
        return self.weight.shape[1]

    def save(self, folder: Path) -> None:
        """Write `tags.safetensors`; aside, then renamed."""
        from safetensors.torch import save_file

        aside = folder / f"{HEADS}.writing"
        told = {"kinds": json.dumps(self.kinds), "scales": json.dumps(self.scales)}
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_file(tensors, aside, metadata=told)
        os.replace(aside, folder / HEADS)

    @classmethod
    def load(cls, folder: Path) -> TagHeads | None:
        """Read what `save` wrote; None where there is no such file.

        Raises:
            CheckpointError: the file is damaged or says something else.
        """
        from safetensors import safe_open

        path = folder / HEADS
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                told = file.metadata() or {}
                weight, bias = (file.get_tensor(name).float() for name in ("weight", "bias"))
            return cls(
                weight=weight,
                bias=bias,
                kinds=_texts(json.loads(told["kinds"])),
                scales=tuple(_texts(words) for words in json.loads(told["scales"])),
            )
        except Exception as error:  # safetensors and json each raise their own
            raise CheckpointError(f"{path} holds no tags: {error}") from error


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(f"{values!r} should be a list of words")
    return tuple(values)


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What sounds in one clip, by its sound alone."""

    values: Mapping[str, tuple[float, ...]]
    """Of each kind that is heard: its place on each scale."""
    scales: tuple[tuple[str, ...], ...]


def tags_of(sound: Tokens, heads: TagHeads) -> Tags:
    """Hear a clip's tokens (N, D): a kind's values are means over the tokens where it sounds."""
    values: dict[str, tuple[float, ...]] = {}
    if sound.n:
        found = sound.values_ND.float() @ heads.weight.T + heads.bias
        logits_NK, *places = found.split(len(heads.kinds), dim=-1)
        active_NK = logits_NK.sigmoid()
        weights_NK = active_NK * (active_NK > HEARD)
        for k in weights_NK.any(0).nonzero()[:, 0].tolist():
            weights_N = weights_NK[:, k] / weights_NK[:, k].sum()
            values[heads.kinds[k]] = tuple(float(place[:, k] @ weights_N) for place in places)
    return Tags(values=values, scales=heads.scales)
