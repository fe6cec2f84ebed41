"""Encoder tokens of a whole set, computed once and kept on disk.

Legend: N clips, T tokens, D features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from avqa_llm.encoders import PictureEncoder, SoundEncoder, Tokens
from avqa_llm.encoders.cache import identity
from avqa_llm.encoders.picture import grid_tokens
from avqa_llm.encoders.sound import window_tokens
from avqa_llm.errors import CheckpointError
from avqa_llm.media.changes import Cut
from avqa_llm.model import ClipTokens
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.bandstand import read_shard, read_truth, shard_paths


class ClipFeatures(Protocol):
    """Encoder tokens of the clips of a set, by number."""

    def __len__(self) -> int: ...

    def clip(self, index: int) -> ClipTokens:
        """Tokens of one clip."""

    def timeline(self, index: int) -> int:
        """Its length in whole seconds, as `ClipTokens.timeline`."""

    def present(self, index: int) -> tuple[bool, bool]:
        """Whether it has sound, and a picture."""

    def batch(self, clips: Sequence[int]) -> tuple[TokenBatch, TokenBatch, Tensor]:
        """Sound and picture of some clips, and their timelines (B,)."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Frozen features of clips of one length, float16, with the times and places of the tokens."""

    sound_NTD: Tensor
    picture_NTD: Tensor
    sound_times_T: Tensor
    picture_times_T: Tensor
    picture_places_T2: Tensor
    seconds: float
    cuts: tuple[Cut, ...] = ()
    """Of each clip, whose modalities it may take away; empty: all clips have both."""

    def __len__(self) -> int:
        return len(self.sound_NTD)

    def clip(self, index: int) -> ClipTokens:
        """Tokens of one clip; a modality that its cut takes away has none."""
        nowhere = torch.zeros(len(self.sound_times_T), 2)
        sides = (
            (self.sound_NTD, self.sound_times_T, nowhere),
            (self.picture_NTD, self.picture_times_T, self.picture_places_T2),
        )
        sound, picture = (
            Tokens(
                values_ND=values[index].float(),
                times_N=times,
                places_N2=places,
                length_s=self.seconds / len(torch.unique(times)),
            )
            if there
            else Tokens.none(values.shape[-1])
            for (values, times, places), there in zip(sides, self.present(index), strict=True)
        )
        return ClipTokens(sound=sound, picture=picture, seconds=self.seconds)

    def chosen(self, clips: Sequence[int], cuts: Sequence[Cut] | None = None) -> Features:
        """Of some clips, in their order, each with its cut; without `cuts`: those they have."""
        if cuts is None:
            cuts = [self.cuts[clip] for clip in clips] if self.cuts else ()
        elif len(cuts) != len(clips):
            raise ValueError(f"{len(clips)} clips and {len(cuts)} cuts")
        if list(clips) == list(range(len(self))):
            return replace(self, cuts=tuple(cuts))
        index = torch.tensor(clips)
        return replace(
            self,
            sound_NTD=self.sound_NTD[index],
            picture_NTD=self.picture_NTD[index],
            cuts=tuple(cuts),
        )

    def timeline(self, index: int) -> int:
        """All are of one length."""
        return round(self.seconds)

    def present(self, index: int) -> tuple[bool, bool]:
        """Rendered clips have both, unless the cut takes one away."""
        cut = self.cuts[index] if self.cuts else Cut()
        return cut.sound, cut.picture

    def batch(self, clips: Sequence[int]) -> tuple[TokenBatch, TokenBatch, Tensor]:
        """Sound and picture of some clips, and their timelines (B,)."""
        index = torch.tensor(clips)
        n, width = len(clips), self.sound_times_T.shape[0]
        nowhere = torch.zeros(n, width, 2)
        sound = _batch(self.sound_NTD[index], self.sound_times_T, nowhere)
        places = self.picture_places_T2.expand(n, -1, -1)
        picture = _batch(self.picture_NTD[index], self.picture_times_T, places)
        gone_2B = ~torch.tensor([self.present(clip) for clip in clips]).T
        sound, picture = sound.without(gone_2B[0]), picture.without(gone_2B[1])
        return sound, picture, torch.full((n,), round(self.seconds))


def _batch(values_NTD: Tensor, times_T: Tensor, places_NT2: Tensor) -> TokenBatch:
    n, width = values_NTD.shape[:2]
    return TokenBatch(
        values_BND=values_NTD.float(),
        times_BN=times_T.expand(n, -1),
        places_BN2=places_NT2,
        there_BN=torch.ones(n, width, dtype=torch.bool),
    )


@torch.no_grad()
def encode_arrays(folder: Path, out: Path, picture: PictureEncoder, sound: SoundEncoder) -> None:
    """Encode the array files of a set into one feature file each; those that exist stay.

    In full precision, as in use. Each file says which encoders its features are of. When all
    clips are encoded, the array files are not needed any more.

    Raises:
        AnnotationError: there are no array files, nor features of all clips.
        CheckpointError: a file that exists is of other encoders.
    """
    from safetensors.torch import save_file
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    about = {"picture": identity(picture), "sound": identity(sound)}
    for path in sorted(out.glob("features-*.safetensors")):
        if _encoders_of(path) != about:
            raise _foreign(path)
    if _clips_in(out) == len(read_truth(folder)):
        return
    for path in tqdm(shard_paths(folder), desc="encoding"):
        target = out / path.name.replace("arrays", "features")
        if target.exists():
            continue
        shard = read_shard(path, 0)
        moments = shard.pairs_NPCHW.shape[1]
        grids = picture.grid_PRQD(shard.pairs_NPCHW.flatten(0, 1).to(picture.device))
        mel = shard.mel_NCMF().float().to(sound.device)
        heard = sound.model(pixel_values=mel).last_hidden_state[:, 1:]
        tensors = {
            "picture": grids.float().unflatten(0, (-1, moments)).half().cpu().contiguous(),
            "sound": heard.half().cpu().contiguous(),
        }
        save_file(tensors, target.with_suffix(".writing"), metadata=about)
        os.replace(target.with_suffix(".writing"), target)


def _clips_in(folder: Path) -> int:
    """How many clips the feature files of a folder hold."""
    from safetensors import safe_open

    found = 0
    for path in folder.glob("features-*.safetensors"):
        with safe_open(path, "pt") as file:
            found += file.get_slice("sound").get_shape()[0]
    return found


def _encoders_of(path: Path) -> dict[str, str]:
    """The identities of the encoders whose features a file holds; empty: it does not say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): remove {path.parent}, so that the set is encoded"
            " anew"
        ) from error
    return {side: about[side] for side in ("picture", "sound") if side in about}


def _foreign(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path.parent} holds features of other encoders than these, such as {path.name}, or does"
        f" not say of which: remove {path.parent}, so that the set is encoded anew"
    )


def load_features(folder: Path, *, seconds: float, pair_gap_s: float) -> Features:
    """All features of a set, in memory.

    Raises:
        CheckpointError: there are none, or they are of different encoders.
    """
    from safetensors.torch import load_file

    paths = sorted(folder.glob("features-*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} holds no features-*.safetensors: encode the set first")
    about = _encoders_of(paths[0])
    for path in paths:
        if len(about) < 2 or _encoders_of(path) != about:
            raise _foreign(path)
    shards = [load_file(path) for path in paths]
    picture = torch.cat([shard["picture"] for shard in shards])
    sound = torch.cat([shard["sound"] for shard in shards])
    centres = torch.arange(picture.shape[1]) + 0.5 + pair_gap_s / 2
    grid = grid_tokens(picture[0].float(), centres, length_s=1.0)
    heard = window_tokens(sound[:1].float(), seconds, seconds)
    return Features(
        sound_NTD=sound,
        picture_NTD=picture.flatten(1, 3),
        sound_times_T=heard.times_N,
        picture_times_T=grid.times_N,
        picture_places_T2=grid.places_N2,
        seconds=seconds,
    )
