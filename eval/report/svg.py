"""Small drawings: tracks with dots, intervals and floors, and stacked bars.

Places are in percent of the width, so that one drawing fits a wide window and a telephone; the
colours are classes of `style.css`, so that it follows light and dark.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEIGHT = 26


def escaped(text: object) -> str:
    """Text for HTML and SVG, attributes too; what no page may hold becomes a replacement mark."""
    kept = "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" else char
        for char in str(text)
    )
    # A figure and its unit, or "n" and its number, stay on one line.
    return html.escape(kept, quote=True).replace(" %", "\u00a0%").replace(", n ", ", n\u00a0")


def element(name: str, *content: str, **attributes: object) -> str:
    """An element; content is markup already, attributes are text. `class_` stands for class."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{shown}>{''.join(content)}</{name}>"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Which values the width of a track stands for."""

    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)

    def at(self, value: float) -> str:
        """The place of a value, held inside the track."""
        part = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(part, 0.0), 1.0):.2f}%"


SHARE = Scale()


def around_zero(values: Sequence[float]) -> Scale:
    """A scale for differences: as far to the left of zero as to the right."""
    reach = max([0.02, *(abs(value) for value in values)])
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if 3 * step >= reach)
    whole = step * -(-reach // step)
    ticks = tuple(step * n for n in range(-round(whole / step), round(whole / step) + 1))
    return Scale(low=-whole, high=whole, ticks=ticks)


def axis(scale: Scale = SHARE, *, signed: bool = False) -> str:
    """The numbers over a column of tracks, in percent; those at the ends stay inside."""
    labels = []
    for tick in scale.ticks:
        anchor = {scale.ticks[0]: "start", scale.ticks[-1]: "end"}.get(tick, "middle")
        shown = f"{100 * tick:+.0f}" if signed and round(100 * tick) else f"{100 * tick:.0f}"
        labels.append(
            element("text", shown, x=scale.at(tick), y=12, text_anchor=anchor, class_="tick")
        )
    return element("svg", *labels, class_="track", height=16, aria_hidden="true")


def track(
    estimates: Sequence[Mapping[str, Any]],
    *,
    says: str,
    floor: float | None = None,
    before: float | None = None,
    scale: Scale = SHARE,
    height: int = HEIGHT,
) -> str:
    """Dots with their intervals; the floor is a short bar, `before` a ring with an arrow from it.

    An estimate has `value` or `accuracy`, `low` and `high`, and may name a `mark` (a class).
    """
    middle = height / 2
    parts = [_line(tick, 0, height, "grid", scale) for tick in scale.ticks]
    if floor is not None:
        parts.append(_line(floor, middle - 9, middle + 9, "floor", scale))
    shown = [figures for figures in estimates if _value(figures) is not None]
    for number, figures in enumerate(shown):
        y = height * (number + 1) / (len(shown) + 1)
        parts += _dot(figures, y, before, scale)
    return element(
        "svg", *parts, class_="track", height=height, role="img", aria_label=says or None
    )


def _value(figures: Mapping[str, Any]) -> float | None:
    return figures["accuracy"] if "accuracy" in figures else figures.get("value")


def _line(value: float, top: float, bottom: float, kind: str, scale: Scale) -> str:
    place = scale.at(value)
    return element("line", x1=place, x2=place, y1=top, y2=bottom, class_=kind)


def _dot(figures: Mapping[str, Any], y: float, before: float | None, scale: Scale) -> list[str]:
    mark, value = str(figures.get("mark", "a")), _value(figures)
    assert value is not None
    parts = []
    if before is not None:
        ends = {"x1": scale.at(before), "x2": scale.at(value), "y1": y, "y2": y}
        parts.append(element("line", **ends, class_="way"))
        parts.append(element("circle", cx=scale.at(before), cy=y, r=4.5, class_="before"))
    if figures.get("low") is not None and figures.get("high") is not None:
        ends = {"x1": scale.at(figures["low"]), "x2": scale.at(figures["high"]), "y1": y, "y2": y}
        parts.append(element("line", **ends, class_=f"range {mark}"))
    parts.append(element("circle", cx=scale.at(value), cy=y, r=4, class_=f"dot {mark}"))
    return parts


def bar(share: float, *, says: str, mark: str = "a", scale: Scale = SHARE) -> str:
    """One bar from zero."""
    parts = [_line(tick, 0, HEIGHT, "grid", scale) for tick in scale.ticks]
    width = scale.at(share)
    parts.append(
        element("rect", x=0, y=HEIGHT / 2 - 5, width=width, height=10, class_=f"bar {mark}")
    )
    return element("svg", *parts, class_="track", height=HEIGHT, role="img", aria_label=says)


def stacked(parts: Sequence[tuple[str, int]], *, says: str) -> str:
    """Counts as parts of one bar: (class, count); nothing where all are zero."""
    total = sum(number for _, number in parts)
    if not total:
        return ""
    drawn, start = [], 0.0
    for mark, number in parts:
        width = 100 * number / total
        if number:
            drawn.append(
                element(
                    "rect",
                    x=f"{start:.2f}%",
                    y=4,
                    width=f"{width:.2f}%",
                    height=14,
                    class_=f"part {mark}",
                )
            )
        start += width
    return element("svg", *drawn, class_="track", height=22, role="img", aria_label=says)
