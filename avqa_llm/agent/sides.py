"""The sound that comes from one side: what of a stereo mix stands on the left, right or middle.

Each short stretch of each frequency is kept where the two channels share it out as for a sound
from that side, and dropped elsewhere: time-frequency masks by level difference, as in DUET
(Jourjine, Rickard and Yilmaz, ICASSP 2000), with fixed thirds in place of found peaks. It supposes
that sounds are mixed to where they are seen, as constant-power panning does; a mono sound is all
in the middle. Good for when things sound and how often, not for how loud they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from avqa_llm.errors import AgentError
from avqa_llm.media import Clip

EDGE = 0.22
"""Of the stereo place from -1 (left) to 1 (right): the middle ends there."""
WINDOW_S = 0.046


def from_side(clip: Clip, side: str) -> Clip:
    """The clip with the sound from `left`, `middle` or `right` alone, in one channel.

    Raises:
        AgentError: the sound has no two channels, or there is no such side.
    """
    if len(clip.sound_CS) != 2:
        raise AgentError(
            f"the sound has {len(clip.sound_CS)} channels, so it has no sides: measure it whole"
        )
    from scipy.signal import istft, stft

    window = 2 ** round(math.log2(WINDOW_S * clip.sound_rate_hz))
    how = {"fs": clip.sound_rate_hz, "nperseg": window, "noverlap": window * 3 // 4}
    _, _, left_FT = stft(clip.sound_CS[0], **how)
    _, _, right_FT = stft(clip.sound_CS[1], **how)
    place_FT = np.arctan2(np.abs(right_FT), np.abs(left_FT)) / (np.pi / 4) - 1
    _, sound_S = istft((left_FT + right_FT) * _inside(place_FT, side), **how)
    sound_CS = sound_S[None, : clip.sound_CS.shape[1]].astype(np.float32)
    return replace(clip, sound_CS=sound_CS, notes=(*clip.notes, f"only the sound from the {side}"))


def _inside(place_FT: np.ndarray, side: str) -> np.ndarray:
    if side == "left":
        return place_FT < -EDGE
    if side == "right":
        return place_FT > EDGE
    if side == "middle":
        return np.abs(place_FT) <= EDGE
    raise AgentError(f"there is no side {side!r}; choose left, middle, right")
