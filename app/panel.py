"""The evidence of an answer as HTML: what was heard and seen, how sure, where it looked.

Two parts are kept apart: what was measured from the sound, which is a fact, and what the model
wrote down or attended to, which is its opinion. Every time is a button that plays from there;
`looks.HEAD` makes it work, `looks.CSS` makes it readable.
"""

from __future__ import annotations

from app.markup import Html, Playing, percent, share, tag
from app.measured import measured
from app.seen import Shown
from app.timeline import frames, timeline
from app.told import told
from avqa_llm.answer import Answer

MOST_RUNNERS_UP = 3
LONGEST_ANSWER = 2000
MOST_WARNINGS = 12


def panel(answer: Answer, shown: Shown, *, player: str, starts_s: float = 0.0) -> str:
    """The whole panel.

    Args:
        answer: of any engine; everything in it is taken for text.
        shown: the clip that was asked about.
        player: element id around the `video` that plays it.
        starts_s: where the clip's 0 s lies in what the player plays, if only a part was asked
            about; times are then said on the player's clock.
    """
    playing = Playing(player=player, starts_s=starts_s, duration_s=shown.duration_s)
    return tag(
        "section",
        _warnings(answer),
        _head(answer),
        _certainty(answer),
        timeline(answer, shown, playing),
        frames(answer, shown, playing),
        tag("div", measured(shown, playing), told(answer, playing), class_="av-two"),
        class_="av-panel",
        aria_label=f"Evidence for the answer: {answer.answer[:80]}",
    )


def lights(answer: Answer) -> str:
    """Whether sound and picture reached the model, in words and counts."""
    reached = answer.consumed
    sound = (reached.sound, reached.sound_tokens) if reached else None
    picture = (reached.picture, reached.picture_tokens) if reached else None
    return tag(
        "ul",
        _light("heard", "sound", sound),
        _light("seen", "picture", picture),
        class_="av-lights",
        aria_label="What reached the model",
    )


def _light(word: str, what: str, reached: tuple[bool, int] | None) -> Html:
    """`reached`: whether, and as how many tokens; None where a server does not say."""
    if reached is None:
        state, text, why = "unknown", f"unknown whether {word}", "the server does not say"
    elif reached[0]:
        state, text, why = "yes", word, f"{reached[1]} tokens of {what}"
    else:
        state, text, why = "no", f"not {word}", f"no {what} reached the model"
    return tag(
        "li",
        tag("span", class_="av-lamp", aria_hidden="true"),
        tag("strong", text[:1].upper() + text[1:]),
        " ",
        tag("span", why, class_="av-soft"),
        class_=f"av-light av-{state}",
    )


def _warnings(answer: Answer) -> Html:
    if not answer.warnings:
        return Html("")
    sentences = (tag("li", _sentence(warning)) for warning in answer.warnings[:MOST_WARNINGS])
    return tag("ul", *sentences, class_="av-warnings", role="note", aria_label="Please note")


def _sentence(text: str) -> str:
    text = text[:LONGEST_ANSWER].strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _head(answer: Answer) -> Html:
    said = answer.answer.strip()[:LONGEST_ANSWER] or "no answer"
    kind = "av-answer" if len(said) <= 40 else "av-answer av-long"
    return tag("header", tag("p", said, class_=kind), Html(lights(answer)), class_="av-head")


def _certainty(answer: Answer) -> Html:
    title = tag("h4", "How sure it says it is")
    if answer.probability is None:
        said = tag("p", "No chance of being right comes with this answer.", class_="av-soft")
        return tag("div", title, said, class_="av-sure")
    rows = [_bar(answer.answer, answer.probability, first=True)]
    for other in answer.alternatives[:MOST_RUNNERS_UP]:
        rows.append(_bar(other.label, other.probability))
    return tag("div", title, tag("ul", *rows, class_="av-bars"), class_="av-sure")


def _bar(label: str, probability: float, *, first: bool = False) -> Html:
    part = share(probability)
    return tag(
        "li",
        tag("span", label[:60] or "no answer", class_="av-label"),
        tag("span", tag("i", style=f"width:{part:.1%}"), class_="av-track", aria_hidden="true"),
        tag("span", percent(part), class_="av-number"),
        class_="av-first" if first else None,
    )
