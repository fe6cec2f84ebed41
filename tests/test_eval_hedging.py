"""Every hedge that preference pairs are made with is recognised; no clear sentence is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from avqa_llm.labels import LABELS, NO_ANSWER, to_label
from eval.hedging import ALTERNATIVES, REFUSAL, UNDECIDED, VAGUE, hedge, hedging
from eval.samples import Sample
from instruct_data.hedges import DEAF, HEDGES, fill_hedge
from instruct_data.hedges import hedge as drawn
from instruct_data.sentences import ANSWERS, patterns, say, spoken
from instruct_data.templates import SLOT_VALUES, TEMPLATES


@pytest.mark.parametrize("family", HEDGES)
def test_every_hedge_of_the_bank_is_one(family: str) -> None:
    rng = np.random.default_rng(0)
    labels = ANSWERS.get(family, ("yes", "no"))
    for text, (right, other) in itertools.product(
        HEDGES[family], itertools.permutations(labels, 2)
    ):
        said = fill_hedge(text, family, right, other, rng)
        assert hedge(said), said


def test_drawn_hedges_and_those_of_the_deaf_are_hedges() -> None:
    rng = np.random.default_rng(1)
    for family in (*ANSWERS, "any"):
        for _ in range(50):
            right, other = rng.choice(ANSWERS.get(family, LABELS), 2, replace=False)
            said = drawn(family, str(right), str(other), rng)
            assert hedge(said), said
    assert {hedge(text) for text in DEAF} == {REFUSAL}
    assert {hedge(text, closed=False) for text in DEAF} == {REFUSAL}


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_clear_sentence_is_a_hedge(name: str) -> None:
    rng, template = np.random.default_rng(2), TEMPLATES[name]
    for label in ANSWERS[template.answers]:
        assert hedge(label) is hedge(spoken(label)) is None
        for pattern in patterns(name, label):
            for _ in range(3):
                slots = [str(rng.choice(SLOT_VALUES[slot])) for slot in template.slots]
                said = say(pattern, slots, label)
                assert hedge(said) is None, said


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I can't really tell which one it is.", REFUSAL),
        ("Sorry, I do not know.", REFUSAL),
        ("There is no way to hear that.", REFUSAL),
        ("Could be the cello or the violin.", UNDECIDED),
        ("Hmm, maybe two.", UNDECIDED),
        ("It is the trumpet or, by the sound of it, the tuba.", ALTERNATIVES),
        ("Two to three.", ALTERNATIVES),
        ("either left or right", ALTERNATIVES),
        ("Yes/no.", ALTERNATIVES),
        ("violin ; cello", ALTERNATIVES),
        ("more than ten, two", ALTERNATIVES),
        ("At least some of them are playing.", VAGUE),
        ("People are playing instruments on a stage.", VAGUE),
        ("There is some kind of string instrument.", VAGUE),
    ],
)
def test_hedges_in_other_words(text: str, kind: str) -> None:
    """Sentences that the banks do not have."""
    assert hedge(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "violin, violin",
        "violin, left",
        "...",
        "violin violin s0 e14",
        "kazoo",
        "It is a harp.",
        "More than ten violins sound.",
        "A singer stands between the cello and the violin.",
        "The violin plays first, then the flute and the cello.",
        "A man plays the guitar in a room with several people.",
        "No, the piano is not louder than the drum or the tuba.",
    ],
)
def test_wrong_and_garbled_answers_are_no_hedges(text: str) -> None:
    assert hedge(text) is None


def test_an_open_question_may_be_answered_in_general_words() -> None:
    said = "They are playing music."
    assert hedge(said) == VAGUE and hedge(said, closed=False) is None
    assert hedge("They may be playing music.", closed=False) == UNDECIDED


def test_what_commits_by_the_canonical_scorer_never_hedges() -> None:
    for text in ("Yes, although it may be so.", "It is the violin.", "two", "Indoors, it seems."):
        assert (hedge(text) is None) == (to_label(text) != NO_ANSWER)


def sample(row: int, answer: str, gold: str = "violin") -> Sample:
    return Sample(
        row=row, video_id=f"v{row // 2}", question_id=row, template=None, type="x", question="?",
        gold=gold, answer=answer, label=to_label(answer),
    )  # fmt: skip


def test_the_share_of_a_run_with_its_interval() -> None:
    said = ["violin", "Maybe the violin.", "It is the flute or the tuba.", "flute"] * 10
    found = hedging([sample(n, text) for n, text in enumerate(said)])
    assert (found.share.value, found.share.n, found.share.videos) == (0.5, 40, 20)
    assert found.kinds == {ALTERNATIVES: 10, UNDECIDED: 10}
    # Each video has one of two: drawing videos changes nothing.
    assert (found.share.low, found.share.high) == (0.5, 0.5)
    uneven = hedging([sample(n, "Hard to say." if n < 20 else "violin") for n in range(40)])
    assert uneven.share.low < 0.35 and uneven.share.high > 0.65
    open_ended = hedging([sample(0, "They are playing music.", gold="playing music")])
    assert open_ended.share.value == 0.0 and np.isnan(open_ended.share.low)
    with pytest.raises(ValueError, match="0 values"):
        hedging([])
