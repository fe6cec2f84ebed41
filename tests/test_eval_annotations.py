"""Question files: the shapes that the benchmark's own files have, and faults that must be named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AnnotationError
from eval.annotations import TYPES, read_annotations

V1: dict[str, Any] = {
    "video_id": "00000093",
    "question_id": 12,
    "type": '["Audio-Visual", "Comparative"]',
    "question_content": "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
    "templ_values": '["flute", "left", "acoustic_guitar", "right"]',
    "question_deleted": 0,
    "anser": "yes",
}
R: dict[str, Any] = {
    "video_id": "00000093",
    "question_id": 12,
    "type": '["Audio", "Comparative"]',
    "question_content": "When compared to the acoustic_guitar does the clarinet sound louder",
    "templ_values": "[]",
    "anser": "yes",
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_a_v1_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", V1)
    read = read_annotations(path)
    (row,) = read.rows
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row.number, row.video_id, row.question_id) == (1, "00000093", 12)
    assert row.type == "Audio-Visual Comparative" and row.gold == "yes"
    assert row.template == V1["question_content"]
    assert row.slots == ("flute", "left", "acoustic_guitar", "right")
    assert row.question == "Is the flute on the left louder than the acoustic_guitar on the right?"


def test_lists_as_lists_stray_spaces_and_the_other_answer_key(tmp_path: Path) -> None:
    row = {key: value for key, value in V1.items() if key != "anser"} | {
        "type": ["Audio", "Counting"],
        "question_content": "Are there <Object> and <Object> sound? ",
        "templ_values": ["flute ", "cello"],
        "answer": " no",
    }
    (read,) = read_annotations(write(tmp_path / "a.json", row)).rows
    assert read.template == "Are there <Object> and <Object> sound?"
    assert read.question == "Are there flute and cello sound?"
    assert read.gold == "no"


def test_a_filled_row_keeps_its_last_character_and_has_no_template(tmp_path: Path) -> None:
    ours = R | {"template": "Is the <Object> louder than the <Object>?"}
    fortis = {key: value for key, value in R.items() if key != "templ_values"} | {"split": "head"}
    plain, known, bare = read_annotations(write(tmp_path / "a.json", R, ours, fortis)).rows
    assert plain.question.endswith("sound louder")
    assert plain.template is None and bare.template is None
    assert known.template == ours["template"] and known.question == plain.question


@pytest.mark.parametrize(
    ("written", "read"), [(None, None), (float("nan"), None), (12.0, 12), ("x-7", "x-7"), (0, 0)]
)
def test_question_ids_of_v2(tmp_path: Path, written: Any, read: Any) -> None:
    missing = {key: value for key, value in V1.items() if key != "question_id"}
    path = write(tmp_path / "a.json", V1 | {"question_id": written}, missing)
    assert [row.question_id for row in read_annotations(path).rows] == [read, None]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("video_id", None, "missing"),
        ("video_id", 93, "93"),
        ("video_id", "../../secret", "secret"),
        ("video_id", "..", "not a plain file name"),
        ("question_id", 1.5, "1.5"),
        ("question_id", True, "True"),
        ("type", "Audio, Counting", "not a JSON list"),
        ("type", '["Audio", "Temporal"]', "none of the nine"),
        ("type", "[" * 100_000, "not a JSON list"),
        ("type", None, "none of the nine"),
        ("question_content", "", "should be text"),
        ("question_content", "Is the <Objekt> loud?", "none of the 33"),
        ("templ_values", '["flute"]', "4 slots but got 1"),
        ("templ_values", "[1, 2, 3, 4]", "list of texts"),
        ("anser", "maybe", "none of the 42"),
        ("anser", None, "missing"),
    ],
)
def test_a_fault_is_named_with_file_row_and_field(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    path = write(tmp_path / "questions.json", V1, V1 | {field: value})
    with pytest.raises(AnnotationError) as error:
        read_annotations(path)
    message = str(error.value)
    assert message.startswith(f"{path}, row 2, field '{field}': ")
    assert said in message
    assert len(message) < len(str(path)) + 400


def test_an_unknown_template_of_a_filled_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="row 1, field 'template'"):
        read_annotations(write(tmp_path / "a.json", R | {"template": "Is it loud?"}))


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", "{not json", '[{"video_id": "a"}'])
def test_a_file_that_is_no_list_of_rows_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match="a.json"):
        read_annotations(path)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="No such file"):
        read_annotations(tmp_path / "absent.json")
    (tmp_path / "bin.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match="not JSON"):
        read_annotations(tmp_path / "bin.json")


def test_the_nine_types() -> None:
    assert len(TYPES) == len(set(TYPES)) == 9
