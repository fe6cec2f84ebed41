"""Level in dBFS and loudness in LUFS.

Source: ITU-R BS.1770-4, annex 1 (K-weighting, channel weights, gates). It prints the filters for
48 kHz; the same responses at other rates follow from their analogue parameters by the bilinear
transform. On sines of known amplitude the result is within 0.05 dB.

Shapes: C channels, S samples, N blocks.
"""

from __future__ import annotations

import math

import numpy as np

from avqa_llm.acoustics.power import decibels, power

SLOWEST_RATE_HZ = 8000
"""Below it the shelf of the K-weighting lies too near to the highest frequency."""
BLOCK_S = 0.4
HOP_S = 0.1
ABSOLUTE_GATE = 10 ** ((-70 + 0.691) / 10)
"""-70 LUFS; what is quieter counts as silence, in a window too."""
RELATIVE_GATE = 0.1
SHELF = (1681.974450955533, 0.7071752369554196)
"""Corner in Hz and quality of the first filter, the head; its gain is the next."""
SHELF_DB = 3.999843853973347
HIGH_PASS = (38.13547087602444, 0.5003270373238773)
"""Corner in Hz and quality of the second filter."""
# Weights in the usual order FL FR FC LFE BL BR SL SR: low-frequency effects do not count, what
# comes from 60 to 120 degrees counts 1.5 dB more.
_SURROUND = {6: (1, 1, 1, 0, 1.41, 1.41), 8: (1, 1, 1, 0, 1, 1, 1.41, 1.41)}


def level_db(sound_CS: np.ndarray) -> float | None:
    """RMS over all channels in dBFS, where a square wave of full scale is 0; None for silence."""
    mean = power(sound_CS)
    return decibels(mean) if mean > 1e-12 else None


def k_weighting(rate_hz: int) -> np.ndarray:
    """Both filters as second-order sections, (2, 6)."""
    return np.array([_shelf(rate_hz), _high_pass(rate_hz)])


def _shelf(rate_hz: int) -> list[float]:
    corner, quality = SHELF
    k = math.tan(math.pi * corner / rate_hz)
    high = 10 ** (SHELF_DB / 20)
    middle = high**0.4996667741545416
    a0 = 1 + k / quality + k * k
    b = (high + middle * k / quality + k * k, 2 * (k * k - high))
    b2 = high - middle * k / quality + k * k
    return [b[0] / a0, b[1] / a0, b2 / a0, 1, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0]


def _high_pass(rate_hz: int) -> list[float]:
    corner, quality = HIGH_PASS
    k = math.tan(math.pi * corner / rate_hz)
    a0 = 1 + k / quality + k * k
    return [1, -2, 1, 1, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0]


def weighted_powers(sound_CS: np.ndarray, rate_hz: int) -> np.ndarray:
    """K-weighted power, all channels summed with their weights, in steps of 0.1 s: (N,).

    What is left over at the end, less than 0.1 s, is left out.
    """
    from scipy.signal import sosfilt

    hop = round(HOP_S * rate_hz)
    count = sound_CS.shape[1] // hop
    if not count:
        return np.zeros(0)
    weights = _SURROUND.get(len(sound_CS), (1,) * len(sound_CS))
    power_N = np.zeros(count)
    sections = k_weighting(rate_hz)
    for weight, channel_S in zip(weights, sound_CS, strict=True):
        if weight and count:
            heard_S = sosfilt(sections, channel_S[: count * hop].astype(np.float64))
            heard_NS = heard_S.reshape(count, hop)
            power_N += weight * np.einsum("ns,ns->n", heard_NS, heard_NS) / hop
    return power_N


def lufs(power_mean: float) -> float | None:
    """Loudness of a K-weighted power; None for silence."""
    return -0.691 + decibels(power_mean) if power_mean > ABSOLUTE_GATE else None


def gated(power_N: np.ndarray) -> float | None:
    """Gated loudness of a programme from its steps of 0.1 s; None where all lies below -70 LUFS.

    Blocks of 0.4 s with an overlap of 75 %: those above -70 LUFS, and of these the ones that are
    at most 10 LU below their own mean. Less than 0.4 s is one block.
    """
    width = min(round(BLOCK_S / HOP_S), len(power_N))
    block_N = np.convolve(power_N, np.full(width, 1 / width), "valid")
    block_N = block_N[block_N > ABSOLUTE_GATE]
    if not len(block_N):
        return None
    block_N = block_N[block_N > RELATIVE_GATE * block_N.mean()]
    return lufs(float(block_N.mean()))
