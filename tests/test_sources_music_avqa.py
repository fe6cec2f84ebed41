"""Question files: the shapes that the benchmark's own files have, and faults that must be named."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from avqa_llm.errors import AnnotationError
from instruct_data.records import Record, dump
from instruct_data.sources import SOURCES
from instruct_data.sources.music_avqa import (
    TYPES,
    clips,
    left_out,
    read_annotations,
    records,
)
from instruct_data.sources.music_avqa_files import (
    contradictions,
    duplicates,
    faults,
    version,
)
from instruct_data.templates import SLOT

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))

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
    ours = R | {"template": "Is the <Object> louder than the <Object>?", "wording": "held-out"}
    fortis = {key: value for key, value in R.items() if key != "templ_values"} | {"split": "head"}
    plain, known, bare = read_annotations(write(tmp_path / "a.json", R, ours, fortis)).rows
    assert plain.question.endswith("sound louder")
    assert plain.template is None and bare.template is None
    assert known.template == ours["template"] and known.question == plain.question
    assert known.wording == "held-out" and plain.wording is None


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
        ("wording", "unseen", "none of held-out, training"),
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


# -- quirks of v2, R and FortisAVQA ------------------------------------------------------------

ARE_THERE = "How many sounding <Object> in the video\uff1f"
COUNT: dict[str, Any] = V1 | {
    "type": '["Audio-Visual", "Counting"]',
    "question_content": ARE_THERE,
    "templ_values": '["flute"]',
    "anser": "two",
}
MATCH: dict[str, Any] = V1 | {
    "type": '["Audio-Visual", "Existential"]',
    "question_content": "Is this sound from the instrument in the video?",
    "templ_values": [],
}
SWAPPED: dict[str, Any] = {
    **{key: value for key, value in MATCH.items() if key != "question_id"},
    "anser": "no",
    "unmatch_audio": "00008531",
    "audio_instrument": "pipa",
    "video_instrument": "trumpet",
}


def test_both_marks_make_the_same_template_and_stay_as_they_are(tmp_path: Path) -> None:
    ascii_mark = COUNT | {"question_content": ARE_THERE[:-1] + "? "}
    full, half = read_annotations(write(tmp_path / "a.json", COUNT, ascii_mark)).rows
    assert full.template == half.template == ARE_THERE
    assert full.question == "How many sounding flute in the video\uff1f"
    assert half.question == "How many sounding flute in the video?"


def test_a_flipped_clip_is_the_mirrored_original(tmp_path: Path) -> None:
    row = V1 | {"video_id": "6cjIJVzP6eI_#04_flip"}
    annotations = read_annotations(write(tmp_path / "a.json", row, V1))
    flipped, plain = annotations.rows
    assert (flipped.video_id, flipped.original) == ("6cjIJVzP6eI_#04_flip", "6cjIJVzP6eI_#04")
    one, other = records(annotations, source="music-avqa-v2", split="test", licence="GPL-3.0")
    assert (one.clip.video, one.clip.mirrored) == ("6cjIJVzP6eI_#04", True)
    assert (other.clip.video, other.clip.mirrored) == (plain.video_id, False)


def test_nan_stands_for_absent_wherever_a_table_was_dumped(tmp_path: Path) -> None:
    nan = float("nan")
    row = MATCH | {"question_id": nan, "templ_values": nan, "unmatch_audio": nan, "split": nan}
    (read,) = read_annotations(write(tmp_path / "a.json", row | {"question_deleted": nan})).rows
    assert (read.question_id, read.slots, read.sound_of, read.subset) == (None, (), None, None)
    assert not read.deleted


def test_rows_asked_with_another_clips_sound_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "test.json", MATCH, SWAPPED, V1)
    annotations = read_annotations(path)
    assert contradictions(annotations) == []
    (line,) = left_out(annotations)
    assert line.startswith("row 2: 00000093") and "00008531" in line and line in faults(annotations)
    with caplog.at_level(logging.WARNING):
        made = list(SOURCES["music-avqa-v2"].read(path, "test"))
    assert [record.id for record in made] == ["music-avqa-v2:test:1", "music-avqa-v2:test:3"]
    assert "1 of 3 rows are left out" in caplog.text
    assert clips(annotations) == {"00000093", "00008531"}


def test_fortis_rows_keep_head_and_tail(tmp_path: Path) -> None:
    head = R | {"split": "head", "x": 0.79, "_comment_x": "from the README"}
    del head["templ_values"]
    annotations = read_annotations(write(tmp_path / "a.json", head, head | {"split": "tail"}))
    assert [row.subset for row in annotations.rows] == ["head", "tail"]
    assert annotations.unread == ()
    made = list(SOURCES["fortisavqa"].read(annotations.path, "test"))
    assert [record.split for record in made] == ["test", "test"]
    assert made[1].provenance[1:] == ("tail subset",)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip()))
@example("Does the clarinet sound louder?")
@example(" Does the acoustic_guitar sound louder than the clarinet\n")
@example("How many sounding flute in the video\uff1f")
@example('"Is it \\ loud??"')
def test_no_character_of_a_filled_question_is_lost(
    tmp_path_factory: pytest.TempPathFactory, question: str
) -> None:
    path = tmp_path_factory.mktemp("r") / "avqa-test-head.json"
    write(path, R | {"question_content": question})
    if SLOT.search(question):
        with pytest.raises(AnnotationError, match="none of the 33"):
            read_annotations(path)
        return
    (record,) = SOURCES["music-avqa-r"].read(path, "test")
    assert record.turns[0].question == question.strip()
    assert json.loads(dump(record))["turns"][0]["question"] == question.strip()


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", R | {"question_content": "Is it \ud800 loud"})
    with pytest.raises(AnnotationError, match="row 1, field 'question_content': .*surrogate"):
        read_annotations(path)


def test_two_answers_in_one_row_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", V1 | {"answer": "no"})
    with pytest.raises(AnnotationError, match="row 1, field 'answer': 'no' is not what 'anser'"):
        read_annotations(path)


# -- versions and faults -----------------------------------------------------------------------


def test_faults_are_told_apart(tmp_path: Path) -> None:
    rows = [
        COUNT,
        COUNT | {"anser": "four"},
        V1 | {"question_id": 13},
        V1 | {"question_id": 14},
        V1 | {"question_id": 14, "video_id": "00000094", "question_deleted": 1, "colour": "red"},
        R,
        R | {"question_content": "Does the clarinet sound louder than the acoustic_guitar"},
    ]
    annotations = read_annotations(write(tmp_path / "a.json", *rows))
    assert [(one.number, other.number) for one, other in contradictions(annotations)] == [(1, 2)]
    assert [(one.number, other.number) for one, other in duplicates(annotations)] == [(3, 4)]
    said = faults(annotations)
    assert "2022" in said[0] and "1 ids occur twice" in version(annotations)
    assert "row 2 contradicts row 1" in said[1] and "'four' here and 'two' there" in said[1]
    assert "row 4 repeats row 3" in said[2]
    assert said[3] == "question_id 14 stands for questions about 2 clips: row 4, row 5"
    assert said[4] == "row 5: is marked as deleted"
    assert "row 5" in said[5] and "'colour'" in said[5]
    assert len(said) == 6


def test_paraphrases_with_one_id_are_no_faults(tmp_path: Path) -> None:
    other = R | {"question_content": "Does the clarinet sound louder than the acoustic_guitar"}
    assert faults(read_annotations(write(tmp_path / "a.json", R, other))) == []


def test_records_refuse_fields_that_are_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", V1, V1 | {"question_id": 13, "awnser": "no"})
    assert len(read_annotations(path).rows) == 2
    with pytest.raises(AnnotationError, match="row 2, field 'awnser': .*1 rows have it"):
        SOURCES["music-avqa"].read(path, "val")


def test_a_filled_test_question_cannot_come_in_under_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", V1, R)
    with pytest.raises(AnnotationError, match="row 2, .*name the source music-avqa-r"):
        SOURCES["music-avqa"].read(path, "train")
    assert len(list(SOURCES["music-avqa-r"].read(path, "test"))) == 2


# -- records -----------------------------------------------------------------------------------


def test_a_row_as_a_record(tmp_path: Path) -> None:
    row = V1 | {
        "type": '["Audio-Visual", "Temporal"]',
        "question_content": "What is the <TH> instrument that comes in? ",
        "templ_values": '["second"]',
        "anser": "electric_bass",
    }
    path = write(tmp_path / "avqa-val.json", V1, row)
    made = list(SOURCES["music-avqa"].read(path, "val"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    record: Record = made[1]
    assert (record.id, record.kind, record.split) == ("music-avqa:val:2", "question", "val")
    assert record.source == "music-avqa" and record.licence == SOURCES["music-avqa"].licence
    assert record.provenance == (f"avqa-val.json sha256:{sha256[:12]} row 2",)
    (turn,) = record.turns
    assert (turn.label, turn.answer) == ("electric_bass", "electric bass")
    assert turn.question == "What is the second instrument that comes in?"
    assert (turn.template, turn.slots) == (
        "What is the <TH> instrument that comes in?",
        ("second",),
    )
    assert turn.type == "Audio-Visual Temporal"


def data(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    return path


@pytest.mark.parametrize(
    ("name", "source", "split", "rows", "left"),
    [
        ("music-avqa/avqa-test.json", "music-avqa", "test", 9129, 0),
        ("music-avqa/avqa-val.json", "music-avqa", "val", 4568, 0),
        ("music-avqa-v2/test_balance.json", "music-avqa-v2", "test", 10819, 226),
    ],
)
def test_the_benchmarks_files_are_read_whole(
    name: str, source: str, split: str, rows: int, left: int
) -> None:
    path = data(name)
    annotations = read_annotations(path)
    made = list(records(annotations, source=source, split=split, licence="?"))
    assert len(annotations.rows) == rows and len(made) == rows - left
    assert len({record.id for record in made}) == len(made)
    assert all(record.turns[0].template for record in made)
    raw = json.loads(path.read_text(encoding="utf-8"))
    for stored, row in zip(raw, annotations.rows, strict=True):
        fixed = SLOT.split(stored["question_content"].strip())[::2]
        position = 0
        for part in fixed:
            position = row.question.index(part, position) + len(part)
        assert all(value in row.question for value in row.slots)


def test_what_is_odd_in_v2() -> None:
    annotations = read_annotations(data("music-avqa-v2/test_balance.json"))
    assert sum(row.question_id is None for row in annotations.rows) == 1724
    assert sum(row.mirrored for row in annotations.rows) == 69
    assert contradictions(annotations) == [] and len(duplicates(annotations)) == 3
    assert len(faults(annotations)) == 229 and "balanced test" in version(annotations)
    assert {row.gold for row in annotations.rows if row.sound_of} == {"no"}
    with pytest.raises(AnnotationError, match="name the source music-avqa-v2"):
        SOURCES["music-avqa"].read(annotations.path, "test")


def test_the_2022_file_is_known_by_hash_and_by_content(tmp_path: Path) -> None:
    path = data("music-avqa/avqa-test.2022.json")
    annotations = read_annotations(path)
    assert len(contradictions(annotations)) == 55 and "2022" in version(annotations)
    copy = tmp_path / "avqa-test.json"
    copy.write_text(json.dumps(json.loads(path.read_bytes())), encoding="utf-8")
    again = read_annotations(copy)
    assert again.sha256 != annotations.sha256 and "55 ids occur twice" in version(again)
    assert "json_update" in faults(again)[0] and len(faults(again)) == 56
    assert faults(read_annotations(data("music-avqa/avqa-test.json"))) == []
