"""Is one run better than another? Paired on the same questions, with clips as the units.

Questions about one clip are not independent, so no test here counts questions as if they were.

Shapes: V videos, F flips, C comparisons (overall and each type).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.floors import ordered_types
from eval.samples import RunError, Sample
from eval.statistics import Estimate, estimates

FLIPS = 10_000
SEED = 0
LEVEL = 0.05
_CELLS = 2_000_000  # of (F, V) held at once
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of the second run minus the first's."""

    estimate: Estimate
    """-1..1, with the video-clustered interval."""
    only_first: int
    """Questions that only the first run answers rightly."""
    only_second: int
    z: float | None
    """Of `mcnemar`; positive where the second run is better."""
    p: float | None
    """Of `sign_flips`; None with a single clip."""
    p_holm: float | None = None
    """Of a type, corrected for all types (Holm 1979); None for the overall difference."""
    verdict: str = ""
    """In plain words."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The second run against the first, on the questions that both answered."""

    overall: Difference
    types: dict[str, Difference]
    only_in_first: int
    """Questions that only the first run answered; they are in no figure here."""
    only_in_second: int


def compare(
    a: Sequence[Sample], b: Sequence[Sample], *, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Compare two runs by row.

    Raises RunError without a common row, and where a common row is not the same question.
    """
    pairs = _paired(a, b, names)
    types = ordered_types(one.type for one, _ in pairs)
    masks = [np.ones(len(pairs), bool)]
    masks += [np.array([one.type == name for one, _ in pairs]) for name in types]
    overall, *others = _differences(pairs, masks)
    of_type = dict(zip(types, others, strict=True))
    tested = {name: one.p for name, one in of_type.items() if one.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    of_type = {name: replace(one, p_holm=corrected.get(name)) for name, one in of_type.items()}
    return Comparison(
        overall=_judged(overall, names),
        types={name: _judged(one, names) for name, one in of_type.items()},
        only_in_first=len(a) - len(pairs),
        only_in_second=len(b) - len(pairs),
    )


# -- the tests -------------------------------------------------------------------------------


def sign_flips(sum_VC: np.ndarray, *, flips: int = FLIPS, seed: int = SEED) -> list[float]:
    """Two-sided p values of clustered paired permutation tests, one for each column.

    `sum_VC` holds each video's sum of (second right - first right). The hypothesis: the two runs
    are interchangeable within each video, so each video's sum is as likely with the other sign,
    independently of other videos. The statistic is the absolute value of the total over videos;
    p = (1 + number of `flips` random sign patterns whose statistic is at least the observed one)
    / (1 + flips), which is valid for any number of flips (Phipson & Smyth 2010, section 3).
    """
    sum_VC = sum_VC[np.any(sum_VC != 0, axis=1)]  # a video without a difference cannot flip
    observed_C = np.abs(sum_VC.sum(axis=0)) - _ROUNDING
    rng, as_large_C = np.random.default_rng(seed), np.zeros(sum_VC.shape[1])
    step = max(1, _CELLS // max(1, len(sum_VC)))
    for start in range(0, flips, step):
        shape = (min(step, flips - start), len(sum_VC))
        bits = np.frombuffer(rng.bytes(-(-shape[0] * shape[1] // 8)), np.uint8)
        sign_FV = 1.0 - 2.0 * np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape)
        as_large_C += (np.abs(sign_FV @ sum_VC) >= observed_C).sum(axis=0)
    return [float(p) for p in (1 + as_large_C) / (1 + flips)]


def mcnemar(sum_V: np.ndarray, n_videos: int) -> float | None:
    """McNemar's z for questions clustered in `n_videos` videos; None where nothing differs.

    z = S / sqrt(K / (K - 1) * sum of s²) with s each video's (only second right - only first
    right), S their sum, and K videos: Obuchowski 1998 (as simplified by Yang, Sun & Hardin 2010).
    Durkalski et al. 2003 divide each s by the video's number of questions; that tests a mean over
    videos, and accuracy here is a mean over questions. z² is about chi-square with one degree of
    freedom for many videos.
    """
    squares = float(np.square(sum_V).sum())
    if n_videos < 2 or not squares:
        return None
    return float(sum_V.sum()) / math.sqrt(n_videos / (n_videos - 1) * squares)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number, in their order (Holm 1979)."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = least
    return corrected


# -- the parts -------------------------------------------------------------------------------

_Pairs = Sequence[tuple[Sample, Sample]]


def _paired(a: Sequence[Sample], b: Sequence[Sample], names: tuple[str, str]) -> _Pairs:
    by_row = {sample.row: sample for sample in a}
    pairs = [(by_row[sample.row], sample) for sample in b if sample.row in by_row]
    if not pairs:
        raise RunError(f"{names[0]} and {names[1]} have no question in common")
    for one, other in pairs:
        if (one.video_id, one.question, one.gold) != (other.video_id, other.question, other.gold):
            raise RunError(
                f"row {one.row} is {one.question!r} about {one.video_id} (gold {one.gold!r}) for "
                f"{names[0]} and {other.question!r} about {other.video_id} (gold {other.gold!r}) "
                f"for {names[1]}: compare runs on one question file"
            )
    return pairs


def _differences(pairs: _Pairs, masks: Sequence[np.ndarray]) -> list[Difference]:
    """One for each mask; all share the flips and the resamples of a video."""
    videos = [one.video_id for one, _ in pairs]
    difference_Q = np.array([other.correct - one.correct for one, other in pairs], float)
    number = {video: at for at, video in enumerate(sorted(set(videos)))}
    video_of_Q = np.array([number[video] for video in videos])
    sum_VC = np.stack(
        [np.bincount(video_of_Q[m], difference_Q[m], len(number)) for m in masks], axis=1
    )
    found = []
    for column, (estimate, p) in enumerate(
        zip(estimates(difference_Q, videos, masks), sign_flips(sum_VC), strict=True)
    ):
        chosen_Q = difference_Q[masks[column]]
        found.append(
            Difference(
                estimate=estimate,
                only_first=int((chosen_Q < 0).sum()),
                only_second=int((chosen_Q > 0).sum()),
                z=mcnemar(sum_VC[:, column], estimate.videos),
                p=p if estimate.videos > 1 else None,
            )
        )
    return found


# -- in words --------------------------------------------------------------------------------


def is_significant(difference: Difference) -> bool:
    """Whether test and interval both say that the runs differ."""
    p = difference.p if difference.p_holm is None else difference.p_holm
    outside = difference.estimate.low > 0 or difference.estimate.high < 0
    return p is not None and p < LEVEL and outside


def _judged(difference: Difference, names: tuple[str, str]) -> Difference:
    return replace(difference, verdict=_verdict(difference, names))


def _verdict(difference: Difference, names: tuple[str, str]) -> str:
    estimate = difference.estimate
    points = 100 * estimate.value
    if difference.p is None:
        return (
            f"nothing can be said: all {estimate.n} questions are about one clip (difference "
            f"{points:+.2f} points)"
        )
    figures = (
        f"95 % interval {100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}; "
        f"{_in_words(difference)}; {estimate.n} questions about {estimate.videos} clips"
    )
    if is_significant(difference):
        better = names[estimate.value > 0]
        return f"{better} is better by {abs(points):.2f} points ({figures})"
    gap = f"{names[1]} minus {names[0]} is {points:+.2f} points"
    return f"no difference can be told: {gap} ({figures})"


def _in_words(difference: Difference) -> str:
    if difference.p_holm is not None:
        return f"p = {difference.p_holm:.4f} after Holm's correction"
    return f"p = {difference.p:.4f}"
