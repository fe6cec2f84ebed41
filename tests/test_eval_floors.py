"""The blind floor, against the figures that were counted on the benchmark's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eval.floors import fit_floor, floor_table, score_floor
from instruct_data.sources.music_avqa import Row, read_annotations

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
LOUDER = "Is the <Object> louder than the <Object>?"


def data(*names: str) -> list[Path]:
    paths = [DATA / name for name in names]
    for path in paths:
        if not path.is_file():
            pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    return paths


def row(gold: str, template: str | None = LOUDER, kind: str = "Comparative") -> Row:
    return Row(
        number=1,
        video_id="v",
        question_id=None,
        modality="Audio",
        kind=kind,
        template=template,
        slots=(),
        question="?",
        gold=gold,
    )


def test_the_floor_of_v1() -> None:
    test, val = data("music-avqa/avqa-test.json", "music-avqa/avqa-val.json")
    rows, floor = read_annotations(test).rows, fit_floor(read_annotations(val).rows)
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
    rows, floor = read_annotations(test).rows, fit_floor(read_annotations(valid).rows)
    assert len(rows) == 10819
    assert round(100 * score_floor(floor, rows).overall, 2) == 42.57


def test_the_printed_table() -> None:
    test, val = data("music-avqa/avqa-test.json", "music-avqa/avqa-val.json")
    table = floor_table(test, val)
    assert "\nOverall                         9129     51.05     35.77     26.15\n" in table
    assert "\nAudio-Visual Temporal            822     28.22     16.79      0.00" in table


def test_of_equally_frequent_answers_the_first_in_the_file_wins() -> None:
    assert fit_floor([row("yes"), row("no"), row("no"), row("yes")]).answer(row("no")) == "yes"
    assert fit_floor([row("no"), row("yes"), row("yes"), row("no")]).answer(row("no")) == "no"


def test_without_a_fitted_template_the_type_answers_and_without_that_everything() -> None:
    floor = fit_floor([*[row("no")] * 3, *[row("two", None, "Counting")] * 2])
    assert floor.answer(row("?", None)) == "no"
    assert floor.answer(row("?", "another", "Counting")) == "two"
    assert floor.answer(row("?", "another", "Temporal")) == "no"
    assert floor.answer(row("?", LOUDER, "Counting"), "type") == "two"
    with pytest.raises(ValueError, match="level"):
        floor.answer(row("?"), "templates")
    with pytest.raises(ValueError, match="no rows"):
        score_floor(floor, [])
