"""A batch for an omni model: packed texts whose prefixes are clips.

Each row is one clip with some texts that go on from it (`avqa_llm.training.packing`), so sound
and picture are read once for all questions about them.

Legend: B clips, L tokens, E width, P patches, D numbers of a patch, S clips with sound, V clips
with picture, M mel bands, F frames of a spectrogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avqa_llm.omni.inputs import OmniClip
from avqa_llm.training.packing import Packed


@dataclass(frozen=True, kw_only=True)
class OmniBatch:
    """Tensors of a batch; None where no clip has that modality."""

    packed: Packed
    positions_3BL: Tensor
    """float32: time, height and width of each token (TMRoPE)."""
    sounds_B: Tensor
    """Sound tokens of each clip by our own count."""
    pictures_B: Tensor
    mel_SMF: Tensor | None = None
    heard_SF: Tensor | None = None
    """1 where a spectrogram has a frame, 0 in its padding."""
    patches_PD: Tensor | None = None
    grid_V3: Tensor | None = None

    def to(self, device: Any, **how: Any) -> OmniBatch:
        """The same elsewhere."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device, **how) for k, v in values.items() if v is not None}
        return replace(self, **moved)


def collate(packed: Packed, positions: Sequence[Tensor], clips: Sequence[OmniClip]) -> OmniBatch:
    """Put clips beside their packed texts.

    Args:
        packed: one row a clip.
        positions: of each clip's prefix, (3, its tokens).
        clips: in the same order.
    """
    patches = [c.picture.patches_PD for c in clips if c.picture.patches_PD is not None]
    grids = [c.picture.grid for c in clips if c.picture.patches_PD is not None]
    mel_SMF, heard_SF = _padded([c.sound.mel_MF for c in clips if c.sound.mel_MF is not None])
    return OmniBatch(
        packed=packed,
        positions_3BL=_positions(packed, positions),
        sounds_B=torch.tensor([clip.sound.n for clip in clips]),
        pictures_B=torch.tensor([clip.picture.n for clip in clips]),
        mel_SMF=mel_SMF,
        heard_SF=heard_SF,
        patches_PD=torch.cat(patches) if patches else None,
        grid_V3=torch.tensor(grids) if grids else None,
    )


def _padded(mels: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    if not mels:
        return None, None
    longest = max(mel.shape[1] for mel in mels)
    mel_SMF = torch.stack([torch.nn.functional.pad(m, (0, longest - m.shape[1])) for m in mels])
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    return mel_SMF, (torch.arange(longest) < lengths[:, None]).long()


def _positions(packed: Packed, prefixes: Sequence[Tensor]) -> Tensor:
    """Positions of the prefix as the model gives them, and later tokens after the largest."""
    positions_3BL = packed.positions_BL.float().expand(3, -1, -1).clone()
    for n, prefix_3L in enumerate(prefixes):
        length = prefix_3L.shape[1]
        positions_3BL[:, n, length:] += float(prefix_3L.max()) + 1 - length
        positions_3BL[:, n, :length] = prefix_3L
    return positions_3BL


def picture_times(clip: OmniClip, merge: int, rate: float) -> np.ndarray:
    """Times (n,) of picture tokens, in positions of which there are `rate` a second."""
    steps, down, across = clip.picture.grid
    times = np.arange(steps, dtype=np.float32) * np.float32(clip.picture.step_s) * np.float32(rate)
    return np.repeat(times, down * across // merge**2)
