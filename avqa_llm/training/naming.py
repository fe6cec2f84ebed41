"""Soft tokens learn the words of what they stand for.

A sigmoid contrast (SigLIP, Zhai et al. 2023, section 3.2) between the bridge's soft tokens and
the language model's own word embeddings: a token that lies near *violin* where a violin is can
be looked up as if the word stood there. Two things are named so: timeline tokens by what sounds
and stands at their time and place, and the clues of the standing question, of which the n-th is
to hold the n-th event of the record. Rows without `events` have no part in it.

Legend: B clips, Q timeline tokens, C clues of a modality, N tokens, K words, E width of the
language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from avqa_llm.bridge import BridgeConfig, ClipKeys
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import Prompt, spoken
from avqa_llm.training.rows import ClipRow, Event

BESIDE = 1.2
"""Bands from its middle at which a player may still be seen: neither there nor not there."""
WHOLE_CLIP = frozenset({"indoor", "outdoor", "voice", "no voice"})
"""Segments of a record that are no events."""

Slots = tuple[list[list[int]], list[list[int]]]
"""Token ids of each event of a clip: as it is heard, and as it is seen."""


class Contrast(nn.Module):
    """Scale and bias of one contrast; needed in training only."""

    def __init__(self, *, scale: float, bias: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, soft_BNE: Tensor, words_KE: Tensor, target_BNK: Tensor) -> Tensor:
        """Loss of each token (B, N), summed over words; a target of -1 is not counted."""
        unit = functional.normalize(soft_BNE.float(), dim=-1)
        logits = unit @ words_KE.T * self.log_scale.exp() + self.bias
        losses = functional.binary_cross_entropy_with_logits(
            logits, target_BNK.clamp(min=0), reduction="none"
        )
        return (losses * (target_BNK >= 0)).sum(-1)


class Naming(nn.Module):
    """Both contrasts."""

    def __init__(self) -> None:
        super().__init__()
        self.timeline = Contrast(scale=10.0, bias=-4.0)
        self.events = Contrast(scale=20.0, bias=-5.0)

    def of_timeline(
        self, model: AVQAModel, keys: ClipKeys, events: Sequence[Sequence[Event]]
    ) -> Tensor:
        """Names of what sounds and stands there: mean over tokens and modalities."""
        names = sorted({event.name for clip in events for event in clip})
        if not names:
            return keys.sound_BQE.new_zeros(())
        words_KE = _words(model, [model.prompt.text(spoken(name)) for name in names])
        shape, total, sides = model.config.bridge, keys.sound_BQE.new_zeros(()), 0
        for soft_BQE, there_BQ, truth in (
            (keys.sound_BQE, keys.sound_there_BQ, sounding),
            (keys.picture_BQE, keys.picture_there_BQ, standing),
        ):
            if not there_BQ.any():
                continue
            target_BQK = torch.stack([truth(e, names, there_BQ.shape[1], shape) for e in events])
            target_BQK = target_BQK.to(soft_BQE.device)
            losses = self.timeline(soft_BQE - model.bridge.word_mean, words_KE, target_BQK)
            total, sides = total + (losses * there_BQ).sum() / there_BQ.sum(), sides + 1
        return total / max(sides, 1)

    def of_events(
        self, model: AVQAModel, soft_BNE: Tensor, exists_BN: Tensor, slots: Sequence[Slots]
    ) -> Tensor:
        """Words of the events, in the standing question's clues: mean over clues.

        A clue past the last event is to hold no word. Unless it learns that, it repeats what others
        hold, and the record that is read from it has players who are not there.

        Args:
            model: whose words are meant.
            soft_BNE: clues of the standing question, N = 2 C: sound before picture.
            exists_BN: False for the clues of a missing modality.
            slots: for each clip, of what its n-th clue of each modality is to speak.
        """
        known = sorted({i for clip in slots for side in clip for event in side for i in event})
        if not known:
            return soft_BNE.new_zeros(())
        place = {word: k for k, word in enumerate(known)}
        target = soft_BNE.new_zeros(*exists_BN.shape, len(known), dtype=torch.float32)
        used = torch.zeros_like(exists_BN)
        clues = exists_BN.shape[1] // 2
        for b, sides in enumerate(slots):
            if any(sides):
                used[b] = exists_BN[b]
            for side, events in enumerate(sides):
                for n, event in enumerate(events[:clues], start=side * clues):
                    target[b, n, [place[word] for word in event]] = 1
        words_KE = _words(model, [[word] for word in known])
        losses = self.events(soft_BNE - model.bridge.word_mean, words_KE, target)
        return (losses * used).sum() / used.sum().clamp(min=1)


def _words(model: AVQAModel, ids: list[list[int]]) -> Tensor:
    """Directions of words, or of the mean of several (K, E)."""
    embeddings = model.llm.get_input_embeddings().weight.detach().float()
    means = torch.stack([embeddings[word].mean(0) for word in ids])
    return functional.normalize(means - model.bridge.word_mean, dim=-1)


def slots(prompt: Prompt, row: ClipRow, record: str) -> Slots:
    """What the clues of the standing question are to hold: the events of the record, in order.

    Args:
        prompt: turns words into token ids.
        row: of the clip; without `events` it gives no slots.
        record: what is to be written down, as it may be without a modality.
    """
    if not row.events:
        return [], []
    return _events(prompt, record), _events(prompt, row.record_without_sound)


def _events(prompt: Prompt, record: str) -> list[list[int]]:
    segments = [segment.strip() for segment in record.split(";")]
    return [sorted(set(prompt.text(spoken(s)))) for s in segments if s not in WHOLE_CLIP]


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
