"""Pitch: the fundamental frequency of one clear voice.

Source: de Cheveigné & Kawahara, "YIN, a fundamental frequency estimator for speech and music",
JASA 2002, steps 1 to 5, all frames at once. Within 0.5 % on tones from 45 to 1900 Hz. It
follows one voice: of several at once it gives the strongest, nothing, or, for a chord, the lower
note whose harmonics they would be.

Shapes: S samples, P frames 20 ms apart, L lags.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avqa_llm.acoustics.onsets import vertex

LOWEST_HZ, HIGHEST_HZ = 40.0, 2000.0
HOP_S = 0.02
WIDTH_S = 0.05
"""Over which a frame is compared with itself later."""
CLEAR = 0.2
"""What may differ between a frame and itself a period later, as part of the mean difference."""
RATE_HZ = 22050
"""Sound is thinned to this or somewhat more."""
SHORT = 40
"""Samples below which a period is looked for in its multiples too, to know it finely."""
CHUNK = 512


def pitch_track(mono_S: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre times in seconds of all frames, and their pitch in Hz, NaN where none is clear: (P,).

    Where a frame is higher than 2000 Hz it is not clear either.
    """
    from scipy.signal import resample_poly

    factor = max(1, rate_hz // RATE_HZ)
    thin_S = resample_poly(mono_S, 1, factor) if factor > 1 else mono_S
    rate = rate_hz / factor
    width, most = round(WIDTH_S * rate), int(rate / LOWEST_HZ) + 2
    starts_P = np.arange(0, len(thin_S) - width - most, round(HOP_S * rate))
    times_P = (starts_P + (width + most) / 2) / rate
    if not len(starts_P):
        return np.zeros(0), np.zeros(0)
    hertz = [_clear_hz(d_PL, rate) for d_PL in _differences(thin_S, starts_P, width, most)]
    return times_P, np.concatenate(hertz)


def _differences(
    thin_S: np.ndarray, starts_P: np.ndarray, width: int, most: int
) -> Iterator[np.ndarray]:
    """Cumulative mean normalised differences (up to CHUNK, L) for lags 0 to `most`."""
    from scipy.fft import irfft, next_fast_len, rfft

    frames_SW = np.lib.stride_tricks.sliding_window_view(thin_S, width + most)
    size = next_fast_len(width + most)
    for first in range(0, len(starts_P), CHUNK):
        frames_PW = frames_SW[starts_P[first : first + CHUNK]].astype(np.float32)
        whole, head = rfft(frames_PW, size, axis=1), rfft(frames_PW[:, :width], size, axis=1)
        product_PL = irfft(whole * head.conj(), size, axis=1)[:, : most + 1]
        sums_PW = np.cumsum(np.pad(frames_PW**2, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
        energy_PL = sums_PW[:, width : width + most + 1] - sums_PW[:, : most + 1]
        d_PL = np.maximum(energy_PL[:, :1] + energy_PL - 2 * product_PL, 0.0)
        mean_PL = np.cumsum(d_PL, axis=1) / np.maximum(np.arange(most + 1), 1)
        d_PL[:, 0] = mean_PL[:, 0] = 1.0
        yield np.where(mean_PL > 1e-12, d_PL / np.maximum(mean_PL, 1e-12), 1.0)


def _clear_hz(d_PL: np.ndarray, rate: float) -> np.ndarray:
    """Pitch of each frame: its first dip below CLEAR, refined; else NaN."""
    before, at, after = d_PL[:, :-2], d_PL[:, 1:-1], d_PL[:, 2:]
    # The dip's depth by a parabola: a short period falls between two lags.
    bend = np.maximum(before - 2 * at + after, 1e-12)
    is_dip_PL = (at <= before) & (at < after) & (at - (before - after) ** 2 / (8 * bend) < CLEAR)
    hertz_P = np.full(len(d_PL), np.nan)
    for frame in np.flatnonzero(is_dip_PL.any(axis=1)):
        hertz = rate / _period(d_PL[frame], int(np.argmax(is_dip_PL[frame])) + 1)
        if LOWEST_HZ <= hertz <= HIGHEST_HZ:
            hertz_P[frame] = hertz
    return hertz_P


def _period(d_L: np.ndarray, lag: int) -> float:
    """The period near a lag, from the dips at two and four times it where it is short."""
    period = lag + vertex(*d_L[lag - 1 : lag + 2])
    for times in (2, 4):
        if lag > SHORT or times * period + 2 >= len(d_L):
            break
        near = round(times * period)
        near += int(np.argmin(d_L[near - 1 : near + 2])) - 1
        period = (near + vertex(*d_L[near - 1 : near + 2])) / times
    return period
