"""Questions about one's own videos: every form is read, no row is lost, every mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avqa_llm.errors import AnnotationError
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn
from avqa_llm.training.fields import LEAD_IN, SPELLINGS
from avqa_llm.training.pairs import read_pairs
from avqa_llm.training.rows import Question, read_rows
from tests.row_files import OWN, refused, talk, written


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.json", json.dumps([OWN])),
        ("a.json", f"\n [\n{json.dumps(OWN, indent=2)}\n]\n"),
        ("a.jsonl", f"{json.dumps(OWN)}\n\n"),
        ("a.csv", "video,question,answer\na.mp4,What sounds?,a violin\n"),
        ("a.csv", "Video;Q;A;\r\na.mp4;What sounds?; a violin;\r\n;;;\r\n"),
        ("a.tsv", 'file\tquestion\tanswer\ttype\na.mp4\t"What sounds?"\ta violin\t\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_jsonl_and_tables_say_the_same(
    tmp_path: Path, name: str, text: str, encoding: str
) -> None:
    (row,) = read_rows(written(tmp_path, text.encode(encoding), name))
    assert (row.video_id, row.media, row.cut) == ("a.mp4", "a.mp4", Cut())
    assert row.questions == (Question(question="What sounds?", steps="", answer="a violin"),)
    assert row.record == row.record_without_sound == row.record_without_picture == ""


def test_optional_fields_in_every_spelling(tmp_path: Path) -> None:
    full = {
        "type": "Audio",
        "start": 1,
        "end": "2.5",
        "choices": ["a violin", "a drum"],
        "label": "A drum",
    }
    for name, value in full.items():
        for spelling in SPELLINGS[name]:
            rest = {k: v for k, v in full.items() if k != name}
            (row,) = read_rows(written(tmp_path, [OWN | rest | {spelling.upper(): value}]))
            (question,) = row.questions
            assert row.cut == Cut(start_s=1.0, end_s=2.5)
            assert (question.type, question.label) == ("Audio", "A drum")
            assert question.choices == ("a violin", "a drum")
    table = "video,question,answer,choices,start\na.mp4,What?,yes,yes|no,0.5\na.mp4,Who?,2,,0.5\n"
    (row,) = read_rows(written(tmp_path, table, "a.csv"))
    assert [q.choices for q in row.questions] == [("yes", "no"), ()] and row.cut == Cut(start_s=0.5)
    (row,) = read_rows(written(tmp_path, [{"audio": "a.wav", "question": "What?", "answer": 2}]))
    assert row.cut == Cut(picture=False) and row.questions[0].answer == "2"


def test_many_questions_conversations_and_messages(tmp_path: Path) -> None:
    parts = [{"type": "video", "video": "b.mp4"}, {"type": "text", "text": "Who plays?"}]
    rows = read_rows(
        written(
            tmp_path,
            [
                {
                    "video": "a.mp4",
                    "type": "t",
                    "questions": [{"q": "One?", "a": "1"}, {"q": "Two?", "a": "2"}],
                },
                {
                    "id": 7,
                    "video": "a.mp4",
                    "conversations": talk("<video>\n<audio>Three?", "3", "Four?", "4"),
                },
                {
                    "messages": [
                        {"role": "user", "content": parts},
                        {"role": "assistant", "content": "Ann"},
                    ]
                },
                {
                    "video": "a.mp4",
                    "questions": [{"question": "Late?", "answer": "yes", "start": 4}],
                },
            ],
        )
    )
    assert [(row.media, row.cut) for row in rows] == [
        ("a.mp4", Cut()), ("b.mp4", Cut()), ("a.mp4", Cut(start_s=4.0))
    ]  # fmt: skip
    assert [q.question for q in rows[0].questions] == ["One?", "Two?", "Three?", "Four?"]
    assert [q.type for q in rows[0].questions] == ["t", "t", "", ""]
    assert rows[0].questions[3].history == (Turn(question="Three?", answer="3"),)
    assert rows[1].questions[0].question == "Who plays?"


@pytest.mark.parametrize(
    "value, said",
    [
        ([{**OWN, "anwser": "x"}], "field 'anwser': is not known; did you mean 'answer'?"),
        ([{**OWN, "answer": " "}], "field 'answer': is missing or empty"),
        ([{**OWN, "answer": ["x"]}], "field 'answer': should be text"),
        ([{**OWN, "answer": True}], "field 'answer': should be text"),
        ([{**OWN, "question": "<video>"}], "field 'question': asks nothing"),
        ([{"question": "x", "answer": "y"}], "the row names no clip"),
        ([{**OWN, "file": "b.mp4"}], "is called 'video' too"),
        ([{**OWN, "audio": "b.wav"}], "put both into one file"),
        ([{**OWN, "start": 3, "end": 2}], "field 'end'"),
        ([{**OWN, "start": "1:05"}], "should be seconds such as 12.5"),
        ([{**OWN, "choices": ["x"], "label": "y"}], "is none of the choices"),
        ([{**OWN, "questions": [{"q": "a", "a": "b"}]}], "a row has one of"),
        ([{"video": "a", "questions": {}}], "should be a list"),
        ([{"video": "a", "questions": [{"q": "a"}]}], "field 'questions[0].answer'"),
        ([{"video": "a", "conversations": talk("a", "b", "c")}], "has no answer"),
        ([{"video": "a", "messages": [{"role": "system", "content": "x"}]}], "'system'"),
        ([{"video": "v.npy", "question": "a", "answer": "b"}], "holds features"),
        ([OWN, 3], "line 1: a row is an object"),
        ([], "holds no rows"),
        ("", "is empty"),
        ("What?", "neither JSON, JSONL nor a table"),
        ('{\n"video": "a"\n}', "line 1: a row over several lines; write each row on one line"),
        (f"[\n{json.dumps(OWN)},\n]", "line 2: a comma stands after the last row"),
        (f"[\n{json.dumps(OWN)}\n\n{json.dumps(OWN)}]", "line 4: the list of rows should go on"),
        (f"[\n{json.dumps(OWN)}", "ends without ']'"),
        ('[{"video": "a",\n "video": "b"}]', "the key 'video' stands twice"),
        (f"{json.dumps(OWN)}\n{{]", "line 2, column 2: is not JSON"),
        ("video,question,answer\na,b, c, d\n", "line 2: 4 cells for 3 columns"),
        ("video,video,answer\na,b,c\n", "stands 2 times"),
        ('video,question,answer\na,"b\nb",c\nd,e,\n', "line 4, field 'answer'"),
        ("video,question,answer\na,café,c\n".encode("latin-1"), "line 2: byte 0xe9 is no UTF-8"),
        ([{"question_content": "x", "video_id": "1", "anser": "y"}], "instruct_data build"),
        ([{**OWN, "chosen": "a", "rejected": "b"}], "this is a file of preference pairs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, value: object, said: str) -> None:
    refused(written(tmp_path, value), said)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "does not exist")


INNER = ("from", "value", "role", "content")
NAMES = sorted(
    {word for words in SPELLINGS.values() for word in words} | {"turns", "clip", "record"}
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    PLAIN | st.sampled_from(["a.mp4", "<video>", "[", "1e9", "human", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*NAMES, *INNER]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ROWS = st.lists(
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4).map(lambda more: OWN | more)
    | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), JSON, max_size=5),
    max_size=3,
)
ANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANY
@given(value=ROWS | JSON, lines=st.booleans())
def test_arbitrary_json_is_read_or_refused_and_nothing_else(
    tmp_path: Path, value: object, lines: bool
) -> None:
    is_rows = lines and isinstance(value, list)
    text = "\n".join(map(json.dumps, value)) if is_rows else json.dumps(value)  # type: ignore[call-overload]
    path = written(tmp_path, text)
    for read in (read_rows, read_pairs):
        try:
            found = read(path)
        except AnnotationError as error:
            str(error).encode()
            continue
        assert found and all(row.media for row in found)
        if read is read_rows:
            assert all(q.question and q.answer for row in found for q in row.questions)


@ANY
@given(data=st.binary(max_size=40) | st.text('vidqa;,\n"[{}]: \t1', max_size=60).map(str.encode))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    for head in (b"", b"video,question,answer\n"):
        try:
            read_rows(written(tmp_path, head + data))
        except AnnotationError as error:
            str(error).encode()


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>\0"), min_size=1, max_size=12)
SAID = WORDS.map(str.strip).filter(bool)


@ANY
@given(st.lists(st.tuples(st.sampled_from(["a.mp4", "b.mp4"]), SAID, SAID), min_size=1, max_size=6))
def test_no_row_is_lost(tmp_path: Path, asked: list[tuple[str, str, str]]) -> None:
    rows = [dict(zip(("video", "question", "answer"), one, strict=True)) for one in asked]
    found = read_rows(written(tmp_path, json.dumps(rows, ensure_ascii=False)))
    assert len({row.media for row in found}) == len(found)
    for row in found:
        wanted = [(q, a) for video, q, a in asked if video == row.media]
        assert [(q.question, q.answer) for q in row.questions] == [
            (q.removeprefix(LEAD_IN).strip(), a) for q, a in wanted
        ]
