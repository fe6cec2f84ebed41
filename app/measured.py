"""What was measured from the sound: no model had a part in it."""

from __future__ import annotations

from app.markup import Html, Playing, tag
from app.seen import Shown
from avqa_llm.acoustics import Facts, Measurement, Span

MOST_SPANS = 40
MOST_ONSETS = 400
MOST_SECONDS = 600
MOST_TIMES = 4
"""Spans whose times are written out beside their track."""
RANGE_LU = 40.0
"""What is so much softer than the clip's loudest second has no bar."""
SIDED = 0.1
"""A balance closer to the middle than this is called the middle."""


def measured(shown: Shown, playing: Playing) -> Html:
    """Spans that sound, loudness of each second, onsets, tempo and pitch."""
    facts = shown.facts
    if facts is None:
        return Html("")
    return tag(
        "section",
        tag("h4", "Measured from the sound ", tag("span", "fact", class_="av-badge av-fact")),
        *(_rows(facts, playing) if facts.channels else [_without_sound()]),
        class_="av-measured",
    )


def _without_sound() -> Html:
    return tag("p", "The clip has no sound track, so there is nothing to measure.")


def _rows(facts: Facts, playing: Playing) -> list[Html]:
    if not facts.active:
        return [tag("p", "The sound track is silent from start to end.")]
    rows = [
        _row("Sounding", _spans(facts.active, playing), _times(facts.active, playing)),
        _row("Loudness", _loudness(facts, playing), _extremes(facts, playing)),
        _row("Onsets", _onsets(facts, playing), _count(facts, playing)),
    ]
    values = (
        _value("Loudness as a whole", facts.loudness),
        _value("Steady pulse", facts.tempo),
        _value("Pitch", facts.pitch),
        _value("Range of pitch", facts.pitch_range) if facts.pitch_range.value else Html(""),
        _side(facts),
    )
    return [tag("ul", *rows, class_="av-facts"), tag("dl", *values, class_="av-values")]


def _row(name: str, track: Html, said: Html) -> Html:
    return tag("li", tag("span", name, class_="av-label"), track, said)


def _spans(spans: tuple[Span, ...], playing: Playing) -> Html:
    blocks = (tag("i", style=playing.block(s.start_s, s.end_s)) for s in spans[:MOST_SPANS])
    return tag("span", *blocks, class_="av-track", aria_hidden="true")


def _times(spans: tuple[Span, ...], playing: Playing) -> Html:
    parts: list[str] = []
    for span in spans[:MOST_TIMES]:
        parts += [" " if parts else "", playing.moment(span.start_s, span.end_s)]
    more = len(spans) - MOST_TIMES
    return tag("span", *parts, f" and {more} more" if more > 0 else "", class_="av-said")


def _loudness(facts: Facts, playing: Playing) -> Html:
    """A bar a second; its height is the loudness below the loudest second's."""
    heard = [value for value in facts.loudness_lufs if value is not None]
    top = max(heard, default=0.0)
    bars = []
    for second, value in enumerate(facts.loudness_lufs[:MOST_SECONDS]):
        height = 0.0 if value is None else max(0.04, 1 + (value - top) / RANGE_LU)
        place = playing.block(second, min(second + 1, playing.duration_s))
        bars.append(tag("i", style=f"{place};height:{height:.0%}"))
    return tag("span", *bars, class_="av-track av-tall", aria_hidden="true")


def _extremes(facts: Facts, playing: Playing) -> Html:
    heard = [(value, at) for at, value in enumerate(facts.loudness_lufs) if value is not None]
    if not heard:
        return tag("span", "too short or too soft to tell", class_="av-said av-soft")
    (low, quiet), (high, loud) = min(heard), max(heard)
    return tag(
        "span",
        "loudest ",
        playing.moment(loud, min(loud + 1, facts.seconds)),
        f" {signed(high)} LUFS, softest ",
        playing.moment(quiet, min(quiet + 1, facts.seconds)),
        f" {signed(low)}",
        class_="av-said",
    )


def _onsets(facts: Facts, playing: Playing) -> Html:
    marks = (tag("b", style=f"left:{playing.part(at):.2%}") for at in facts.onsets_s[:MOST_ONSETS])
    return tag("span", *marks, class_="av-track", aria_hidden="true")


def _count(facts: Facts, playing: Playing) -> Html:
    count = len(facts.onsets_s)
    if not count:
        return tag("span", "none", class_="av-said av-soft")
    said = f"{count} note{'s' if count > 1 else ''} or stroke{'s' if count > 1 else ''}, first at "
    return tag("span", said, playing.moment(facts.onsets_s[0]), class_="av-said")


def _value(name: str, measurement: Measurement) -> Html:
    if measurement.value is None:
        told = tag("dd", f"cannot tell: {measurement.note}", class_="av-soft")
    else:
        value = measurement.text().replace("-", "−", 1)
        tolerance = f" ± {measurement.tolerance:.2g}" if measurement.tolerance else ""
        note = f" ({measurement.note})" if measurement.note else ""
        told = tag("dd", value, tag("span", tolerance + note, class_="av-soft"))
    return tag("div", tag("dt", name), told)


def _side(facts: Facts) -> Html:
    sides = [value for value in facts.balance if value is not None]
    if not sides:
        return Html("")
    mean = sum(sides) / len(sides)
    word = "middle" if abs(mean) < SIDED else "left" if mean < 0 else "right"
    said = tag("span", f" {signed(mean, 2)} of −1 (left) to +1 (right)", class_="av-soft")
    return tag("div", tag("dt", "Side of the sound"), tag("dd", word, said))


def signed(value: float, digits: int = 1) -> str:
    """With a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")
