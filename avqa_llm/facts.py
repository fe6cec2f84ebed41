"""Acoustic facts, said in words: which instruments sound, how loud and how fast.

A sound encoder that was taught to tag carries linear heads beside its weights
(`facts.safetensors`): how likely each kind of sound is at each token, and where it stands on a
few scales. Learned from dense truth, these say more of loudness and rhythm than a bridge finds
out from the words of records. So they are handed to the language model as they are, in words
that it knows: for each of the likeliest kinds its name, then a word of each scale. A value
between two steps is a mixture of both words; what is unlikely fades to the mean of all words.

Legend: B clips, N tokens, D features, K kinds, S scales, F facts told, E width of the
language model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import CheckpointError

HEADS = "facts.safetensors"
"""Beside the weights of a sound encoder."""
HEARD = 0.3
"""A token counts for a kind's scales where the kind is likelier than this."""


@dataclass(frozen=True, kw_only=True)
class FactHeads:
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

    def save(self, folder: Path) -> None:
        """Write `facts.safetensors`; aside, then renamed."""
        from safetensors.torch import save_file

        aside = folder / f"{HEADS}.writing"
        told = {"kinds": json.dumps(self.kinds), "scales": json.dumps(self.scales)}
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_file(tensors, aside, metadata=told)
        os.replace(aside, folder / HEADS)

    @classmethod
    def load(cls, folder: Path) -> FactHeads | None:
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
            raise CheckpointError(f"{path} holds no heads of facts: {error}") from error


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CheckpointError(f"{values!r} should be a list of words")
    return tuple(values)


class Facts(nn.Module):
    """From tokens of the sound to soft tokens that say what it consists of. Nothing is learned."""

    def __init__(self, heads: FactHeads, told: int, word: Callable[[str], Tensor]) -> None:
        """`told`: how many kinds are told of; `word`: the embedding (E,) of a word."""
        super().__init__()
        self.told, self.kinds = min(told, len(heads.kinds)), len(heads.kinds)

        def keep(name: str, values: Tensor) -> None:  # they are in the encoder's own directory
            self.register_buffer(name, values.detach().float(), persistent=False)

        keep("weight", heads.weight)
        keep("bias", heads.bias)
        keep("names_KE", torch.stack([word(kind) for kind in heads.kinds]))
        for n, words in enumerate(heads.scales):
            keep(f"scale_{n}", torch.stack([word(text) for text in words]))
        self.tokens = self.told * (1 + len(heads.scales))

    weight: Tensor
    bias: Tensor
    names_KE: Tensor

    def forward(self, tokens_BND: Tensor, there_BN: Tensor, fade_E: Tensor) -> Tensor:
        """Say what sounds, the likeliest first: (B, F · (1 + S), E). `fade_E`: what is unlikely."""
        found = nn.functional.linear(tokens_BND.float(), self.weight, self.bias)
        logits_BNK, *values = found.float().split(self.kinds, dim=-1)
        active_BNK = logits_BNK.sigmoid() * there_BN[..., None]
        likely_BF, top_BF = active_BNK.amax(1).topk(self.told, dim=-1)
        weights_BNK = active_BNK * (active_BNK > HEARD) + 1e-6
        said = [self.names_KE[top_BF]]
        for n, value_BNK in enumerate(values):
            mean_BK = (value_BNK * weights_BNK).sum(1) / weights_BNK.sum(1)
            said.append(_between(self.get_buffer(f"scale_{n}"), mean_BK.gather(1, top_BF)))
        spoken_BFWE = torch.stack(said, dim=2)
        faded = fade_E + likely_BF[..., None, None] * (spoken_BFWE - fade_E)
        return faded.flatten(1, 2)


def _between(words_VE: Tensor, value_BF: Tensor) -> Tensor:
    """The words of values (B, F, E): of one between two steps, some of both."""
    value_BF = value_BF.clamp(0, len(words_VE) - 1)
    low = value_BF.floor().long().clamp(max=len(words_VE) - 2)
    share = (value_BF - low)[..., None]
    return words_VE[low] * (1 - share) + words_VE[low + 1] * share
