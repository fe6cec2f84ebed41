"""Timeline tokens learn the names of what sounds and stands at their time and place.

A sigmoid contrast (SigLIP, Zhai et al. 2023, section 3.2) between the bridge's timeline tokens
and the language model's own word embeddings of the names in the batch: a soft token that lies
near *violin* where a violin is can be looked up as if the word stood there. Rows without
`events` have no part in it.

Legend: B clips, Q timeline tokens, K names, E width of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from avqa_llm.bridge import BridgeConfig, ClipKeys
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import spoken
from avqa_llm.training.rows import Event

BESIDE = 1.2
"""Bands from its middle at which a player may still be seen: neither there nor not there."""


class Naming(nn.Module):
    """Scale and bias of the contrast; needed in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def forward(
        self, model: AVQAModel, keys: ClipKeys, events: Sequence[Sequence[Event]]
    ) -> Tensor:
        """Loss of a token summed over the batch's names, mean over tokens and modalities."""
        names = sorted({event.name for clip in events for event in clip})
        if not names:
            return torch.zeros(())
        words_KE = self._words(model, names)
        shape, total, sides = model.config.bridge, torch.zeros(()), 0
        for soft_BQE, there_BQ, truth in (
            (keys.sound_BQE, keys.sound_there_BQ, sounding),
            (keys.picture_BQE, keys.picture_there_BQ, standing),
        ):
            if not there_BQ.any():
                continue
            target_BQK = torch.stack([truth(e, names, there_BQ.shape[1], shape) for e in events])
            centred = functional.normalize(soft_BQE.float() - model.bridge.word_mean, dim=-1)
            logits = centred @ words_KE.T * self.log_scale.exp() + self.bias
            losses = functional.binary_cross_entropy_with_logits(
                logits, target_BQK.clamp(min=0), reduction="none"
            )
            known = (target_BQK >= 0) & there_BQ[..., None]
            total = total + (losses * known).sum() / there_BQ.sum()
            sides += 1
        return total / max(sides, 1)

    @staticmethod
    def _words(model: AVQAModel, names: list[str]) -> Tensor:
        embeddings = model.llm.get_input_embeddings().weight.detach().float()
        means = [embeddings[model.prompt.text(spoken(name))].mean(0) for name in names]
        return functional.normalize(torch.stack(means) - model.bridge.word_mean, dim=-1)


def sounding(events: Sequence[Event], names: list[str], tokens: int, shape: BridgeConfig) -> Tensor:
    """Which names (K) sound at each sound token: (Q, K), 1 or 0."""
    target = torch.zeros(tokens, len(names))
    times = (torch.arange(tokens) + 0.5) / shape.sound_per_second
    for event in events:
        if event.start_s is not None and event.end_s is not None:
            now = (times >= event.start_s) & (times < event.end_s)
            target[now, names.index(event.name)] = 1
    return target


def standing(events: Sequence[Event], names: list[str], tokens: int, shape: BridgeConfig) -> Tensor:
    """Which names stand at each picture token's band: (Q, K), 1, 0, or -1 for those beside it."""
    target = torch.zeros(tokens, len(names))
    bands = shape.picture_bands
    middle = torch.arange(tokens) % bands + 0.5
    for event in events:
        if event.x is None:
            continue
        k = names.index(event.name)
        off = (min(event.x, 0.999) * bands - middle).abs()
        column = target[:, k]
        column[(off < BESIDE) & (column == 0)] = -1
        column[off <= 0.5] = 1
    return target
