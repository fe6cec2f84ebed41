"""Candidate answers as branches of a packed sequence, and their likelihoods.

    ... question, from which go on
            gold steps and answer       learned (`lay_out`), or not there at all (`only_scored`)
            ":" and from there
                candidate 1, candidate 2, ...       only scored

A candidate goes on from the question's words, never from the gold answer, so nothing that is
learned is visible to it. It is scored as `avqa_llm.engine` ranks answers: the log-likelihood of
its words after the mark that ends the steps; labels without their end (none of them is the start
of another), choices with it. Two things differ from the engine: no steps stand before the mark
(the gold ones would tell the answer, the model's own would have to be written first), and all
candidates are read to their end.

Legend: B clips, N questions with candidates, K candidates; the second K of `block_logps` is
the blocks of a packed sequence. Tables are int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import AnnotationError, RecipeError
from avqa_llm.labels import COUNT_LABELS, INSTRUMENT_LABELS, LABELS
from avqa_llm.prompt import Prompt, spoken
from avqa_llm.training.packing import (
    Packed,
    Piece,
    block_sums,
    learned_logits,
    token_logps,
)

FAMILIES = (
    INSTRUMENT_LABELS,
    COUNT_LABELS,
    ("left", "middle", "right", "simultaneously"),
    ("indoor", "outdoor"),
    ("yes", "no"),
)
"""Labels that answer the same kind of question."""
KINDS = ("all", "family")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one question may be answered with."""

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    """Token ids of each, as they follow the mark that ends the steps."""
    gold: int
    """Place of the right one."""

    def n_tokens(self, prompt: Prompt) -> int:
        """How much longer a packed sequence becomes by them."""
        return len(prompt.steps_end) + sum(len(ids) for ids in self.ids)


def options(
    prompt: Prompt, answer: str, choices: Sequence[str] = (), *, kind: str = "all"
) -> Options | None:
    """Candidates of a question; None where there is nothing to choose from.

    Args:
        prompt: of the tokenizer in use.
        answer: the gold answer; it decides which family and which place, nothing else.
        choices: what the question offers; nothing: the 42 labels. One that is offered twice
            counts once.
        kind: of the labels `all`, or only the `family` of the gold one.

    Raises:
        RecipeError: an unknown kind.
        AnnotationError: the gold answer is not among the choices.
    """
    if kind not in KINDS:
        raise RecipeError(f"candidates: {kind!r} is none of {', '.join(KINDS)}")
    if choices:
        names = tuple(dict.fromkeys(spoken(choice) for choice in choices))
        if spoken(answer) not in names:
            raise AnnotationError(
                f"the answer {answer!r} is not among the choices {', '.join(map(repr, choices))}:"
                " correct the row, or leave its choices out"
            )
        ids = tuple(tuple(prompt.text(name) + prompt.eos) for name in names)
        return Options(names=names, ids=ids, gold=names.index(spoken(answer)))
    label = _SPOKEN.get(spoken(answer))
    if label is None:
        return None
    labels = LABELS if kind == "all" else next(family for family in FAMILIES if label in family)
    ids = tuple(tuple(prompt.text(spoken(name))) for name in labels)
    return Options(names=tuple(labels), ids=ids, gold=labels.index(label))


_SPOKEN = {spoken(label): label for label in LABELS}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where one question's candidates stand in its clip's sequence."""

    blocks: tuple[int, ...]
    """Number of the block of each candidate."""
    gold: int
    question: int
    """Which of the blocks given to `lay_out` asks it, from 0."""


def lay_out(
    prompt: Prompt,
    blocks: Sequence[Piece],
    offered: Sequence[Options | None],
    *,
    n_before: int = 0,
) -> tuple[list[Piece], list[Placed]]:
    """Give questions their candidates.

    A question with candidates is cut where its learned part begins: what is given becomes the
    block that both the learned part and the candidates go on from. What is learned, and after
    what, stays the same; so does the order of soft tokens.

    Args:
        prompt: of the tokenizer in use.
        blocks: a clip's questions, whole; a parent is a number in the sequence that they are
            taken from.
        offered: the candidates of each; None: it stays as it is.
        n_before: how many blocks stand between the prefix and these.

    Returns:
        The pieces that take the place of `blocks` in the sequence, to be the last ones in it,
        and where the candidates are.
    """
    pieces: list[Piece] = []
    ends = list(range(n_before + 1))  # of each block as it was numbered: where its text ends now
    heads: list[int] = []

    def add(piece: Piece) -> int:
        pieces.append(piece)
        return n_before + len(pieces)

    for block, own in zip(blocks, offered, strict=True):
        block = replace(block, parent=ends[block.parent])
        cut = block.learn.index(True) if True in block.learn else len(block.ids)
        if own is None or cut == len(block.ids):
            heads.append(add(block))
            ends.append(heads[-1])
            continue
        heads.append(add(Piece.of(block.ids[:cut], [], block.parent)))
        ends.append(add(Piece(ids=block.ids[cut:], learn=block.learn[cut:], parent=heads[-1])))
    placed = []
    for n, (head, own) in enumerate(zip(heads, offered, strict=True)):
        if own is not None:
            mark = add(Piece.of(prompt.steps_end, [], head))
            numbers = tuple(add(Piece.of([], list(ids), mark)) for ids in own.ids)
            placed.append(Placed(blocks=numbers, gold=own.gold, question=n))
    return pieces, placed


def only_scored(
    prompt: Prompt, prefix: list[int], asked: Sequence[list[int]], offered: Sequence[Options | None]
) -> tuple[Piece, list[Piece], list[Placed]]:
    """A sequence that holds no gold text at all: for the branches of a debiasing loss.

    Args:
        prompt: of the tokenizer in use.
        prefix: what stands before the questions. For the question alone:
            `prompt.clip(0, 0) + prompt.record("")`, since a record tells what is in the clip.
        asked: each question up to where its answer starts (`Prompt.question`).
        offered: the candidates of each.
    """
    heads = [Piece.of(ids, []) for ids in asked]
    return Piece.of(prefix, []), *lay_out(prompt, heads, offered)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidates of a batch of packed sequences."""

    rows_N: Tensor
    """Which sequence."""
    blocks_NK: Tensor
    """Which block of it; -1 where a question has fewer candidates than another."""
    gold_N: Tensor
    questions_N: Tensor
    """Which question of its clip, see `Placed`."""

    @classmethod
    def of(cls, placed: Sequence[Sequence[Placed]]) -> Candidates:
        """Put together what `lay_out` gave for each clip."""
        flat = [(row, one) for row, clip in enumerate(placed) for one in clip]
        most = max((len(one.blocks) for _, one in flat), default=1)
        filled = [[*one.blocks, *[-1] * (most - len(one.blocks))] for _, one in flat]
        return cls(
            rows_N=torch.tensor([row for row, _ in flat], dtype=torch.long),
            blocks_NK=torch.tensor(filled, dtype=torch.long).view(len(flat), most),
            gold_N=torch.tensor([one.gold for _, one in flat], dtype=torch.long),
            questions_N=torch.tensor([one.question for _, one in flat], dtype=torch.long),
        )

    def to(self, device: Any, **how: Any) -> Candidates:
        """The same elsewhere."""
        return Candidates(
            rows_N=self.rows_N.to(device, **how),
            blocks_NK=self.blocks_NK.to(device, **how),
            gold_N=self.gold_N.to(device, **how),
            questions_N=self.questions_N.to(device, **how),
        )


def scores(block_logps_BK: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the candidates.

    Args:
        block_logps_BK: of `packing.block_logps`, prefix included.
        candidates: of the same sequences.

    Returns:
        Logits (N, K), -inf where there is no candidate, and the place of the gold one (N,).
    """
    blocks_NK = candidates.blocks_NK
    logits_NK = block_logps_BK[candidates.rows_N[:, None], blocks_NK.clamp(min=0)]
    return logits_NK.masked_fill(blocks_NK < 0, -torch.inf), candidates.gold_N


def scored_loss(
    trunk: Any,
    lm_head: nn.Module,
    packed: Packed,
    candidates: Candidates,
    embeds_BLE: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Next-token loss and scores of the candidates, in one pass.

    Packed sequences mark what is scored like what is learned, so `packing.packed_loss` would
    teach the candidates too, all of them: where there are some, this takes its place.

    Returns:
        The mean next-token loss over what is learned, without the candidates (0 where nothing
        is), and what `scores` gives.
    """
    logits_MV, rows_M, places_M = learned_logits(trunk, lm_head, packed, embeds_BLE)
    logps_M = token_logps(logits_MV, packed, rows_M, places_M)
    blocks_M = packed.blocks_BL[rows_M, places_M]
    scored_BK = torch.zeros(
        len(packed.ids_BL), packed.n_blocks, dtype=torch.bool, device=logps_M.device
    )
    there_NK = candidates.blocks_NK >= 0
    rows_NK = candidates.rows_N[:, None].expand_as(there_NK)
    scored_BK[rows_NK[there_NK], candidates.blocks_NK[there_NK]] = True
    learned_M = ~scored_BK[rows_M, blocks_M]
    loss = -(logps_M * learned_M).sum() / learned_M.sum().clamp(min=1)
    return loss, *scores(block_sums(logps_M, packed, rows_M, places_M), candidates)
