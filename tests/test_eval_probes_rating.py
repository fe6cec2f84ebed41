"""How answers after a change are rated."""

from __future__ import annotations

import pytest

from eval.probes import PROBES
from eval.probes.rating import rate
from eval.samples import ProbeSample, RunError, Sample

MIRROR, MUTE = PROBES["mirror"], PROBES["mute"]


def was(row: int, gold: str, label: str, video: str = "") -> Sample:
    return Sample(
        row=row,
        video_id=video or f"v{row % 3}",
        question_id=row,
        template=None,
        type="Audio-Visual Location",
        question="Where is the loudest instrument?",
        gold=gold,
        answer=label,
        label=label,
    )


def after(row: int, expected: str | None, label: str, probe: str = "mirror") -> ProbeSample:
    return ProbeSample(
        probe=probe,
        row=row,
        question="Where is the loudest instrument?",
        expected=expected,
        answer=label,
        label=label,
        probability=None,
        consumed=None,
    )


def by_row(*samples: Sample) -> dict[int, Sample]:
    return {sample.row: sample for sample in samples}


def test_what_should_stay_is_steady_or_flighty_right_or_wrong() -> None:
    before = by_row(was(1, "yes", "yes"), was(2, "yes", "no"), was(3, "yes", "no"))
    probed = [after(1, "yes", "yes"), after(2, "yes", "no"), after(3, "yes", "yes")]
    entry = rate(MIRROR, probed, before, {})
    assert entry["should_stay"] == {"n": 3, "steady": 2, "flighty": 1, "silent": 0}
    assert entry["should_change"] == {
        "n": 0,
        "faithful": 0,
        "stubborn": 0,
        "flighty": 0,
        "silent": 0,
    }
    assert entry["accuracy"]["accuracy"] == pytest.approx(2 / 3)
    assert entry["before"] == pytest.approx(1 / 3)


def test_what_should_change_is_faithful_stubborn_or_flighty() -> None:
    before = by_row(
        was(1, "left", "left"),  # follows
        was(2, "left", "left"),  # stays
        was(3, "left", "left"),  # becomes something else
        was(4, "left", "right"),  # was wrong, and stays what is now right
        was(5, "left", "middle"),  # was wrong, and stays wrong
        was(6, "left", "left"),  # falls silent
        was(7, "left", "no_answer"),  # says nothing, before and after
    )
    labels = ("right", "left", "middle", "right", "middle", "no_answer", "no_answer")
    probed = [after(row, "right", label) for row, label in enumerate(labels, 1)]
    entry = rate(MIRROR, probed, before, {})
    assert entry["should_change"] == {
        "n": 7,
        "faithful": 1,
        "stubborn": 3,
        "flighty": 2,
        "silent": 1,
    }
    assert entry["should_stay"]["n"] == 0
    assert entry["accuracy"] | {"low": 0, "high": 0} == {
        "accuracy": pytest.approx(2 / 7),
        "low": 0,
        "high": 0,
        "n": 7,
        "videos": 3,
    }
    assert entry["accuracy"]["low"] <= 2 / 7 <= entry["accuracy"]["high"]
    assert entry["before"] == pytest.approx(4 / 7)


def test_where_nothing_can_be_known_only_the_same_answer_counts() -> None:
    before = by_row(*(was(row, "two", label) for row, label in enumerate(("two", "one"), 1)))
    before |= by_row(was(3, "two", "no_answer"), was(4, "two", "two"))
    probed = [
        after(1, None, "two", "mute"),
        after(2, None, "three", "mute"),
        after(3, None, "no_answer", "mute"),  # never the same answer: there is none
        after(4, "two", "two", "mute"),
    ]
    entry = rate(MUTE, probed, before, {"the clip has no sound": 3})
    assert entry["unknown"] == {"n": 3, "same_answer": 1}
    assert entry["n"] == 4 and entry["accuracy"]["n"] == 1
    assert entry["should_stay"] == {"n": 1, "steady": 1, "flighty": 0, "silent": 0}
    assert entry["left_out"] == {"the clip has no sound": 3}


def test_without_a_known_answer_there_is_no_accuracy() -> None:
    entry = rate(MUTE, [after(1, None, "two", "mute")], by_row(was(1, "two", "two")), {})
    assert entry["accuracy"] is None and entry["before"] is None
    empty = rate(MUTE, [], {}, {"the clip has no sound": 1})
    assert empty["n"] == 0 and empty["accuracy"] is None


def test_one_video_has_no_interval() -> None:
    before = by_row(was(1, "yes", "yes", "a"), was(2, "yes", "yes", "a"))
    entry = rate(MIRROR, [after(1, "yes", "yes"), after(2, "yes", "no")], before, {})
    assert entry["accuracy"]["low"] is None and entry["accuracy"]["high"] is None


def test_about_exactness_and_sweep() -> None:
    entry = rate(MIRROR, [], {}, {}, scenes=True)
    assert entry["exact"] and entry["about"] == MIRROR.about and entry["family"] == "space"
    assert not rate(MIRROR, [], {}, {})["exact"]
    assert not rate(MUTE, [], {}, {}, scenes=True)["exact"]
    assert entry["sweep"] is None
    noise = rate(PROBES["noise-10"], [], {}, {})["sweep"]
    assert (noise["of"], noise["at"]) == ("noise", 10)


def test_answers_that_do_not_belong_together_are_refused_by_name() -> None:
    with pytest.raises(RunError, match="row 4 was asked after 'mirror'"):
        rate(MIRROR, [after(4, "yes", "yes")], {}, {})
    with pytest.raises(RunError, match="row 4 after 'mute' is among those after 'mirror'"):
        rate(MIRROR, [after(4, "yes", "yes", "mute")], by_row(was(4, "yes", "yes")), {})
