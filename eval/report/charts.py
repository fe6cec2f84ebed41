"""Charts with two axes: reliability, risk over coverage, sweeps, and the map of confusions.

Drawn 340 pixels wide, which a telephone shows in full size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eval.report.svg import element, escaped

WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 44
QUARTERS = tuple((n / 4, str(25 * n)) for n in range(5))
Place = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Range, ticks with their words, and title of an axis."""

    title: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[tuple[float, str], ...] = QUARTERS


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points, joined, with a whisker where an interval is known."""

    points: Sequence[tuple[float, float]]
    kind: str = "a"
    """Class of the line: a, b, floor, before, ideal."""
    dots: bool = False
    ranges: Sequence[tuple[float, float] | None] = ()
    """Low and high of each point."""
    joined: bool = True
    sizes: Sequence[float] = ()
    """Radius of each dot in pixels."""


def shares(title: str, values: Sequence[float]) -> Axis:
    """An axis in percent just wide enough for shares of 0..1, with two to six ticks."""
    low, high = max(0.0, min(values)), min(1.0, max(values))
    step = next(
        step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if high - low <= 4 * step or step == 0.2
    )
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    ticks = tuple((n * step, f"{100 * n * step:.0f}") for n in range(first, last + 1))
    return Axis(title=title, low=first * step, high=last * step, ticks=ticks)


def steps(title: str, values: Sequence[tuple[float, str]]) -> Axis:
    """An axis whose ticks are the values themselves; few of many are named."""
    every = math.ceil(len(values) / 7)
    ticks = tuple(values[::every])
    low, high = min(value for value, _ in values), max(value for value, _ in values)
    spare = 0.06 * ((high - low) or 1.0)
    return Axis(title=title, low=low - spare, high=high + spare, ticks=ticks)


def chart(lines: Sequence[Line], *, x: Axis, y: Axis, says: str) -> str:
    """Draw lines; `says` is the text alternative."""
    bottom = HEIGHT - BOTTOM

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - x.low) / (x.high - x.low)

    def up(value: float) -> float:
        part = min(max((value - y.low) / (y.high - y.low), 0.0), 1.0)
        return bottom - (bottom - TOP) * part

    parts = [*_y_axis(y, up), *_x_axis(x, across)]
    for line in lines:
        parts += _draw(line, across, up)
    return _svg(parts, HEIGHT, says)


def _svg(parts: Sequence[str], height: float, says: str) -> str:
    box = f"0 0 {WIDTH} {height:g}"
    return element("svg", *parts, class_="chart", viewBox=box, role="img", aria_label=says)


def _text(shown: str, x: float, y: float, kind: str, **attributes: object) -> str:
    return element("text", escaped(shown), x=f"{x:.1f}", y=f"{y:.1f}", class_=kind, **attributes)


def _y_axis(y: Axis, up: Place) -> list[str]:
    parts = []
    for value, shown in y.ticks:
        at = f"{up(value):.1f}"
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(_text(shown, LEFT - 6, up(value) + 4, "tick", text_anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = {"text_anchor": "middle", "transform": f"rotate(-90 12 {middle:.1f})"}
    return [*parts, _text(y.title, 12, middle, "axis", **turned)]


def _x_axis(x: Axis, across: Place) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [
        _text(shown, across(value), bottom + 16, "tick", text_anchor="middle")
        for value, shown in x.ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, _text(x.title, middle, bottom + 36, "axis", text_anchor="middle")]


def _draw(line: Line, across: Place, up: Place) -> list[str]:
    places = [(f"{across(x):.1f}", f"{up(y):.1f}") for x, y in line.points]
    joined = " ".join(",".join(place) for place in places)
    parts = []
    if line.joined:
        parts.append(element("polyline", points=joined, class_=f"line {line.kind}"))
    for (x, _), bounds in zip(places, line.ranges, strict=False):
        if bounds is not None:
            ends = {"y1": f"{up(bounds[0]):.1f}", "y2": f"{up(bounds[1]):.1f}"}
            parts.append(element("line", x1=x, x2=x, **ends, class_=f"range {line.kind}"))
    if line.dots:
        sizes = line.sizes or [4.5] * len(places)
        for (x, y), size in zip(places, sizes, strict=True):
            dot = element("circle", cx=x, cy=y, r=f"{size:.1f}", class_=f"dot {line.kind}")
            parts.append(dot)
    return parts


def heat_map(counts: Mapping[tuple[str, str], int], labels: Sequence[str], *, says: str) -> str:
    """Gold answers downwards, given answers across; the count stands in its field.

    Right answers are left blank: what matters here is what is taken for what.
    """
    longest = max(map(len, labels))
    left, top = 6.2 * longest + 12, 6.2 * longest + 10
    side = (WIDTH - left - 2) / len(labels)
    most = max([1, *(counts.get((a, b), 0) for a in labels for b in labels if a != b)])
    parts = []
    for row, gold in enumerate(labels):
        y = top + side * row
        name = gold.replace("_", " ")
        parts.append(_text(name, left - 6, y + side / 2 + 4, "tick", text_anchor="end"))
        at = left + side * row + side / 2 + 4
        turn = f"rotate(-90 {at:.1f} {top - 6:.1f})"
        parts.append(_text(name, at, top - 6, "tick", transform=turn))
        for column, given in enumerate(labels):
            number = 0 if gold == given else counts.get((gold, given), 0)
            parts += _field(left + side * column, y, side, number, most, gold == given)
    return _svg(parts, top + side * len(labels) + 2, says)


def _field(x: float, y: float, side: float, number: int, most: int, right: bool) -> list[str]:
    # The square root: a few frequent confusions must not leave all others white.
    level = math.ceil(5 * math.sqrt(number / most)) if number else 0
    kind = "heat right" if right else f"heat h{level}"
    box = {"x": f"{x + 1:.1f}", "y": f"{y + 1:.1f}", "rx": 2, "class_": kind}
    parts = [element("rect", **box, width=f"{side - 2:.1f}", height=f"{side - 2:.1f}")]
    if number:
        middle = {"text_anchor": "middle"}
        kind = "count strong" if level > 4 else "count"
        parts.append(_text(str(number), x + side / 2, y + side / 2 + 4, kind, **middle))
    return parts
