"""Spectra every 10 ms: what onsets and brightness are made from.

Shapes: S samples, T frames 10 ms apart, W samples of a frame, F frequencies, B bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FRAMES_HZ = 100
FRAME_S = 0.0215
"""Frames are the power of two nearest to this: 1024 samples at 44.1 and 48 kHz."""
LOWEST_HZ = 60.0
BANDS_PER_OCTAVE = 12
CHUNK = 1024
"""Frames that are transformed at once, to bound the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectra:
    """What is kept of the spectra of one channel; frame t is centred at t / FRAMES_HZ seconds."""

    bands_TB: np.ndarray
    """float32: magnitude in bands of a semitone, of a sine of full scale about 1."""
    power_T: np.ndarray
    moment_T: np.ndarray
    """Power times frequency in Hz."""


def spectra_of(mono_S: np.ndarray, rate_hz: int) -> Spectra:
    """Spectra of one channel, T = ceil(seconds * FRAMES_HZ)."""
    width = 2 ** max(5, round(np.log2(FRAME_S * rate_hz)))
    frequency_F = np.fft.rfftfreq(width, 1 / rate_hz).astype(np.float32)
    edges = band_edges(frequency_F)
    bands, powers, moments = [], [], []
    for power_TF in _powers(mono_S, rate_hz, width):
        bands.append(np.sqrt(np.add.reduceat(power_TF[:, : edges[-1]], edges[:-1], axis=1)))
        powers.append(power_TF.sum(axis=1))
        moments.append(power_TF @ frequency_F)
    return Spectra(
        bands_TB=np.concatenate(bands),
        power_T=np.concatenate(powers),
        moment_T=np.concatenate(moments),
    )


def brightness_hz(spectra: Spectra, start: int = 0, end: int | None = None) -> float | None:
    """Centroid of the power spectrum over frames `start` to `end`; None for silence.

    By power and not by magnitude as some do: quiet noise over all frequencies then does not count
    for more than the sound itself. Within 1 % on sines from 200 Hz on.
    """
    total = float(spectra.power_T[start:end].sum(dtype=np.float64))
    moment = float(spectra.moment_T[start:end].sum(dtype=np.float64))
    return moment / total if total > 1e-12 else None


def band_edges(frequency_F: np.ndarray) -> np.ndarray:
    """First index of each band and the end of the last; each band holds a frequency or more."""
    octaves = np.log2(frequency_F[-1] / LOWEST_HZ)
    edges_hz = LOWEST_HZ * 2 ** (np.arange(octaves * BANDS_PER_OCTAVE) / BANDS_PER_OCTAVE)
    return np.unique(np.append(np.searchsorted(frequency_F, edges_hz), len(frequency_F)))


def _powers(mono_S: np.ndarray, rate_hz: int, width: int) -> Iterator[np.ndarray]:
    """Power spectra (up to CHUNK, F) of frames under a Hann window, silence around the sound."""
    from scipy.fft import rfft

    count = int(np.ceil(len(mono_S) * FRAMES_HZ / rate_hz))
    padded_S = np.pad(mono_S.astype(np.float32), (width // 2, width))
    frames_SW = np.lib.stride_tricks.sliding_window_view(padded_S, width)
    starts_T = np.round(np.arange(count) * (rate_hz / FRAMES_HZ)).astype(int)
    hann_W = np.hanning(width + 1)[:-1].astype(np.float32)
    hann_W *= 2 / hann_W.sum()
    for first in range(0, count, CHUNK):
        spectrum_TF = rfft(frames_SW[starts_T[first : first + CHUNK]] * hann_W, axis=1)
        yield spectrum_TF.real**2 + spectrum_TF.imag**2
