"""Left against right."""

from __future__ import annotations

import numpy as np

from avqa_llm.acoustics.power import power
from avqa_llm.media.sound import mix

SIDED = (2, 6, 8)
"""Numbers of channels in which left and right are known."""


def balance(sound_CS: np.ndarray) -> float | None:
    """Energy on the right less that on the left, as part of both: -1 to +1.

    None for silence, and where the channels have no sides. A source whose gains are cos(a) on the
    left and sin(a) on the right has -cos(2 a).
    """
    if len(sound_CS) not in SIDED:
        return None
    left, right = (power(channel_S) for channel_S in mix(sound_CS, 2))
    return (right - left) / (right + left) if left + right > 1e-12 else None
