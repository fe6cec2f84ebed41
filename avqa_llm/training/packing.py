"""Many questions about one clip in one sequence, which cannot see one another.

    prefix of the clip | block 1 | block 2 | ...

A token sees the prefix and its own block, causally; every block's positions start right
after the prefix. So the hidden states equal those of one sequence a question, at about a
third of the cost.

Shapes: B clips, L tokens, all int64 unless said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Ids with the part of them that is to be learned."""

    ids: list[int]
    learn: list[bool]

    @classmethod
    def of(cls, given: list[int], learned: list[int]) -> Piece:
        """Ids that are only read, then ids that are to be learned."""
        return cls(ids=given + learned, learn=[False] * len(given) + [True] * len(learned))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch of packed sequences. `ids_BL` holds the negative ids of soft tokens as they are."""

    ids_BL: Tensor
    labels_BL: Tensor
    """`IGNORE` where nothing is learned; aligned with `ids_BL`, shifted by the loss."""
    positions_BL: Tensor
    blocks_BL: Tensor
    """0 in the prefix, 1.. in the blocks, -1 in the padding."""

    def mask_B1LL(self) -> Tensor:
        """Additive attention mask, float32: 0 where a token may look, -inf elsewhere."""
        blocks = self.blocks_BL
        same = (blocks[:, None, :] == blocks[:, :, None]) | (blocks[:, None, :] == 0)
        length = blocks.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril().to(blocks.device)
        see = same & causal & (blocks[:, None, :] >= 0)
        see = see | torch.eye(length, dtype=torch.bool, device=blocks.device)  # padding sees itself
        mask = torch.zeros(see.shape, dtype=torch.float32, device=blocks.device)
        return mask.masked_fill_(~see, torch.finfo(torch.float32).min)[:, None]


def pack(
    rows: Sequence[tuple[Piece, Sequence[Piece]]], *, pad_id: int, length: int | None = None
) -> Packed:
    """Lay out (prefix, blocks) of each clip, padded on the right to one length.

    Raises:
        ValueError: a clip needs more than `length` tokens; nothing is cut silently.
    """
    longest = max(len(p.ids) + sum(len(b.ids) for b in blocks) for p, blocks in rows)
    if length is not None and longest > length:
        raise ValueError(f"a clip with its questions takes {longest} tokens, more than {length}")
    size = (len(rows), length or longest)
    ids, labels = torch.full(size, pad_id), torch.full(size, IGNORE)
    positions, block_ids = torch.zeros(size, dtype=torch.long), torch.full(size, -1)
    for n, (prefix, blocks) in enumerate(rows):
        at = 0
        for k, piece in enumerate((prefix, *blocks)):
            span = slice(at, at + len(piece.ids))
            ids[n, span] = torch.tensor(piece.ids)
            learned = torch.tensor(piece.learn)
            labels[n, span] = torch.where(learned, ids[n, span], IGNORE)
            start = 0 if k == 0 else len(prefix.ids)
            positions[n, span] = torch.arange(start, start + len(piece.ids))
            block_ids[n, span] = k
            at += len(piece.ids)
    return Packed(ids_BL=ids, labels_BL=labels, positions_BL=positions, blocks_BL=block_ids)
