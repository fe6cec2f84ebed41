"""Preference pairs as batches: both answers to a question, and a clip's questions, in one sequence.

    prefix of the clip | question 1 | its chosen answer | its rejected one | question 2 | ...

Answers go on from their question and cannot see one another (`packing`). Of an answer its own
tokens and its end count; everything before is only read.

Legend: B clips, K blocks, P pairs, R questions for the clues (the standing one first), W their
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avqa_llm.errors import AnnotationError, RecipeError
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import Prompt, spoken
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.loop import part_of, shuffled
from avqa_llm.training.packing import Packed, Piece, pack

if TYPE_CHECKING:
    from avqa_llm.training.features import ClipFeatures
    from avqa_llm.training.pairs import PairRow
    from avqa_llm.training.prefer import PreferConfig


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """A part of a step: clips, and pairs of answers to questions about them."""

    sound: TokenBatch
    picture: TokenBatch
    seconds_B: Tensor
    packed: Packed
    words_RW: Tensor
    """Ids of what the clues are asked, R / B in a row for each clip."""
    words_there_RW: Tensor
    used_R: Tensor
    """False for the filling of clips with fewer questions than others."""
    clips_P: Tensor
    """The row of each pair; and the blocks of its two answers."""
    chosen_P: Tensor
    rejected_P: Tensor
    pairs_due: float
    """Pairs that this part would have, were the step's shared out evenly: what sums are divided
    by, so that the mean over parts is that of the step, however they are cut."""
    tokens_due: float
    """The same for the tokens of chosen answers."""

    def to(self, device: Any, **how: Any) -> PairBatch:
        """The same elsewhere."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if not isinstance(value, float):
                values[name] = value.to(device, **how)
        return PairBatch(**values)


class PairBatches:
    """Batches of pairs, from the number of a step alone. One pass takes every pair once."""

    def __init__(
        self,
        model: AVQAModel,
        pairs: Sequence[PairRow],
        features: ClipFeatures,
        config: PreferConfig,
        *,
        clips: Sequence[int] | None = None,
        records: Sequence[str] | None = None,
    ) -> None:
        """Group the pairs by clip.

        Args:
            model: whose prompt and lengths are used.
            pairs: in any order.
            features: of the clips.
            config: of the stage.
            clips: which clip of `features` each pair is about; absent: as `numbered` has it.
            records: the record of each clip of `features`, as the model would write it; only read
                where the model writes records (`ModelConfig.records`), and needed there.

        Raises:
            AnnotationError: no pairs; a pair whose answers are the same; fewer clips or records
                than the pairs are about.
        """
        self.model, self.pairs, self.features, self.config = model, pairs, features, config
        clips = numbered(pairs) if clips is None else clips
        _check(model, pairs, features, clips, records)
        self.records = records if records is not None and model.config.records else None
        by_clip: dict[tuple[int, bool, bool], list[int]] = {}
        for number, (pair, clip) in enumerate(zip(pairs, clips, strict=True)):
            by_clip.setdefault((clip, pair.cut.sound, pair.cut.picture), []).append(number)
        self.groups: list[tuple[int, list[int]]] = [
            (clip, own[at : at + config.pairs])
            for (clip, _, _), own in by_clip.items()
            for at in range(0, len(own), config.pairs)
        ]
        """Clips with the numbers of pairs that share their prefix."""

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> PairBatch:
        """One part of a step.

        Raises:
            RecipeError: the step has fewer clips than parts.
        """
        loop = self.config.loop
        drawn = shuffled(len(self.groups), batch=loop.batch, step=step, seed=loop.seed)
        if not (mine := part_of(drawn, part, parts)):
            raise RecipeError(f"prefer: a step of {loop.batch} clips cannot be cut in {parts}")
        pairs = [pair for number in drawn for pair in self.groups[number][1]]
        tokens = sum(len(_said(self.model.prompt, self.pairs[pair].chosen)) for pair in pairs)
        return self.batch(
            [self.groups[number] for number in mine],
            pairs_due=len(pairs) / parts,
            tokens_due=tokens / parts,
        )

    def batch(
        self, groups: Sequence[tuple[int, list[int]]], *, pairs_due: float, tokens_due: float
    ) -> PairBatch:
        """The batch of some of `groups`."""
        model, prompt = self.model, self.model.prompt
        sound, picture, seconds_B = self.features.batch([clip for clip, _ in groups])
        cuts = [self.pairs[own[0]].cut for _, own in groups]
        sound = sound.without(torch.tensor([not cut.sound for cut in cuts]))
        picture = picture.without(torch.tensor([not cut.picture for cut in cuts]))
        there_B2 = torch.stack([sound.there_BN.any(1), picture.there_BN.any(1)], dim=1).tolist()
        most = max(len(own) for _, own in groups)
        laid, words, used, places = [], [], [], []
        for row, (clip, own) in enumerate(groups):
            pairs = [self.pairs[pair] for pair in own]
            record = self.records[clip] if self.records else None
            seconds = int(seconds_B[row])
            laid.append(lay_out(model, pairs, seconds=seconds, there=there_B2[row], record=record))
            asked = [prompt.text(spoken(pair.question)) for pair in pairs]
            words += [prompt.events, *asked, *[prompt.events] * (most - len(own))]
            used += [True] * (1 + len(own)) + [False] * (most - len(own))
            places += [(row, 3 * n + 2, 3 * n + 3) for n in range(len(own))]
        words_RW, there_RW = _padded(words)
        clips_P, chosen_P, rejected_P = torch.tensor(places).T
        return PairBatch(
            sound=sound,
            picture=picture,
            seconds_B=seconds_B,
            packed=pack(laid, pad_id=model.filling),
            words_RW=words_RW,
            words_there_RW=there_RW,
            used_R=torch.tensor(used),
            clips_P=clips_P,
            chosen_P=chosen_P,
            rejected_P=rejected_P,
            pairs_due=pairs_due,
            tokens_due=tokens_due,
        )


def lay_out(
    model: AVQAModel,
    pairs: Sequence[PairRow],
    *,
    seconds: int,
    there: Sequence[bool],
    record: str | None = None,
) -> tuple[Piece, list[Piece]]:
    """A clip's prefix, and three blocks for each pair: question, chosen answer, rejected one.

    Args:
        model: for its prompt and the lengths of its soft tokens.
        pairs: about one clip.
        seconds: of its timeline.
        there: whether it has sound, and a picture.
        record: what the model wrote down of the clip; None: it does not write records.
    """
    prompt, shape, (heard, seen) = model.prompt, model.config.bridge, there
    n_clues = shape.clues * (heard + seen)
    counts = (shape.sound_per_second * heard, shape.picture_per_second * seen)
    head = prompt.clip(counts[0] * seconds, counts[1] * seconds, n_clues)
    prefix = Piece.of(head + ([] if record is None else prompt.record(record)), [])
    blocks: list[Piece] = []
    for pair in pairs:
        asked = prompt.question(pair.question, n_clues, again=bool(pair.history))
        # The mark before an answer is the question's: which answer follows, it cannot tell.
        given = prompt.history(pair.history) + asked + prompt.steps_end
        blocks.append(Piece.of(given, []))
        parent = len(blocks)
        answers = (pair.chosen, pair.rejected)
        blocks += [Piece.of([], _said(prompt, said), parent) for said in answers]
    return prefix, blocks


def numbered(pairs: Sequence[PairRow]) -> list[int]:
    """The number of each pair's clip, in the order in which clips are first named.

    A clip is a file (`media`, or `video_id` where it is absent) with what is done to it (`cut`).
    """
    numbers: dict[Any, int] = {}
    keys = [(pair.media or pair.video_id, pair.cut) for pair in pairs]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _said(prompt: Prompt, answer: str) -> list[int]:
    """An answer with its end, as it stands after the mark."""
    return prompt.answer("", answer)[len(prompt.steps_end) :]


def _padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids (R, W), and which of them are there."""
    longest = max(map(len, rows))
    ids_RW = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    there = [[True] * len(row) + [False] * (longest - len(row)) for row in rows]
    return ids_RW, torch.tensor(there)


def _check(
    model: AVQAModel,
    pairs: Sequence[PairRow],
    features: ClipFeatures,
    clips: Sequence[int],
    records: Sequence[str] | None,
) -> None:
    if not pairs or len(clips) != len(pairs):
        raise AnnotationError(f"{len(pairs)} preference pairs about {len(clips)} clips: see rows")
    if max(clips) >= len(features):
        raise AnnotationError(
            f"the pairs are about {max(clips) + 1} clips, features are there of {len(features)}:"
            " they must be of the same set"
        )
    for number, pair in enumerate(pairs):
        if _said(model.prompt, pair.chosen) == _said(model.prompt, pair.rejected):
            raise AnnotationError(
                f"pair {number} (about {pair.video_id}) prefers {pair.chosen!r} to the same text"
            )
    if model.config.records:
        known = 0 if records is None else len(records)
        if known <= max(clips):
            raise AnnotationError(
                f"this model writes a record before it answers, and {known} records are given for"
                f" {max(clips) + 1} clips: give all, or take a model with `records: false`"
            )
