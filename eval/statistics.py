"""Accuracy with an interval, the paired difference of two runs, and calibration.

Questions about one video share its sound and picture, so they are not independent: intervals
come from a bootstrap that draws whole videos (percentile, 95 %).

Shapes: Q questions, V videos, R resamples, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
SEED = 0
_CELLS = 2_000_000  # of (R, V) held at once: bounds the memory at about 80 MB


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
    everything = np.ones(len(value_Q), bool)
    return estimates(value_Q, video_Q, [everything], resamples=resamples, seed=seed)[0]


def estimates(
    value_Q: Sequence[float] | np.ndarray,
    video_Q: Sequence[str],
    masks: Sequence[np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Estimate]:
    """Means over groups of questions, each group being a mask (Q,), with their intervals.

    Videos are drawn once, from all that occur, for all groups: a group's size varies from
    resample to resample as it would in another sample of videos (domain estimation), and
    resamples without any of its questions are skipped. Raises ValueError without questions,
    when the lengths differ, and for a group without questions.
    """
    value_Q = np.asarray(value_Q, float)
    if not len(value_Q) or len(value_Q) != len(video_Q):
        raise ValueError(f"{len(value_Q)} values for {len(video_Q)} videos' questions")
    video_of_Q, n_videos = _numbered(video_Q)
    sum_VG, count_VG = _per_video(value_Q, video_of_Q, n_videos, masks)
    mean_RG = _resampled_means(sum_VG, count_VG, resamples, np.random.default_rng(seed))
    return [
        _estimate(sum_VG[:, group], count_VG[:, group], mean_RG[:, group])
        for group in range(len(masks))
    ]


def _numbered(video_Q: Sequence[str]) -> tuple[np.ndarray, int]:
    """The videos as numbers in the order of their names: figures do not depend on that of rows."""
    number = {video: at for at, video in enumerate(sorted(set(video_Q)))}
    return np.fromiter((number[video] for video in video_Q), np.intp, len(video_Q)), len(number)


def _per_video(
    value_Q: np.ndarray, video_of_Q: np.ndarray, n_videos: int, masks: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of values and number of questions of each video in each group, both (V, G)."""
    sum_VG = np.empty((n_videos, len(masks)))
    count_VG = np.empty((n_videos, len(masks)))
    for group, mask_Q in enumerate(masks):
        if len(mask_Q) != len(value_Q) or not mask_Q.any():
            raise ValueError(f"group {group} holds none of the {len(value_Q)} questions")
        chosen = video_of_Q[mask_Q]
        sum_VG[:, group] = np.bincount(chosen, weights=value_Q[mask_Q], minlength=n_videos)
        count_VG[:, group] = np.bincount(chosen, minlength=n_videos)
    return sum_VG, count_VG


def _resampled_means(
    sum_VG: np.ndarray, count_VG: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return (R, G); NaN where a resample has no question of the group."""
    n_videos, groups = sum_VG.shape
    step = max(1, _CELLS // n_videos)
    mean_RG = np.empty((resamples, groups))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn_RV = rng.integers(n_videos, size=(rows, n_videos))
        drawn_RV += n_videos * np.arange(rows)[:, None]
        times = np.bincount(drawn_RV.ravel(), minlength=rows * n_videos)
        weight_RV = times.reshape(rows, n_videos).astype(float)
        with np.errstate(invalid="ignore"):  # 0 / 0
            mean_RG[start : start + rows] = (weight_RV @ sum_VG) / (weight_RV @ count_VG)
    return mean_RG


def _estimate(sum_V: np.ndarray, count_V: np.ndarray, mean_R: np.ndarray) -> Estimate:
    n, videos = int(count_V.sum()), int(np.count_nonzero(count_V))
    low, high = float("nan"), float("nan")
    mean_R = mean_R[~np.isnan(mean_R)]
    if videos > 1 and len(mean_R):
        low, high = (float(bound) for bound in np.percentile(mean_R, (2.5, 97.5)))
    return Estimate(value=float(sum_V.sum() / n), low=low, high=high, n=n, videos=videos)


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
