"""From answers to `results.json` and the printed tables, by hand where a hand can do it."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avqa_llm.labels import NO_ANSWER
from eval.benchmarks import BENCHMARKS, read_benchmark, seen_videos
from eval.benchmarks.base import Question, QuestionSet
from eval.bias import all_k_right, bias, confusion, rephrase
from eval.calibration import area, calibration, coverage_at, risk_coverage
from eval.floors import Floor, fit_floor
from eval.modalities import modalities
from eval.results import summarise
from eval.samples import RESULTS, SAMPLES, ProbeSample, RunError, Sample, write_json
from eval.statistics import calibration_error
from eval.tables import run_table, side_by_side

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
HEARD, SEEN = "How many instruments are heard?", "Where is it?"


def question(number: int, gold: str = "two", **more: Any) -> Question:
    known: dict[str, Any] = {
        "video_id": f"{number // 2:08d}",
        "question_id": number,
        "type": "Audio Counting",
        "question": f"{HEARD} ({number})",
        "template": HEARD,
    }
    return Question(number=number, gold=gold, **(known | more))


def answer(asked: Question, label: str | None = None, **more: Any) -> Sample:
    """Right, if no label is given."""
    label = asked.gold if label is None else label
    known: dict[str, Any] = {"answer": label, "label": label, "engine_label": label}
    return Sample(
        row=asked.number,
        video_id=asked.video_id,
        question_id=asked.question_id,
        template=asked.template,
        type=asked.type,
        question=asked.question,
        gold=asked.gold,
        **(known | more),
    )


def scored(samples: list[Sample], questions: list[Question], **more: Any) -> dict[str, Any]:
    known = {"benchmark": None, "floor": None, "fit": None, "seen": None}
    return summarise(samples, questions, **(known | more))


# -- results.json ----------------------------------------------------------------------------


@pytest.fixture
def world() -> tuple[list[Question], list[Sample], Floor]:
    """Eight questions about four clips; two wrong, one of them without an answer."""
    golds = ("two", "two", "one", "two")
    heard = [question(n, gold) for n, gold in enumerate(golds)]
    seen = [
        question(n, gold, type="Visual Location", template=SEEN, question=f"{SEEN} ({n})")
        for n, gold in enumerate(("left", "left", "right", "left"), 4)
    ]
    questions = heard + seen
    labels = ("two", "two", "two", "two", "left", NO_ANSWER, "right", "left")
    samples = [
        answer(asked, label, probability=0.5 + asked.number / 20, engine_label="two")
        for asked, label in zip(questions, labels, strict=True)
    ]
    return questions, samples, fit_floor(questions)


def test_every_figure_by_hand(
    world: tuple[list[Question], list[Sample], Floor], tmp_path: Path
) -> None:
    questions, samples, floor = world
    found = scored(samples[::-1], questions, floor=floor, seen=frozenset({"00000000", "00000003"}))
    write_json(tmp_path / RESULTS, found)  # refuses NaN
    assert json.loads((tmp_path / RESULTS).read_text()) == found
    assert {key: found["overall"][key] for key in ("accuracy", "n", "videos")} == {
        "accuracy": 6 / 8,
        "n": 8,
        "videos": 4,
    }
    assert found["overall"]["low"] < 6 / 8 < found["overall"]["high"]
    assert list(found["types"]) == ["Audio Counting", "Visual Location"]
    assert [one["accuracy"] for one in found["types"].values()] == [3 / 4, 3 / 4]
    assert set(found["not_computed"]) == {"Audio-Visual"}
    groups = {name: (one["accuracy"], one["n"]) for name, one in found["groups"].items()}
    assert groups == {
        "Audio": (3 / 4, 4),
        "Visual": (3 / 4, 4),
        "video-disjoint": (2 / 4, 4),
        "prior-agreeing": (5 / 6, 6),
        "prior-disagreeing": (1 / 2, 2),
    }
    assert found["floor"]["level"] == "template"
    assert found["floor"]["types"] == {"Audio Counting": 3 / 4, "Visual Location": 3 / 4}
    assert found["floor"]["groups"]["prior-disagreeing"] == 0
    assert found["floor"]["levels"] == {
        "global": 3 / 8,
        "type": 6 / 8,
        "template": 6 / 8,
        "template+values": 6 / 8,
    }
    assert found["gain_over_floor"] == 0
    assert found["gain_interval"][0] <= 0 <= found["gain_interval"][1]
    assert found["templates"][SEEN]["accuracy"] == found["templates"][SEEN]["floor"] == 3 / 4
    assert (found["no_answer"], found["relabelled"]) == (1, 4)
    assert found["scorers"]["canonical"]["accuracy"] == 6 / 8
    assert found["rephrase"] is None and found["probes"] is None and found["modalities"] is None


def test_without_a_floor_its_figures_are_null(
    world: tuple[list[Question], list[Sample], Floor],
) -> None:
    questions, samples, _ = world
    unlabelled = [replace(sample, engine_label=None, probability=None) for sample in samples]
    found = scored(unlabelled, questions)
    for name in ("floor", "gain_over_floor", "gain_interval", "calibration", "relabelled"):
        assert found[name] is None
    assert found["templates"][HEARD]["floor"] is None
    some = scored([*unlabelled[:3], *samples[3:]], questions)
    assert some["calibration"] is None
    assert some["not_computed"]["calibration"] == "3 of 8 answers have no probability"
    assert set(found["not_computed"]) == {
        "Audio-Visual",
        "video-disjoint",
        "prior-agreeing",
        "prior-disagreeing",
    }


def test_a_benchmarks_group_whose_key_is_missing_is_refused(
    world: tuple[list[Question], list[Sample], Floor],
) -> None:
    questions, samples, _ = world
    with pytest.raises(RunError, match="row 0, key 'subset'"):
        scored(samples, questions, benchmark=BENCHMARKS["music-avqa-r"])


def test_answers_to_other_questions_are_refused(
    world: tuple[list[Question], list[Sample], Floor],
) -> None:
    questions, samples, _ = world
    with pytest.raises(RunError, match="row 7 is not answered"):
        scored(samples[:-1], questions)
    with pytest.raises(RunError, match="row 7 is answered twice, or is not among"):
        scored(samples, questions[:-1])
    with pytest.raises(RunError, match="row 7 is answered twice"):
        scored([*samples, samples[-1]], questions)
    with pytest.raises(RunError, match="gold answer 'left'.* has 00000003 with 'right'"):
        scored(samples, [*questions[:-1], replace(questions[-1], gold="right")])
    with pytest.raises(RunError, match="only 8 different rows"):
        scored(samples, [*questions, questions[0]])
    with pytest.raises(RunError, match="no answers"):
        scored([], [])


def test_the_floors_own_answers_gain_nothing_on_the_benchmarks_file() -> None:
    names = ("music-avqa/avqa-test.json", "music-avqa/avqa-val.json")
    for name in names:
        if not (DATA / name).is_file():
            pytest.skip(f"{DATA / name} is absent: set AVQA_TEST_DATA to the annotation files")
    test, val = (read_benchmark("music-avqa", DATA / name) for name in names)
    floor = fit_floor(val.questions)
    samples = [answer(one, floor.answer(one)) for one in test.questions]
    found = scored(
        samples,
        list(test.questions),
        benchmark=BENCHMARKS["music-avqa"],
        floor=floor,
        fit=val,
        seen=seen_videos(val),
    )
    assert round(100 * found["overall"]["accuracy"], 2) == 51.05
    assert (found["gain_over_floor"], found["gain_interval"]) == (0, [0, 0])
    assert found["groups"]["prior-agreeing"]["accuracy"] == 1
    assert found["groups"]["prior-disagreeing"]["accuracy"] == 0
    assert len(found["templates"]) == 33 and len(found["types"]) == 9
    half = (found["overall"]["high"] - found["overall"]["low"]) / 2
    assert 0.009 < half < 0.014  # sqrt(.51 * .49 / 9129) * 1.96 = 0.0103 without clips


# -- calibration -----------------------------------------------------------------------------


def test_answers_of_equal_confidence_enter_together() -> None:
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([1.0, 1, 0, 1, 0])
    for order in itertools.permutations(range(5)):
        coverage, risk = risk_coverage(confidence[list(order)], correct[list(order)])
        assert coverage.tolist() == [0.2, 0.8, 1.0]
        assert risk.tolist() == [0.0, 0.25, 0.4]
    assert area(coverage, risk) == pytest.approx(0.2 * 0 + 0.6 * 0.25 + 0.2 * 0.4)
    assert coverage_at(0.24, coverage, risk) == 0.2
    assert coverage_at(0.25, coverage, risk) == 0.8
    assert coverage_at(0.5, coverage, risk) == 1
    assert coverage_at(0.1, coverage[1:], risk[1:]) == 0


def test_coverage_may_grow_again_after_a_confident_mistake() -> None:
    confidence = np.linspace(1, 0, 100)
    correct = np.ones(100)
    correct[0] = 0
    coverage, risk = risk_coverage(confidence, correct)
    assert risk[0] == 1 and coverage_at(0.01, coverage, risk) == 1
    assert area(coverage, risk) == pytest.approx(np.mean([1 / n for n in range(1, 101)]))


def test_calibration_of_samples() -> None:
    rng = np.random.default_rng(0)
    questions = [question(n) for n in range(1000)]
    probability = rng.random(1000)
    samples = [
        answer(asked, None if rng.random() < p else "one", probability=float(p))
        for asked, p in zip(questions, probability, strict=True)
    ]
    found = calibration(samples)
    assert found is not None
    assert found["ece"] == calibration_error(probability, [one.correct for one in samples])
    assert sum(one["n"] for one in found["bins"]) == 1000 and len(found["bins"]) == 15
    weighted = [one["n"] * abs(one["confidence"] - one["accuracy"]) for one in found["bins"]]
    assert found["ece"] == pytest.approx(sum(weighted) / 1000)
    assert all(one["low"] <= one["confidence"] <= one["high"] for one in found["bins"])
    curve = found["risk_coverage"]
    assert len(curve) <= 200 and curve[-1] == [1.0, 1 - np.mean([one.correct for one in samples])]
    assert list(found["coverage_at_risk"]) == ["0.01", "0.05", "0.1"]
    assert calibration([*samples, answer(questions[0])]) is None


# -- bias and wordings -----------------------------------------------------------------------


def test_leaning_by_hand() -> None:
    asked = [question(n, gold) for n, gold in enumerate(("yes", "yes", "no", "no"))]
    other = question(4, "left", template=None, type="Visual Location")
    labels = ("yes", "yes", "yes", NO_ANSWER, "left")
    pairs = [(answer(q, label), q) for q, label in zip([*asked, other], labels, strict=True)]
    found = bias(pairs)
    assert found["templates"][HEARD] == {
        "n": 4,
        "distance": pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 2),
        "gold": {"yes": 2, "no": 2},
        "predicted": {"yes": 3, NO_ANSWER: 1},
    }
    assert found["templates"]["Visual Location"]["distance"] == 0
    assert found["mean_distance"] == pytest.approx(0.5 * 4 / 5)
    assert found["yes_rate"] == {"n": 4, "predicted": 3 / 4, "gold": 1 / 2}
    assert bias(pairs[-1:])["yes_rate"] is None
    assert confusion([sample for sample, _ in pairs]) == [
        ["yes", "yes", 2],
        ["left", "left", 1],
        ["no", NO_ANSWER, 1],
        ["no", "yes", 1],
    ]


def test_the_worst_of_k_equals_the_mean_over_all_choices() -> None:
    for right, n, k in ((3, 5, 2), (5, 5, 5), (1, 4, 2), (0, 3, 2), (7, 9, 5)):
        drawn = list(itertools.combinations([True] * right + [False] * (n - right), k))
        (closed,) = all_k_right(np.array([right]), np.array([n]), k)
        assert closed == pytest.approx(np.mean([all(one) for one in drawn]))
        assert closed == pytest.approx(math.comb(right, k) / math.comb(n, k))
    assert all_k_right(np.array([1]), np.array([1]), 2).tolist() == [0]


def test_wordings_by_hand() -> None:
    def wordings(original: int, labels: str) -> list[tuple[Sample, Question]]:
        """A letter a wording: r right, w wrong, x wrong in another way."""
        said = {"r": "two", "w": "one", "x": "three"}
        asked = [
            question(100 * original + n, question_id=original, video_id=f"{original:08d}")
            for n in range(len(labels))
        ]
        return [(answer(q, said[letter]), q) for q, letter in zip(asked, labels, strict=True)]

    pairs = [*wordings(1, "rrrrr"), *wordings(2, "rw"), *wordings(3, "ww"), *wordings(4, "wwx")]
    found = rephrase([*pairs, *wordings(5, "r")])
    assert found is not None
    assert (found["questions"], found["wordings"]) == (4, 3.0)
    assert found["all_right"].value == 1 / 4 and found["all_right"].videos == 4
    assert found["flip_rate"].value == 2 / 4
    assert {k: one.value for k, one in found["worst_of_k"].items()} == {"2": 1 / 4, "5": 1.0}
    assert found["worst_of_k"]["5"].n == 1
    assert rephrase(wordings(5, "r")) is None


def test_one_id_with_two_answers_is_no_rewording() -> None:
    one, other = question(1, "two", question_id=7), question(2, "one", question_id=7)
    other = replace(other, video_id=one.video_id)
    assert rephrase([(answer(one), one), (answer(other), other)]) is None
    same = replace(other, gold="two", question=one.question)
    assert rephrase([(answer(one), one), (answer(same), same)]) is None  # the same words
    assert rephrase([(answer(one), one), (answer(q := replace(other, gold="two")), q)])


# -- modalities and probes -------------------------------------------------------------------


def after(probe: str, row: int, label: str, expected: str | None = None) -> ProbeSample:
    return ProbeSample(
        probe=probe,
        row=row,
        question="?",
        expected=expected,
        answer=label,
        label=label,
        probability=None,
        consumed=None,
    )


def test_what_each_modality_adds_by_hand() -> None:
    questions = [question(n) for n in range(12)]
    samples = [answer(one, None if one.number < 9 else "one") for one in questions]
    probes = [after("mute", n, "two" if n < 3 else "one", expected="zero") for n in range(10)]
    probes += [after("blank", n, "two" if n < 6 else NO_ANSWER) for n in range(10)]
    found = modalities(samples, probes, np.arange(12) < 2)
    assert found is not None
    assert (found["n"], found["full"]) == (10, 0.9)  # rows 10 and 11 were not asked again
    assert (found["picture only"], found["sound only"]) == (0.3, 0.6)  # against gold
    assert found["question only"] is None
    assert found["sound adds"]["value"] == pytest.approx(0.6)
    assert found["picture adds"]["value"] == pytest.approx(0.3)
    assert found["sound adds"]["low"] < 0.6 < found["sound adds"]["high"]
    assert found["floor"] == 0.2 and found["over the floor"]["value"] == pytest.approx(0.7)
    assert found["picture only over the floor"]["value"] == pytest.approx(0.1)
    with_question = modalities(samples, [*probes, after("question-only", 0, "two")], None)
    assert with_question is not None
    assert (with_question["n"], with_question["question only"]) == (1, 1.0)
    assert with_question["sound adds"]["low"] is None  # one clip
    assert modalities(samples, [after("mirror", 1, "two")], None) is None
    with pytest.raises(RunError, match="row 40"):
        modalities(samples, [after("mute", 40, "two")], None)


def test_probes_are_rated_each_by_itself(
    world: tuple[list[Question], list[Sample], Floor],
) -> None:
    questions, samples, _ = world
    probes = [after("mute", 0, "two", "two"), after("mirror", 4, "right", "right")]
    left_out = {"mirror": {"too wide": 2}, "blank": {"no picture": 3}}
    found = scored(samples, questions, probes=probes, left_out=left_out)["probes"]
    assert set(found) == {"mute", "mirror", "blank"}
    assert found["mirror"]["should_change"]["faithful"] == 1 and not found["mirror"]["exact"]
    assert found["mute"]["should_stay"]["steady"] == 1
    assert (found["blank"]["n"], found["blank"]["left_out"]) == (0, {"no picture": 3})
    with pytest.raises(RunError, match="no probe 'upside-down'"):
        scored(samples, questions, probes=[after("upside-down", 0, "two")])


# -- printed ---------------------------------------------------------------------------------


def finished(
    folder: Path, samples: list[Sample], results: dict[str, Any], **changes: Any
) -> dict[str, Any]:
    """The folder of a run, and what its results.json holds."""
    checks = {
        "no gold leak": {"state": "pass", "says": "0 of 8 came back"},
        "sound delivered": {"state": "unproven", "says": "nobody can prove it"},
    }
    made = {
        "benchmark": "music-avqa",
        "model": "tiny",
        "engine": "local",
        "mode": "rank",
        "files": {"test.json": "a" * 64},
        "fit": {"val.json": "b" * 64} if results["floor"] else None,
        "version": "",
        "mute": False,
        "blank": False,
        "clips": 4,
        "questions": len(samples),
        "asked": len(samples),
        "missing_clips": {},
        "missing_questions": 0,
    }
    made |= changes
    content = results | {"integrity": {"valid": True, "checks": checks}, "provenance": made}
    folder.mkdir()
    (folder / SAMPLES).write_text("".join(sample.to_line() for sample in samples))
    write_json(folder / RESULTS, content)
    return content


def test_the_table_of_a_run(
    world: tuple[list[Question], list[Sample], Floor], tmp_path: Path
) -> None:
    questions, samples, floor = world
    fit = QuestionSet(benchmark="", path=Path("val"), sha256={}, questions=tuple(questions))
    probes = [after("mute", n, "two", None if n else "two") for n in range(4)]
    results = scored(samples, questions, floor=floor, fit=fit, probes=probes)
    content = finished(tmp_path / "run", samples, results)
    table = run_table(content)
    lines = table.splitlines()
    assert lines[0] == "valid: none of 2 checks failed; not proven: sound delivered"
    overall = next(line.split() for line in lines if line.startswith("Overall"))
    assert overall[1] == "75.00"
    assert overall[-4:] == ["8", "4", "75.00", "+0.00"]
    assert any(line.startswith("video-disjoint") and "no fit or train" in line for line in lines)
    assert "  not proven  sound delivered: nobody can prove it" in lines
    assert "No answer: 1 of 8, counted as wrong." in lines
    assert any(line.split()[:2] == ["canonical", "75.00"] for line in lines)
    assert any(line.startswith("  sound adds") for line in lines)
    assert any(line.split()[:2] == ["mute", "4"] for line in lines)
    narrowed = {"missing_questions": 3, "limit": 8, "shard": [1, 2]}
    table = run_table(content | {"provenance": content["provenance"] | narrowed})
    assert "MISSING: 3 questions are not in these figures" in table
    assert "in percent; first 8 questions only; part 1 of 2 only" in table
    missing = {f"clip {n}": "there is no such file" for n in range(7)}
    content["provenance"] |= {"missing_clips": missing, "missing_questions": 11}
    content["integrity"] = {
        "valid": False,
        "checks": {"no gold leak": {"state": "fail", "says": "GOLD LEAK: it leaks"}},
    }
    lines = run_table(content).splitlines()
    assert lines[0] == "INVALID: GOLD LEAK: it leaks"
    assert lines[1].startswith("MISSING: 7 clips with 11 questions")
    assert lines[2] == "  clip 0: there is no such file" and "and 2 more" in lines[7]


def test_a_run_without_a_floor_and_of_one_clip_can_be_printed(tmp_path: Path) -> None:
    asked = [replace(question(n), video_id="00000001", template=None) for n in range(3)]
    samples = [answer(one, engine_label=None) for one in asked]
    content = finished(tmp_path / "run", samples, scored(samples, asked))
    table = run_table(content | {"provenance": content["provenance"] | {"mode": None}})
    assert "100.00         [one clip]" in table and "none, for want of --fit" in table
    assert "Gain" not in table and "Calibration" not in table


def test_runs_side_by_side(
    world: tuple[list[Question], list[Sample], Floor], tmp_path: Path
) -> None:
    questions, samples, floor = world
    finished(tmp_path / "one", samples, scored(samples, questions, floor=floor))
    better = [answer(one) for one in questions]
    finished(tmp_path / "two", better, scored(better, questions))
    table = side_by_side([tmp_path / "one", tmp_path / "two"])
    rows = {line.split("  ")[0]: line for line in table.splitlines()[:20]}
    assert "75.00 [" in rows["Overall"] and "100.00 [100.00, 100.00]" in rows["Overall"]
    assert rows["Sound delivered"].split()[2:] == ["not", "proven", "not", "proven"]
    assert rows["prior-agreeing"].rstrip().endswith("-")  # the second run has no floor
    assert "two against one: no difference can be told: two minus one is +25.00 points" in table
    assert "Visual Location" in table.partition("two against one")[2]
    other = finished(
        tmp_path / "other", samples, scored(samples, questions), files={"x.json": "c" * 64}
    )
    assert run_table(other)
    with pytest.raises(RunError, match="another question file"):
        side_by_side([tmp_path / "one", tmp_path / "other"])
    finished(tmp_path / "half", samples[:4], scored(samples, questions), questions=8)
    with pytest.raises(RunError, match="4 answers but results of 8"):
        side_by_side([tmp_path / "one", tmp_path / "half"])
    with pytest.raises(RunError, match="4 answers but results of 8"):
        side_by_side([tmp_path / "half"])
    write_json(tmp_path / "half" / RESULTS, {})
    with pytest.raises(RunError, match="has no 'benchmark', 'overall'"):
        side_by_side([tmp_path / "half"])
    with pytest.raises(RunError, match="finish it"):
        side_by_side([tmp_path / "none"])


def test_figures_do_not_depend_on_the_order_of_sets() -> None:
    code = (
        "from collections import Counter; from eval.bias import distance;"
        "print(repr(distance(Counter(a=3, b=5, c=7, d=1, e=9, f=11), "
        "Counter(b=2, c=1, d=13, e=4, g=6, h=8))))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(8)
    }
    assert len(found) == 1
