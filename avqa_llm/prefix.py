"""Attention of many rows to a prefix that they share, without a copy of it for each row.

All questions about a clip go on from the same tokens. Their keys and values are kept once: the
rows of one clip look at them together, in one product, and at their own tokens apart from
that; the two softmaxes are then joined by their sums (Hydragen, Juravsky et al. 2024,
section 3). What a row adds of its own is written in place, into room that doubles.

Legend: B rows, L new tokens, S own tokens, P tokens of a prefix, G prefixes, R most rows of a
prefix, H heads of keys, Q heads of queries for each of those, D features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Prefixes:
    """What some rows go on from: G prefixes, and which of them each row has."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], row_B: Tensor) -> None:
        """`layers`: keys and values (G, H, P, D) of each layer; `row_B`: a prefix for each row."""
        self.layers, self._row_B = layers, row_B
        self._groups = len(layers[0][0])
        counts_G = row_B.bincount(minlength=self._groups)
        width, first_G = int(counts_G.max()), counts_G.cumsum(0) - counts_G
        order = row_B.argsort(stable=True)
        place_B = torch.empty_like(row_B)
        place_B[order] = torch.arange(len(row_B)) - first_G[row_B[order]]
        # A table with a line for each prefix: where each row stands, and which row stands where.
        # Cells that are left over repeat the first row.
        self._cell_B = row_B * width + place_B
        self._row_C = torch.zeros(self._groups * width, dtype=torch.long)
        self._row_C[self._cell_B] = torch.arange(len(row_B))
        self._in_order = torch.equal(self._cell_B, torch.arange(len(self._row_C)))
        self._mask: tuple[Tensor, Tensor] | None = None

    @property
    def length(self) -> int:
        """Tokens, padding included."""
        return int(self.layers[0][0].shape[2])

    def rows(self, index: Tensor) -> Prefixes:
        """The same for chosen rows."""
        return Prefixes(self.layers, self._row_B[index])

    def joined(self, others: Sequence[Prefixes]) -> Prefixes:
        """With the rows of `others`, which go on from the same prefixes, after its own."""
        return Prefixes(self.layers, torch.cat([self._row_B, *(other._row_B for other in others)]))

    def mask(self, mask: Tensor) -> Tensor:
        """The part of an attention mask (B, 1, L, P + S) that is about prefixes, as a table."""
        if self._mask is None or self._mask[0] is not mask:  # the layers are given the same one
            table = self.table(mask[..., : self.length].unsqueeze(2))
            self._mask = (mask, table.transpose(1, 2))
        return self._mask[1]

    def table(self, values: Tensor) -> Tensor:
        """Something of each row (B, ...) as a table (G, R, ...)."""
        cells = values if self._in_order else values[self._row_C]
        return cells.unflatten(0, (self._groups, -1))

    def untable(self, values: Tensor) -> Tensor:
        """A table (G, R, ...) as rows (B, ...)."""
        cells = values.flatten(0, 1)
        return cells if self._in_order else cells[self._cell_B]


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

    def rows(self, index: Tensor) -> OwnLayer:
        """A copy for chosen rows."""
        layer = OwnLayer(self.before)
        if self.used:
            layer.update(*(states[index] for states in self.own()))
        return layer

    def get_seq_length(self) -> int:
        """Tokens before the next one, the prefix included."""
        return self.before + self.used


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
    near = _look(query_BHQLD, key, value, mask)
    if prefixes:
        keys, values = prefixes.layers[module.layer_idx]
        asking = prefixes.table(query_BHQLD).transpose(1, 2)  # G H R Q L D
        mask = None if attention_mask is None else prefixes.mask(attention_mask)
        seen = _look(asking, keys, values, mask)
        near = _join(near, [prefixes.untable(part.transpose(1, 2)) for part in seen])
    mixed_BHQLD, _, total = near
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
