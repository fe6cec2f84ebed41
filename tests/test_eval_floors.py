"""The blind floor, against the figures that were counted on the benchmark's own files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AnnotationError
from eval.benchmarks import read_benchmark
from eval.benchmarks.base import Question
from eval.floors import LEVELS, fit_floor, floor_table, ordered_types, run, score_floor
from eval.samples import RunError
from tests.question_files import V1, write

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
LOUDER = "Is the <Object> louder than the <Object>?"


def data(*names: str) -> list[Path]:
    paths = [DATA / name for name in names]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    return paths


def question(
    gold: str, template: str | None = LOUDER, kind: str = "Comparative", **more: Any
) -> Question:
    return Question(
        number=1,
        video_id="v",
        question_id=None,
        type=f"Audio {kind}",
        question="?",
        gold=gold,
        template=template,
        **more,
    )


def test_the_floor_of_v1() -> None:
    test, val = data("music-avqa/avqa-test.json", "music-avqa/avqa-val.json")
    rows = read_benchmark("music-avqa", test).questions
    floor = fit_floor(read_benchmark("music-avqa", val).questions)
    score = score_floor(floor, rows)
    assert len(rows) == 9129
    assert round(100 * score.overall, 2) == 51.05
    assert {name: round(100 * share, 2) for name, share in score.types.items()} == {
        "Audio Counting": 65.59,
        "Audio Comparative": 54.55,
        "Visual Counting": 56.81,
        "Visual Location": 27.27,
        "Audio-Visual Existential": 78.95,
        "Audio-Visual Location": 32.39,
        "Audio-Visual Counting": 56.05,
        "Audio-Visual Comparative": 57.77,
        "Audio-Visual Temporal": 28.22,
    }
    assert round(100 * score_floor(floor, rows, "type").overall, 2) == 35.77
    assert round(100 * score_floor(floor, rows, "global").overall, 2) == 26.15


def test_the_floor_of_v2() -> None:
    test, valid = data("music-avqa-v2/test_balance.json", "music-avqa-v2/balance_valid.json")
    rows = read_benchmark("music-avqa-v2", test).questions
    floor = fit_floor(read_benchmark("music-avqa-v2", valid).questions)
    assert len(rows) == 10819
    assert round(100 * score_floor(floor, rows).overall, 2) == 42.57


def test_values_tell_more_than_the_template() -> None:
    test, val = data("music-avqa/avqa-test.json", "music-avqa/avqa-val.json")
    rows = read_benchmark("music-avqa", test).questions
    floor = fit_floor(read_benchmark("music-avqa", val).questions)
    filled = score_floor(floor, rows, "template+values")
    assert filled.overall > score_floor(floor, rows).overall
    # Counted apart from the code under test: what is right where the values were fitted.
    counts: dict[tuple[str | None, tuple[str, ...]], dict[str, int]] = {}
    for one in read_benchmark("music-avqa", val).questions:
        at = counts.setdefault((one.template, one.slots), {})
        at[one.gold] = at.get(one.gold, 0) + 1
    right = 0
    for one in rows:
        at = counts.get((one.template, one.slots), {})
        best = [answer for answer, n in at.items() if n == max(at.values())]
        right += (best[0] if best else floor.answer(one)) == one.gold
    assert filled.overall == right / len(rows)


def test_the_printed_table(capsys: pytest.CaptureFixture[str]) -> None:
    test, val = data("music-avqa/avqa-test.json", "music-avqa/avqa-val.json")
    run(argparse.Namespace(annotations=test, fit=val, benchmark=None))
    table = capsys.readouterr().out
    line = next(line for line in table.splitlines() if line.startswith("Overall"))
    assert line.split()[:5] == ["Overall", "9129", "26.15", "35.77", "51.05"]
    line = next(line for line in table.splitlines() if line.startswith("Audio-Visual Temporal"))
    assert line.split()[2:6] == ["822", "0.00", "16.79", "28.22"]
    run(argparse.Namespace(annotations=test, fit=val, benchmark="music-avqa"))
    assert capsys.readouterr().out == table
    with pytest.raises(AnnotationError, match="music-avqa-v2"):
        floor_table(test, val, "music-avqa-v2")


def test_what_only_a_benchmark_can_read_is_refused_without_one(tmp_path: Path) -> None:
    file = write(tmp_path / "v1.json", V1)
    with pytest.raises(RunError, match="--parent needs --benchmark music-avqa-r or fortisavqa"):
        floor_table(file, file, parent=file)
    for test, fit in ((tmp_path, file), (file, tmp_path)):
        with pytest.raises(RunError, match="is a folder: .* --benchmark"):
            floor_table(test, fit)


def test_a_floor_fitted_on_its_own_questions_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "v1.json", V1)
    copy = write(tmp_path / "copy.json", V1)
    other = write(tmp_path / "other.json", V1, V1)
    line = "fitted on the very questions that it is scored on: not a floor"
    assert line in floor_table(file, copy).splitlines()
    assert line in floor_table(file, file, "music-avqa").splitlines()
    assert line not in floor_table(file, other)


def test_of_equally_frequent_answers_the_first_in_the_file_wins() -> None:
    asked = question("?")
    for first, second in (("yes", "no"), ("no", "yes")):
        floor = fit_floor([question(gold) for gold in (first, second, second, first)])
        assert {floor.answer(asked, level) for level in LEVELS} == {first}


def test_what_was_not_fitted_is_answered_by_the_next_coarser_level() -> None:
    floor = fit_floor(
        [
            *[question("no", slots=("piano", "tuba"))] * 2,
            *[question("yes", slots=("cello", "tuba"))] * 3,
            *[question("two", None, "Counting")] * 4,
        ]
    )
    fitted = question("?", slots=("piano", "tuba"))
    assert [floor.answer(fitted, level) for level in LEVELS] == ["two", "yes", "yes", "no"]
    assert floor.answer(question("?", slots=("erhu", "tuba")), "template+values") == "yes"
    assert floor.answer(question("?", None), "template+values") == "yes"
    assert floor.answer(question("?", "another", "Counting")) == "two"
    assert floor.answer(question("?", "another", "Temporal")) == "two"
    assert floor.answer(question("?", LOUDER, "Counting"), "type") == "two"
    with pytest.raises(ValueError, match="level"):
        floor.answer(question("?"), "templates")
    with pytest.raises(ValueError, match="no questions"):
        score_floor(floor, [])
    with pytest.raises(ValueError, match="no questions"):
        fit_floor([])


def test_of_multiple_choice_the_most_frequent_choice_is_taken() -> None:
    floor = fit_floor([question(gold, None) for gold in ("dog", "dog", "cat", "cat", "cat", "cow")])
    assert floor.answer(question("?", None)) == "cat"
    assert floor.answer(question("?", None, choices=("cow", "dog"))) == "dog"
    assert floor.answer(question("?", None, choices=("bird", "fish"))) == "bird"
    # None of the choices was counted for this type, but one of them was for another.
    more = fit_floor([question("dog", None), question("cat", None, "Counting")])
    assert more.answer(question("?", None, "Counting", choices=("cow", "dog"))) == "dog"


def test_types_are_printed_in_their_usual_order() -> None:
    names = ["What", "Visual Location", "Where", "Audio Counting", "What"]
    assert ordered_types(names) == ["Audio Counting", "Visual Location", "What", "Where"]
