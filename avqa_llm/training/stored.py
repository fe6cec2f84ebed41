"""Encoder tokens of the clips of some rows, out of a feature store: nothing is decoded.

Legend: B clips, N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avqa_llm.encoders import Tokens
from avqa_llm.encoders.store import FeatureStore, Place
from avqa_llm.encoders.store_info import command
from avqa_llm.errors import CheckpointError
from avqa_llm.media.changes import Cut
from avqa_llm.model import ClipTokens
from avqa_llm.tokenbatch import TokenBatch

NAMED = 5
"""Missing clips that the error names."""


class StoredFeatures:
    """`ClipFeatures` of files by name; read from disk when they are asked for."""

    def __init__(
        self, store: FeatureStore, names: Sequence[str], cuts: Sequence[Cut] | None = None
    ) -> None:
        """`names`: below the media folder, one for each clip; `cuts`: what is done to each.

        Raises:
            CheckpointError: the store lacks some of them, as these cuts want them.
        """
        cuts = [Cut()] * len(names) if cuts is None else cuts
        if len(cuts) != len(names):
            raise ValueError(f"{len(names)} names and {len(cuts)} cuts")
        found = [store.find(*wanted) for wanted in zip(names, cuts, strict=True)]
        missing = [n for n, place in enumerate(found) if place is None]
        if missing:
            shown = ", ".join(_called(names[n], cuts[n]) for n in missing[:NAMED])
            more = ", …" if len(missing) > NAMED else ""
            rows = " --rows ROWS.jsonl" if any(_turned(cuts[n]) for n in missing) else ""
            raise CheckpointError(
                f"{store.folder} lacks {len(missing)} of {len(names)} clips ({shown}{more}):"
                f" {command(store.folder).removesuffix('`')}{rows}`"
            )
        self.store, self.cuts = store, list(cuts)
        self.places: list[Place] = [place for place in found if place is not None]

    def __len__(self) -> int:
        """Clips."""
        return len(self.places)

    def clip(self, index: int) -> ClipTokens:
        """Tokens of one clip; a modality that the cut takes away has none.

        Raises:
            CheckpointError: the shard is gone or damaged.
        """
        picture, sound = self.store.read(self.places[index])
        wanted, info = self.cuts[index], self.store.info
        return ClipTokens(
            sound=sound if wanted.sound else Tokens.none(info.sound.width),
            picture=picture if wanted.picture else Tokens.none(info.picture.width),
            seconds=self.seconds(index),
        )

    def seconds(self, index: int) -> float:
        """Length of a clip; reads nothing."""
        return self.places[index].entry.seconds

    def timeline(self, index: int) -> int:
        """Its length in whole seconds, as `ClipTokens.timeline`; reads nothing."""
        none = Tokens.none(1)
        return ClipTokens(sound=none, picture=none, seconds=self.seconds(index)).timeline

    def present(self, index: int) -> tuple[bool, bool]:
        """Whether it has sound, and a picture; reads nothing."""
        entry, cut = self.places[index].entry, self.cuts[index]
        return cut.sound and entry.sound_tokens > 0, cut.picture and entry.picture_tokens > 0

    def batch(self, clips: Sequence[int]) -> tuple[TokenBatch, TokenBatch, Tensor]:
        """Sound and picture of some clips, and their timelines (B,)."""
        rows = [self.clip(index) for index in clips]
        return (
            TokenBatch.of([row.sound for row in rows]),
            TokenBatch.of([row.picture for row in rows]),
            torch.tensor([row.timeline for row in rows]),
        )


def _turned(cut: Cut) -> bool:
    return cut.is_part or cut.mirrored or cut.reversed


def _called(name: str, cut: Cut) -> str:
    if not _turned(cut):
        return name
    part = f" {cut.start_s or 0:g}–{'end' if cut.end_s is None else f'{cut.end_s:g} s'}"
    words = [part.strip()] if cut.is_part else []
    words += [word for word in ("mirrored", "reversed") if getattr(cut, word)]
    return f"{name} {' '.join(words)}"
