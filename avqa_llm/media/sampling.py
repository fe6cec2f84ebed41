"""Which moments of a clip are looked at.

A policy gives wanted times; the frame of a wanted time is the last one that is presented
at or before it, as a player would show. All times are seconds on the clip clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from avqa_llm.errors import RecipeError

EPSILON_S = 1e-6
"""Times are sums of floats: this much late is still on time."""
FLOOR = 0.2
"""Share of motion-adaptive frames that is spread evenly, so that a calm part is seen too."""


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """The centres of ``frames`` equal spans of the picture."""

    frames: int

    def __post_init__(self) -> None:
        _require(self.frames >= 1, "Uniform(frames)", self.frames, "at least 1")


@dataclass(frozen=True, kw_only=True)
class PerSecond:
    """The times ``(k + offset_s) / fps`` up to the end of the clip.

    With ``pair_gap_s`` each time t gives the two frames at t and t + gap, in the order
    t0, t0 + gap, t1, t1 + gap, ... so that T is even and an encoder can see motion.
    """

    fps: float = 1.0
    offset_s: float = 0.5
    """Place within each period, in periods: 0.5 is its middle (seconds where fps is 1)."""
    pair_gap_s: float | None = None

    def __post_init__(self) -> None:
        _require(self.fps > 0, "PerSecond(fps)", self.fps, "above 0")
        _require(self.offset_s >= 0, "PerSecond(offset_s)", self.offset_s, "0 or more")
        gap = self.pair_gap_s
        _require(gap is None or gap > 0, "PerSecond(pair_gap_s)", gap, "above 0")


@dataclass(frozen=True, kw_only=True)
class Keyframes:
    """The keyframe nearest to the middle of every ``every_s`` seconds.

    Only keyframes are decoded, which is several times faster, where one lies within
    ``tolerance_s`` of *each* wanted time; otherwise everything is decoded in order as
    PerSecond does, and a note says so. A keyframe may serve two neighbouring times.
    """

    every_s: float = 1.0
    tolerance_s: float = 0.5

    def __post_init__(self) -> None:
        _require(self.every_s > 0, "Keyframes(every_s)", self.every_s, "above 0")
        _require(self.tolerance_s >= 0, "Keyframes(tolerance_s)", self.tolerance_s, "0 or more")


@dataclass(frozen=True, kw_only=True)
class MotionAdaptive:
    """``frames`` frames, denser where the picture changes more. Decodes the clip twice."""

    frames: int

    def __post_init__(self) -> None:
        _require(self.frames >= 1, "MotionAdaptive(frames)", self.frames, "at least 1")


Sampling = Uniform | PerSecond | Keyframes | MotionAdaptive


def _require(holds: bool, name: str, value: object, need: str) -> None:
    if not holds:
        raise RecipeError(f"{name} is {value}; it must be {need}")


def wanted_times(
    sampling: Uniform | PerSecond | Keyframes, picture_span_s: tuple[float, float], end_s: float
) -> np.ndarray:
    """Return the wanted times (T,) for a clip that ends at ``end_s``; never empty."""
    if isinstance(sampling, Uniform):
        start, stop = picture_span_s
        return start + (np.arange(sampling.frames) + 0.5) * (stop - start) / sampling.frames
    if isinstance(sampling, Keyframes):
        return _grid(1.0 / sampling.every_s, 0.5, end_s)
    times = _grid(sampling.fps, sampling.offset_s, end_s)
    if sampling.pair_gap_s is None:
        return times
    return np.stack([times, times + sampling.pair_gap_s], axis=1).reshape(-1)


def _grid(fps: float, offset: float, end_s: float) -> np.ndarray:
    count = math.ceil(end_s * fps - offset - EPSILON_S)
    if count < 1:  # shorter than the first wanted time: its middle stands for the clip
        return np.array([end_s / 2])
    return (np.arange(count) + offset) / fps


def shown_at(frame_times_s: np.ndarray, end_s: float, wanted_s: np.ndarray) -> np.ndarray:
    """Return the index (T,) of the frame shown at each wanted time; -1 after ``end_s``.

    ``frame_times_s`` is sorted; ``end_s`` is where the last frame stops being shown.
    """
    index = np.searchsorted(frame_times_s, wanted_s + EPSILON_S, side="right") - 1
    return np.where(wanted_s > end_s + EPSILON_S, -1, np.maximum(index, 0))


def keep_pairs(index: np.ndarray, last: int) -> np.ndarray:
    """Keep pairs whole: a late second frame becomes the last one, a late first drops both."""
    first, second = index[0::2], index[1::2]
    second = np.where(first < 0, -1, np.where(second < 0, last, second))
    return np.stack([first, second], axis=1).reshape(-1)


def nearest(frame_times_s: np.ndarray, wanted_s: np.ndarray) -> np.ndarray:
    """Return the index (T,) of the frame nearest to each wanted time."""
    right = np.clip(np.searchsorted(frame_times_s, wanted_s), 1, max(1, len(frame_times_s) - 1))
    right = np.minimum(right, len(frame_times_s) - 1)
    left = np.maximum(right - 1, 0)
    is_left = wanted_s - frame_times_s[left] <= frame_times_s[right] - wanted_s
    return np.where(is_left, left, right)


def motion_indices(change: np.ndarray, durations_s: np.ndarray, frames: int) -> np.ndarray:
    """Place ``frames`` frames at equal steps of cumulated change.

    ``change`` (N,) is how much each frame differs from the one before, ``durations_s`` (N,)
    how long it is shown. The result is sorted, and without repeats where N allows it.
    """
    even = durations_s / max(durations_s.sum(), EPSILON_S)
    share = change / change.sum() if change.sum() > 0 else even
    cumulated = np.cumsum((1 - FLOOR) * share + FLOOR * even)
    quantiles = (np.arange(frames) + 0.5) / frames * cumulated[-1]
    index = np.minimum(np.searchsorted(cumulated, quantiles), len(change) - 1)
    if frames > len(change):
        return index
    step = np.arange(frames)
    index = np.maximum.accumulate(index - step) + step  # strictly increasing
    return np.minimum(index, len(change) - frames + step)  # and inside the clip
