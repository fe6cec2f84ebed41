"""Readers of instruction data: documented formats come in whole, mistakes are named."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AnnotationError
from instruct_data.records import Record, read_records
from instruct_data.sources import SOURCES, fields
from instruct_data.sources.commands import add_commands

AVQA: dict[str, Any] = {
    "id": 183,
    "video_name": "-HG3Omg_89c_000030",
    "video_id": 341,
    "question_text": "What happened in the video? ",
    "multi_choice": ["motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"],
    "answer": 2,
    "question_relation": "View",
    "question_type": "Happening",
}
AVINSTRUCT: dict[str, Any] = {
    "video_id": "00005580",
    "multi_choice": "",
    "correct_answer": "",
    "video": "/feats/v/00005580.npy",
    "audio": "/feats/a/00005580.mp3.npy",
    "conversations": [
        {
            "from": "human",
            "value": "Summarize the video to help answer:\n<Q>How many instruments are sounding in "
            "the video?<Q>\n<video>",
        },
        {"from": "gpt", "value": "Three people play in a park. Two instruments are sounding."},
    ],
}
Q_AND_A: dict[str, Any] = {"video_id": "v_k_ZXmr8pmrs", "q": "Who sings?", "a": "A woman."}
LLAVA: dict[str, Any] = {
    "id": "17",
    "video": "choir/evening.mp4",
    "conversations": [
        {"from": "human", "value": "<video>\n<audio>\nWho sings?"},
        {"from": "gpt", "value": "A choir."},
        {"from": "human", "value": "Is <b> in tune?\n<image>"},
        {"from": "gpt", "value": "It is: <video> shows it."},
    ],
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read(name: str, path: Path, split: str = "train") -> list[Record]:
    return list(SOURCES[name].read(path, split))


def refused(name: str, path: Path, split: str = "train") -> str:
    with pytest.raises(AnnotationError) as error:
        read(name, path, split)
    assert len(str(error.value)) < len(str(path)) + 400
    return str(error.value)


def saying(*pairs: tuple[str, Any]) -> dict[str, Any]:
    said = [{"from": speaker, "value": value} for speaker, value in pairs]
    return {"video": "a", "conversations": said}


# -- the table ---------------------------------------------------------------------------------


def test_rewordings_of_test_questions_are_for_evaluation_only() -> None:
    only = {name for name, source in SOURCES.items() if source.evaluation_only}
    assert only == {"music-avqa-r", "fortisavqa"}
    assert all(name == source.name for name, source in SOURCES.items())
    assert SOURCES["music-avqa-r"].licence == "unstated"


# -- AVQA --------------------------------------------------------------------------------------


def test_avqa_keeps_choices_and_takes_the_right_one(tmp_path: Path) -> None:
    (record,) = read("avqa", write(tmp_path / "train_qa.json", AVQA))
    (turn,) = record.turns
    assert (record.id, record.clip.video) == ("avqa:train:1", "-HG3Omg_89c_000030")
    assert turn.question == "What happened in the video?"
    assert turn.label == turn.answer == "Sailboat set sail"
    assert turn.choices == tuple(AVQA["multi_choice"]) and turn.type == "View Happening"
    assert turn.template is None
    assert re.fullmatch(r"train_qa\.json sha256:[0-9a-f]{12} row 1", record.provenance[0])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("answer", 4, "4 is outside 0 to 3"),
        ("answer", -1, "-1 is outside 0 to 3"),
        ("answer", "2", "whole number"),
        ("answer", True, "whole number"),
        ("answer", None, "missing"),
        ("multi_choice", ["one"], "list of choices"),
        ("multi_choice", "abcd", "list of choices"),
        ("multi_choice", ["a", "", "c", "d"], "should be text"),
        ("video_name", "../x", "not a plain file name"),
        ("question_text", " ", "should be text"),
        ("question_type", None, "missing"),
        ("qestion_text", "Why?", "none of the fields"),
    ],
)
def test_a_fault_of_an_avqa_row_is_named(tmp_path: Path, field: str, value: Any, said: str) -> None:
    path = write(tmp_path / "val_qa.json", AVQA, AVQA | {field: value})
    message = refused("avqa", path)
    assert message.startswith(f"{path}, row 2, field '{field}") and said in message


# -- AVinstruct --------------------------------------------------------------------------------


def test_avinstruct_gives_the_plain_question_and_names_what_it_took_off(tmp_path: Path) -> None:
    (record,) = read("avinstruct", write(tmp_path / "a.json", AVINSTRUCT))
    (turn,) = record.turns
    assert turn.question == "How many instruments are sounding in the video?"
    assert turn.answer == "Three people play in a park. Two instruments are sounding."
    assert turn.label is None and turn.choices == ()
    assert record.clip.video == "00005580" and record.kind == "question"
    assert record.provenance[1] == "lead-in taken off: Summarize the video to help answer:"


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("<Q>Is a<b and c>d?<Q>\n<video>", "Is a<b and c>d?"),
        ("<video>\n<Q>Q: <Quartet> or <q>?</Q>", "Q: <Quartet> or <q>?"),
        ("Look closely:\n<Q>Who plays?<Q>\n<video>", "Look closely:\nWho plays?"),
        ("Who <video> plays?", "Who plays?"),
        ("<audio> <video> Who plays the\u00a0erhu\uff1f", "Who plays the\u00a0erhu\uff1f"),
    ],
)
def test_avinstruct_loses_nothing_but_marks_and_tokens(
    tmp_path: Path, said: str, question: str
) -> None:
    row = AVINSTRUCT | {"conversations": saying(("human", said), ("gpt", "x"))["conversations"]}
    (record,) = read("avinstruct", write(tmp_path / "a.json", row))
    assert record.turns[0].question == question
    assert len(record.provenance) == 1


@pytest.mark.parametrize("right", [1, "dog"])
@pytest.mark.parametrize("choices", [["cat", "dog"], '["cat", "dog"]'])
def test_avinstruct_choices(tmp_path: Path, choices: Any, right: Any) -> None:
    row = AVINSTRUCT | {"multi_choice": choices, "correct_answer": right}
    (record,) = read("avinstruct", write(tmp_path / "a.json", row))
    assert record.turns[0].choices == ("cat", "dog") and record.turns[0].label == "dog"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"video_id": "a/b"}, "field 'video_id'"),
        ({"correct_answer": 3}, "field 'correct_answer'"),
        ({"choices": []}, "field 'choices': is none of the fields"),
        (saying(("human", "<Q>Who?\n<video>"), ("gpt", "x")), "1 marks <Q>"),
        (saying(("human", "<Q><Q>\n<video>"), ("gpt", "x")), "asks nothing"),
        (saying(("human", "<Q>Who?<Q>")), "has no answer"),
    ],
)
def test_a_fault_of_an_avinstruct_row_is_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    message = refused("avinstruct", write(tmp_path / "a.json", AVINSTRUCT, AVINSTRUCT | change))
    assert "row 2, field" in message and said in message


# -- conversations -----------------------------------------------------------------------------


@pytest.mark.parametrize("writer", [write, write_lines])
def test_both_shapes_in_a_list_and_as_lines(tmp_path: Path, writer: Any) -> None:
    path = writer(tmp_path / "mine.json", Q_AND_A, LLAVA)
    one, other = read("conversations", path)
    assert (one.kind, one.clip.video) == ("question", "v_k_ZXmr8pmrs")
    assert (one.turns[0].question, one.turns[0].answer) == ("Who sings?", "A woman.")
    assert (other.kind, other.clip.video) == ("dialogue", "choir/evening.mp4")
    said = [(turn.question, turn.answer) for turn in other.turns]
    assert said == [
        ("Who sings?", "A choir."),
        ("Is <b> in tune?", "It is: <video> shows it."),
    ]
    assert [one.id, other.id] == ["conversations:train:mine:1", "conversations:train:mine:2"]
    assert one.licence == "unstated"


def test_lines_may_have_a_mark_blanks_and_windows_ends(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    line = json.dumps(Q_AND_A).encode()
    path.write_bytes(b"\xef\xbb\xbf\r\n" + line + b"\r\n\r\n" + line)
    assert [r.provenance[0][-5:] for r in read("conversations", path)] == ["row 2", "row 4"]


def test_seconds_split_and_licence_of_a_row(tmp_path: Path) -> None:
    own = Q_AND_A | {"start": 3, "end": 7.5, "split": "val", "licence": "CC BY 4.0"}
    path = write(tmp_path / "mine.json", own, Q_AND_A)
    first, second = read("conversations", path, "")
    assert (first.clip.start_s, first.clip.end_s) == (3.0, 7.5)
    assert (first.split, first.licence, second.split) == ("val", "CC BY 4.0", "")
    assert [r.id for r in read("conversations", path, "train")] == ["conversations:train:mine:2"]
    assert len(read("conversations", path, "val")) == 2
    alone = write(tmp_path / "alone.json", own)
    assert "no row of the split 'train': its rows are of val" in refused("conversations", alone)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (saying(("gpt", "Hello"), ("human", "Who?")), "field 'conversations[0].from': should be"),
        (saying(("human", "a"), ("human", "b")), "field 'conversations[1].from'"),
        (saying(("human", "a"), ("gpt", "b"), ("human", "c")), "number 3, has no answer"),
        (saying(("human", "<video>\n<audio>"), ("gpt", "b")), "asks nothing"),
        (saying(("human", "a"), ("gpt", 3)), "field 'conversations[1].value'"),
        (saying(), "should be a list of messages"),
        (saying(("human", "a"), ("gpt", "b")) | {"meta": 1}, "field 'meta': is none"),
        ({"video": "a", "conversations": [{"from": "human"}]}, "field 'conversations[0]'"),
        ({"q": "a", "a": "b"}, "field 'video': is missing"),
        ({"video": "a", "v_id": "b", "q": "a", "a": "b"}, "field 'v_id': 'b' is not the clip"),
        (Q_AND_A | {"a": None}, "field 'a': should be text, is missing"),
        (Q_AND_A | {"video_id": "/etc/x.mp4"}, "is absolute"),
        (Q_AND_A | {"video_id": "C:x.mp4"}, "is absolute"),
        (Q_AND_A | {"video_id": "a/../../x.mp4"}, "leads out"),
        (Q_AND_A | {"video_id": "a\0b"}, "no path should have"),
        (Q_AND_A | {"end": 2, "start": 2.0}, "field 'end': 2 s is not after the start"),
        (Q_AND_A | {"start": -1}, "field 'start': -1 is outside"),
        (Q_AND_A | {"start": "0:10"}, "field 'start': should be a number"),
        (Q_AND_A | {"begin": 3}, "field 'begin': is none of the fields"),
    ],
)
def test_a_fault_of_a_conversation_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = write_lines(tmp_path / "mine.jsonl", Q_AND_A, row)
    message = refused("conversations", path)
    assert message.startswith(f"{path}, row 2, field ") and said in message


def test_two_dots_inside_a_name_lead_nowhere(tmp_path: Path) -> None:
    (record,) = read(
        "conversations", write(tmp_path / "a.json", Q_AND_A | {"video_id": "a..b.mp4"})
    )
    assert record.clip.video == "a..b.mp4"


def test_lines_are_streamed_and_a_large_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "MAX_LIST_BYTES", 100)
    lines = write_lines(tmp_path / "mine.jsonl", Q_AND_A, Q_AND_A, {"q": "broken"})
    stream = SOURCES["conversations"].read(lines, "train")
    assert next(stream).id.endswith(":1") and next(stream).id.endswith(":2")
    with pytest.raises(AnnotationError, match="row 3"):
        next(stream)
    message = refused("conversations", write(tmp_path / "mine.json", Q_AND_A, Q_AND_A))
    assert "write it as JSONL" in message


@pytest.mark.parametrize("content", ["", " \n\n", "[]", "{", '{"video":\n "a"}', "3", "[3]"])
def test_a_file_that_is_neither_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    assert "mine.json" in refused("conversations", path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    for name in SOURCES:
        assert str(tmp_path / "absent") in refused(name, tmp_path / "absent")


# -- commands ----------------------------------------------------------------------------------


def run(*line: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(line)
    return int(args.run(args))


def test_records_command_writes_what_the_reader_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path / "train_qa.json", AVQA), tmp_path / "out.jsonl"
    assert run("records", "avqa", str(path), "--split", "train", "--out", str(out)) == 0
    assert list(read_records(out)) == read("avqa", path)
    assert "1 records" in capsys.readouterr().out
    with pytest.raises(AnnotationError, match="no source 'avqe': choose one of music-avqa"):
        run("records", "avqe", str(path), "--out", str(out))
    broken = write(tmp_path / "broken.json", AVQA, AVQA | {"answer": 9})
    with pytest.raises(AnnotationError):
        run("records", "avqa", str(broken), "--out", str(out))
    assert len(list(read_records(out))) == 1


def test_sources_and_faults_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sources") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(SOURCES)
    row = {
        "video_id": "a",
        "question_id": 1,
        "type": ["Audio-Visual", "Existential"],
        "question_content": "Is there a voiceover?",
        "templ_values": [],
        "anser": "yes",
    }
    assert run("faults", str(write(tmp_path / "a.json", row, row | {"anser": "no"}))) == 0
    said = capsys.readouterr().out
    assert "a 2022 file by its content" in said and "row 2 contradicts row 1" in said
