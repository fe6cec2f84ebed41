"""Many texts about one clip in one sequence, as a tree whose branches cannot see one another.

    prefix of the clip | block 1 | block 2 | block 3, which goes on from block 2 | ...

A token sees its own block and the blocks that this one goes on from, causally; positions go on
where the parent ends. So the hidden states equal those of one sequence for each path from the
prefix to a leaf, at a fraction of the cost: several questions share their clip, several answers
their question.

Legend: B clips, L tokens, K blocks with the prefix, M learned tokens, E width of the language
model; int64 unless said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Ids with the part of them that is to be learned."""

    ids: list[int]
    learn: list[bool]
    parent: int = 0
    """Number of the block that this one goes on from; 0: the prefix. Blocks count from 1."""

    @classmethod
    def of(cls, given: list[int], learned: list[int], parent: int = 0) -> Piece:
        """Ids that are only read, then ids that are to be learned."""
        learn = [False] * len(given) + [True] * len(learned)
        return cls(ids=given + learned, learn=learn, parent=parent)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch of packed sequences. `ids_BL` holds the negative ids of soft tokens as they are."""

    ids_BL: Tensor
    labels_BL: Tensor
    """`IGNORE` where nothing is learned; aligned with `ids_BL`."""
    positions_BL: Tensor
    blocks_BL: Tensor
    """0 in the prefix, 1.. in the blocks, -1 in the padding."""
    sources_BL: Tensor
    """Which token's hidden state predicts this one: the one before, or the last of the parent."""
    ancestors_BKK: Tensor
    """Bool: whether a block (first K) may look at a block (second K)."""

    @property
    def n_blocks(self) -> int:
        """Blocks of the longest clip, the prefix counted."""
        return self.ancestors_BKK.shape[1]

    def to(self, device: Any, **how: Any) -> Packed:
        """The same elsewhere."""
        return Packed(**{f.name: getattr(self, f.name).to(device, **how) for f in fields(self)})

    def mask_B1LL(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Additive attention mask: 0 where a token may look, the lowest number elsewhere."""
        blocks = self.blocks_BL
        length, known = blocks.shape[1], blocks.clamp(min=0)
        rows = torch.arange(len(blocks), device=blocks.device)[:, None, None]
        see = self.ancestors_BKK[rows, known[:, :, None], known[:, None, :]]
        causal = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
        real = blocks >= 0
        see = see & causal & real[:, None, :] & real[:, :, None]
        see = see | torch.eye(length, dtype=torch.bool, device=blocks.device)  # padding sees itself
        mask = torch.zeros(see.shape, dtype=dtype, device=blocks.device)
        return mask.masked_fill_(~see, torch.finfo(dtype).min)[:, None]


def pack(
    rows: Sequence[tuple[Piece, Sequence[Piece]]], *, pad_id: int, length: int | None = None
) -> Packed:
    """Lay out (prefix, blocks) of each clip, padded on the right to one length.

    Raises:
        ValueError: a clip needs more than `length` tokens (nothing is cut silently), a block goes
            on from a later one, or learns its first token with nothing before it.
    """
    longest = max(len(p.ids) + sum(len(b.ids) for b in blocks) for p, blocks in rows)
    if length is not None and longest > length:
        raise ValueError(f"a clip with its questions takes {longest} tokens, more than {length}")
    size, most = (len(rows), length or longest), 1 + max(len(blocks) for _, blocks in rows)
    ids, labels = torch.full(size, pad_id), torch.full(size, IGNORE)
    positions, block_ids = torch.zeros(size, dtype=torch.long), torch.full(size, -1)
    sources = torch.zeros(size, dtype=torch.long)
    ancestors = torch.eye(most, dtype=torch.bool).repeat(len(rows), 1, 1)
    for n, (prefix, blocks) in enumerate(rows):
        at = 0
        ends: list[tuple[int, int]] = []  # of each piece: the place of its last token, its position
        for k, piece in enumerate((prefix, *blocks)):
            if k and not 0 <= piece.parent < k:
                raise ValueError(f"block {k} goes on from {piece.parent}, which is not before it")
            last, position = ends[piece.parent] if k else (-1, -1)
            if last < 0 and piece.learn[:1] == [True]:
                raise ValueError("nothing stands before the first token, so it cannot be learned")
            span = slice(at, at + len(piece.ids))
            ids[n, span] = torch.tensor(piece.ids, dtype=torch.long)
            learned = torch.tensor(piece.learn, dtype=torch.bool)
            labels[n, span] = torch.where(learned, ids[n, span], IGNORE)
            positions[n, span] = position + 1 + torch.arange(len(piece.ids))
            sources[n, span] = torch.arange(at, at + len(piece.ids)) - 1
            sources[n, at : at + 1] = max(last, 0)
            block_ids[n, span] = k
            if k:
                ancestors[n, k] |= ancestors[n, piece.parent]
            at += len(piece.ids)
            end = (at - 1, position + len(piece.ids))
            ends.append(end if piece.ids else (last, position))
    return Packed(
        ids_BL=ids,
        labels_BL=labels,
        positions_BL=positions,
        blocks_BL=block_ids,
        sources_BL=sources,
        ancestors_BKK=ancestors,
    )


def learned_logits(
    trunk: Any, lm_head: nn.Module, batch: Packed, embeds_BLE: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (M, V) of the learned tokens, with their rows (M,) and places (M,)."""
    inputs = {"input_ids": batch.ids_BL} if embeds_BLE is None else {"inputs_embeds": embeds_BLE}
    dtype = torch.float32 if embeds_BLE is None else embeds_BLE.dtype
    hidden_BLE = trunk(
        **inputs,
        attention_mask=batch.mask_B1LL(dtype),
        position_ids=batch.positions_BL,
        use_cache=False,
    ).last_hidden_state
    rows_M, places_M = (batch.labels_BL != IGNORE).nonzero(as_tuple=True)
    # The head, the widest product of a small model, is spent on what is learned only.
    return (
        lm_head(hidden_BLE[rows_M, batch.sources_BL[rows_M, places_M]]).float(),
        rows_M,
        places_M,
    )


def packed_loss(
    trunk: Any, lm_head: nn.Module, batch: Packed, embeds_BLE: Tensor | None = None
) -> Tensor:
    """Mean next-token loss over the learned positions of a packed batch; 0 where there are none."""
    logits_MV, rows_M, places_M = learned_logits(trunk, lm_head, batch, embeds_BLE)
    labels_M = batch.labels_BL[rows_M, places_M]
    total = nn.functional.cross_entropy(logits_MV, labels_M, reduction="sum")
    return total / max(len(labels_M), 1)


def block_logps(
    trunk: Any, lm_head: nn.Module, batch: Packed, embeds_BLE: Tensor | None = None
) -> Tensor:
    """Log-probabilities (B, K) of what is learned in each block, summed over its tokens."""
    logits_MV, rows_M, places_M = learned_logits(trunk, lm_head, batch, embeds_BLE)
    return block_sums(token_logps(logits_MV, batch, rows_M, places_M), batch, rows_M, places_M)


def token_logps(logits_MV: Tensor, batch: Packed, rows_M: Tensor, places_M: Tensor) -> Tensor:
    """Log-probability (M,) of each learned token."""
    labels_M1 = batch.labels_BL[rows_M, places_M][:, None]
    return logits_MV.log_softmax(-1).gather(1, labels_M1)[:, 0]


def block_sums(values_M: Tensor, batch: Packed, rows_M: Tensor, places_M: Tensor) -> Tensor:
    """Sums (B, K) of a value of each learned token over the blocks."""
    sums = values_M.new_zeros(len(batch.ids_BL), batch.n_blocks)
    return sums.index_put((rows_M, batch.blocks_BL[rows_M, places_M]), values_M, accumulate=True)
