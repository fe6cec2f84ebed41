"""What the page says: messages, comparisons, exports. Nothing in them passes for markup."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.clips import Media
from app.export import to_json, to_markdown
from app.reply import plain, said
from app.room import Room, Step, Turn
from app.whatif import changed, verdict, wanted
from avqa_llm.answer import Answer, Consumed, Evidence
from avqa_llm.errors import AVQAError
from avqa_llm.media.changes import Cut

HOSTILE = "<script>alert(1)</script> ![x](http://evil/x.png) **bold** [a](javascript:b)"
MEDIA = Media(path=Path("/secret/place/duo.mp4"), name="duo<i>.mp4", sha256="ab" * 32)
ANSWER = Answer(
    answer="yes",
    label="yes",
    probability=0.8,
    consumed=Consumed(sound=True, picture=False, sound_tokens=101, picture_tokens=0),
    evidence=(Evidence(modality="sound", start_s=1, end_s=2, region=None, weight=0.4),),
    warnings=("There was no picture to see.",),
)
TURN = Turn(question="Is it loud?", asked="Is it loud?", media=MEDIA, model="tiny", answer=ANSWER)


def test_a_message_is_escaped() -> None:
    answer = replace(ANSWER, answer=HOSTILE, warnings=(HOSTILE,))
    step = Step(kind="model", tool="ask", result=HOSTILE)
    text = said(replace(TURN, answer=answer, steps=(step,)))
    assert "<script" not in text and "![" not in text and "[a](" not in text
    assert "duo<i>" not in text
    assert "101 tokens of sound" in text and "Not seen" in text
    assert "<script" not in said(replace(TURN, answer=None, said=HOSTILE))


def test_plain_text_stays_readable() -> None:
    assert plain("The file: lasts 10.0 s (or more), cut it.") == (
        "The file: lasts 10.0 s (or more), cut it."
    )
    assert plain("it's #1") == "it's &#35;1"
    assert plain("1. a\n- b_c") == "1&#46; a - b_c" and plain("- b") == "&#45; b"


def test_changes_that_mean_nothing_are_refused() -> None:
    for controls in ((False, False, False, None, None), (True, True, False, None, None)):
        with pytest.raises(AVQAError):
            wanted(*controls)
    with pytest.raises(AVQAError, match="no length"):
        wanted(False, False, False, 5.0, 3.0)
    assert wanted(True, False, True, 2.0, None) == Cut(start_s=2.0, mirrored=True, sound=False)
    assert wanted(False, False, False, 0, 4.0) == Cut(end_s=4.0)
    with pytest.raises(AVQAError, match="Ask a question first"):
        changed(replace(TURN, answer=None), Cut(sound=False))


def test_a_change_reaches_the_service() -> None:
    ask = changed(TURN, Cut(start_s=2.0, mirrored=True, sound=False)).ask()
    assert ask.mute and not ask.blank and ask.cut == Cut(start_s=2.0, mirrored=True)
    assert ask.question == TURN.asked and ask.media[-1].path == MEDIA.path


@pytest.mark.parametrize(
    ("answer", "chance", "words"),
    [
        ("no", 0.6, "Another answer without sound: “no” instead of “yes”"),
        ("yes", 0.79, "did not depend"),
        ("yes", 0.5, "less sure: 80\u00a0% before, 50\u00a0% after"),
        ("yes", 0.95, "surer"),
        ("yes", None, "it does not say"),
    ],
)
def test_a_verdict_claims_what_two_answers_show(
    answer: str, chance: float | None, words: str
) -> None:
    new = replace(ANSWER, answer=answer, probability=chance)
    after = replace(TURN, cut=Cut(sound=False), answer=new)
    assert words in verdict(TURN, after)


def test_exports_tell_everything_but_the_place() -> None:
    room = Room()
    room.media.append(MEDIA)
    room.turns += [TURN, Turn(question=HOSTILE, said="There is no clip yet.")]
    told = json.loads(to_json(room))
    assert told["clips"] == [{"name": MEDIA.name, "sha256": MEDIA.sha256}]
    assert told["turns"][0]["answer"]["evidence"][0]["end_s"] == 2
    assert told["turns"][1]["answer"] is None and told["turns"][1]["question"] == HOSTILE
    text = to_markdown(room)
    assert "**yes**, 80\u00a0% sure" in text and "listened at 1.0–2.0 s (40\u00a0%)" in text
    assert "There was no picture to see" in text and "<script" not in text
    for export in (to_json(room), text):
        assert "/secret/place" not in export


def test_a_room_reminds_of_the_same_clip_and_model_only() -> None:
    room, other = Room(), replace(MEDIA, name="b.mp4", sha256="cd" * 32)
    room.turns += [TURN, replace(TURN, media=other), replace(TURN, model="big")]
    room.turns += [replace(TURN, answer=None, said="Stopped.")]
    assert [turn.question for turn in room.before(MEDIA, "tiny")] == ["Is it loud?"]
    room.turns += [TURN] * 20
    assert len(room.before(MEDIA, "tiny")) == Room.MOST_SAID
    room.back_to(2)
    assert room.latest == replace(TURN, media=other)
