"""Full-sentence answers: they say the label, nothing against it, in correct English."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import LABELS, NO_ANSWER, to_label
from instruct_data.records import Clip, Record, Turn
from instruct_data.sentences import (
    ANSWERS,
    MARK,
    number_of,
    patterns,
    say,
    sentence,
    spoken,
    with_sentences,
)
from instruct_data.templates import SLOT_VALUES, TEMPLATES, fill

LOUDER = "Is the <Object> louder than the <Object>?"
SEEN = "How many <Object> are in the entire video?"
WHICH = "Which <Object> makes the sound <FL>?"
BESIDE = "What is the instrument on the <LR> of <Object>?"
OUTERMOST = "What kind of instrument is the <LRer> instrument?"
PLACE = "Where is the performance?"
ALL = [(t.text, label) for t in TEMPLATES.values() for label in ANSWERS[t.answers]]


def turn_of(template: str, slots: tuple[str, ...], label: str) -> Turn:
    return Turn(
        question=fill(template, slots), answer=label, label=label, template=template, slots=slots
    )


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    text, label = draw(st.sampled_from(ALL))
    slots = tuple(draw(st.sampled_from(SLOT_VALUES[slot])) for slot in TEMPLATES[text].slots)
    return turn_of(text, slots, label)


def record_of(*rows: Turn) -> Record:
    return Record(
        id="a-1",
        kind="dialogue",
        clip=Clip(video="00000093"),
        turns=rows,
        source="music-avqa",
        split="train",
        licence="MIT",
        provenance=("a.json",),
    )


def first(template: str, slots: tuple[str, ...], label: str) -> str:
    return say(patterns(template, label)[0], slots, label)


def test_every_label_answers_something_and_all_its_patterns_are_different() -> None:
    assert {label for _, label in ALL} == set(LABELS)
    for text, label in ALL:
        found = patterns(text, label)
        assert len(found) == len(set(found)) >= 4
        used = {field for pattern in found for field in re.findall(r"\{(\d)", pattern)}
        assert used <= {str(number) for number in range(len(TEMPLATES[text].slots))}
        # The fullest pattern says all that was asked.
        assert max(len(set(re.findall(r"\{(\d)", pattern))) for pattern in found) == len(
            TEMPLATES[text].slots
        )


@settings(max_examples=600, deadline=None)
@given(turn=turns(), seed=st.integers(0, 2**32))
def test_a_sentence_says_its_label_and_is_well_formed(turn: Turn, seed: int) -> None:
    assert turn.template and turn.label
    said = sentence(turn, np.random.default_rng(seed))
    assert said.endswith(".") and said.count(".") == 1
    assert said[0].isupper() and said.isascii()
    assert not set("{}<>=|_") & set(said)
    assert "  " not in said and said == said.strip() and " ," not in said
    if TEMPLATES[turn.template].answers == "yes-no":
        assert said.startswith(f"{turn.label.capitalize()}, ")
        # A denial must be said as one, an affirmation must not.
        denied = bool(re.search(r"\b(?:not|cannot|no|nobody)\b", said[4:]))
        assert denied == (turn.label == "no")
    else:
        assert re.search(rf"\b{spoken(turn.label)}s?\b", said.lower())
    assert not re.search(
        r"\ba [aeio]|\ban [^aeio]|\bon the middle\b|leftest|rightest", said.lower()
    )


@settings(max_examples=600, deadline=None)
@given(turn=turns(), seed=st.integers(0, 2**32))
def test_the_scorer_never_reads_another_label_out_of_a_sentence(turn: Turn, seed: int) -> None:
    """A sentence may repeat what the question names, which the scorer calls ambiguous."""
    assert turn.template
    read = to_label(sentence(turn, np.random.default_rng(seed)))
    allowed = {turn.label}
    if TEMPLATES[turn.template].answers != "yes-no":
        allowed.add(NO_ANSWER)
    assert read in allowed


def test_some_pattern_of_every_template_can_be_scored() -> None:
    rng = np.random.default_rng(5)
    for text, label in ALL:
        slots = tuple(str(rng.choice(SLOT_VALUES[slot])) for slot in TEMPLATES[text].slots)
        read = [to_label(say(pattern, slots, label)) for pattern in patterns(text, label)]
        assert label in read, (text, label, read)


@pytest.mark.parametrize(
    ("template", "slots", "label", "said"),
    [
        (LOUDER, ("violin", "electric_bass"), "yes", "the violin is louder than the electric bass"),
        (LOUDER, ("congas", "tuba"), "no", "the congas are not louder than the tuba"),
        (SEEN, ("violin",), "one", "One violin is in the entire video."),
        (SEEN, ("violin",), "two", "Two violins are in the entire video."),
        (SEEN, ("electric_bass",), "zero", "Zero electric basses are in the entire video."),
        (SEEN, ("congas",), "one", "One set of congas is in the entire video."),
        (SEEN, ("congas",), "more than ten", "More than ten sets of congas are in the"),
        (WHICH, ("violin", "first"), "left", "The violin on the left makes the sound first."),
        (WHICH, ("congas", "last"), "middle", "The congas in the middle make the sound last."),
        (WHICH, ("flute", "last"), "simultaneously", "The flutes make the sound simultaneously."),
        (BESIDE, ("left", "erhu"), "accordion", "on the left of the erhu is an accordion."),
        (BESIDE, ("right", "erhu"), "ukulele", "on the right of the erhu is a ukulele."),
        (BESIDE, ("right", "erhu"), "congas", "on the right of the erhu is a set of congas."),
        (OUTERMOST, ("leftest",), "acoustic_guitar", "The leftmost instrument is an acoustic"),
        (PLACE, (), "outdoor", "The performance is outdoors."),
    ],
)
def test_agreement_articles_and_sides(
    template: str, slots: tuple[str, ...], label: str, said: str
) -> None:
    assert said in first(template, slots, label)


def test_a_no_claims_nothing_of_the_other_and_a_zero_says_none() -> None:
    for pattern in patterns(LOUDER, "no"):
        said = say(pattern, ("violin", "cello"), "no")
        assert re.search(r"(?:is|does) not", said), said
        assert not re.search(r"cello (?:is|sounds) ", said)
    none = {say(pattern, ("violin",), "zero") for pattern in patterns(SEEN, "zero")}
    assert "There are no violins in the entire video: zero." in none


@settings(max_examples=200, deadline=None)
@given(turn=turns(), seed=st.integers(0, 99))
def test_a_sentence_is_found_again_by_its_number(turn: Turn, seed: int) -> None:
    said = replace(turn, answer=sentence(turn, np.random.default_rng(seed)))
    assert said.template and said.label
    number = number_of(said)
    assert number is not None
    assert say(patterns(said.template, said.label)[number], said.slots, said.label) == said.answer
    assert number_of(replace(said, answer="It is what it is.")) is None


def test_with_sentences_leaves_open_answers_and_slotless_turns() -> None:
    closed = turn_of(LOUDER, ("violin", "cello"), "no")
    opened = Turn(question="What happens?", answer="A quartet plays.")
    slotless = replace(closed, slots=(), question="When compared to the cello is the violin louder")
    bare = turn_of(PLACE, (), "indoor")
    record = record_of(closed, opened, slotless, bare)
    after = with_sentences(record, np.random.default_rng(1))
    assert after.turns[0].answer.startswith("No, ") and after.turns[3].answer.count(" ") >= 2
    assert after.turns[1:3] == record.turns[1:3]
    assert after.provenance == ("a.json", MARK)
    assert [replace(t, answer="") for t in after.turns] == [
        replace(t, answer="") for t in record.turns
    ]
    assert with_sentences(record, np.random.default_rng(1)) == after
    untouched = record_of(opened)
    assert with_sentences(untouched, np.random.default_rng(1)) is untouched


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": None}, "has no template"),
        ({"label": None}, "has no label"),
        ({"template": "Who is it?"}, "none of the 33"),
        ({"label": "violin"}, "'violin' cannot answer .* give one of yes, no"),
        ({"slots": ("violin",)}, "needs 2"),
    ],
)
def test_a_turn_that_no_sentence_fits_is_named(change: dict[str, object], said: str) -> None:
    turn = replace(turn_of(LOUDER, ("violin", "cello"), "yes"), **change)  # type: ignore[arg-type]
    with pytest.raises(AnnotationError, match=said):
        sentence(turn, np.random.default_rng(0))
