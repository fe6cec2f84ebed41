"""Which question a row of predictions answers, and rows that nobody has checked before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.benchmarks.base import Question
from eval.matching import match
from eval.prediction_rows import Prediction, read_predictions
from eval.samples import RunError

# --- matching -------------------------------------------------------------------------------


def asked(number: int, video: str, question_id: Any, text: str, **more: Any) -> Question:
    more = {"gold": "yes", "type": "Audio Counting"} | more
    return Question(number=number, video_id=video, question_id=question_id, question=text, **more)


def said(line: int, video: str | None = None, question_id: Any = None, **more: Any) -> Prediction:
    answer = more.pop("answer", f"answer {line}")
    return Prediction(line=line, video_id=video, question_id=question_id, answer=answer, **more)


REWORDED = [
    asked(1, "a", 1, "Is there a violin sound"),
    asked(2, "a", 1, "Can you hear a violin?"),
    asked(3, "b", 2, "Is there a drum sound"),
    asked(4, "b", 2, "Can you hear a drum?"),
]


def lines(found: list[Prediction | None]) -> list[int | None]:
    return [None if one is None else one.line for one in found]


def test_several_wordings_of_one_id_are_matched_by_place() -> None:
    given = [said(n, one.video_id, one.question_id) for n, one in enumerate(REWORDED, 1)]
    assert lines(match(given, REWORDED)) == [1, 2, 3, 4]
    given = [said(1, "a", "1"), said(2, "a", 1), said(3, "b", 2), said(4, "b", 2)]
    assert lines(match(given, REWORDED)) == [1, 2, 3, 4]  # "1" is 1
    assert lines(match(given, REWORDED, partial=True)) == [1, 2, 3, 4]


def test_a_part_is_never_matched_by_place() -> None:
    """The first rows may be of any wordings: by place, one is scored as another."""
    given = [said(n, one.video_id, one.question_id) for n, one in enumerate(REWORDED[:3], 1)]
    with pytest.raises(RunError, match="3 could mean several.*give the question text.*line 1"):
        match(given, REWORDED, partial=True)
    given = [
        said(n, one.video_id, one.question_id, question=one.question)
        for n, one in enumerate(REWORDED[1:], 1)
    ]
    assert lines(match(given, REWORDED, partial=True)) == [None, 1, 2, 3]
    single = [asked(n, "v", n, "How?") for n in range(1, 5)]
    assert lines(match([said(1, "v", 1), said(2, "v", 2)], single, partial=True))[:2] == [1, 2]


def test_several_wordings_in_another_order_are_matched_by_wording() -> None:
    texts = ["CAN you  hear a drum", "is there a violin sound?", "Can you hear a violin.", "x"]
    texts[3] = "Is there a drum sound \uff1f"
    given = [
        said(1, "b", 2, question=texts[0]),
        said(2, "a", 1, question=texts[1]),
        said(3, "a", 1, question=texts[2]),
        said(4, "b", 2, question=texts[3]),
    ]
    assert lines(match(given, REWORDED)) == [2, 3, 4, 1]


def test_a_wording_at_the_wrong_place_is_not_taken_for_the_one_there() -> None:
    given = [said(n, one.video_id, one.question_id) for n, one in enumerate(REWORDED, 1)]
    given[0] = said(1, "a", 1, question="Can you hear a violin?")
    given[1] = said(2, "a", 1, question="Is there a violin sound")
    given[2] = said(3, "b", 2, question="Is there a drum sound")
    given[3] = said(4, "b", 2, question="Can you hear a drum?")
    assert lines(match(given, REWORDED)) == [2, 1, 3, 4]


def test_wordings_that_cannot_be_told_apart_are_an_error_with_a_way_out() -> None:
    given = [said(1, "b", 2), said(2, "b", 2), said(3, "a", 1), said(4, "a", 1)]
    with pytest.raises(RunError, match="4 could mean several questions.*`row`.*line 1, video b"):
        match(given, REWORDED)


def test_rows_are_matched_by_number_and_their_ids_have_to_agree() -> None:
    given = [said(n, row=5 - n) for n in range(1, 5)]
    assert lines(match(given, REWORDED)) == [4, 3, 2, 1]
    with pytest.raises(RunError, match="2 answer no question.*line 1, row 4, video a"):
        match([said(1, "a", 1, row=4), said(2, "b", 9, row=3), *given[2:]], REWORDED)
    with pytest.raises(RunError, match="1 answer no question.*line 1, row 9"):
        match([said(1, row=9), *given[1:]], REWORDED)
    with pytest.raises(RunError, match="1 answer a question again.*line 5, row 2 after line 3"):
        match([*given, said(5, row=2)], REWORDED)


def test_rows_that_stand_in_the_file_twice_get_a_prediction_each() -> None:
    twice = [asked(1, "a", 1, "How?"), asked(2, "b", 2, "How?"), asked(3, "a", 1, "How?")]
    given = [said(1, "b", 2), said(2, "a", 1), said(3, "a", 1)]
    assert lines(match(given, twice)) == [2, 1, 3]
    with pytest.raises(RunError, match="line 4, video a, question 1 after line 3"):
        match([*given, said(4, "a", 1)], twice)


def test_the_same_question_with_two_sounds_is_told_by_place_or_row_only() -> None:
    sounds = [
        asked(1, "a", None, "How?"),
        asked(2, "a", None, "How?", sound_of="b"),
        asked(3, "c", None, "How?"),
    ]
    assert lines(match([said(1, "a"), said(2, "a"), said(3, "c")], sounds)) == [1, 2, 3]
    shuffled = [said(1, "c"), said(2, "a"), said(3, "a")]
    with pytest.raises(RunError, match="sound of several clips"):
        match(shuffled, sounds)


def test_rows_without_ids_are_told_by_wording() -> None:
    without = [asked(1, "a", None, "How?"), asked(2, "a", None, "Why?"), asked(3, "a", 3, "Who?")]
    given = [said(1, "a", 3), said(2, "a", question="why"), said(3, "a", question="how")]
    assert lines(match(given, without)) == [3, 2, 1]


def test_an_id_that_is_unique_needs_no_wording() -> None:
    template = "Is it a <Object>?"
    single = [
        asked(1, "a", 1, "Is it a violin?", template=template),
        asked(2, "a", 2, "Is it a drum?", template=template),
    ]
    given = [said(1, "a", 2, question="is it a <object>"), said(2, "a", 1, question="Is it a vio")]
    assert lines(match(given, single)) == [2, 1]
    guitar = [asked(1, "a", 1, "Is the acoustic_guitar heard?")]
    assert lines(match([said(1, "a", 1, question="Is the acoustic guitar heard")], guitar)) == [1]


@pytest.mark.parametrize("by_row", [False, True])
def test_the_text_of_another_question_is_refused(by_row: bool) -> None:
    """Another version of the file, or ids that are shifted by one."""
    texts = ["Is it a violin?", "Is it a drum?", "Where is it?", "How many are there?", "Who?"]
    single = [asked(n, "a", n, text) for n, text in enumerate(texts, 1)]
    shifted = [
        said(n, "a", n, question=text, row=n if by_row else None)
        for n, text in enumerate([*texts[1:], texts[0]], 1)
    ]
    with pytest.raises(RunError) as error:
        match(shifted, single)
    text = str(error.value)
    assert "5 give the text of another question (another version of the file, or shifted" in text
    assert "question 1 gives 'Is it a drum?', the file asks 'Is it a violin?'" in text
    assert text.endswith("and 2 more") and "\n" not in text and "no prediction" not in text
    row = 1 if by_row else None
    with pytest.raises(RunError, match="1 give the text.*gives 'Is it'"):  # too short to tell
        match([said(1, "a", 1, question="Is it", row=row)], single, partial=True)


def test_what_is_missing_unknown_or_double_is_named_and_counted() -> None:
    many = [asked(n, "v", n, "How?") for n in range(1, 11)]
    given = [said(1, "v", 1), said(2, "v", 1), said(3, "x", 1), said(4, "v", 99)]
    with pytest.raises(RunError) as error:
        match(given, many)
    text = str(error.value)
    assert "2 answer no question of the file: line 3, video x, question 1 | line 4" in text
    assert "1 answer a question again: line 2, video v, question 1 after line 1" in text
    assert "9 of 10 questions have no prediction (--partial scores the rest): row 2" in text
    assert "and 6 more" in text and "\n" not in text
    with pytest.raises(RunError) as error:  # what is wrong stays wrong
        match(given, many, partial=True)
    assert "no prediction" not in str(error.value) and "again" in str(error.value)


@settings(max_examples=50)
@given(st.permutations(range(4)), st.integers(1, 4), st.booleans())
def test_any_order_and_part_finds_each_questions_own_prediction(
    order: list[int], n: int, by_row: bool
) -> None:
    chosen = [REWORDED[place] for place in order[:n]]
    given = [
        said(line, one.video_id, one.question_id, answer=one.question, row=one.number)
        if by_row
        else said(line, one.video_id, one.question_id, answer=one.question, question=one.question)
        for line, one in enumerate(chosen, 1)
    ]
    found = match(given, REWORDED, partial=True)
    for one, question in zip(found, REWORDED, strict=True):
        assert (one is not None) == (question in chosen)
        assert one is None or one.answer == question.question


# --- untrusted files ------------------------------------------------------------------------

GOOD = '{"video_id": "a", "question_id": 1, "answer": "yes"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[]", "at least one row"),
        (GOOD + "{nonsense", "row 2 is not JSON"),
        (GOOD + "[1]", "row 2: should be an object"),
        (GOOD + '"text"', "row 2: should be an object"),
        ("[" * 100_000, "is not JSON"),
        (GOOD + "[" * 100_000, "row 2 is not JSON"),
        ('{"video_id": "a", "question_id": 1}', "field 'answer': should be text, is missing"),
        ('{"video_id": "a", "answer": 2}', "field 'answer': should be text, is 2"),
        ('{"video_id": "a", "answer": null}', "field 'answer'"),
        ('{"video_id": "a", "answer": "\\ud800"}', "field 'answer'.*surrogate"),
        ('{"video_id": "\\ud800", "answer": ""}', "field 'video_id'.*surrogate"),
        ('{"video_id": 93, "answer": "x"}', "field 'video_id': should be text, is 93"),
        ('{"question_id": 1, "answer": "x"}', "field 'video_id': is missing"),
        ('{"video_id": "a", "question_id": [1], "answer": "x"}', "field 'question_id'"),
        ('{"video_id": "a", "question_id": true, "answer": "x"}', "field 'question_id'"),
        ('{"video_id": "a", "question_id": 1.5, "answer": "x"}', "field 'question_id'"),
        ('{"row": 0, "answer": "x"}', "field 'row': should be a whole number from 1"),
        ('{"row": "1", "answer": "x"}', "field 'row'"),
        ('{"row": 1, "answer": "x", "probability": 1.5}', "field 'probability'.*is 1.5"),
        ('{"row": 1, "answer": "x", "probability": "1"}', "field 'probability'"),
        ('{"row": 1, "answer": "x", "probability": Infinity}', "field 'probability'"),
        ('{"row": 1, "answer": "x", "question": 5}', "field 'question': should be text"),
        ('{"row": 1, "answer": "x", "pred": "y"}', "stands beside 'pred'.*gold answer"),
    ],
)
def test_a_faulty_file_is_one_line_that_names_the_place(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match=message) as error:
        read_predictions(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="cannot read .*nowhere"):
        read_predictions(tmp_path / "nowhere.jsonl")
    with pytest.raises(RunError, match="cannot read"):
        read_predictions(tmp_path)
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="row 1 is not JSON"):
        read_predictions(path)
    path.write_text(GOOD)
    monkeypatch.setattr("eval.prediction_rows.MAX_BYTES", 10)
    with pytest.raises(RunError, match="GB are not read"):
        read_predictions(path)


def test_what_a_row_may_look_like(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        "\ufeff" + GOOD + "\n"
        '{"video_id": "a", "question_id": 12.0, "answer": "", "probability": NaN, "extra": []}\n'
        '{"video_id": "a", "question_id": "q7", "question_content": "How?", "answer": "  x "}\n'
    )
    rows, sha256 = read_predictions(path)
    assert [(one.line, one.question_id, one.answer, one.question) for one in rows] == [
        (1, 1, "yes", None),
        (3, 12, "", None),
        (4, "q7", "  x ", "How?"),
    ]
    assert rows[1].probability is None and len(sha256) == 64


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["video_id", "question_id", "answer", "row"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        rows, _ = read_predictions(path)
    except RunError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(one.answer, str) for one in rows)
