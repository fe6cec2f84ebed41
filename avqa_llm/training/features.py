"""Encoder tokens of a whole set, computed once and kept on disk.

Legend: N clips, T tokens, D features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from avqa_llm.encoders import PictureEncoder, SoundEncoder
from avqa_llm.encoders.picture import grid_tokens
from avqa_llm.encoders.sound import window_tokens
from avqa_llm.errors import CheckpointError
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.bandstand import read_shard, shard_paths


@dataclass(frozen=True, kw_only=True)
class Features:
    """Frozen features of clips of one length, float16, with the times and places of the tokens."""

    sound_NTD: Tensor
    picture_NTD: Tensor
    sound_times_T: Tensor
    picture_times_T: Tensor
    picture_places_T2: Tensor
    seconds: float

    def batch(self, clips: Sequence[int]) -> tuple[TokenBatch, TokenBatch]:
        """Sound and picture of some clips."""
        index = torch.tensor(clips)
        n, width = len(clips), self.sound_times_T.shape[0]
        nowhere = torch.zeros(n, width, 2)
        sound = _batch(self.sound_NTD[index], self.sound_times_T, nowhere)
        places = self.picture_places_T2.expand(n, -1, -1)
        return sound, _batch(self.picture_NTD[index], self.picture_times_T, places)


def _batch(values_NTD: Tensor, times_T: Tensor, places_NT2: Tensor) -> TokenBatch:
    n, width = values_NTD.shape[:2]
    return TokenBatch(
        values_BND=values_NTD.float(),
        times_BN=times_T.expand(n, -1),
        places_BN2=places_NT2,
        there_BN=torch.ones(n, width, dtype=torch.bool),
    )


@torch.no_grad()
def encode_arrays(
    folder: Path, out: Path, picture: PictureEncoder, sound: SoundEncoder, *, bf16: bool = True
) -> None:
    """Encode the array files of a set into one feature file each; those that exist stay."""
    from safetensors.torch import save_file
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    for path in tqdm(shard_paths(folder), desc="encoding"):
        target = out / path.name.replace("arrays", "features")
        if target.exists():
            continue
        shard = read_shard(path, 0)
        moments = shard.pairs_NPCHW.shape[1]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            grids = picture.grid_PRQD(shard.pairs_NPCHW.flatten(0, 1))
            heard = sound.model(pixel_values=shard.mel_NCMF().float()).last_hidden_state[:, 1:]
        tensors = {
            "picture": grids.float().unflatten(0, (-1, moments)).half().contiguous(),
            "sound": heard.half().contiguous(),
        }
        save_file(tensors, target.with_suffix(".writing"))
        os.replace(target.with_suffix(".writing"), target)


def load_features(folder: Path, *, seconds: float, pair_gap_s: float) -> Features:
    """All features of a set, in memory.

    Raises:
        CheckpointError: there are none.
    """
    from safetensors.torch import load_file

    paths = sorted(folder.glob("features-*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} holds no features-*.safetensors: encode the set first")
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
