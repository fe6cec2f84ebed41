"""Questions after a change, and what is right by rule on the benchmark's own rows."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from eval.benchmarks.base import Question
from eval.probes import PROBES, Changed, Chunk, words
from eval.probes.media import LeftOut
from instruct_data.bandstand.scene import sample_scene
from instruct_data.sources.music_avqa import read_annotations
from instruct_data.templates import TEMPLATES, fill
from instruct_data.wordings import fill_wording, split
from tests.test_eval_probes_truth import COMES_IN, FIRST, LOUDER, VOICE, chunk_of, small_clip

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))


def test_slots_are_read_from_the_text_where_the_file_does_not_give_them() -> None:
    chunk = chunk_of(*(sample_scene(37, index) for index in range(48)))
    asked = [question for row in chunk.questions for question in row]
    assert len(asked) > 500
    for question in asked:
        assert words.slots_of(replace(question, slots=())) == question.slots
    unknown = replace(asked[0], slots=(), question="Whatever is it then")
    has_slots = bool(TEMPLATES[unknown.template or ""].slots)
    assert words.slots_of(unknown) == (None if has_slots else ())


ASKED = Question(
    number=7,
    video_id="00000001",
    question_id=3,
    type="Audio-Visual Location",
    question="Where is the first sounding instrument?",
    gold="left",
    template=FIRST,
    slots=("first",),
)
SIDED = Question(
    number=8,
    video_id="00000001",
    question_id=4,
    type="Visual Location",
    question="The leftmost performer is playing which instrument?",
    gold="violin",
    template="What kind of instrument is the <LRer> instrument?",
    slots=("leftest",),
)


def test_words_that_training_never_sees_are_kept_too() -> None:
    for wording in split(FIRST)[1]:
        question = replace(ASKED, question=fill_wording(wording, ["first"]))
        assert words.time_reversed(question).text == fill_wording(wording, ["last"])


def test_a_question_in_unknown_words_is_asked_as_its_template() -> None:
    strange = replace(SIDED, question="Which one does the leftest guy play")
    assert words.mirrored(strange).text == "What kind of instrument is the rightest instrument?"
    same = replace(ASKED, question="Where does the earliest music come from", slots=())
    with pytest.raises(LeftOut, match="what fills"):
        words.time_reversed(same)
    count = "How many sounding <Object> in the video\uff1f"
    ascii_mark = replace(
        ASKED, template=count, slots=("erhu",), question="How many sounding erhu in the video?"
    )
    assert words.slots_of(replace(ascii_mark, slots=())) == ("erhu",)
    assert words.mirrored(ascii_mark).text == ascii_mark.question


def test_choices_are_mirrored_or_the_question_is_left_out() -> None:
    sides = replace(ASKED, choices=("left", "middle", "right"))
    assert words.mirrored(sides).choices == ("right", "middle", "left")
    with pytest.raises(LeftOut, match="choices"):
        words.mirrored(replace(sides, choices=("to the left", "elsewhere")))


# -- the benchmark, by rule ------------------------------------------------------------------


def judged(name: str, *questions: Question) -> Changed:
    clips = tuple(small_clip(f"{n}") for n in range(2))
    chunk = Chunk(clips=clips, questions=(questions, ()), scenes=(None, None))
    return PROBES[name].change(chunk)


def of_type(kind: str, template: str | None, gold: str, *slots: str) -> Question:
    text = fill(template, slots) if template else "What do the players do together"
    return replace(ASKED, type=kind, template=template, question=text, gold=gold, slots=slots)


def test_a_no_is_swapped_only_on_scenes() -> None:
    yes = of_type("Audio Comparative", LOUDER, "yes", "violin", "cello")
    (case,) = judged("swap", yes).cases
    assert (case.question, case.expected) == ("Is the cello louder than the violin?", "no")
    for other, why in (
        (replace(yes, gold="no"), "equal"),
        (replace(yes, slots=("violin", "violin")), "itself"),
        (replace(yes, slots=(), question="Which of them is louder"), "fills"),
        (ASKED, "compares nothing"),
        (of_type("Audio Comparative", None, "yes"), "template"),
    ):
        left = judged("swap", other)
        assert not left.cases and any(why in reason for reason in left.left_out)


def test_order_backwards_is_asked_the_other_way_round_and_not_known() -> None:
    (case,) = judged("reverse", ASKED).cases
    assert (case.question, case.expected) == ("Where is the last sounding instrument?", None)
    before = of_type(
        "Audio-Visual Temporal",
        "Which instrument makes sounds <BA> the <Object>?",
        "pipa",
        "before",
        "erhu",
    )
    (case,) = judged("reverse", before).cases
    assert case.question == "Which instrument makes sounds after the erhu?"
    third = of_type("Audio-Visual Temporal", COMES_IN, "pipa", "third")
    assert not judged("reverse", third).cases
    assert judged("reverse", of_type("Audio Counting", None, "two")).cases[0].expected == "two"
    assert not judged("reverse", of_type("Audio-Visual Temporal", None, "two")).cases
    ordered = replace(of_type("Audio Counting", None, "two"), question="How many before the end")
    assert not judged("reverse", ordered).cases
    assert not judged("reverse", of_type("Happening", None, "two")).cases


@pytest.mark.parametrize(
    ("kind", "template", "known"),
    [
        ("Audio Counting", None, {"shift+1", "blank", "picture-swapped"}),
        ("Audio Comparative", None, {"blank", "picture-swapped"}),
        ("Audio-Visual Existential", VOICE, {"shift+1"}),
        ("Audio-Visual Temporal", None, set()),
        ("Visual Counting", None, {"shift+1", "shift-3", "mute", "sound-swapped"}),
    ],
)
def test_what_cannot_be_known_is_none(kind: str, template: str | None, known: set[str]) -> None:
    question = of_type(kind, template, "yes")
    for name in ("mute", "blank", "shift+1", "shift-3", "sound-swapped", "picture-swapped"):
        (case,) = judged(name, question).cases
        assert case.expected == ("yes" if name in known else None), name
    assert judged("question-only", question).cases[0].expected is None
    assert judged("noise-0", question).cases[0].expected == "yes"


def test_a_type_that_says_nothing_is_left_out_where_it_should() -> None:
    strange = of_type("Happening", None, "rain")
    for name in ("mute", "shift+1", "sound-swapped", "reverse", "missing-modality"):
        assert judged(name, strange).left_out == {words.OTHER_TYPE: 1}, name
    assert judged("frames-50", strange).cases[0].expected == "rain"


def test_rows_of_the_annotation_file() -> None:
    path = DATA / "music-avqa" / "avqa-test.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    found: Mapping[str, Counter[str]] = defaultdict(Counter)
    questions = [
        Question(
            number=row.number,
            video_id=row.video_id,
            question_id=row.question_id,
            type=row.type,
            question=row.question,
            gold=row.gold,
            template=row.template,
            slots=row.slots,
        )
        for row in read_annotations(path).rows[::9]
    ]
    for name in ("mirror", "swap", "reverse", "shift+1"):
        after = judged(name, *questions)
        gold = {question.number: question.gold for question in questions}
        for case in after.cases:
            known = "unknown" if case.expected is None else "known"
            found[name][known] += 1
            if case.expected is not None and case.expected != gold[case.row]:
                found[name]["other"] += 1
        assert len(after.cases) + sum(after.left_out.values()) == len(questions)
    order = sum(words.is_about_order(question) for question in questions)
    sides = sum(q.gold in ("left", "right") for q in questions)
    assert found["mirror"] == {"known": len(questions), "other": sides}
    assert found["swap"]["known"] == found["swap"]["other"] > 50
    assert found["reverse"]["known"] == len(questions) - order and found["reverse"]["other"] == 0
    assert found["shift+1"]["other"] == 0
