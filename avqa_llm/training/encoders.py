"""The encoders of the embedded default, taught to tag what a scene's truth says.

The picture encoder learns which instrument stands in which column and whether it moves; the
sound encoder which instruments sound at each tenth of a second, how loud, how fast and from
where. Then the encoders are frozen. Of the heads, those that say which instruments sound, how loud
and how fast are kept beside the sound encoder (`avqa_llm.encoders.tags`), the others thrown away.

Legend: B clips, P moments, R rows, Q columns, T sound tokens, K instruments, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avqa_llm.encoders import PictureConfig, PictureEncoder, SoundConfig, SoundEncoder
from avqa_llm.encoders.sound import N_MELS, WINDOW_S
from avqa_llm.encoders.tags import TagHeads
from avqa_llm.labels import INSTRUMENT_LABELS
from avqa_llm.training.bandstand import (
    KINDS,
    SCALES,
    STEPS,
    picture_targets,
    read_shard,
    read_truth,
    shard_paths,
    sound_targets,
)
from avqa_llm.training.loop import INIT_STD, BatchAt, LoopConfig, fit, part_of, shuffled

N_KINDS = len(INSTRUMENT_LABELS)
TOKEN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class EncodersConfig:
    """Both encoders and what they learn from."""

    arrays: str
    """Folder of a Bandstand set with arrays, relative to the data folder."""
    picture: LoopConfig
    sound: LoopConfig
    hidden: int = 160
    layers: int = 4
    sound_layers: int = 0
    """Of the sound encoder, where it has other ones; 0: as `layers`."""
    heads: int = 5
    intermediate: int = 480
    compile: bool = False


PICTURE = PictureConfig(
    source="picture", height=72, width=128, grid=(3, 8), motion="stack", fps=1.0, pair_gap_s=0.2
)
SOUND = SoundConfig(source="sound", tokens_per_s=10.0)
PICTURE_SHAPE = {"image_size": (72, 128), "patch_size": (12, 16), "num_channels": 6}
SOUND_SHAPE = {"image_size": (N_MELS, 1000), "patch_size": (N_MELS, 10), "num_channels": 2}


class PictureTagger(nn.Module):
    """The picture encoder with its throw-away heads."""

    def __init__(self, config: EncodersConfig) -> None:
        super().__init__()
        self.picture = PictureEncoder(PICTURE, _vit(config, config.layers, PICTURE_SHAPE))
        self.picture.requires_grad_(True)
        self.kinds = nn.Linear(config.hidden, N_KINDS)
        self.moving = nn.Linear(config.hidden, 1)
        self.place = nn.Linear(config.hidden, 1)


class SoundTagger(nn.Module):
    """The sound encoder with its heads."""

    def __init__(self, config: EncodersConfig) -> None:
        super().__init__()
        layers = config.sound_layers or config.layers
        self.sound = SoundEncoder(SOUND, _vit(config, layers, SOUND_SHAPE))
        self.sound.requires_grad_(True)
        self.active = nn.Linear(config.hidden, N_KINDS + 1)
        self.several = nn.Linear(config.hidden, N_KINDS)
        self.facts = nn.Linear(config.hidden, 3 * N_KINDS)

    def heads(self) -> TagHeads:
        """Those that are kept, with their values in steps of the record."""
        weights, biases = [self.active.weight[:N_KINDS]], [self.active.bias[:N_KINDS]]
        values = zip(self.facts.weight.split(N_KINDS), self.facts.bias.split(N_KINDS), strict=True)
        for (_, unit), (weight, bias) in zip(SCALES.values(), values, strict=False):
            weights.append(weight * unit)
            biases.append(bias * unit + (STEPS - 1) / 2)
        return TagHeads(
            weight=torch.cat(weights).detach().cpu(),
            bias=torch.cat(biases).detach().cpu(),
            kinds=tuple(KINDS),
            scales=tuple(
                tuple(f"{letter}{n}" for n in range(STEPS)) for letter, _ in SCALES.values()
            ),
        )


def _vit(config: EncodersConfig, layers: int, shape: dict[str, Any]) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    sizes = ViTConfig(
        hidden_size=config.hidden,
        num_hidden_layers=layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=INIT_STD,
        attn_implementation="eager",
        **shape,
    )
    torch.manual_seed(0)
    return ViTModel(sizes, add_pooling_layer=False)


class PictureData:
    """Frame pairs of a Bandstand set, in memory; mirrored and in changed light at random."""

    def __init__(self, folder: Path) -> None:
        self.truth = read_truth(folder)
        paths = shard_paths(folder)
        self.pairs_NPCHW = torch.cat([read_shard(path, 0).pairs_NPCHW for path in paths])

    def __len__(self) -> int:
        return len(self.pairs_NPCHW)

    def batch(self, indices: list[int], rng: np.random.Generator) -> dict[str, Tensor]:
        """One moment of each clip."""
        rows = [self._moment(i, rng) for i in indices]
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def _moment(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        scene, moment = self.truth[index], int(rng.integers(self.pairs_NPCHW.shape[1]))
        pairs = self.pairs_NPCHW[index, moment : moment + 1]
        if rng.random() < 0.5:
            scene, pairs = mirrored(scene), pairs.flip(-1)
        light, contrast = rng.uniform(-18, 18), rng.uniform(0.85, 1.15)
        pairs = ((pairs.float() - 128) * contrast + 128 + light).clamp(0, 255)
        targets = picture_targets(scene, np.array([moment + 0.5]), PICTURE.grid[1])
        out = {"pairs": pairs, "place": torch.tensor(float(scene["place"] == "outdoor"))}
        return out | {key: torch.from_numpy(value) for key, value in targets.items()}


MIXED, MOST_HEARD = 0.35, 6
"""Share of clips to which another one is added, and players that may then be heard."""
EQUALISED, SHIFTED = 0.5, 0.3
"""Shares of clips whose spectrum is bent, and moved by one mel band."""


class SoundData:
    """Spectrograms of a Bandstand set, in memory, made into new ones at random.

    Sides exchanged, louder or softer, two clips at once, another room, another register: an
    encoder that hears each clip as it is learns the notes of its instruments by heart.
    """

    def __init__(self, folder: Path) -> None:
        from tqdm import tqdm

        self.truth = read_truth(folder)
        paths = tqdm(shard_paths(folder), desc="reading sound")
        self.mel_NCMF = torch.cat([read_shard(path, 0).mel_NCMF() for path in paths])

    def __len__(self) -> int:
        return len(self.mel_NCMF)

    def batch(self, indices: list[int], rng: np.random.Generator) -> dict[str, Tensor]:
        """Whole clips."""
        rows = [self._changed(i, rng) for i in indices]
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def _changed(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        row = self._clip(index, rng)
        if rng.random() < MIXED:
            other = int(rng.integers(len(self)))
            if self._heard(index) + self._heard(other) <= MOST_HEARD:
                row = mixed(row, self._clip(other, rng))
        mel_CMF = row["mel"]
        if rng.random() < EQUALISED:
            band = torch.linspace(0, np.pi, mel_CMF.shape[1])
            for k in (1, 2, 3):
                wave_M = torch.cos(k * band + rng.uniform(0, 6)) * rng.normal(0, 1.2)
                mel_CMF = mel_CMF + wave_M[:, None] / 40
        if rng.random() < SHIFTED:
            mel_CMF = mel_CMF.roll(int(rng.choice([-1, 1])), 1)
        return {**row, "mel": mel_CMF}

    def _heard(self, index: int) -> int:
        return sum(player["start_s"] is not None for player in self.truth[index]["players"])

    def _clip(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        scene, mel, gain_db = self.truth[index], self.mel_NCMF[index].float(), rng.uniform(-3, 3)
        if rng.random() < 0.5:
            scene, mel = mirrored(scene), mel.flip(0)
        targets = sound_targets(scene, (np.arange(round(WINDOW_S / TOKEN_S)) + 0.5) * TOKEN_S)
        targets["level"] += gain_db / 9
        out = {"mel": mel + gain_db / 40}  # log10 of power over 4: see log_mel
        return out | {key: torch.from_numpy(value) for key, value in targets.items()}


def mixed(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two clips at once: powers add up (phases are chance), and so do the players of a kind."""
    powers = (10 ** (4 * row["mel"] - 5) for row in (one, other))  # see log_mel
    active = one["active"] + other["active"]
    alone = active[:, :-1] == 1
    facts = {}
    for name in ("level", "rate", "pan"):
        either = torch.where(one[name].isnan(), other[name], one[name])
        facts[name] = torch.where(alone, either, torch.nan)
    return {"mel": (torch.log10(sum(powers)) + 5) / 4, "active": active, **facts}  # type: ignore[arg-type]


def mirrored(scene: dict[str, Any]) -> dict[str, Any]:
    """The scene with left and right exchanged."""
    players = [
        p | {"x": None if p["x"] is None else 1 - p["x"], "pan": -p["pan"]}
        for p in scene["players"]
    ]
    return scene | {"players": players}


def train_picture(config: EncodersConfig, *, data: Path, folder: Path, resume: bool) -> None:
    """Train the picture encoder; it is saved as `picture/` in `folder`."""
    torch.manual_seed(config.picture.seed)
    tagger, set_ = PictureTagger(config), PictureData(data / config.arrays)
    look: Any = tagger.picture.grid_PRQD
    look = torch.compile(look, dynamic=False) if config.compile else look

    def loss(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return picture_losses(tagger, look, batch)

    batch_at = _batches(set_, config.picture)
    fit("picture", tagger, batch_at, config.picture, folder=folder, resume=resume, loss=loss)
    tagger.picture.model.save_pretrained(folder / "picture")


def train_sound(config: EncodersConfig, *, data: Path, folder: Path, resume: bool) -> None:
    """Train the sound encoder; it is saved as `sound/` in `folder`."""
    torch.manual_seed(config.sound.seed)
    tagger, set_ = SoundTagger(config), SoundData(data / config.arrays)
    hear: Any = tagger.sound.model
    hear = torch.compile(hear, dynamic=False) if config.compile else hear

    def loss(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return sound_losses(tagger, hear, batch)

    batch_at = _batches(set_, config.sound)
    fit("sound", tagger, batch_at, config.sound, folder=folder, resume=resume, loss=loss)
    tagger.sound.model.save_pretrained(folder / "sound")
    tagger.heads().save(folder / "sound")


def _batches(set_: PictureData | SoundData, loop: LoopConfig) -> BatchAt:
    def batch_at(step: int, part: int, parts: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([loop.seed, step, part])
        chosen = shuffled(len(set_), batch=loop.batch, step=step, seed=loop.seed)
        return set_.batch(part_of(chosen, part, parts), rng)

    return batch_at


def picture_losses(tagger: PictureTagger, look: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What stands in each column, whether it moves, and indoor or outdoor."""
    grid_BPRQD = look(batch["pairs"].flatten(0, 1)).unflatten(0, batch["pairs"].shape[:2])
    kinds_BPQK = tagger.kinds(grid_BPRQD).float().logsumexp(2)
    known = batch["kinds"] >= 0
    kinds = functional.binary_cross_entropy_with_logits(kinds_BPQK[known], batch["kinds"][known])
    moving_BPQ = tagger.moving(grid_BPRQD).float().squeeze(-1).logsumexp(2)
    there = batch["moving"] >= 0
    moving = functional.binary_cross_entropy_with_logits(moving_BPQ[there], batch["moving"][there])
    place_B = tagger.place(grid_BPRQD.mean((1, 2, 3))).float().squeeze(-1)
    place = functional.binary_cross_entropy_with_logits(place_B, batch["place"])
    loss = 20 * kinds + moving + 0.5 * place
    return {"loss": loss, "kinds": kinds, "moving": moving, "place": place}


def sound_losses(tagger: SoundTagger, hear: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What sounds when, how many of a kind, how loud, how fast and from where."""
    tokens_BTD = hear(pixel_values=batch["mel"]).last_hidden_state[:, 1:]
    logits = tagger.active(tokens_BTD).float()
    active = functional.binary_cross_entropy_with_logits(logits, batch["active"].clamp(max=1))
    several = functional.binary_cross_entropy_with_logits(
        tagger.several(tokens_BTD).float(), (batch["active"][..., :-1] > 1).float()
    )
    facts = tagger.facts(tokens_BTD).float().unflatten(-1, (3, N_KINDS))
    losses = {"active": active, "several": several}
    for n, name in enumerate(("level", "rate", "pan")):
        known = ~batch[name].isnan()
        losses[name] = functional.smooth_l1_loss(
            facts[:, :, n][known], batch[name][known], beta=0.2
        )
    loss = 20 * active + 5 * several + 2.5 * (losses["level"] + losses["rate"]) + losses["pan"]
    return {"loss": loss, **losses}
