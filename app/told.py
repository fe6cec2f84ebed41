"""What the model wrote down about the clip, and what it looked up for the question."""

from __future__ import annotations

from app.events import CODE, LOUDNESS, RHYTHM, SIDES, TICKS_PER_S, Event, Written, read_record
from app.markup import Html, Playing, join, said, tag
from avqa_llm.answer import Answer

MOST_EVENTS = 24
LONGEST_STEPS = 1000
LONGEST_RAW = 4000


def told(answer: Answer, playing: Playing) -> Html:
    """The model's own words, made readable, with the raw ones to unfold."""
    written = read_record(answer.record, answer.pace)
    parts = [_record(answer, written, playing), _steps(answer, written, playing)]
    if written:
        parts.append(_unfold("In its own words", f"{answer.record}\n\n{answer.steps}"))
    if not any(parts):
        parts = [tag("p", "The model wrote nothing down.", class_="av-soft")]
    return tag(
        "section",
        tag("h4", "What the model wrote down", tag("span", "its opinion", class_="av-badge")),
        *parts,
        class_="av-told",
    )


def _record(answer: Answer, written: Written | None, playing: Playing) -> Html:
    raw = answer.record.strip()
    if not raw:
        return Html("")
    if written is None:
        return tag("p", raw[:LONGEST_STEPS], class_="av-raw")
    events = [_event(event, playing) for event in written.events[:MOST_EVENTS]]
    strange = f"Not understood: {'; '.join(written.strange)[:200]}." if written.strange else ""
    return join(
        [
            tag("p", _scene(written)),
            tag("ul", *events, class_="av-events") if events else "",
            tag("p", strange, class_="av-soft") if strange else "",
        ]
    )


def _scene(written: Written) -> str:
    voice = {True: "somebody speaks", False: "nobody speaks", None: ""}[written.voice]
    heard = sum(not event.silent and event.start_s is not None for event in written.events)
    sounds = f"{heard} sound" + ("" if heard == 1 else "s")
    scene = ", ".join(part for part in (written.place, sounds, voice) if part)
    return scene[:1].upper() + scene[1:] + "."


def _event(event: Event, playing: Playing) -> Html:
    name = [tag("strong", event.name), f" {SIDES.get(event.side, '')}"]
    if event.start_s is None or event.end_s is None:
        seen = "seen, silent" if event.silent else "seen"
        return tag("li", tag("span", *name), tag("span", seen, class_="av-soft"))
    bar = tag("i", style=playing.block(event.start_s, event.end_s))
    return tag(
        "li",
        tag("span", *name),
        tag("span", bar, class_="av-track", aria_hidden="true"),
        playing.moment(event.start_s, event.end_s),
        tag(
            "span", _step(event.loudness, LOUDNESS), _step(event.rhythm, RHYTHM), class_="av-steps"
        ),
    )


def _qualities(event: Event) -> list[Html]:
    return [_step(event.loudness, LOUDNESS), _step(event.rhythm, RHYTHM)]


def _step(step: int | None, words: tuple[str, ...]) -> Html:
    if step is None:
        return Html("")
    dots = tag("i", "●" * (step + 1) + "○" * (len(words) - step - 1), aria_hidden="true")
    return tag("span", dots, f" {words[step]}", title=f"step {step + 1} of {len(words)}")


def _steps(answer: Answer, written: Written | None, playing: Playing) -> Html:
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
        "details", tag("summary", title), tag("p", text.strip()[:LONGEST_RAW], class_="av-raw")
    )
