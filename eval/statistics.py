"""Accuracy with an interval, the paired difference of two runs, and calibration.

Questions about one video share its sound and picture, so they are not independent: intervals
come from a bootstrap that draws whole videos (percentile, 95 %).

Shapes: Q questions, V videos, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
SEED = 0
_CELLS = 2_000_000  # of (R, V) held at once: bounds the memory at about 50 MB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over questions, with its 95 % interval."""

    value: float
    low: float
    """NaN with a single video: nothing can be said about other videos then."""
    high: float
    n: int
    """Questions."""
    videos: int


def accuracy(
    correct_Q: Sequence[bool] | np.ndarray,
    video_Q: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """Share of right answers, 0..1, with a video-clustered interval."""
    return clustered_mean(np.asarray(correct_Q, float), video_Q, resamples=resamples, seed=seed)


def paired_difference(
    correct_Q: Sequence[bool] | np.ndarray,
    reference_Q: Sequence[bool] | np.ndarray,
    video_Q: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """Accuracy minus the reference's on the same questions, -1..1, clustered by video.

    Both runs are drawn together: what makes a video hard for both cancels out.
    """
    if len(correct_Q) != len(reference_Q):
        raise ValueError(f"{len(correct_Q)} answers against {len(reference_Q)}: not paired")
    difference_Q = np.asarray(correct_Q, float) - np.asarray(reference_Q, float)
    return clustered_mean(difference_Q, video_Q, resamples=resamples, seed=seed)


def clustered_mean(
    value_Q: np.ndarray, video_Q: Sequence[str], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Estimate:
    """Mean over questions; the interval comes from drawing videos with replacement.

    A resample weights each question by how often its video was drawn, so that the mean stays
    a mean over questions. Raises ValueError without questions or when the lengths differ.
    """
    if not len(value_Q) or len(value_Q) != len(video_Q):
        raise ValueError(f"{len(value_Q)} values for {len(video_Q)} videos' questions")
    video_of_Q = np.unique(np.asarray(video_Q), return_inverse=True)[1]
    sum_V = np.bincount(video_of_Q, weights=value_Q)
    count_V = np.bincount(video_of_Q).astype(float)
    low, high = float("nan"), float("nan")
    if len(sum_V) > 1:
        mean_R = _resampled_means(sum_V, count_V, resamples, np.random.default_rng(seed))
        low, high = (float(bound) for bound in np.percentile(mean_R, (2.5, 97.5)))
    mean = float(np.mean(value_Q))
    return Estimate(value=mean, low=low, high=high, n=len(value_Q), videos=len(sum_V))


def _resampled_means(
    sum_V: np.ndarray, count_V: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return (R,). Drawing V videos and counting them gives the multinomial weights."""
    n_videos = len(sum_V)
    step = max(1, _CELLS // n_videos)
    means = []
    for start in range(0, resamples, step):
        drawn_RV = rng.integers(n_videos, size=(min(step, resamples - start), n_videos))
        means.append(sum_V[drawn_RV].sum(axis=1) / count_V[drawn_RV].sum(axis=1))
    return np.concatenate(means)


def calibration_error(
    probability_Q: Sequence[float] | np.ndarray,
    correct_Q: Sequence[bool] | np.ndarray,
    *,
    bins: int = 15,
) -> float:
    """Expected calibration error, 0..1, over bins of equal width (Guo et al. 2017, section 3).

    Raises ValueError for probabilities outside 0..1 and without questions.
    """
    probability_Q, correct_Q = np.asarray(probability_Q, float), np.asarray(correct_Q, float)
    if not len(probability_Q) or len(probability_Q) != len(correct_Q):
        raise ValueError(f"{len(probability_Q)} probabilities for {len(correct_Q)} answers")
    if not np.all((probability_Q >= 0) & (probability_Q <= 1)):
        raise ValueError("a probability is outside 0..1")
    # Bins are open below and closed above, but for the first, which also holds 0.
    bin_Q = np.clip(np.ceil(probability_Q * bins).astype(int) - 1, 0, bins - 1)
    gap_B = np.bincount(bin_Q, weights=correct_Q - probability_Q, minlength=bins)
    return float(np.abs(gap_B).sum() / len(probability_Q))
