"""Intervals that respect videos, paired differences, and calibration."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import norm

from eval import statistics
from eval.statistics import accuracy, calibration_error, estimates, paired_difference


def test_with_one_question_a_video_the_interval_is_the_binomial_one() -> None:
    correct = np.arange(1000) % 10 < 7
    estimate = accuracy(correct, [str(n) for n in range(1000)], resamples=4000)
    half = norm.ppf(0.975) * math.sqrt(0.7 * 0.3 / 1000)
    assert estimate.value == pytest.approx(0.7) and estimate.n == estimate.videos == 1000
    assert estimate.low == pytest.approx(0.7 - half, abs=0.003)
    assert estimate.high == pytest.approx(0.7 + half, abs=0.003)


def test_questions_that_share_a_video_count_as_one_when_they_agree() -> None:
    correct = np.repeat(np.arange(100) % 2 == 0, 25)
    videos = np.repeat(np.arange(100), 25).astype(str)
    clustered = accuracy(correct, videos)
    naive = accuracy(correct, [str(n) for n in range(2500)])
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(5, rel=0.15)  # the square root of 25


def test_a_video_counts_by_its_questions() -> None:
    estimate = accuracy([True] * 9 + [False], ["a"] * 9 + ["b"])
    assert estimate.value == pytest.approx(0.9)
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_a_single_video_has_no_interval() -> None:
    estimate = accuracy([True, False], ["a", "a"])
    assert estimate.value == 0.5 and math.isnan(estimate.low) and math.isnan(estimate.high)


def test_the_same_seed_gives_the_same_interval() -> None:
    correct = np.random.default_rng(5).random(999) < 0.6
    videos = [str(n % 77) for n in range(999)]
    assert accuracy(correct, videos) == accuracy(correct, videos)
    assert accuracy(correct, videos) != accuracy(correct, videos, seed=1)


def test_an_interval_does_not_depend_on_how_many_resamples_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    correct, videos = np.arange(999) % 4 > 0, [str(n * 7 % 640) for n in range(999)]
    at_once = accuracy(correct, videos)
    monkeypatch.setattr(statistics, "_CELLS", 640 * 7 + 1)
    assert accuracy(correct, videos) == at_once


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    first = rng.random(2000) < 0.7
    second = np.where(rng.random(2000) < 0.05, ~first, first)
    videos = [str(n // 5) for n in range(2000)]
    pair = paired_difference(second, first, videos)
    alone = accuracy(first, videos)
    assert pair.value == pytest.approx(second.mean() - first.mean())
    assert pair.low < pair.value < pair.high
    assert pair.high - pair.low < 0.6 * (alone.high - alone.low)
    same = paired_difference(first, first, videos)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def slow_intervals(
    values: np.ndarray, videos: list[str], masks: list[np.ndarray], resamples: int
) -> list[tuple[float, float]]:
    """Each resample by itself, question by question: the definition."""
    names = sorted(set(videos))
    rng, means = np.random.default_rng(statistics.SEED), [[] for _ in masks]
    for _ in range(resamples):
        drawn = [names[at] for at in rng.integers(len(names), size=len(names))]
        for kept, mask in zip(means, masks, strict=True):
            taken = [
                values[at]
                for name in drawn
                for at, video in enumerate(videos)
                if video == name and mask[at]
            ]
            if taken:
                kept.append(np.mean(taken))
    return [tuple(np.percentile(kept, (2.5, 97.5))) for kept in means]


def test_groups_share_their_resamples_and_come_to_the_same_figures_as_the_slow_way() -> None:
    rng = np.random.default_rng(11)
    videos = [f"v{n}" for n in rng.integers(12, size=90)]
    values = np.round(rng.random(90), 3)
    rare = np.isin(videos, ["v1", "v2"])  # absent from many resamples
    masks = [np.ones(90, bool), rng.random(90) < 0.4, rare]
    fast = estimates(values, videos, masks, resamples=300)
    for one, mask, bounds in zip(
        fast, masks, slow_intervals(values, videos, masks, 300), strict=True
    ):
        assert (one.low, one.high) == pytest.approx(bounds, abs=1e-12)
        assert one.value == pytest.approx(values[mask].mean())
        assert (one.n, one.videos) == (mask.sum(), len(set(np.array(videos)[mask])))
    alone = statistics.clustered_mean(values, videos, resamples=300)
    assert asdict(fast[0]) == pytest.approx(asdict(alone), abs=1e-12)


def test_the_order_of_the_questions_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    videos, correct = rng.integers(20, size=200).astype(str), rng.random(200) < 0.5
    order = rng.permutation(200)
    assert accuracy(correct, videos.tolist()) == accuracy(correct[order], videos[order].tolist())


def test_a_group_of_one_video_has_no_interval_and_one_of_none_is_refused() -> None:
    (one,) = estimates([1, 0, 1], ["a", "a", "b"], [np.array([True, True, False])])
    assert one.value == 0.5 and one.videos == 1 and math.isnan(one.low)
    with pytest.raises(ValueError, match="none of the 3 questions"):
        estimates([1, 0, 1], ["a", "a", "b"], [np.zeros(3, bool)])


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_difference([True], [True, False], ["a"])
    with pytest.raises(ValueError, match="1 values for 2"):
        accuracy([True], ["a", "b"])
    with pytest.raises(ValueError, match="0 values"):
        accuracy([], [])


def test_calibration_error_by_hand() -> None:
    # Two bins: 0.95 twice with one right, 0.5 twice with one right.
    assert calibration_error([0.95, 0.95, 0.5, 0.5], [1, 0, 1, 0]) == pytest.approx(0.225)
    assert calibration_error([1.0, 0.0], [True, False]) == 0
    assert calibration_error([1.0] * 4, [False] * 4) == 1
    assert calibration_error([0.2, 0.8], [True, True], bins=1) == pytest.approx(0.5)


def test_calibrated_answers_have_a_small_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(50_000)
    assert calibration_error(probability, rng.random(50_000) < probability) < 0.01


@pytest.mark.parametrize("probability", [1.2, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="0..1"):
        calibration_error([probability], [True])
