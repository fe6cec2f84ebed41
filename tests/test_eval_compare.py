"""Two runs against each other: the tests, the corrections, and what is said in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from eval import compare as comparing
from eval.compare import compare, holm, mcnemar, sign_flips
from eval.samples import RunError, Sample

VISUAL = "Visual Counting"


def sample(
    row: int, right: bool, video: str = "v", kind: str = "Audio Counting", gold: str = "two"
) -> Sample:
    return Sample(
        row=row,
        video_id=video,
        question_id=row,
        template=None,
        type=kind,
        question=f"question {row}",
        gold=gold,
        answer="",
        label=gold if right else "one",
    )


def run_of(right: Sequence[bool], per_clip: int = 1, kind: str = "Audio Counting") -> list[Sample]:
    return [sample(n, bool(one), f"clip {n // per_clip}", kind) for n, one in enumerate(right)]


# -- sign flips ------------------------------------------------------------------------------


def test_sign_flips_agree_with_all_patterns_written_out() -> None:
    sums = np.array([3.0, -1.0, 2.0, 2.0, 0.0, 1.0, -1.0, 4.0])
    patterns = itertools.product((1, -1), repeat=len(sums))
    exact = np.mean([abs(np.dot(signs, sums)) >= abs(sums.sum()) for signs in patterns])
    (p,) = sign_flips(sums[:, None])
    assert p == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / 10_000))
    assert sign_flips(-sums[:, None]) == [p]


def test_p_is_never_zero_and_without_a_difference_it_is_one() -> None:
    assert sign_flips(np.ones((40, 1))) == [1 / 10_001]
    assert sign_flips(np.zeros((40, 2))) == [1, 1]
    assert sign_flips(np.array([[1.0], [-1.0]])) == [1]


def test_columns_are_tested_each_by_itself_however_many_flips_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sums = np.random.default_rng(2).integers(-2, 3, size=(30, 3)).astype(float)
    together = sign_flips(sums)
    assert together != sign_flips(sums, seed=1)
    assert together == sign_flips(sums)
    monkeypatch.setattr(comparing, "_CELLS", 30 * 800)  # whole bytes of bits at a time
    assert sign_flips(sums) == together


def test_under_the_null_five_in_a_hundred_are_significant_although_clips_agree() -> None:
    rng = np.random.default_rng(8)
    clips, each = 40, 20
    sums = each * rng.choice([-1.0, 0.0, 1.0], size=(clips, 400))  # whole clips differ at once
    share = np.mean(np.array(sign_flips(sums, flips=999)) <= 0.05)
    assert 0.02 < share < 0.08
    # The same, had every question counted for itself:
    z = sums.sum(axis=0) / np.sqrt(np.abs(sums).sum(axis=0))
    assert np.mean(np.abs(z) > 1.96) > 0.4


# -- McNemar ---------------------------------------------------------------------------------


def test_with_one_question_a_clip_z_is_mcnemars() -> None:
    sums = np.array([1.0] * 30 + [-1.0] * 14 + [0.0] * 956)
    z = mcnemar(sums, 1000)
    assert z is not None
    assert z**2 == pytest.approx((30 - 14) ** 2 / (30 + 14) * 999 / 1000)


def test_the_clustered_z_equals_obuchowskis_longer_form() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(2, 9, size=25)
    one, other = rng.binomial(n, 0.6), rng.binomial(n, 0.7)
    total, clips = n.sum(), len(n)
    pooled = (one.sum() + other.sum()) / (2 * total)
    residual = (other - n * pooled) - (one - n * pooled)
    variance = clips / (clips - 1) * np.sum(residual**2) / total**2
    z = mcnemar((other - one).astype(float), clips)
    assert z == pytest.approx((other.sum() - one.sum()) / total / math.sqrt(variance))


def test_there_is_no_z_without_a_difference_or_with_one_clip() -> None:
    assert mcnemar(np.zeros(5), 5) is None
    assert mcnemar(np.array([3.0]), 1) is None


# -- Holm ------------------------------------------------------------------------------------


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# -- two runs --------------------------------------------------------------------------------


def test_the_better_run_is_named() -> None:
    rng = np.random.default_rng(5)
    first = rng.random(600) < 0.5
    second = first | (rng.random(600) < 0.15)
    found = compare(run_of(first, 3), run_of(second, 3), names=("old", "new"))
    gain = second.mean() - first.mean()
    overall = found.overall
    assert overall.estimate.value == pytest.approx(gain)
    assert (overall.only_first, overall.only_second) == (0, np.sum(second & ~first))
    assert overall.z is not None and overall.z > 1.96 and overall.p == 1 / 10_001
    assert overall.verdict.startswith(f"new is better by {100 * gain:.2f} points (95 % interval +")
    assert "600 questions about 200 clips" in overall.verdict
    back = compare(run_of(second, 3), run_of(first, 3), names=("new", "old")).overall
    assert back.verdict.startswith("new is better by")
    assert back.z == -overall.z and back.p == overall.p


def test_equal_runs_cannot_be_told_apart() -> None:
    right = np.random.default_rng(6).random(200) < 0.5
    found = compare(run_of(right), run_of(right)).overall
    assert found.verdict.startswith("no difference can be told: B minus A is +0.00 points")
    assert (found.p, found.z) == (1.0, None)


def test_a_difference_in_few_clips_is_none_although_many_questions_differ() -> None:
    first = [False] * 60 + [True] * 240
    second = [True] * 300
    assert "is better" in compare(run_of(first, 1), run_of(second, 1)).overall.verdict
    clustered = compare(run_of(first, 30), run_of(second, 30)).overall  # 2 of 10 clips
    assert clustered.verdict.startswith("no difference can be told")


def test_of_one_clip_nothing_can_be_said() -> None:
    found = compare(run_of([False] * 20, 20), run_of([True] * 20, 20)).overall
    assert found.p is None and found.z is None
    assert found.verdict == (
        "nothing can be said: all 20 questions are about one clip (difference +100.00 points)"
    )


def test_types_are_corrected_for_each_other() -> None:
    rng = np.random.default_rng(1)
    kinds = [VISUAL if n % 2 else "Audio Counting" for n in range(400)]
    first = rng.random(400) < 0.6
    # Better about what is heard; about what is seen only other.
    second = np.where(rng.random(400) < 0.12, ~first, first)
    second |= (np.arange(400) % 2 == 0) & (rng.random(400) < 0.2)
    runs = [
        [sample(n, bool(right[n]), f"clip {n // 4}", kinds[n]) for n in range(400)]
        for right in (first, second)
    ]
    found = compare(*runs)
    assert list(found.types) == ["Audio Counting", VISUAL]
    raw = [one.p for one in found.types.values()]
    assert [one.p_holm for one in found.types.values()] == pytest.approx(holm(raw))
    assert "B is better" in found.types["Audio Counting"].verdict
    assert "after Holm's correction" in found.types["Audio Counting"].verdict
    assert "no difference can be told" in found.types[VISUAL].verdict
    assert found.overall.p_holm is None


def test_only_common_questions_are_compared() -> None:
    first = run_of([True, False, True, True])
    second = run_of([True, True, True, True])[1:] + [sample(9, True, "clip 9")]
    found = compare(first, second)
    assert (found.overall.estimate.n, found.only_in_first, found.only_in_second) == (3, 1, 1)
    with pytest.raises(RunError, match="A and B have no question in common"):
        compare(first[:1], second)


def test_another_question_in_the_same_row_is_refused() -> None:
    one = run_of([True, True])
    other = [one[0], sample(1, True, "clip 1", gold="three")]
    with pytest.raises(RunError, match="row 1 is 'question 1' about clip 1"):
        compare(one, other)
