"""Sound: decoded frames put in their place on the clip clock, mixed and resampled.

Shapes: C channels, S samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

JOIN_S = 0.03
"""Frames this near to the end of the last one are joined without a gap: containers round
times to a millisecond, and a codec frame is about 20 ms."""

HALF = math.sqrt(0.5)
STEREO_OF_SURROUND = np.array(
    [[1, 0, HALF, 0, HALF, 0, HALF, 0], [0, 1, HALF, 0, 0, HALF, 0, HALF]], np.float32
)
"""Left and right from FL FR FC LFE BL BR SL SR (ITU-R BS.775, low frequencies left out)."""


class SoundTrack:
    """Collects decoded sound; the first frame decides rate and channels."""

    def __init__(self) -> None:
        self.rate_hz = 0
        self.channels = 0
        self.foreign_frames = 0
        self.gap_s = 0.0
        self._chunks: list[tuple[int, np.ndarray]] = []
        self._end = 0
        self._samples = 0

    @property
    def bytes(self) -> int:
        """Memory that the whole takes, or its pieces if they lie over each other."""
        return 4 * self.channels * max(self._end, self._samples)

    @property
    def end_s(self) -> float:
        """End of what was added so far; 0.0 while empty."""
        return self._end / self.rate_hz if self._chunks else 0.0

    @property
    def span_s(self) -> tuple[float, float]:
        """Start and end on the clip clock; (0.0, 0.0) while empty."""
        if not self._chunks:
            return (0.0, 0.0)
        start = max(0, min(position for position, _ in self._chunks))
        return (start / self.rate_hz, max(0.0, self.end_s))

    def add(self, frame: Any, time_s: float | None) -> None:
        """Append one decoded ``av.AudioFrame`` that is heard from ``time_s`` on."""
        chunk_CS = as_float(frame)
        if not self._chunks:
            self.rate_hz, self.channels = frame.sample_rate, len(chunk_CS)
            self._end = 0 if time_s is None else round(time_s * self.rate_hz)
        if (frame.sample_rate, len(chunk_CS)) != (self.rate_hz, self.channels):
            self.foreign_frames += 1
            return
        position = self._end if time_s is None else round(time_s * self.rate_hz)
        if abs(position - self._end) <= JOIN_S * self.rate_hz:
            position = self._end
        elif position > self._end:
            self.gap_s += (position - self._end) / self.rate_hz
        self._chunks.append((position, chunk_CS))
        self._samples += chunk_CS.shape[1]
        self._end = max(self._end, position + chunk_CS.shape[1])

    def sound_CS(self) -> np.ndarray:
        """Return float32 (C, S) from clip time 0 on, gaps filled with silence."""
        if self._end <= 0:
            return np.zeros((0, 0), np.float32)
        sound_CS = np.zeros((self.channels, self._end), np.float32)
        for position, chunk_CS in self._chunks:
            cut = max(0, -position)
            part_CS = chunk_CS[:, cut:]
            sound_CS[:, position + cut : position + cut + part_CS.shape[1]] = part_CS
        if not math.isfinite(float(sound_CS.sum())):
            # Damaged float tracks decode to NaN, which would poison every later mean.
            np.nan_to_num(sound_CS, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return sound_CS


def as_float(frame: Any) -> np.ndarray:
    """Return an ``av.AudioFrame`` as float32 (C, S) in -1..1, whatever its sample format."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)


def mix(sound_CS: np.ndarray, channels: int) -> np.ndarray:
    """Mix float32 (C, S) to mono or stereo; ValueError for another number of channels."""
    given = len(sound_CS)
    if channels not in (1, 2):
        raise ValueError(f"sound is mixed to 1 or 2 channels, not {channels}")
    if given == channels:
        return sound_CS
    if given == 1:
        return np.repeat(sound_CS, 2, axis=0)
    if given in (6, 8):
        weights = STEREO_OF_SURROUND[:, :given]
        weights = weights / weights.sum(axis=1, keepdims=True)
    else:
        weights = np.full((2, given), 1.0 / given, np.float32)
    if channels == 1:
        weights = weights.mean(axis=0, keepdims=True)
    return weights.astype(np.float32) @ sound_CS


def resample(sound_CS: np.ndarray, rate_hz: int, new_rate_hz: int) -> np.ndarray:
    """Return float32 (C, S') with S' = ceil(S * new / old), without a shift in time."""
    if rate_hz == new_rate_hz:
        return sound_CS
    if new_rate_hz < 1:
        raise ValueError(f"a sample rate is at least 1 Hz, not {new_rate_hz}")
    from scipy.signal import resample_poly

    common = math.gcd(rate_hz, new_rate_hz)
    out = resample_poly(sound_CS, new_rate_hz // common, rate_hz // common, axis=1)
    return np.ascontiguousarray(out, dtype=np.float32)
