"""From rows and features to a batch: which clips, which of their questions, laid out as tokens.

    clip's soft tokens and record | question 1 with its clues | question 2 with its clues | ...

Now and then a modality is taken away, with the record that is still possible without it, so that
a missing sound or picture is nothing new. The draws of a step are made for the whole batch and
then divided, so a batch is the same however many parts it is made in.

Legend: B clips, K questions a clip, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from avqa_llm.model import AVQAModel
from avqa_llm.prompt import spoken
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.candidates import Candidates, Options, Placed, only_scored
from avqa_llm.training.candidates import lay_out as lay_out_candidates
from avqa_llm.training.features import ClipFeatures
from avqa_llm.training.loop import part_of
from avqa_llm.training.naming import Slots, slots
from avqa_llm.training.packing import Packed, Piece, pack
from avqa_llm.training.rows import ClipRow, Event, Question, drawn, question_blocks

if TYPE_CHECKING:
    from avqa_llm.training.connect import ConnectConfig


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One part of a step's clips with everything that is known about them."""

    sound: TokenBatch
    picture: TokenBatch
    seconds_B: Tensor
    packed: Packed
    words: list[list[int]]
    """What the clues are asked, (1 + K) for each clip: the record first."""
    asked: list[Question | None]
    """The question of each of them; None for the record and for filling."""
    events: list[tuple[Event, ...]]
    slots: list[Slots]
    """What the clues of the standing question are to hold."""
    weight: float = 1.0
    """Learned tokens of this part in those of an average part of the step."""
    candidates: Candidates | None = None
    """Answers that are compared, where something is done against bias."""
    branches: dict[str, Batch] = field(default_factory=dict)
    """The same questions with a part of the input alone; only candidates, nothing learned."""
    remake: Callable[[list[bool], list[bool]], Batch] | None = None
    """The same batch with the sound of some clips, and the picture of others, taken away."""

    def to(self, device: Any, **how: Any) -> Batch:
        """The same elsewhere."""
        return replace(
            self,
            sound=self.sound.to(device, **how),
            picture=self.picture.to(device, **how),
            seconds_B=self.seconds_B.to(device, **how),
            packed=self.packed.to(device, **how),
            candidates=self.candidates and self.candidates.to(device, **how),
            branches={name: one.to(device, **how) for name, one in self.branches.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One clip of a batch before its tokens are numbers in a tensor."""

    prefix: Piece
    blocks: list[Piece]
    asked: list[Question]
    """The question that each block ends with."""
    deaf: bool
    blind: bool
    record: str

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(self.prefix.learn) + sum(sum(block.learn) for block in self.blocks)


def make_batch(
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    chosen: list[int],
    config: ConnectConfig,
    rng: np.random.Generator,
    part: int = 0,
    parts: int = 1,
) -> Batch:
    """Draw questions and missing modalities for some clips, and lay out the tokens of one part."""
    draw = int(rng.integers(2**32))
    make = partial(_make, model, rows, features, chosen, config, draw, part, parts)
    batch = make()
    opm = config.debias is not None and config.debias.opm is not None
    return replace(batch, remake=make) if opm else batch


def _make(
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    chosen: list[int],
    config: ConnectConfig,
    seed: int,
    part: int,
    parts: int,
    deaf: Sequence[bool] = (),
    blind: Sequence[bool] = (),
) -> Batch:
    """A part of a batch; `deaf` and `blind`: clips of this part that lose more than was drawn."""
    rng = np.random.default_rng(seed)
    gone = [(False, False)] * len(chosen)
    for n, pair in enumerate(zip(deaf, blind, strict=True)):
        gone[part + n * parts] = pair
    layouts = lay_out(model, rows, features, chosen, config, rng, gone)
    total = sum(layout.learned for layout in layouts)
    mine, clips = part_of(layouts, part, parts), part_of(chosen, part, parts)
    weight = sum(layout.learned for layout in mine) * parts / max(total, 1)
    return batch_of(model, rows, features, clips, mine, config, weight=weight)


def lay_out(
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    chosen: list[int],
    config: ConnectConfig,
    rng: np.random.Generator,
    gone: Sequence[tuple[bool, bool]],
) -> list[Layout]:
    """Draw what is asked about each clip, and which of them lack a modality.

    `gone`: for each clip whether its sound, and whether its picture, is taken away in any case.
    """
    fate = rng.random(len(chosen)) / max(config.missing, 1e-9)
    layouts = []
    for index, chance, (mute, blank) in zip(chosen, fate, gone, strict=True):
        row = rows[index]
        heard, seen = features.present(index)
        heard, seen = heard and row.cut.sound, seen and row.cut.picture
        deaf = not heard or (seen and (chance < 0.5 or mute))
        blind = not seen or (not deaf and (0.5 <= chance < 1.0 or blank))
        questions = drawn(row.questions, config.questions, config.favour, rng)
        layouts.append(
            one_layout(
                model,
                row,
                questions,
                config,
                rng,
                timeline=features.timeline(index),
                deaf=deaf,
                blind=blind,
            )
        )
    return layouts


def one_layout(
    model: AVQAModel,
    row: ClipRow,
    questions: list[Question],
    config: ConnectConfig,
    rng: np.random.Generator,
    *,
    timeline: int,
    deaf: bool,
    blind: bool,
) -> Layout:
    """One clip's prefix and blocks, and the questions that have clues, in order of their blocks."""
    record = record_of(row, deaf=deaf, blind=blind)
    clip, n_clues = clip_ids(model, timeline, deaf=deaf, blind=blind)
    prefix = prefix_piece(model, row, record, clip)
    if deaf or blind or not config.steps:  # a record with parts missing cannot be looked up in
        questions = [replace(q, steps="") for q in questions]
    blocks, kept = question_blocks(
        model.prompt, questions, n_clues=n_clues, pair=config.pair, drop=config.drop, rng=rng
    )
    if config.length:
        room = config.length - len(prefix.ids)
        while blocks and sum(len(block.ids) for block in blocks) > room:
            blocks.pop(), kept.pop()
    return Layout(prefix=prefix, blocks=blocks, asked=kept, deaf=deaf, blind=blind, record=record)


def clip_ids(model: AVQAModel, timeline: int, *, deaf: bool, blind: bool) -> tuple[list[int], int]:
    """The ids of a clip of so many seconds up to its record, and how many clues a question has."""
    shape = model.config.bridge
    n_clues = shape.clues * (2 - deaf - blind)
    n_sound = 0 if deaf else shape.sound_per_second * timeline
    n_picture = 0 if blind else shape.picture_per_second * timeline
    return model.prompt.clip(n_sound, n_picture, n_clues), n_clues


def prefix_piece(model: AVQAModel, row: ClipRow, record: str, clip: list[int]) -> Piece:
    """The clip's part of a sequence: its record is learned if it is a true one."""
    if not model.config.records:
        return Piece.of(clip, [])
    ids = model.prompt.record(record)
    return Piece.of(clip + ids, []) if row.written else Piece.of(clip, ids)


def record_of(row: ClipRow, *, deaf: bool, blind: bool) -> str:
    """What can be written down of a clip with what there is of it."""
    if deaf:
        return row.record_without_sound
    return row.record_without_picture if blind else row.record


def batch_of(
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    chosen: list[int],
    layouts: list[Layout],
    config: ConnectConfig,
    *,
    weight: float = 1.0,
) -> Batch:
    """Tensors of clips that are laid out."""
    sound, picture, seconds_B = features.batch(chosen)
    deaf = torch.tensor([layout.deaf for layout in layouts])
    blind = torch.tensor([layout.blind for layout in layouts])
    prompt = model.prompt
    words, asked = clue_words(model, layouts, config.questions)
    pieces = [(layout.prefix, layout.blocks) for layout in layouts]
    candidates: Candidates | None = None
    branches: dict[str, Batch] = {}
    if config.debias is not None:
        pieces, candidates, branches = _compared(
            model, rows, features, chosen, layouts, config, (sound, picture, seconds_B)
        )
    return Batch(
        sound=sound.without(deaf),
        picture=picture.without(blind),
        seconds_B=seconds_B,
        packed=pack(pieces, pad_id=model.filling, length=config.length or None),
        words=words,
        asked=asked,
        candidates=candidates,
        branches=branches,
        events=[rows[index].events for index in chosen],
        slots=[
            slots(prompt, rows[index], layout.record)
            for index, layout in zip(chosen, layouts, strict=True)
        ],
        weight=weight,
    )


def clue_words(
    model: AVQAModel, layouts: Sequence[Layout], questions: int
) -> tuple[list[list[int]], list[Question | None]]:
    """What the clues of each clip are asked, the record first, filled up to equally many."""
    prompt = model.prompt
    words: list[list[int]] = []
    asked: list[Question | None] = []
    for layout in layouts:
        fill = questions - len(layout.asked)
        mine: list[Question | None] = [None, *layout.asked, *[None] * fill]
        words += [prompt.events if q is None else prompt.text(spoken(q.question)) for q in mine]
        asked += mine
    return words, asked


# -- against bias ------------------------------------------------------------------------------

Pieces = list[tuple[Piece, list[Piece]]]


def _compared(
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    chosen: list[int],
    layouts: list[Layout],
    config: ConnectConfig,
    tokens: tuple[TokenBatch, TokenBatch, Tensor],
) -> tuple[Pieces, Candidates, dict[str, Batch]]:
    """Sequences whose questions have candidates, and the branches about the same questions."""
    from avqa_llm.training.debiasing import BRANCHES, offered_to

    assert config.debias is not None
    offered = [offered_to(model, layout, config.debias) for layout in layouts]
    pieces: Pieces = []
    placed: list[list[Placed]] = []
    for layout, own in zip(layouts, offered, strict=True):
        blocks, where = lay_out_candidates(model.prompt, layout.blocks, own)
        pieces.append((layout.prefix, blocks))
        placed.append(where)
    branches: dict[str, Batch] = {}
    for name in config.debias.needed:
        deaf, blind = BRANCHES[name]
        sequences = [
            _alone(model, rows[index], layout, own, features.timeline(index), deaf, blind)
            for index, layout, own in zip(chosen, layouts, offered, strict=True)
        ]
        branches[name] = _branch(model, sequences, layouts, config, tokens, deaf, blind)
    return pieces, Candidates.of(placed), branches


Scored = tuple[Piece, list[Piece], list[Placed]]


def _alone(
    model: AVQAModel,
    row: ClipRow,
    layout: Layout,
    offered: list[Options | None],
    timeline: int,
    deaf: bool,
    blind: bool,
) -> Scored:
    """One clip's questions with a part of the input alone."""
    prompt = model.prompt
    prefix, n_clues = clip_ids(model, timeline, deaf=deaf, blind=blind)
    if model.config.records:
        record = "" if deaf and blind else record_of(row, deaf=deaf, blind=blind)
        prefix = prefix + prompt.record(record)
    asked = [prompt.question(q.question, n_clues) for q in layout.asked]
    return only_scored(prompt, prefix, asked, offered)


def _branch(
    model: AVQAModel,
    sequences: list[Scored],
    layouts: list[Layout],
    config: ConnectConfig,
    tokens: tuple[TokenBatch, TokenBatch, Tensor],
    deaf: bool,
    blind: bool,
) -> Batch:
    sound, picture, seconds_B = tokens
    everywhere = torch.ones(len(layouts), dtype=torch.bool)
    words, asked = clue_words(model, layouts, config.questions)
    return Batch(
        sound=sound.without(everywhere & deaf),
        picture=picture.without(everywhere & blind),
        seconds_B=seconds_B,
        packed=pack([(prefix, blocks) for prefix, blocks, _ in sequences], pad_id=model.filling),
        words=words,
        asked=asked,
        events=[],
        slots=[],
        candidates=Candidates.of([placed for _, _, placed in sequences]),
    )
