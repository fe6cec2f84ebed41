"""Published figures: the table can be read, and names its sources."""

from __future__ import annotations

import csv

import pytest

from eval.benchmarks import BENCHMARKS
from eval.published import FILE, published, read_published
from eval.scoring import PUBLISHED

FIGURES = read_published()


def test_the_file_has_the_columns_that_are_read_and_no_empty_place() -> None:
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    columns = [
        "method",
        "benchmark",
        "split_or_sample",
        "overall",
        "rule",
        "rows",
        "source",
        "note",
    ]
    assert list(rows[0]) == columns
    for row in rows:
        assert None not in row and None not in row.values()  # a comma too many or too few
        assert all(value == value.strip() for value in row.values())


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.method} {figure.overall}")
def test_each_figure_is_a_percentage_with_a_source_and_a_rule_that_is_known(figure) -> None:
    assert 0 < figure.overall < 100
    assert figure.method and figure.source and figure.split_or_sample
    assert figure.benchmark in BENCHMARKS
    assert figure.rows is None or figure.rows > 0
    rule = figure.rule.partition(",")[0]
    assert rule in {*PUBLISHED, "", "majority of val"}


def test_no_figure_is_there_twice() -> None:
    keys = [(one.method, one.benchmark, one.split_or_sample) for one in FIGURES]
    assert sorted(set(keys)) == sorted(keys)


@pytest.mark.parametrize(
    ("benchmark", "method", "overall"),
    [
        ("music-avqa", "AVST", 71.52),
        ("music-avqa", "QA-TIGER", 77.62),
        ("music-avqa", "CueSpace", 79.22),
        ("music-avqa", "PAVE-7B", 82.3),
        ("music-avqa", "MokA", 77.76),
        ("music-avqa", "VideoLLaMA2.1-AV", 80.9),
        ("music-avqa", "LSTM, question only", 54.09),
        ("music-avqa", "GPT-4o, zero-shot", 54.06),
        ("music-avqa", "CAT (classification head)", 84.3),
        ("music-avqa-v2", "QA-TIGER", 76.43),
        ("music-avqa-r", "QA-TIGER", 67.99),
        ("fortisavqa", "MAVEN", 74.66),
        ("avqa", "CAT", 92.0),
    ],
)
def test_figures_that_readers_look_for(benchmark: str, method: str, overall: float) -> None:
    found = {one.method: one.overall for one in published(benchmark)}
    assert found[method] == overall


def test_shares_of_rows_come_out_as_published() -> None:
    found = {one.method: one for one in published("music-avqa")}
    assert round(100 * 7232 / found["CueSpace"].rows, 2) == found["CueSpace"].overall
    counted, all_rows = found["MokA"], found["MokA (failures counted)"]
    right = counted.overall * counted.rows
    assert right / all_rows.rows == pytest.approx(all_rows.overall, abs=0.01)


def test_figures_that_cannot_be_compared_say_why() -> None:
    for one in FIGURES:
        incomparable = (
            "sample" in one.split_or_sample
            or one.rule.startswith(("gold-in", "answer-tag"))
            or one.method.startswith("claim")
        )
        assert one.note or not incomparable, one
