"""Frozen picture encoders: a Hugging Face vision transformer, one token grid per moment.

A family says how frames are normalised where the checkpoint does not, and whether position
embeddings follow the size of the picture by themselves. Prefix tokens (class, registers) are
dropped: they come first in every family here.

Legend: P moments (frame pairs), R rows and Q columns of the token grid, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avqa_llm.encoders.frozen import FrozenEncoder
from avqa_llm.encoders.tokens import Tokens
from avqa_llm.errors import CheckpointError
from avqa_llm.media import Clip, PerSecond

MOTIONS = ("none", "stack", "difference")


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How frames are prepared and which tokens come out."""

    source: str
    """Directory or hub name of the vision model."""
    revision: str | None = None
    """Of a hub name: a commit, so that the weights cannot change behind one's back."""
    height: int | None = None
    """Pixels; None: as the checkpoint says."""
    width: int | None = None
    """Pixels; None: as the checkpoint says."""
    mean: tuple[float, float, float] | None = None
    """Of normalisation, colours in 0..1; None: as the checkpoint says."""
    std: tuple[float, float, float] | None = None
    """Of normalisation; None: as the checkpoint says."""
    grid: tuple[int, int] = (7, 7)
    """Rows and columns of the token grid; the encoder's own grid is averaged down to it."""
    fps: float = 1.0
    """Moments a second."""
    pair_gap_s: float = 0.2
    """Distance of the two frames of a moment."""
    motion: str = "difference"
    """`none`: one frame a moment. `stack`: the first frame and, four times enlarged, how the
    pixels change to the second, as six channels (needs an encoder trained so).
    `difference`: features of the first frame, and how they change to the second."""

    def __post_init__(self) -> None:
        if self.motion not in MOTIONS:
            raise CheckpointError(f"motion {self.motion!r}: choose one of {', '.join(MOTIONS)}")

    def sampling(self) -> PerSecond:
        """Frames to read from a file."""
        gap = None if self.motion == "none" else self.pair_gap_s
        return PerSecond(fps=self.fps, pair_gap_s=gap)


Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class PictureFamily:
    """What one kind of vision model needs."""

    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)
    resizes_itself: bool = False
    """Positions are interpolated without being asked."""
    in_patches: bool = False
    """Wants its pixels as a list of patches with the shape of their grid (NaFlex)."""


_IMAGENET = PictureFamily(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resizes_itself=True
)

PICTURE_FAMILIES: dict[str, PictureFamily] = {
    "vit": PictureFamily(),
    "clip_vision_model": PictureFamily(
        mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
    ),
    # SigLIP 2 with a fixed resolution is of this kind too; only its NaFlex variant is not.
    "siglip_vision_model": PictureFamily(),
    "siglip2_vision_model": PictureFamily(resizes_itself=True, in_patches=True),
    "dinov2": _IMAGENET,
    "dinov2_with_registers": _IMAGENET,
    "dinov3_vit": _IMAGENET,
}


class PictureEncoder(FrozenEncoder):
    """A frozen vision model with its preparation.

    Raises:
        CheckpointError: the model is of no known family, or cannot work with the size, the
            grid or the motion of `config`.
    """

    config: PictureConfig

    def __init__(self, config: PictureConfig, model: Any) -> None:
        super().__init__(config, model)
        kind = model.config.model_type
        if kind not in PICTURE_FAMILIES:
            known = ", ".join(PICTURE_FAMILIES)
            raise CheckpointError(
                f"{config.source} is a {kind!r} model; picture encoders are {known}"
            )
        family = PICTURE_FAMILIES[kind]
        trained = _trained_size(model.config)
        self.size = (config.height or trained[0], config.width or trained[1])
        """Height and width of the pixels that the model sees."""
        self.patches = patch_grid(model, self.size)
        self.mean, self.std = config.mean or family.mean, config.std or family.std
        # Asked for only where it is needed: it would change nothing else but costs time.
        resize = self.size != trained and not family.resizes_itself
        self._how = {"interpolate_pos_encoding": True} if resize else {}
        self._in_patches = family.in_patches
        self._check(trained)

    def _check(self, trained: tuple[int, int]) -> None:
        config, source = self.config, self.config.source
        if self.size != trained and trained[0] != trained[1]:
            raise CheckpointError(
                f"{source}: height and width {self.size} need other positions than the {trained} "
                "it was trained with, and only square ones can be interpolated; leave both out"
            )
        rows, columns = self.patches
        if config.grid[0] > rows or config.grid[1] > columns:
            raise CheckpointError(
                f"{source}: grid {config.grid} is finer than its {rows} x {columns} patches at "
                f"{self.size[0]} x {self.size[1]} pixels; choose a coarser grid or more pixels"
            )
        wanted, channels = 6 if config.motion == "stack" else 3, self.model.config.num_channels
        if channels != wanted:
            raise CheckpointError(
                f"{source} sees {channels} channels and motion {config.motion!r} gives {wanted}; "
                f"use {'stack' if channels == 6 else 'none or difference'}"
            )

    @property
    def width(self) -> int:
        """Features of a token."""
        hidden = int(self.model.config.hidden_size)
        return 2 * hidden if self.config.motion == "difference" else hidden

    def preparation(self) -> dict[str, Any]:
        """With the values that `config` leaves to the checkpoint."""
        size = {"height": self.size[0], "width": self.size[1]}
        return super().preparation() | size | {"mean": self.mean, "std": self.std}

    def forward(self, clip: Clip, batch: int = 32) -> Tokens:
        """Encode the frames that were read with `config.sampling()`."""
        return self.many([clip], batch)[0]

    @torch.no_grad()
    def many(self, clips: Sequence[Clip], batch: int = 32) -> list[Tokens]:
        """The same for several clips, whose frames share batches."""
        found = [Tokens.none(self.width) for _ in clips]
        there = [n for n, clip in enumerate(clips) if clip.has_picture]
        if not there:
            return found
        moments = [self._moments(clips[n]) for n in there]
        device, frames_PCHW = self.device, torch.cat([frames for frames, _ in moments])
        parts = [self.grid_PRQD(part.to(device)).float() for part in frames_PCHW.split(batch)]
        grids = torch.cat(parts).cpu().split([len(times) for _, times in moments])
        for n, grid, (_, times) in zip(there, grids, moments, strict=True):
            found[n] = grid_tokens(grid, times, length_s=1 / self.config.fps)
        return found

    def _moments(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """Frames (C=3) or frame pairs (C=6) of a clip (P, C, H, W), and their times (P,)."""
        frames_THWC = fit_frames(clip.frames_THWC, *self.size)
        frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
        times = torch.from_numpy(clip.frame_times_s).float()
        if self.config.motion != "none":
            if len(frames_TCHW) % 2:  # a still image, or one frame alone: nothing moves
                frames_TCHW = torch.cat([frames_TCHW, frames_TCHW[-1:]])
                times = torch.cat([times, times[-1:]])
            frames_TCHW = frames_TCHW.unflatten(0, (-1, 2)).flatten(1, 2)
            times = times.unflatten(0, (-1, 2)).mean(1)
        return frames_TCHW, times

    def grid_PRQD(self, frames_PCHW: Tensor) -> Tensor:
        """Token grids of frames (C=3) or frame pairs (C=6), uint8; differentiable."""
        pixels = self.normalise(frames_PCHW)
        if self.config.motion == "difference":
            first, second = self._grid(pixels[:, :3]), self._grid(pixels[:, 3:])
            return torch.cat([first, second - first], dim=-1)
        return self._grid(pixels)

    def normalise(self, frames_PCHW: Tensor) -> Tensor:
        """Bytes to what the model was trained on."""
        repeat = frames_PCHW.shape[1] // 3
        device = frames_PCHW.device
        mean = torch.tensor(self.mean * repeat, device=device).view(1, -1, 1, 1)
        std = torch.tensor(self.std * repeat, device=device).view(1, -1, 1, 1)
        pixels = (frames_PCHW.float() / 255 - mean) / std
        if self.config.motion == "stack":
            pixels = torch.cat([pixels[:, :3], 4 * (pixels[:, 3:] - pixels[:, :3])], dim=1)
        return pixels

    def _grid(self, pixels_PCHW: Tensor) -> Tensor:
        given = self._patches(pixels_PCHW) if self._in_patches else {"pixel_values": pixels_PCHW}
        hidden_PND = self.model(**given, **self._how).last_hidden_state
        rows, columns = self.patches
        patches = hidden_PND[:, hidden_PND.shape[1] - rows * columns :]
        grid_PDRQ = patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        if (rows, columns) != self.config.grid:
            grid_PDRQ = nn.functional.adaptive_avg_pool2d(grid_PDRQ, self.config.grid)
        return grid_PDRQ.permute(0, 2, 3, 1)

    def _patches(self, pixels_PCHW: Tensor) -> dict[str, Tensor]:
        """Row after row of patches, each with its pixels row after row, colours innermost.

        As NaFlex was trained (Tschannen et al. 2025, SigLIP 2, section 2.4), but for the size:
        all frames have one, so there is no padding.
        """
        (rows, columns), (high, wide) = self.patches, _pair(self.model.config.patch_size)
        whole = pixels_PCHW[:, :, : rows * high, : columns * wide]
        cut = whole.unflatten(3, (columns, wide)).unflatten(2, (rows, high))
        patches_PNF = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        shape = torch.tensor([[rows, columns]], device=pixels_PCHW.device)
        return {
            "pixel_values": patches_PNF,
            "pixel_attention_mask": torch.ones_like(patches_PNF[..., 0], dtype=torch.long),
            "spatial_shapes": shape.expand(len(patches_PNF), 2),
        }


def grid_tokens(grid_PRQD: Tensor, times_P: Tensor, *, length_s: float) -> Tokens:
    """A grid per moment as one list of tokens with time and place."""
    moments, rows, columns, width = grid_PRQD.shape
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(columns) + 0.5) / columns
    places_RQ2 = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
    return Tokens(
        values_ND=grid_PRQD.reshape(-1, width),
        times_N=times_P.repeat_interleave(rows * columns),
        places_N2=places_RQ2.reshape(-1, 2).repeat(moments, 1),
        length_s=length_s,
    )


def patch_grid(model: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the encoder's own patches; pixels beyond the last whole one are cut."""
    high, wide = _pair(model.config.patch_size)
    return size[0] // high, size[1] // wide


def fit_frames(frames_THWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale frames into a box; what is left over stays black, so that nothing is distorted."""
    import cv2

    old_height, old_width = frames_THWC.shape[1:3]
    if (old_height, old_width) == (height, width):
        return np.ascontiguousarray(frames_THWC)
    scale = min(height / old_height, width / old_width)
    size = (max(1, round(old_width * scale)), max(1, round(old_height * scale)))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    fitted = np.zeros((len(frames_THWC), height, width, 3), np.uint8)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    for frame, place in zip(frames_THWC, fitted, strict=True):
        small = cv2.resize(frame, size, interpolation=method)
        place[top : top + size[1], left : left + size[0]] = small
    return fitted


def _trained_size(config: Any) -> tuple[int, int]:
    """Height and width that the model was trained with; of NaFlex: its square."""
    if hasattr(config, "image_size"):
        return _pair(config.image_size)
    side = math.isqrt(config.num_patches)
    high, wide = _pair(config.patch_size)
    return side * high, side * wide


def _pair(value: Any) -> tuple[int, int]:
    """Height and width, which a configuration may give as one number."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
