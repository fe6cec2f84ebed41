"""Questions about clips that were read: their clues, and their prompts in even batches.

Legend: B questions, L tokens, C clues, E width of the language model, N tokens of a modality.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avqa_llm.bridge import ClipKeys
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import CLUE, Turn, spoken

WORDS = 16
"""Questions are padded to a multiple of this many tokens; only equally long ones share a batch."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions with their clues, ready for the language model."""

    clips: tuple[int, ...]
    """Which clip each of them is about."""
    prompts: tuple[list[int], ...]
    """Token ids of what comes after the clip, with `CLUE` in the places of clues."""
    soft_BCE: Tensor
    exists_BC: Tensor
    """Which clues exist: those of a missing modality do not."""
    sound_weights_BN: Tensor
    """The clues' attention to the clip's tokens."""
    picture_weights_BN: Tensor

    @classmethod
    def of(
        cls,
        model: AVQAModel,
        keys: ClipKeys,
        rows: Sequence[tuple[int, str]],
        history: Sequence[Turn] = (),
        *,
        histories: Sequence[Sequence[Turn]] | None = None,
    ) -> Questions:
        """(Clip number, question) pairs after one history, or each after its own of `histories`."""
        prompt, turns = model.prompt, histories or [history] * len(rows)
        words = [prompt.text(spoken(question)) for _, question in rows]
        n, clues, width = len(rows), model.config.bridge.clues, keys.sound_BQE.shape[2]
        soft = keys.sound_BQE.new_zeros(n, 2 * clues, width)
        exists = keys.sound[1].new_zeros(n, 2 * clues)
        heard, seen = (torch.zeros(n, part[0].shape[1]) for part in (keys.sound, keys.picture))
        for clips, numbers in _alike([clip for clip, _ in rows], words):
            some = keys.rows(torch.tensor(clips, device=model.device))
            soft[numbers], exists[numbers], found = model.clues(some, [words[i] for i in numbers])
            heard[numbers] = found.sound_weights_BN.float().cpu()
            seen[numbers] = found.picture_weights_BN.float().cpu()
        counts = exists.sum(1).tolist()
        prompts = [
            prompt.history(earlier) + prompt.question_ids(own, count, again=bool(earlier))
            for own, count, earlier in zip(words, counts, turns, strict=True)
        ]
        return cls(
            clips=tuple(clip for clip, _ in rows),
            prompts=tuple(prompts),
            soft_BCE=soft,
            exists_BC=exists,
            sound_weights_BN=heard,
            picture_weights_BN=seen,
        )

    def batches(self, most: int) -> Iterator[list[int]]:
        """Numbers of questions, at most so many at once; neighbours are about equally long."""
        lengths = [len(ids) for ids in self.prompts]
        by_length = sorted(range(len(lengths)), key=lambda n: (lengths[n], self.clips[n], n))
        for at in range(0, len(by_length), most):
            yield by_length[at : at + most]

    def place(self, model: AVQAModel, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Chosen prompts as embeddings (B, L, E) padded on the left, and what is there (B, L)."""
        longest = max(len(self.prompts[n]) for n in numbers)
        ids = torch.zeros(len(numbers), longest, dtype=torch.long)
        there = torch.zeros(len(numbers), longest, dtype=torch.bool)
        for row, n in enumerate(numbers):
            own = self.prompts[n]
            ids[row, longest - len(own) :] = torch.tensor(own)
            there[row, longest - len(own) :] = True
        clues = (self.soft_BCE[numbers], self.exists_BC[numbers])
        return model.place(ids, {CLUE: clues}), there.to(model.device)


def _alike(
    clips: Sequence[int], words: Sequence[Sequence[int]]
) -> Iterator[tuple[list[int], list[int]]]:
    """Clips with equally many questions of about the same length, and the numbers of these.

    The aggregator projects a clip's keys once for all its questions in a batch.
    """
    by_clip: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (clip, own) in enumerate(zip(clips, words, strict=True)):
        by_clip[-(-len(own) // WORDS), clip].append(number)
    alike: dict[tuple[int, int], list[tuple[int, list[int]]]] = defaultdict(list)
    for (length, clip), numbers in by_clip.items():
        alike[length, len(numbers)].append((clip, numbers))
    for found in alike.values():
        yield [clip for clip, _ in found], [n for _, numbers in found for n in numbers]
