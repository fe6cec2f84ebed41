"""Power of sound: mean squares, in one number or in blocks of 10 ms.

Shapes: C channels, S samples, N blocks.
"""

from __future__ import annotations

import math

import numpy as np

BLOCKS_HZ = 100
"""Power is looked at in blocks of 10 ms."""


def power(sound: np.ndarray) -> float:
    """Mean square of all samples, in double precision; 0.0 of none."""
    return float(np.square(sound, dtype=np.float64).mean()) if sound.size else 0.0


def decibels(ratio: float) -> float:
    """A ratio of powers in dB."""
    return 10 * math.log10(ratio)


def block_powers(sound_CS: np.ndarray, rate_hz: int) -> np.ndarray:
    """Mean square of all channels in blocks of 10 ms, (N,); a rest at the end is a block too."""
    samples = sound_CS.shape[1]
    if not samples:
        return np.zeros(0)
    power_S = np.einsum("cs,cs->s", sound_CS, sound_CS) / len(sound_CS)
    count = math.ceil(samples * BLOCKS_HZ / rate_hz)
    starts_N = np.floor(np.arange(count) * (rate_hz / BLOCKS_HZ)).astype(int)
    if rate_hz < BLOCKS_HZ:  # several blocks within one sample
        return power_S[starts_N]
    return np.add.reduceat(power_S, starts_N, dtype=np.float64) / np.diff(starts_N, append=samples)
