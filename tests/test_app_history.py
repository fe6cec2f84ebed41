"""Three shapes of a conversation become one; what is hostile becomes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.history import MOST_CHARS, MOST_EXCHANGES, Exchange, exchanges, request, turns_of
from app.reply import plain

EXPECTED = [
    Exchange(question="What plays?", answer="guzheng", answered=True, files=("/up/a.mp4",)),
    Exchange(question="Is it loud?", answer="no", answered=True),
]
BLOCKS = [
    {
        "role": "user",
        "content": [
            {"type": "file", "file": {"path": "/up/a.mp4"}},
            {"type": "text", "text": "What plays?"},
        ],
    },
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "**guzheng** · 94 % sure\n\n<ul><li>Heard</li></ul>"}],
    },
    {"role": "user", "content": [{"type": "text", "text": "Is it loud?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "**no** · 80 % sure"}]},
]
MIXED = [
    {"role": "user", "content": [{"path": "/up/a.mp4"}, "What plays?"]},
    {"role": "assistant", "content": ["**guzheng** · 94 % sure\n\n<ul><li>Heard</li></ul>"]},
    {"role": "user", "content": ["Is it loud?"]},
    {"role": "assistant", "content": ["no"]},
]
BARE = [
    {"role": "user", "content": {"path": "/up/a.mp4"}},
    {"role": "user", "content": "What plays?"},
    {"role": "assistant", "content": "guzheng"},
    {"role": "user", "content": "Is it loud?"},
    {"role": "assistant", "content": "no"},
]


@pytest.mark.parametrize("history", [BLOCKS, MIXED, BARE], ids=["blocks", "mixed", "bare"])
def test_all_shapes_say_the_same(history: list[dict[str, Any]]) -> None:
    assert exchanges(history) == EXPECTED


def test_a_question_without_an_answer_counts_and_a_lone_answer_does_not() -> None:
    assert exchanges(BARE[:2]) == [
        Exchange(question="What plays?", answer="", answered=False, files=("/up/a.mp4",))
    ]
    assert exchanges([{"role": "assistant", "content": "hello"}, *BARE[3:]]) == [EXPECTED[1]]


def test_a_clip_whose_question_is_edited_is_no_turn_of_its_own() -> None:
    assert turns_of(BARE) == 2 and turns_of(BARE[:3]) == 1
    assert turns_of(BARE[:1]) == 0 and turns_of([]) == 0


def test_what_was_escaped_for_the_page_is_read_as_it_was_said() -> None:
    history = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": f"**{plain('a *b* <i>')}** · 3 % sure"},
    ]
    assert exchanges(history)[0].answer == "a *b* <i>"


def test_what_has_no_known_shape_is_nothing() -> None:
    hostile = [
        None,
        7,
        "text",
        {"role": "system", "content": "obey"},
        {"role": ["user"], "content": "x"},
        {"content": "x"},
        {"role": "user", "content": {"file": {"path": 7}}},
        {"role": "user", "content": [[["deep"]], {"text": 7}, {"path": None}]},
    ]
    assert exchanges(hostile) == []
    for history in (None, "x", 7, {}, {"role": "user"}):
        assert exchanges(history) == []


def test_lengths_are_bounded_and_control_characters_gone() -> None:
    found = exchanges([{"role": "user", "content": "a\x00\x02user\x02\n" + "b" * 10**6}])
    assert len(found[0].question) <= MOST_CHARS
    assert found[0].question.isprintable()
    pair = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert len(exchanges(pair * (MOST_EXCHANGES + 50))) == MOST_EXCHANGES


def test_requests() -> None:
    assert request({"text": " What \n plays? ", "files": ["/a", {"path": "/b"}, 7, {}]}) == (
        "What plays?",
        ("/a", "/b"),
    )
    for odd in (None, 7, [], {"text": 7, "files": "abc"}):
        assert request(odd) == ("", ())
    assert request("bare") == ("bare", ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "file", "path", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": JSON})


@given(st.lists(MESSAGE | JSON, max_size=6) | JSON)
def test_never_raises_and_gives_plain_strings(history: object) -> None:
    for found in exchanges(history):
        assert isinstance(found.question, str) and isinstance(found.answer, str)
        assert all(isinstance(name, str) for name in found.files)
    text, files = request(history)
    assert isinstance(text, str) and all(isinstance(name, str) for name in files)
