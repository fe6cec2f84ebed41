"""Attention of many rows to a prefix that they share, without a copy of it for each row.

All questions about a clip go on from the same tokens. Their keys and values are kept once: the
rows of one clip look at them together, in one product, and at their own tokens apart from
that; the two softmaxes are then joined by their sums (Hydragen, Juravsky et al. 2024,
section 3). What a row adds of its own is written in place, into room that doubles.

Legend: B rows, R rows of one prefix, L new tokens, S own tokens, P tokens of a prefix, H heads
of keys, Q heads of queries for each of those, D features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import eager_mask

ATTENTION = "avqa_shared_prefix"
"""The name by which transformers knows `attend`."""
FAINT = -80.0
"""Scores so far below the largest do not change a sum any more; taking the exponential of lower
ones (of masked ones above all) is up to fifty times slower on CPUs."""
IN_MASK = ("sliding_window", "position_ids", "cache_position", "is_causal")
"""What models tell their attention and the mask says too."""
BESIDE = ("use_cache", "output_attentions", "output_hidden_states", "output_router_logits")
"""What does not change a result."""
ROOM = 16
"""Tokens of room beyond what is written first."""


@dataclass(frozen=True)
class Prefix:
    """What was read in one row, without its padding."""

    layers: Sequence[tuple[Tensor, Tensor]]
    """Keys and values (1, H, P, D) of each layer."""
    columns_P: Tensor
    """Where these tokens stand in a mask over rows with padding."""


class Prefixes:
    """What some rows go on from: some prefixes, and which of them each row has."""

    def __init__(self, every: Sequence[Prefix], row_B: Tensor, length: int) -> None:
        """`row_B`: a prefix for each row. `length`: how long they are with padding."""
        self.length = length
        self._every, self._row_B = every, row_B
        found = row_B.unique().tolist()
        self._groups = [(every[n], (row_B == n).nonzero()[:, 0]) for n in found]
        back = torch.cat([rows for _, rows in self._groups]).argsort()
        as_is = torch.equal(back, torch.arange(len(back), device=back.device))
        self._back = None if as_is else back

    def rows(self, index: Tensor) -> Prefixes:
        """The same for chosen rows."""
        return Prefixes(self._every, self._row_B[index], self.length)

    def joined(self, others: Sequence[Prefixes]) -> Prefixes:
        """With the rows of `others`, which go on from the same prefixes, after its own."""
        rows = torch.cat([self._row_B, *(other._row_B for other in others)])
        return Prefixes(self._every, rows, self.length)

    def look(self, layer: int, query_BHQLD: Tensor, mask_B1LP: Tensor | None) -> list[Tensor]:
        """Attend, each row to its own prefix: what `_look` gives.

        `mask_B1LP`: what not to look at although it is there; none: look at everything.
        """
        found = []
        for prefix, rows in self._groups:
            asking_1HRQLD = query_BHQLD[rows].transpose(0, 1)[None]
            mask = None
            if mask_B1LP is not None:
                mask = mask_B1LP[rows][..., prefix.columns_P].transpose(0, 1)[None, :, :, None]
            keys, values = prefix.layers[layer]
            parts = _look(asking_1HRQLD, keys, values, mask)
            found.append([part[0].transpose(0, 1) for part in parts])
        whole = [torch.cat(parts) for parts in zip(*found, strict=True)]
        return whole if self._back is None else [part[self._back] for part in whole]


class OwnLayer(DynamicLayer):
    """Keys and values (B, H, S, D) that rows have of their own, after `before` tokens of a prefix.

    They are the first `used` of `keys` and `values`, which have room for more.
    """

    def __init__(self, before: int = 0) -> None:
        super().__init__()
        self.keys: Tensor
        self.values: Tensor
        self.before, self.used = before, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Write in place, and return all that was written."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[2]
        self.keys = self._written(self.keys, key_states, end)
        self.values = self._written(self.values, value_states, end)
        self.used = end
        return self.own()

    def _written(self, room: Tensor, states: Tensor, end: int) -> Tensor:
        if room.dim() < 4 or end > room.shape[2]:
            batch, heads, _, width = states.shape
            wider = states.new_empty(batch, heads, max(2 * self.used, end + ROOM), width)
            if self.used:
                wider[:, :, : self.used] = room[:, :, : self.used]
            room = wider
        room[:, :, self.used : end] = states
        return room

    def own(self) -> tuple[Tensor, Tensor]:
        """Keys and values as far as they are written."""
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> OwnLayer:
        """These keys and values (B, H, S, D), themselves and not a copy."""
        layer = cls()
        layer.keys, layer.values = keys, values
        layer.used, layer.is_initialized = keys.shape[2], True
        return layer

    @classmethod
    def joined(cls, layers: Sequence[OwnLayer]) -> OwnLayer:
        """The rows of some layers one after the other, padded on the right with zeros."""
        layer = cls(layers[0].before)
        layer.used, layer.is_initialized = max(one.used for one in layers), True
        keys, values = zip(*(one.own() for one in layers), strict=True)
        layer.keys, layer.values = _stacked(keys, layer.used), _stacked(values, layer.used)
        return layer

    def rows(self, index: Tensor) -> OwnLayer:
        """A copy for chosen rows."""
        layer = OwnLayer(self.before)
        if self.used:  # with its room: one copy, and there is place for more at once
            layer.keys = self.keys.index_select(0, index)
            layer.values = self.values.index_select(0, index)
            layer.used, layer.is_initialized = self.used, True
        return layer

    def get_seq_length(self) -> int:
        """Tokens before the next one, the prefix included."""
        return self.before + self.used


def _stacked(parts: Sequence[Tensor], length: int) -> Tensor:
    """Rows (B, H, S, D) of several batches one after the other, with room for more."""
    _, heads, _, width = parts[0].shape
    room = parts[0].new_zeros(sum(map(len, parts)), heads, length + ROOM, width)
    for rows, part in zip(room.split([len(part) for part in parts]), parts, strict=True):
        rows[:, :, : part.shape[2]] = part
    return room


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    prefixes: Prefixes | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, for inference.

    Args:
        module: the layer that attends.
        query: (B, H Q, L, D).
        key: own keys (B, H, S, D).
        value: own values, the same shape.
        attention_mask: 0 or a very low number (B, 1, L, P + S).
        scaling: of the scores.
        dropout: not applied.
        prefixes: what the rows go on from; none: their own tokens are all there is.
        more: `IN_MASK` and `BESIDE`.

    Returns:
        Result (B, L, H Q, D).

    Raises:
        NotImplementedError: the model wants its scores changed (capped, with sinks).
    """
    told = {name for name in more if more[name] is not None}
    if foreign := sorted(told.difference(IN_MASK, BESIDE)):
        raise NotImplementedError(f"attention with {', '.join(foreign)}")
    query_BHQLD: Tensor = query.unflatten(1, (key.shape[1], -1)) * scaling
    far = prefixes.length if prefixes else 0
    mask = None if attention_mask is None else attention_mask[..., far:].unsqueeze(2)
    sums = _look(query_BHQLD, key, value, mask)
    if prefixes:
        window = more.get("sliding_window")
        hidden = attention_mask is not None and window is not None and window < far + key.shape[2]
        mask = attention_mask[..., :far] if attention_mask is not None and hidden else None
        sums = _join(sums, prefixes.look(module.layer_idx, query_BHQLD, mask))
    mixed_BHQLD, _, total = sums
    return (mixed_BHQLD / total).flatten(1, 2).transpose(1, 2).contiguous(), None


def _look(
    query: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of values, not yet divided: with the largest score and the sum of the weights.

    Queries (B, H, ..., D) of one row or prefix and head are put into one product.
    """
    scores = query.flatten(2, -2) @ key_BHSD.transpose(2, 3)
    scores = scores.float().unflatten(2, query.shape[2:-1])
    if mask is not None:
        scores += mask
    largest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(largest).clamp_(min=FAINT).exp_()
    total = weights.sum(-1, keepdim=True)
    mixed = weights.to(value_BHSD.dtype).flatten(2, -2) @ value_BHSD
    return mixed.unflatten(2, query.shape[2:-1]), largest, total


def _join(one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over two sets of tokens as sums over both."""
    largest = torch.maximum(one[1], other[1])
    share, rest = (one[1] - largest).exp(), (other[1] - largest).exp()
    mixed = one[0] * share + other[0] * rest
    return mixed.to(one[0].dtype), largest, one[2] * share + other[2] * rest


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)
