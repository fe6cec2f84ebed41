"""The training stage of omni bases: rows and media files to batches, batches to a loss.

Each row is one clip with some of its questions, which share what the model reads of the clip.
Nothing but answers and the ends of their turns is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from avqa_llm.errors import AnnotationError, MediaError, RecipeError
from avqa_llm.llm import recompute_activations
from avqa_llm.media import Clip, read_clip
from avqa_llm.media.changes import changed, sampling_of
from avqa_llm.media.sampling import PerSecond
from avqa_llm.omni.batch import OmniBatch
from avqa_llm.omni.chat import Chat
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.model import OmniModel
from avqa_llm.training.find import find_media
from avqa_llm.training.loop import LoopConfig, part_of, shuffled
from avqa_llm.training.packing import IGNORE, Piece
from avqa_llm.training.rows import ClipRow, Question


@dataclass(frozen=True, kw_only=True)
class OmniTraining(OmniConfig):
    """A recipe's block `omni:`, the model and how it learns."""

    rows: str
    """Rows to learn from, as every stage reads them; the recipe's `media` holds their clips."""
    splits: tuple[str, ...] = ()
    """Rows of these splits only; needed where a file holds several."""
    questions: int = 4
    """Of a clip in one step, at most."""
    checkpointing: bool = True
    """Compute the decoder's activations again on the way back instead of keeping them."""
    loop: LoopConfig

    def __post_init__(self) -> None:
        """Raises RecipeError on values that cannot work."""
        super().__post_init__()
        if self.questions < 1:
            raise RecipeError(f"omni.questions is {self.questions}; it must be at least 1")

    def model(self) -> OmniConfig:
        """What the model keeps of it."""
        names = OmniConfig.__dataclass_fields__
        return OmniConfig(**{name: getattr(self, name) for name in names})


class OmniStage(nn.Module):
    """An omni model with its loss."""

    def __init__(self, model: OmniModel, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.model = model
        if checkpointing:
            recompute_activations(model.thinker.model.language_model)

    def train(self, mode: bool = True) -> OmniStage:
        """The towers stay in eval mode: they are frozen."""
        super().train(mode)
        inner = self.model.thinker.model
        for tower in (inner.audio_tower, inner.visual):
            tower.train(False)
        return self

    def forward(self, batch: OmniBatch) -> dict[str, Tensor]:
        """Mean next-token loss over the answers of a batch."""
        logits_MV, rows_M, places_M = self.model.logits(batch)
        labels_M = batch.packed.labels_BL[rows_M, places_M]
        return {"loss": nn.functional.cross_entropy(logits_MV, labels_M, ignore_index=IGNORE)}


class OmniBatches:
    """Gives the batch of each step; it depends on the step's number alone."""

    def __init__(
        self, rows: Sequence[ClipRow], media: Path, model: OmniModel, config: OmniTraining
    ) -> None:
        """Raises AnnotationError on rows without a question, or whose file is not in `media`."""
        self.rows, self.model, self.config = list(rows), model, config
        if not self.rows:
            raise AnnotationError("there are no rows to learn from")
        for row in self.rows:
            if not row.questions:
                raise AnnotationError(f"clip {row.video_id!r} has no question")
        self.files = find_media(self.rows, media)

    def __len__(self) -> int:
        return len(self.rows)

    def batch_at(self, step: int, part: int, parts: int) -> OmniBatch:
        """The part of a step's batch that one process, or one micro-batch, takes.

        Raises:
            MediaError: a file cannot be read, or holds neither of what its row asks about.
        """
        loop = self.config.loop
        chosen = shuffled(len(self.rows), batch=loop.batch, step=step, seed=loop.seed)
        places = part_of(list(enumerate(chosen)), part, parts)
        clips = [self.model.prepare(self.read(index)) for _, index in places]
        draws = [np.random.default_rng([loop.seed, step, place]) for place, _ in places]
        blocks = [
            question_pieces(self.model.chat, self._some(self.rows[index].questions, rng))
            for (_, index), rng in zip(places, draws, strict=True)
        ]
        return self.model.batch(clips, blocks)

    def _some(self, questions: Sequence[Question], rng: Any) -> list[Question]:
        chosen = rng.permutation(len(questions))[: self.config.questions]
        return [questions[n] for n in chosen]

    def read(self, index: int) -> Clip:
        """A row's clip, with what its cut does to it."""
        row = self.rows[index]
        clip = read_omni_clip(self.files[index], self.config, cut=row.cut)
        if not clip.has_sound and not clip.has_picture:
            raise MediaError(f"clip {row.video_id!r}: after its cut, nothing of it is left")
        return clip


def read_omni_clip(path: str | Path, config: OmniConfig, *, cut: Any = None, **how: Any) -> Clip:
    """Read a file with the frames that an omni model wants: at 0, 1 / fps, 2 / fps, ... seconds."""
    sampling = PerSecond(fps=config.fps, offset_s=0.0)
    if cut is None:
        return read_clip(path, sampling=sampling, **how)
    return changed(read_clip(path, sampling=sampling_of(cut, sampling), **how), cut)


def question_pieces(chat: Chat, questions: Sequence[Question]) -> list[Piece]:
    """Questions as blocks that go on from the clip; answers and their ends are learned."""
    return [
        Piece.of(chat.question(one.question, one.history), chat.answer(one.answer))
        for one in questions
    ]
