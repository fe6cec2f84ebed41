"""A clip as an omni model takes it: patches of frames and a spectrogram, without torchvision.

The video processors of transformers need torchvision. Frames need nothing of it: they are resized
and normalised one by one, as the image processor does, and two of them make one patch in time.

Legend: T frames, H height, W width, C colours, P patches, D numbers of a patch, M mel bands,
F frames of the spectrogram.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.media import Clip
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.families import Family

RATE_HZ = 16000
SHORTEST = RATE_HZ // 10
"""Samples; a shorter sound is followed by silence, for it would not make one token."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The sound of a clip."""

    mel_MF: Tensor | None = None
    n: int = 0
    """Tokens that the model has to make of it, by our own count."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The picture of a clip."""

    patches_PD: Tensor | None = None
    grid: tuple[int, int, int] = (0, 0, 0)
    """Patches in time, down and across."""
    step_s: float = 0.0
    """Seconds from one patch in time to the next."""
    n: int = 0
    """Tokens that the model has to make of it, by our own count."""


@dataclass(frozen=True, kw_only=True)
class OmniClip:
    """A prepared clip."""

    sound: Heard
    picture: Seen
    seconds: float


class Preparation:
    """Turns clips into `OmniClip`s for one base."""

    def __init__(
        self, config: OmniConfig, family: Family, thinker: Any, settings: dict[str, Any]
    ) -> None:
        """`thinker` is the base's configuration, `settings` its preprocessor_config.json.

        Raises:
            CheckpointError: the settings lack a key, or are for another model.
        """
        from transformers import WhisperFeatureExtractor

        vision = thinker.vision_config
        self.config, self.family, self.thinker = config, family, thinker
        self.patch, self.merge = int(vision.patch_size), int(vision.spatial_merge_size)
        self.depth = int(vision.temporal_patch_size)
        own_values = {"patch_size": self.patch, "merge_size": self.merge, "sampling_rate": RATE_HZ}
        for key, own in own_values.items():
            if settings.get(key, own) != own:
                raise CheckpointError(
                    f"{config.base}: {key} is {settings[key]} in its preprocessor's settings and"
                    f" {own} here"
                )
        try:
            self.mean = np.array(settings["image_mean"], np.float32)
            self.std = np.array(settings["image_std"], np.float32)
            keys = ("feature_size", "hop_length", "n_fft", "chunk_length")
            self.extractor = WhisperFeatureExtractor(**{key: settings[key] for key in keys})
        except KeyError as error:
            raise CheckpointError(
                f"{config.base}: its preprocessor's settings lack {error}: how sound and picture"
                " are prepared would be a guess"
            ) from error
        if self.extractor.feature_size != thinker.audio_config.num_mel_bins:
            raise CheckpointError(
                f"{config.base}: spectrograms of {self.extractor.feature_size} bands for a model of"
                f" {thinker.audio_config.num_mel_bins}"
            )

    def __call__(self, clip: Clip) -> OmniClip:
        """Prepare a clip.

        Raises:
            AVQAError: it has neither sound nor picture.
        """
        if not clip.has_sound and not clip.has_picture:
            raise AVQAError(f"{clip.path} has neither sound nor picture: there is nothing to ask")
        return OmniClip(
            sound=self.hear(clip) if clip.has_sound else Heard(),
            picture=self.see(clip) if clip.has_picture else Seen(),
            seconds=clip.duration_s,
        )

    def hear(self, clip: Clip) -> Heard:
        """Log-mel spectrogram (Radford et al. 2023, section 2.2) of the first `max_audio_s`."""
        sound_S = clip.sound_at(RATE_HZ, channels=1)[0]
        sound_S = sound_S[: round(self.config.max_audio_s * RATE_HZ)]
        sound_S = np.pad(sound_S, (0, max(0, SHORTEST - len(sound_S))))
        frames = -(-len(sound_S) // self.extractor.hop_length)
        if self.family.pads_sound:  # a frame looks half a window ahead, not further
            sound_S = np.pad(sound_S, (0, self.extractor.n_fft))
        found = self.extractor(
            sound_S, sampling_rate=RATE_HZ, padding=False, truncation=False, return_tensors="np"
        )
        mel_MF = torch.from_numpy(found["input_features"][0])[:, :frames]
        n = self.family.sound_tokens(mel_MF.shape[1], self.thinker)
        return Heard(mel_MF=mel_MF.contiguous(), n=n)

    def see(self, clip: Clip) -> Seen:
        """Patches of frames; of too many frames some are taken, evenly."""
        chosen = np.arange(len(clip.frames_THWC))
        if len(chosen) > self.config.max_frames:
            chosen = np.linspace(0, len(chosen) - 1, self.config.max_frames).round().astype(int)
        times_s = clip.frame_times_s[chosen]
        between_s = 1 / self.config.fps
        if len(times_s) > 1:
            between_s = float(times_s[-1] - times_s[0]) / (len(times_s) - 1)
        pixels_TCHW = np.stack([self._pixels(frame) for frame in clip.frames_THWC[chosen]])
        patches_PD, grid = patchify(pixels_TCHW, self.depth, self.patch, self.merge)
        return Seen(
            patches_PD=torch.from_numpy(patches_PD),
            grid=grid,
            step_s=between_s * self.depth,
            n=math.prod(grid) // self.merge**2,
        )

    def _pixels(self, frame_HWC: np.ndarray) -> np.ndarray:
        """One frame (C, H, W), resized by PIL and normalised."""
        from PIL import Image

        height, width = fitted(
            *frame_HWC.shape[:2],
            unit=self.patch * self.merge,
            least=self.config.min_pixels,
            most=self.config.max_pixels,
        )
        image = Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.BICUBIC)
        scaled = np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
        return ((scaled - self.mean) / self.std).transpose(2, 0, 1)


def fitted(height: int, width: int, *, unit: int, least: int, most: int) -> tuple[int, int]:
    """The size nearest to a frame's whose sides are multiples of `unit`, within a pixel budget.

    The shape is kept as far as multiples allow. A budget below one unit gives one unit.
    """
    down, across = round(height / unit), round(width / unit)
    area = down * across * unit * unit
    if area > most:
        shrink = math.sqrt(most / (height * width)) / unit
        down, across = math.floor(height * shrink), math.floor(width * shrink)
    elif area < least:
        grow = math.sqrt(least / (height * width)) / unit
        down, across = math.ceil(height * grow), math.ceil(width * grow)
    return max(1, down) * unit, max(1, across) * unit


def patchify(
    pixels_TCHW: np.ndarray, depth: int, size: int, merge: int
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Patches (P, D) of `depth` frames and `size` x `size` pixels, and their grid.

    Patches that become one token (`merge` x `merge` of them) lie one after the other; the last
    frame is repeated where frames are missing.
    """
    missing = -len(pixels_TCHW) % depth
    pixels = np.concatenate([pixels_TCHW, np.repeat(pixels_TCHW[-1:], missing, axis=0)])
    frames, colours, height, width = pixels.shape
    grid = frames // depth, height // size, width // size
    shape = (grid[0], depth, colours, grid[1] // merge, merge, size, grid[2] // merge, merge, size)
    # time | rows and columns of tokens | of patches in a token | colour, time, rows, columns
    split = pixels.reshape(shape).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return split.reshape(math.prod(grid), -1).astype(np.float32, copy=False), grid


def read_settings(source: str, revision: str | None) -> dict[str, Any]:
    """What a base says about its preparation: preprocessor_config.json, or what replaced it.

    Raises:
        CheckpointError: it says nothing, or it is no JSON.
    """
    from transformers.utils import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(
            source, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if path is None:
            continue
        try:
            row = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is no JSON: {error}") from error
        parts = [row.get(key) or {} for key in ("image_processor", "feature_extractor")]
        settings = {**row, **parts[0], **parts[1]}
        if "image_mean" in settings:
            return settings
    raise CheckpointError(
        f"{source} has no preprocessor_config.json: how sound and picture are prepared would be a"
        " guess"
    )
