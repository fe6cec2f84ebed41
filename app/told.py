"""What the model wrote down about the clip, and what it looked up for the question."""

from __future__ import annotations

import re

from app.markup import Html, Playing, join, said, tag
from avqa_llm.agent.events import TICKS_PER_S, Event, Events, parse
from avqa_llm.answer import Answer

LOUDNESS = ("soft", "rather soft", "medium", "rather loud", "loud")
RHYTHM = ("slow", "rather slow", "medium", "rather fast", "fast")
SIDES = {"left": "left", "middle": "middle", "right": "right", "off": "off screen", None: ""}
CODE = re.compile(r"([senlr])(\d{1,3})")
"""A word of the steps: start, end, length, loudness or rhythm, as in the record."""
MOST_EVENTS = 24
LONGEST_RECORD = 4000
LONGEST_STEPS = 1000
"""Characters that are read."""


def told(answer: Answer, playing: Playing) -> Html:
    """The model's own words, made readable, with the raw ones to unfold."""
    written = _written(answer, playing)
    parts = [_record(answer, written, playing), _steps(answer, written, playing)]
    if written:
        parts.append(_unfold("In its own words", f"{answer.record}\n\n{answer.steps}"))
    if not any(parts):
        parts = [tag("p", "The model wrote nothing down.", class_="av-soft")]
    return tag(
        "section",
        tag("h4", "What the model wrote down ", tag("span", "its opinion", class_="av-badge")),
        *parts,
        class_="av-told",
    )


def _written(answer: Answer, playing: Playing) -> Events | None:
    """The record as events; None where no part of it is of the kind that `tiny` writes."""
    record = answer.record[:LONGEST_RECORD]
    found = parse(record, seconds=playing.duration_s, pace=answer.pace)
    return found if found.place or found.players or found.voice is not None else None


def _record(answer: Answer, written: Events | None, playing: Playing) -> Html:
    raw = answer.record.strip()
    if not raw:
        return Html("")
    if written is None:
        return tag("p", raw[:LONGEST_RECORD], class_="av-raw")
    events = [_event(event, playing) for event in written.players[:MOST_EVENTS]]
    unread = f"Not understood: {'; '.join(written.unread)[:200]}." if written.unread else ""
    return join(
        [
            tag("p", _scene(written)),
            tag("ul", *events, class_="av-events") if events else "",
            tag("p", unread, class_="av-soft") if unread else "",
        ]
    )


def _scene(written: Events) -> str:
    voice = {True: "somebody speaks", False: "nobody speaks", None: ""}[written.voice]
    heard = len(written.heard)
    listened = written.voice is not None or any(p.plays is not None for p in written.players)
    sounds = f"{heard} sound" + ("" if heard == 1 else "s") if listened else ""
    scene = ", ".join(part for part in (written.place, sounds, voice) if part)
    return scene[:1].upper() + scene[1:] + "."


def _event(event: Event, playing: Playing) -> Html:
    name = [tag("strong", event.name.replace("_", " ")), f" {SIDES[event.side]}"]
    if event.span is None:
        seen = {False: "silent", True: "heard", None: ""}[event.plays]
        told = ", ".join(part for part in ("seen" if event.seen else "", seen) if part)
        return tag("li", tag("span", *name), " ", tag("span", told, class_="av-soft"))
    bar = tag("i", style=playing.block(*event.span))
    return tag(
        "li",
        tag("span", *name),
        tag("span", bar, class_="av-track", aria_hidden="true"),
        playing.moment(*event.span),
        tag("span", *_qualities(event), class_="av-steps"),
    )


def _qualities(event: Event) -> list[Html]:
    return [_step(event.loudness, LOUDNESS), _step(event.rhythm, RHYTHM)]


def _step(step: int | None, words: tuple[str, ...]) -> Html:
    if step is None:
        return Html("")
    dots = tag("i", "●" * (step + 1) + "○" * (len(words) - step - 1), aria_hidden="true")
    return tag("span", dots, f" {words[step]}", title=f"step {step + 1} of {len(words)}")


def _steps(answer: Answer, written: Events | None, playing: Playing) -> Html:
    raw = answer.steps.strip()[:LONGEST_STEPS]
    if not raw:
        return Html("")
    words = [_word(word, answer.pace, playing) for word in raw.split()] if written else [raw]
    return tag(
        "p", tag("span", "Looked up for this question: ", class_="av-soft"), join(words, " ")
    )


def _word(word: str, pace: float, playing: Playing) -> str:
    """A word of the steps; codes in the words of people."""
    found = CODE.fullmatch(word)
    if not found:
        return word
    letter, number = found[1], int(found[2])
    if letter == "s":
        return playing.moment(number / TICKS_PER_S * pace)
    if letter in "en":
        verb = "until" if letter == "e" else "for"
        return f"{verb} {said(number / TICKS_PER_S * pace)}"
    words = LOUDNESS if letter == "l" else RHYTHM
    return f"({words[number]})" if number < len(words) else word


def _unfold(title: str, text: str) -> Html:
    return tag(
        "details", tag("summary", title), tag("p", text.strip()[:LONGEST_RECORD], class_="av-raw")
    )
