"""Head and tail of MUSIC-AVQA-R, which its files say, and templates, which a parent lends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.benchmarks import read_benchmark
from instruct_data.templates import TEMPLATES
from tests.question_files import V1, R, data, r, refused, said, write, write_r


def test_headtail_looks_head_and_tail_up(tmp_path: Path) -> None:
    """Equal rows in both files keep their number on each side."""
    same = r("Is it so")
    head, tail = [r("A"), same, same], [r("B"), same, r("A", "no")]
    path = write_r(tmp_path, head, tail, tail[0], same, head[0], tail[2], same, same)
    asked = read_benchmark("music-avqa-r", path)
    assert [one.subset for one in asked.questions] == ["tail", "head", "head", "tail"] + [
        "head",
        "tail",
    ]
    assert set(asked.sha256) == {f"avqa-test-{part}.json" for part in ("head", "tail", "headtail")}
    assert read_benchmark("music-avqa-r", tmp_path).questions == asked.questions


def test_a_row_that_is_in_neither_file_is_named(tmp_path: Path) -> None:
    path = write_r(tmp_path, [r("A")], [r("B")], r("A"), r("A"))
    message = refused("music-avqa-r", path)
    assert "row 2, field 'question_content': 'A'" in message and "neither in" in message
    path = write_r(tmp_path, [r("A")], [r("B")], r("A"))
    assert said(read_benchmark("music-avqa-r", path), "1 rows of avqa-test-head.json and")


def test_headtail_alone_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "avqa-test-headtail.json", R)
    assert "avqa-test-head.json, which does, is not beside it" in refused("music-avqa-r", path)
    path = write(tmp_path / "avqa-test.json", R)
    assert "name should tell which rows it holds" in refused("music-avqa-r", path)


@pytest.mark.parametrize("name", ["details.json", "retail-questions.json", "head-tail.json"])
def test_part_of_a_word_in_the_name_says_nothing(name: str, tmp_path: Path) -> None:
    message = refused("music-avqa-r", write(tmp_path / name, R))
    assert "name should tell which rows it holds" in message


@pytest.mark.parametrize("name", ["head.json", "r_head.v2.json", "retail-head.json"])
def test_a_word_of_the_name_says_which_rows_it_holds(name: str, tmp_path: Path) -> None:
    asked = read_benchmark("music-avqa-r", write(tmp_path / name, R))
    assert [one.subset for one in asked.questions] == ["head"]


def test_a_folder_without_headtail_is_head_and_tail_numbered_on(tmp_path: Path) -> None:
    odd = r("D") | {"colour": "red"}
    write_r(tmp_path, [r("A"), r("B")], [r("C"), odd], R).unlink()
    asked = read_benchmark("music-avqa-r", tmp_path)
    assert [(one.number, one.question, one.subset) for one in asked.questions] == [
        (1, "A", "head"),
        (2, "B", "head"),
        (3, "C", "tail"),
        (4, "D", "tail"),
    ]
    assert said(asked, "rows from 3 on are row 1 on of avqa-test-tail.json")
    assert said(asked, "row 4: has a field 'colour'")
    (tmp_path / "avqa-test-tail.json").unlink()
    assert "neither avqa-test-headtail.json nor avqa-test-tail" in refused("music-avqa-r", tmp_path)


def test_a_parent_lends_templates_and_slots(tmp_path: Path) -> None:
    heard = {
        "question_id": 7,
        "type": '["Audio", "Counting"]',
        "question_content": "How many musical instruments were heard throughout the video?",
        "templ_values": "[]",
        "anser": "two",
    }
    # The id 8 stands for two different questions: neither is lent.
    twice = [V1 | {"question_id": 8}, V1 | heard | {"question_id": 8}]
    parent = write(tmp_path / "v1.json", V1, V1 | heard, *twice)
    rows = [
        R,
        R | {"video_id": "00000001"},
        R | {"question_id": 8},
        R | {"question_id": 7},
        r("Is it", "no"),
    ]
    path = write(tmp_path / "avqa-test-head.json", *rows)
    asked = read_benchmark("music-avqa-r", path, parent=parent)
    assert [one.template for one in asked.questions] == [V1["question_content"], None, None] + [
        None,
        V1["question_content"],
    ]
    assert asked.questions[0].slots == ("clarinet", "acoustic_guitar")
    assert asked.questions[0].question == R["question_content"]
    assert len(said(asked, "have no template")) == 1 and said(asked, "3 of 5 questions")
    assert said(asked, "give another answer than their question in v1.json; the first is row 4")
    assert set(asked.sha256) == {"avqa-test-head.json", "v1.json"}
    assert "needs no parent" in refused("music-avqa", parent, parent=parent)
    assert "filled in" in refused("music-avqa-r", path, parent=path)


def test_the_real_test_file_lends_all_its_templates(tmp_path: Path) -> None:
    parent = data("music-avqa/avqa-test.json")
    raw = json.loads(parent.read_bytes())[:200]
    keys = ("video_id", "question_id", "type", "anser")
    rows = [{key: row[key] for key in keys} | {"question_content": "Is it so"} for row in raw]
    path = write(tmp_path / "avqa-test-tail.json", *rows)
    asked = read_benchmark("music-avqa-r", path, parent=parent)
    assert [one.template for one in asked.questions] == [
        row["question_content"].strip() for row in raw
    ]
    assert not said(asked, "template") and not said(asked, "another answer")


def test_rewordings_of_ours_do_not_pass_for_r(tmp_path: Path) -> None:
    row = R | {"template": V1["question_content"], "wording": "training"}
    asked = read_benchmark("music-avqa-r", write(tmp_path / "avqa-test-head.json", row, R))
    assert asked.questions[0].template in TEMPLATES and asked.questions[0].held_out is False
    assert said(asked, "1 rows name the template") and said(asked, "not the questions of the")


def test_what_goes_along_may_be_another_version(tmp_path: Path) -> None:
    asked = read_benchmark("music-avqa-r", write(tmp_path / "avqa-test-head.json", R))
    fit = read_benchmark("music-avqa-r", write(tmp_path / "v1-val.json", V1), like=asked)
    assert fit.questions[0].slots == ("clarinet", "acoustic_guitar")
    val = read_benchmark("music-avqa-r", data("music-avqa/avqa-val.json"), like=asked)
    assert val.benchmark == "music-avqa" and len(val.questions) == 4568
