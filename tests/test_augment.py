"""Augmentation: what is not refused is right, proved against the truth of Bandstand scenes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from instruct_data.augment import (
    AUGMENTATIONS,
    MIRROR,
    UnsafeAugmentation,
    mirrored,
    swapped,
    time_reversed,
)
from instruct_data.bandstand.questions import candidates
from instruct_data.bandstand.scene import Player, Scene, sample_scene
from instruct_data.records import Clip, Record, Turn
from instruct_data.sentences import ANSWERS, number_of, sentence, spoken
from instruct_data.templates import SLOT_VALUES, TEMPLATES, fill
from instruct_data.wordings import WORDINGS, fill_wording

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT / "../shared/data"))
LOUDER = "Is the <Object> louder than the <Object>?"
PLACED = "Is the <Object> on the <LR> louder than the <Object> on the <LR>?"
LOUDEST = "Where is the <LL> instrument?"
OUTERMOST = "What kind of instrument is the <LRer> instrument?"
ALWAYS = "Is the <Object> in the video always playing?"
SILENT = "How many instruments in the video did not sound from beginning to end?"
ORDER = {t for t, template in TEMPLATES.items() if {"FL", "TH", "BA"} & set(template.slots)}
COMPARISONS = {t for t, template in TEMPLATES.items() if template.kind == "Comparative"}
Answers = dict[tuple[str, tuple[str, ...]], str]


def turn_of(template: str, slots: tuple[str, ...], label: str, **more: str) -> Turn:
    question = more.get("question", fill(template, slots) if slots else template)
    return Turn(
        question=question,
        answer=more.get("answer", spoken(label)),
        label=label,
        template=template,
        slots=slots,
    )


def record_of(*turns: Turn, source: str = "music-avqa", **more: object) -> Record:
    record = Record(
        id="a-1",
        kind="question" if len(turns) == 1 else "dialogue",
        clip=Clip(video="00000093"),
        turns=turns,
        source=source,
        split="train",
        licence="MIT",
        provenance=("a.json, row 1",),
    )
    return replace(record, **more)  # type: ignore[arg-type]


# -- against the truth of scenes -----------------------------------------------------------


def mirror_scene(scene: Scene) -> Scene:
    def turned(player: Player) -> Player:
        x = None if player.x is None else round(1 - player.x, 3)
        return replace(player, x=x, pan=-player.pan)

    off = [p for p in scene.players if not p.visible]
    return replace(scene, players=tuple(turned(p) for p in [*scene.seen[::-1], *off]))


def reverse_scene(scene: Scene) -> Scene:
    def back(start: float, end: float) -> tuple[float, float]:
        return round(scene.seconds - end, 2), round(scene.seconds - start, 2)

    def turned(player: Player) -> Player:
        moves = None if player.moves_s is None else back(*player.moves_s)
        if player.start_s is None or player.end_s is None:
            return replace(player, moves_s=moves)
        start, end = back(player.start_s, player.end_s)
        return replace(player, start_s=start, end_s=end, moves_s=moves)

    voice = scene.voiceover
    if voice is not None:
        start, end = back(voice.start_s, voice.end_s)
        voice = replace(voice, start_s=start, end_s=end)
    return replace(scene, players=tuple(map(turned, scene.players)), voiceover=voice)


def truth(scene: Scene) -> Answers:
    return {(t, c.slots): c.answer for t, found in candidates(scene).items() for c in found}


TRANSFORMED: dict[str, Callable[[Scene], Scene]] = {
    "mirror": mirror_scene,
    "reverse": reverse_scene,
    "swap": lambda scene: scene,
}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(17, index) for index in range(300)]


def asked(scene: Scene, rng: np.random.Generator) -> Iterator[Turn]:
    """A question of each template: half of them reworded, half of them answered in a sentence."""
    for template, found in candidates(scene).items():
        one = found[int(rng.integers(len(found)))]
        turn = turn_of(template, one.slots, one.answer)
        if rng.random() < 0.5:
            wording = str(rng.choice(WORDINGS[template]))
            question = fill_wording(wording, [spoken(value) for value in turn.slots])
            turn = replace(turn, question=question)
        if rng.random() < 0.5:
            turn = replace(turn, answer=sentence(turn, rng))
        yield turn


@pytest.mark.parametrize(("name", "covered"), [("mirror", 33), ("reverse", 27), ("swap", 7)])
def test_what_is_not_refused_is_what_the_changed_scene_answers(
    scenes: list[Scene], name: str, covered: int
) -> None:
    rng = np.random.default_rng(1)
    done: Counter[str] = Counter()
    for scene in scenes:
        answers = truth(TRANSFORMED[name](scene))
        for turn in asked(scene, rng):
            try:
                (after,) = AUGMENTATIONS[name](record_of(turn, source="bandstand")).turns
            except UnsafeAugmentation:
                continue
            template = after.template
            assert template is not None and template == turn.template
            assert answers.get((template, after.slots)) == after.label, (turn, after)
            if number_of(turn) is not None:
                assert number_of(after) == number_of(turn)
            else:
                assert after.label and after.answer == spoken(after.label)
            done[template] += 1
    assert len(done) == covered and min(done.values()) >= 10
    if name == "reverse":
        assert set(TEMPLATES) - set(done) == ORDER
    if name == "swap":
        assert set(done) == COMPARISONS


EXCHANGED = {"first": "last", "last": "first", "before": "after", "after": "before"}


def test_exchanging_first_and_last_would_be_wrong_for_each_refused_template(
    scenes: list[Scene],
) -> None:
    """Why the order templates are refused: ill-posed or wrong answers, for every one of them."""
    wrong: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for scene in scenes:
        backwards = truth(reverse_scene(scene))
        for (template, slots), answer in truth(scene).items():
            if template not in ORDER:
                continue
            tried[template] += 1
            exchanged = tuple(EXCHANGED.get(value, value) for value in slots)
            wrong[template] += backwards.get((template, exchanged)) != answer
    assert set(tried) == ORDER
    assert all(wrong[template] / tried[template] > 0.1 for template in ORDER), wrong


# -- twice is nothing ----------------------------------------------------------------------

VOICES = (str, lambda value: value.replace("_", " "), spoken)
MANNERS = (str, spoken, lambda label: f"{spoken(label).capitalize()}.")


@st.composite
def turns(draw: st.DrawFn, templates: list[str]) -> Turn:
    template = TEMPLATES[draw(st.sampled_from(templates))]
    slots = tuple(draw(st.sampled_from(SLOT_VALUES[slot])) for slot in template.slots)
    label = draw(st.sampled_from(ANSWERS[template.answers]))
    voice = draw(st.sampled_from(VOICES))
    wording = draw(st.sampled_from([template.text, *WORDINGS[template.text]]))
    values = [voice(value) for value in slots]
    own = wording == template.text
    question = fill(wording, values) if own else fill_wording(wording, values)
    turn = turn_of(template.text, slots, label, question=question)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    said = [manner(label) for manner in MANNERS]
    return replace(turn, answer=draw(st.sampled_from([*said, sentence(turn, rng)])))


def texts_of(turn: Turn) -> set[str]:
    """Every way to ask what the turn asks, by the wordings and slot values that are public."""
    assert turn.template
    found = set()
    for voice in VOICES:
        values = [voice(value) for value in turn.slots]
        found |= {fill_wording(wording, values) for wording in WORDINGS[turn.template]}
        found.add(fill(turn.template, values))
    return found


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_twice_gives_the_record_back(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(AUGMENTATIONS)))
    pool = {"mirror": set(TEMPLATES), "reverse": set(TEMPLATES) - ORDER, "swap": COMPARISONS}[name]
    rows = data.draw(st.lists(turns(sorted(pool)), min_size=1, max_size=2))
    if name == "swap":
        halves = [
            (row.slots[: len(row.slots) // 2], row.slots[len(row.slots) // 2 :]) for row in rows
        ]
        assume(all(one != other for one, other in halves))
    record = record_of(*rows, source="bandstand")
    once = AUGMENTATIONS[name](record)
    assert once != record and once.id == record.id
    assert len(once.provenance) == 2
    assert all(row.question in texts_of(row) for row in once.turns)
    assert AUGMENTATIONS[name](once) == record


def test_a_swapped_yes_can_be_swapped_back_whatever_the_source() -> None:
    record = record_of(turn_of(LOUDER, ("violin", "cello"), "yes"))
    once = swapped(record)
    assert once.turns[0].label == "no" and once.provenance[-1] == "swapped"
    assert swapped(once) == record
    there = mirrored(once)
    assert mirrored(there) == once and swapped(there).turns == record.turns


def test_marks_and_the_clip() -> None:
    record = record_of(turn_of(LOUDEST, ("loudest",), "left"))
    both = time_reversed(mirrored(record))
    assert both.clip == Clip(video="00000093", mirrored=True, reversed=True)
    assert both.provenance == ("a.json, row 1", "mirrored", "reversed")
    flipped = record_of(record.turns[0], clip=Clip(video="a", mirrored=True))
    assert not mirrored(flipped).clip.mirrored
    assert swapped(record_of(turn_of(LOUDER, ("violin", "cello"), "yes"))).clip == record.clip


# -- texts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "slots", "label", "question", "mirror_question", "mirror_label"),
    [
        (
            PLACED,
            ("flute", "left", "acoustic_guitar", "right"),
            "yes",
            "Is the flute on the left louder than the acoustic_guitar on the right?",
            "Is the flute on the right louder than the acoustic_guitar on the left?",
            "yes",
        ),
        (
            OUTERMOST,
            ("leftest",),
            "violin",
            "The leftmost performer is playing which instrument?",
            "The rightmost performer is playing which instrument?",
            "violin",
        ),
        (
            LOUDEST,
            ("lowest",),
            "right",
            "Left, middle or right: where is the lowest instrument?",
            "Left, middle or right: where is the lowest instrument?",
            "left",
        ),
        (
            LOUDEST,
            ("loudest",),
            "middle",
            "Where is the loudest instrument?",
            "Where is the loudest instrument?",
            "middle",
        ),
    ],
)
def test_mirrored_questions_keep_their_wording(
    template: str,
    slots: tuple[str, ...],
    label: str,
    question: str,
    mirror_question: str,
    mirror_label: str,
) -> None:
    turn = turn_of(template, slots, label, question=question)
    (after,) = mirrored(record_of(turn)).turns
    assert (after.question, after.label) == (mirror_question, mirror_label)


def test_sentences_follow_their_label() -> None:
    no = "No, the violin is not louder than the cello."
    turn = turn_of(
        LOUDER, ("cello", "violin"), "yes", answer="Yes, the cello is louder than the violin."
    )
    assert swapped(record_of(turn)).turns[0].answer == no
    where = turn_of(LOUDEST, ("loudest",), "left", answer="It is on the left.")
    assert mirrored(record_of(where)).turns[0].answer == "It is on the right."
    own = replace(where, answer="Over there, to the left of everybody else.")
    said = mirrored(record_of(own)).turns[0].answer
    assert "right" in said and "left" not in said
    assert mirrored(record_of(own)) == mirrored(record_of(own))


def test_a_question_in_unknown_words_is_asked_anew_only_where_it_must_be() -> None:
    words = "Would that violin be playing all the way"
    turn = turn_of(ALWAYS, ("violin",), "yes", question=words)
    assert mirrored(record_of(turn)).turns[0].question == words
    sided = replace(turn, question="Is the left violin always playing")
    (after,) = mirrored(record_of(sided)).turns
    assert after.question in texts_of(after) and "left" not in after.question
    timed = replace(turn, question="Does the violin play from start to end")
    (after,) = time_reversed(record_of(timed)).turns
    assert after.question in texts_of(after)


def test_what_the_benchmark_gives_filled_is_changed_where_nothing_needs_its_slots() -> None:
    slotless = Turn(
        question="Where does the instrument that is loudest stand",
        answer="left",
        label="left",
        template=LOUDEST,
    )
    (after,) = mirrored(record_of(slotless)).turns
    assert (after.question, after.answer, after.label) == (slotless.question, "right", "right")
    assert time_reversed(record_of(slotless)).turns == (slotless,)


def test_choices_are_mirrored_too() -> None:
    turn = replace(turn_of(LOUDEST, ("loudest",), "left"), choices=("left", "middle", "right"))
    assert mirrored(record_of(turn)).turns[0].choices == ("right", "middle", "left")
    with pytest.raises(UnsafeAugmentation, match="its choice 'to the left' speaks of a side"):
        mirrored(record_of(replace(turn, choices=("to the left", "elsewhere"))))


# -- refusals ------------------------------------------------------------------------------

OPEN = Turn(question="What happens?", answer="Two people play.")
YES = turn_of(LOUDER, ("violin", "cello"), "yes")


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (OPEN, "has no template"),
        (replace(YES, label=None), "has no label"),
        (replace(YES, template="Who is it?"), "none of the 33"),
        (replace(YES, label="violin"), "'violin' is no answer"),
        (replace(YES, slots=("violin",)), "1 slots"),
    ],
)
def test_a_turn_whose_answer_rests_on_nothing_known_is_refused(
    name: str, turn: Turn, why: str
) -> None:
    with pytest.raises(UnsafeAugmentation, match=f"record a-1, turn 2.*{why}"):
        AUGMENTATIONS[name](record_of(YES, turn, source="bandstand"))


@pytest.mark.parametrize(
    ("name", "turn", "why"),
    [
        ("swap", replace(YES, label="no", answer="no"), "'no' may mean that both are equal"),
        ("swap", turn_of(LOUDER, ("violin", "violin"), "yes"), "'violin' with itself"),
        ("swap", replace(YES, slots=()), "does not tell what fills its slots"),
        ("swap", turn_of(ALWAYS, ("violin",), "yes"), "none of its 1 turns compares"),
        ("mirror", Turn(question="Is it right", answer="no", label="no", template=PLACED), "fills"),
        (
            "mirror",
            Turn(question="Is the left one loudest", answer="left", label="left", template=LOUDEST),
            "does not tell what fills its slots",
        ),
        (
            "reverse",
            turn_of("What is the <TH> instrument that comes in?", ("third",), "pipa"),
            "order",
        ),
    ],
)
def test_a_refusal_says_why(name: str, turn: Turn, why: str) -> None:
    with pytest.raises(UnsafeAugmentation, match=why) as error:
        AUGMENTATIONS[name](record_of(turn))
    assert str(error.value).endswith("leave the record as it is") or "leave it" in str(error.value)


def test_a_no_is_swapped_only_where_equals_cannot_be() -> None:
    no = turn_of(LOUDER, ("violin", "cello"), "no")
    assert swapped(record_of(no, source="bandstand")).turns[0].label == "yes"
    with pytest.raises(UnsafeAugmentation):
        swapped(record_of(no, source="music-avqa-v2"))


def test_questions_beside_a_comparison_stay_when_it_is_swapped() -> None:
    count = turn_of(SILENT, (), "two")
    after = swapped(record_of(YES, count))
    assert after.turns[1] == count
    assert after.turns[0].question == "Is the cello louder than the violin?"


# -- the benchmark's own rows --------------------------------------------------------------


def test_rows_of_the_annotation_file() -> None:
    path = DATA / "music-avqa" / "avqa-test.json"
    if not path.is_file():
        pytest.skip(f"no annotation file {path}; set AVQA_TEST_DATA to the folder of the data")
    rows = json.loads(path.read_text(encoding="utf-8"))[::9]
    done: Counter[str] = Counter()
    for row in rows:
        slots = tuple(json.loads(row["templ_values"]))
        turn = turn_of(row["question_content"].strip(), slots, row["anser"])
        for name, change in AUGMENTATIONS.items():
            try:
                (after,) = change(record_of(turn)).turns
            except UnsafeAugmentation:
                continue
            done[name] += 1
            assert after.question == fill(turn.template or "", after.slots)
            sides = [value for value in (*turn.slots, turn.label) if value in MIRROR]
            if name == "mirror" and sides:
                assert (after.slots, after.label) != (turn.slots, turn.label)
    temporal = sum(row["question_content"].strip() in ORDER for row in rows)
    yes = sum(row["question_content"] in COMPARISONS and row["anser"] == "yes" for row in rows)
    assert done["mirror"] == len(rows)
    assert done["reverse"] == len(rows) - temporal
    assert 0 < done["swap"] <= yes
