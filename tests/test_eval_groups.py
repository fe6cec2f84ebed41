"""Who belongs to which group, and what is said where that cannot be told."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.benchmarks import BENCHMARKS, read_benchmark, seen_videos
from eval.benchmarks.base import Question
from eval.floors import fit_floor
from eval.groups import GROUPS, Context, masks
from eval.samples import RunError

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
NOTHING = Context()


def question(number: int = 1, **more: Any) -> Question:
    known: dict[str, Any] = {
        "video_id": "00000093",
        "question_id": number,
        "type": "Audio Counting",
        "question": "?",
        "gold": "two",
    }
    return Question(number=number, **(known | more))


def members(name: str, questions: list[Question], context: Context = NOTHING) -> list[int]:
    found, _ = masks([name], questions, context)
    return [one.number for one, is_in in zip(questions, found[name], strict=True) if is_in]


def test_scenes_are_the_types_without_their_last_word() -> None:
    kinds = ("Audio Counting", "Visual Counting", "Audio-Visual Counting")
    questions = [question(n, type=kind) for n, kind in enumerate(kinds, 1)]
    assert members("Audio", questions) == [1]
    assert members("Visual", questions) == [2]
    assert members("Audio-Visual", questions) == [3]


@pytest.mark.parametrize(
    ("video", "made"),
    [
        ("00000093", False),
        ("va00003871", True),
        ("sa00008442", True),
        ("vv00000177", True),
        ("eva00001195", True),
        ("esa00000500", True),
        ("evv00001305_flip", True),
        ("00000093_flip", False),
        ("wTIYmaxllxs", False),  # the clips that v2 adds
        ("6cjIJVzP6eI_#05_flip", False),
    ],
)
def test_real_and_synthetic_are_told_by_the_id(video: str, made: bool) -> None:
    one = question(video_id=video)
    assert GROUPS["synthetic"].select(one, NOTHING) is made
    assert GROUPS["real"].select(one, NOTHING) is not made


@pytest.mark.parametrize("video", ["test61_000004", "0000093", "xa00003871", "", "va0000387"])
def test_an_id_that_is_neither_is_refused(video: str) -> None:
    for name in ("real", "synthetic"):
        with pytest.raises(RunError, match="row 7, key 'video_id'"):
            masks([name], [question(7, video_id=video)], NOTHING)


def test_a_question_without_the_key_of_a_group_is_refused_by_row_and_key() -> None:
    whole = [question(1, subset="head", held_out=True), question(2, subset="tail", held_out=False)]
    assert members("head", whole) == members("held-out wordings", whole) == [1]
    assert members("tail", whole) == members("training wordings", whole) == [2]
    for name in ("head", "tail"):
        with pytest.raises(RunError, match="row 3, key 'subset'"):
            masks([name], [*whole, question(3, held_out=True)], NOTHING)
    for name in ("held-out wordings", "training wordings"):
        with pytest.raises(RunError, match="row 3, key 'held_out'"):
            masks([name], [*whole, question(3, subset="head")], NOTHING)
    with pytest.raises(RunError, match="no group 'Head'"):
        masks(["Head"], whole, NOTHING)


def test_disjoint_is_what_was_neither_seen_nor_heard() -> None:
    questions = [
        question(1, video_id="00000001"),
        question(2, video_id="00000002"),
        question(3, video_id="00000002_flip"),
        question(4, video_id="00000001", sound_of="00000002"),
        question(5, video_id="00000001_flip"),
    ]
    context = Context(seen=frozenset({"00000002"}))
    assert members("video-disjoint", questions, context) == [1, 5]


def test_the_prior_agrees_where_the_floor_is_right() -> None:
    fitted = fit_floor([question(1, gold="two"), question(2, gold="yes", template="t")])
    questions = [
        question(1, gold="two"),
        question(2, gold="one"),
        question(3, gold="yes", template="t"),
    ]
    context = Context(floor=fitted)
    assert members("prior-agreeing", questions, context) == [1, 3]
    assert members("prior-disagreeing", questions, context) == [2]


def test_what_cannot_be_computed_is_said() -> None:
    names = ["Audio", "Visual", "video-disjoint", "prior-agreeing"]
    found, not_computed = masks(names, [question()], NOTHING)
    assert list(found) == ["Audio"]
    assert "none of the 1 questions" in not_computed["Visual"]
    assert "no fit or train file" in not_computed["video-disjoint"]
    assert "no fit file" in not_computed["prior-agreeing"]


def test_every_benchmark_names_groups_that_exist() -> None:
    for benchmark in BENCHMARKS.values():
        assert set(benchmark.groups) <= set(GROUPS), benchmark.name


@pytest.mark.parametrize(
    ("benchmark", "test", "fit"),
    [
        ("music-avqa", "music-avqa/avqa-test.json", "music-avqa/avqa-val.json"),
        (
            "music-avqa-v2",
            "music-avqa-v2/test_balance.json",
            "music-avqa-v2/balance_valid.json",
        ),
    ],
)
def test_the_groups_of_the_benchmarks_own_files(benchmark: str, test: str, fit: str) -> None:
    for name in (test, fit):
        if not (DATA / name).is_file():
            pytest.skip(f"{DATA / name} is absent: set AVQA_TEST_DATA to the annotation files")
    questions = read_benchmark(benchmark, DATA / test).questions
    known = read_benchmark(benchmark, DATA / fit)
    context = Context(floor=fit_floor(known.questions), seen=seen_videos(known))
    found, not_computed = masks(BENCHMARKS[benchmark].groups, questions, context)
    sizes = {name: int(mask.sum()) for name, mask in found.items()}
    assert not not_computed
    assert sizes["real"] + sizes["synthetic"] == len(questions)
    assert not np.any(found["prior-agreeing"] & found["prior-disagreeing"])
    assert sizes["prior-agreeing"] + sizes["prior-disagreeing"] == len(questions)
    if benchmark == "music-avqa":
        clips = {one.video_id for one in questions}
        disjoint = {
            one.video_id
            for one, is_in in zip(questions, found["video-disjoint"], strict=True)
            if is_in
        }
        assert (sizes["synthetic"], len(clips), len(clips - disjoint)) == (1764, 6399, 2296)
        assert sizes["prior-agreeing"] == round(0.5105 * 9129)
        scenes = Counter(one.scene for one in questions)
        assert {name: sizes[name] for name in scenes} == scenes
