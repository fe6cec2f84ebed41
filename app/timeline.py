"""The clip on one time axis, with the seconds and regions that the model attended to."""

from __future__ import annotations

import math

from app.markup import Html, Playing, percent, said, share, tag
from app.seen import Shown
from avqa_llm.answer import Answer, Evidence

MOST_MARKS = 8
MOST_FRAMES = 4
TICKS = 6
STEPS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
"""Distances of the axis' labels."""
EDGE = 0.04
"""Labels so close to an end of the axis are not centred, to stay inside."""


def timeline(answer: Answer, shown: Shown, playing: Playing) -> Html:
    """Frames, waveform and spectrogram above each other, marked where the model listened."""
    if shown.duration_s <= 0 or not (shown.thumbs or shown.has_sound):
        return Html("")
    cited = [found for found in answer.evidence if found.modality == "sound"][:MOST_MARKS]
    return tag(
        "figure",
        tag("h4", "Where it listened"),
        tag(
            "div",
            _film(shown, playing),
            _sound(shown, cited, playing),
            tag("span", class_="av-head-line", aria_hidden="true"),
            class_="av-strip",
            data_player=playing.player,
            data_starts=f"{playing.starts_s:.3f}",
            data_lasts=f"{shown.duration_s:.3f}",
        ),
        _axis(playing),
        tag("figcaption", *_caption(shown, cited, playing)),
        class_="av-timeline",
    )


def _film(shown: Shown, playing: Playing) -> Html:
    if not shown.thumbs:
        return tag("div", "no picture", class_="av-none")
    frames = (
        playing.moment(at, None, tag("img", src=url, alt="", loading="lazy"))
        for at, url in shown.thumbs
    )
    return tag("div", *frames, class_="av-film")


def _sound(shown: Shown, cited: list[Evidence], playing: Playing) -> Html:
    if not shown.has_sound:
        return tag("div", "no sound", class_="av-none")
    top = f"{shown.high_hz / 1000:.3g} kHz"
    return tag(
        "div",
        tag("img", src=shown.waveform, alt="Waveform of the sound", class_="av-wave"),
        tag("img", src=shown.spectrogram, alt="Spectrogram of the sound", class_="av-tones"),
        tag("span", top, class_="av-hz av-top", aria_hidden="true"),
        tag("span", f"{shown.low_hz:.0f} Hz", class_="av-hz", aria_hidden="true"),
        *(_mark(found, playing) for found in cited),
        class_="av-sound",
    )


def _mark(found: Evidence, playing: Playing) -> Html:
    weight = share(found.weight)
    return tag(
        "span",
        playing.moment(found.start_s, found.end_s, percent(weight)),
        class_="av-mark",
        style=f"{playing.block(found.start_s, found.end_s)};--weight:{weight:.3f}",
    )


def _axis(playing: Playing) -> Html:
    """Round times of the player's clock."""
    wanted = playing.duration_s / TICKS
    step = next((step for step in STEPS_S if step >= wanted), math.ceil(wanted / 600) * 600)
    first = math.ceil(playing.starts_s / step - 1e-9) * step
    end = playing.starts_s + playing.duration_s
    count = int((end - first) / step + 1e-6) + 1
    times = [first + number * step for number in range(count)]
    labels = (_label(time, playing.part(time - playing.starts_s)) for time in times)
    return tag("div", *labels, class_="av-axis", aria_hidden="true")


def _label(time: float, part: float) -> Html:
    edge = "av-left" if part < EDGE else "av-right" if part > 1 - EDGE else None
    return tag("span", said(time), class_=edge, style=f"left:{part:.2%}")


def _caption(shown: Shown, cited: list[Evidence], playing: Playing) -> list[str]:
    if not shown.has_sound:
        return ["The clip has no sound."]
    about = "Waveform (left channel above, right below), " if shown.channels == 2 else "Waveform, "
    about += "under it the spectrogram. "
    if shown.is_silent:
        about = "The sound is silent throughout. "
    if not cited:
        return [about, "The model cites no seconds of the sound."]
    times: list[str] = []
    for found in cited:
        times += [", " if times else "", playing.moment(found.start_s, found.end_s)]
        times += [f" ({percent(share(found.weight))})"]
    return [about, "Most of its attention to sound: ", *times, ". Attention is a hint, not proof."]


# -- regions of the picture --------------------------------------------------------------------


def frames(answer: Answer, shown: Shown, playing: Playing) -> Html:
    """The frames whose regions the model attended to, outlined."""
    cited = [found for found in answer.evidence if found.modality == "picture"][:MOST_FRAMES]
    if not cited or not shown.thumbs:
        return Html("")
    return tag(
        "div",
        tag("h4", "Where it looked"),
        tag("div", *(_frame(found, shown, playing) for found in cited), class_="av-frames"),
        class_="av-looked",
    )


def _frame(found: Evidence, shown: Shown, playing: Playing) -> Html:
    middle = (found.start_s + found.end_s) / 2
    middle = middle if math.isfinite(middle) else 0.0
    at, url = min(shown.thumbs, key=lambda thumb: abs(thumb[0] - middle))
    place = where(found.region)
    said_at = said(playing.starts_s + at)
    picture = tag("img", src=url, alt=f"Frame at {said_at}, looked at {place}")
    return tag(
        "figure",
        tag("div", picture, _outline(found.region), class_="av-frame"),
        tag(
            "figcaption",
            playing.moment(found.start_s, found.end_s),
            f" {place}, ",
            tag("strong", percent(share(found.weight))),
        ),
    )


def _outline(region: tuple[float, float, float, float] | None) -> Html:
    if region is None:
        return Html("")
    left, top, right, bottom = (share(edge) for edge in region)
    width, height = max(0.0, right - left), max(0.0, bottom - top)
    style = f"left:{left:.1%};top:{top:.1%};width:{width:.1%};height:{height:.1%}"
    return tag("span", class_="av-outline", style=style, aria_hidden="true")


def where(region: tuple[float, float, float, float] | None) -> str:
    """A region in words, by thirds of the picture."""
    if region is None:
        return "everywhere"
    left, top, right, bottom = (share(edge) for edge in region)
    across = ("left", "middle", "right")[min(2, int((left + right) / 2 * 3))]
    down = ("top", "centre", "bottom")[min(2, int((top + bottom) / 2 * 3))]
    return across if down == "centre" else f"{down} {across}"
