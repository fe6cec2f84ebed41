"""Onsets: the times at which notes and strokes begin; and the tempo of a steady pulse.

Onsets: spectral flux over bands of a semitone in decibels, where the earlier spectrum is widened by
a band on both sides so that vibrato does not count (Boeck & Widmer, "Maximum filter vibrato
suppression for onset detection", DAFx 2013), then moved to where the power really rises.
Tempo: autocorrelation of the flux.

Measured on 60 Bandstand scenes, right within 50 ms (precision, recall): 0.96, 0.97 with one
player, 0.99, 0.72 with two, 0.99, 0.49 with more, whose onsets hide each other. Clicks and plucked
notes come within 5 ms, bowed and blown ones 20 ms late. In plain noise up to one a second is found.

Shapes: S samples, T frames 10 ms apart, B bands.
"""

from __future__ import annotations

import numpy as np

from avqa_llm.acoustics.spectrum import FRAMES_HZ, Spectra

RANGE_DB = 50.0
"""Of each spectrum, so much below the loudest band of all counts."""
IN_USE_DB = 10.0
"""A band that once rises so far out of the least that counts is in use."""
FEWEST_BANDS = 8
BACK = 2
"""A spectrum is compared with the one so many frames before."""
LEAST_RISE_DB = 1.0
"""A peak of the flux, the mean rise of the bands in use, is so much above the mean around it."""
LEAST_GAP_S = 0.05
SLOWEST_BPM, FASTEST_BPM = 40, 240
STEADY = 0.3
"""Autocorrelation from which on a pulse is called steady."""
AS_GOOD = 0.85
"""A shorter period is taken where it explains the rhythm nearly as well as a longer one."""


def flux_db(spectra: Spectra) -> np.ndarray:
    """Mean rise of the bands in use, in dB against 20 ms before, (T,); falls count as 0."""
    from scipy.ndimage import maximum_filter1d

    loudest = float(spectra.bands_TB.max(initial=0.0))
    if loudest <= 0:
        return np.zeros(len(spectra.bands_TB))
    least = np.float32(loudest * 10 ** (-RANGE_DB / 20))
    bands_TB = 20 * np.log10(np.maximum(spectra.bands_TB, least) / least)
    before_TB = np.zeros_like(bands_TB)
    before_TB[BACK:] = maximum_filter1d(bands_TB, 3, axis=1)[:-BACK]
    in_use = max(int((bands_TB.max(axis=0) > IN_USE_DB).sum()), FEWEST_BANDS)
    return np.maximum(bands_TB - before_TB, 0).sum(axis=1, dtype=np.float64) / in_use


def onset_times(flux_T: np.ndarray, mono_S: np.ndarray, rate_hz: int) -> np.ndarray:
    """Seconds at which the flux peaks and, near by, the power rises most; ascending."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d
    from scipy.signal import find_peaks

    around_T = uniform_filter1d(flux_T, 21, mode="nearest")
    is_peak_T = (flux_T == maximum_filter1d(flux_T, 7)) & (flux_T > around_T + LEAST_RISE_DB)
    picked_T = np.where(is_peak_T, flux_T, 0.0)
    peaks, _ = find_peaks(np.pad(picked_T, 1), distance=round(LEAST_GAP_S * FRAMES_HZ))
    return np.array([_rise_s(mono_S, rate_hz, (peak - 1) / FRAMES_HZ) for peak in peaks])


def _rise_s(mono_S: np.ndarray, rate_hz: int, near_s: float) -> float:
    """Where within 30 ms the power of 5 ms is highest against that of the 5 ms before."""
    step = max(1, rate_hz // 1000)
    first = max(0, round((near_s - 0.03) * rate_hz))
    part_S = mono_S[first : round((near_s + 0.03) * rate_hz)].astype(np.float64)
    count = len(part_S) // step
    power_N = (part_S[: count * step].reshape(count, step) ** 2).mean(axis=1)
    sums_N = np.cumsum(np.pad(power_N, (6, 5)))
    after, before = sums_N[10:] - sums_N[5:-5], sums_N[5:-5] - sums_N[:-10]
    rise_N = (after - before)[: count + 1]
    return (first + int(np.argmax(rise_N)) * step) / rate_hz


def pulse(flux_T: np.ndarray) -> tuple[float, float] | None:
    """Beats per minute of the fastest steady pulse and how steady it is, 0 to 1; None without.

    Flux of at least four of its slowest periods is asked for by the caller.
    """
    from scipy.ndimage import gaussian_filter1d

    smooth_T = gaussian_filter1d(flux_T, 1.5)
    r = _autocorrelation(smooth_T - smooth_T.mean())
    lags = np.arange(FRAMES_HZ * 60 // FASTEST_BPM - 1, FRAMES_HZ * 60 // SLOWEST_BPM + 1)
    lags = lags[lags < len(r) // 2]
    peaks = [lag for lag in lags if r[lag] >= max(r[lag - 1], r[lag + 1]) and r[lag] >= STEADY]
    if not peaks:
        return None
    best = max(r[lag] for lag in peaks)
    lag = next(lag for lag in peaks if r[lag] >= AS_GOOD * best)
    return 60 * FRAMES_HZ / (lag + vertex(r[lag - 1], r[lag], r[lag + 1])), float(r[lag])


def _autocorrelation(x_T: np.ndarray) -> np.ndarray:
    """Of each lag, as part of that of lag 0, whatever the overlap."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(2 * len(x_T))
    r = irfft(np.abs(rfft(x_T, size)) ** 2, size)[: len(x_T)]
    r = r / np.arange(len(x_T), 0, -1)
    return r / r[0] if r[0] > 0 else np.zeros(len(x_T))


def vertex(before: float, at: float, after: float) -> float:
    """Where, from -0.5 to 0.5, the parabola through three equidistant values has its vertex."""
    bend = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend else 0.0
