"""A claim's rows as dots with their intervals: an SVG that needs no style sheet and no script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eval.report.svg import element

LEFT, WIDTH, ROW, TOP = 300, 420, 26, 34
COLOURS = {"full": "#1f6feb", "no sound": "#b35900", "no picture": "#6e40aa"}
GREY = "#888888"


def forest(one: dict[str, Any]) -> str:
    """Accuracy of every row and condition with its interval, each seed small, the floor dashed."""
    shown = [
        (row["name"], condition, figures)
        for row in one["rows"]
        for condition, figures in row["conditions"].items()
    ]
    low, high = _span(shown, one["floor"])
    height = TOP + ROW * len(shown) + 10
    parts = [*_axis(low, high, height), *_floor(one["floor"], low, high, height)]
    for number, (name, condition, figures) in enumerate(shown):
        y = TOP + ROW * (number + 0.5)
        said = name if len(one["rows"][0]["conditions"]) == 1 else f"{name}, {condition}"
        parts.append(_text(said, LEFT - 12, y + 4, "end"))
        parts += _dots(figures, y, COLOURS[condition], low, high)
    whole = LEFT + WIDTH + 30
    return element(
        "svg",
        element("title", one["title"]),
        element("rect", width=whole, height=height, fill="#ffffff"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {whole} {height}",
        font_family="sans-serif",
        font_size=12,
    )


def _span(shown: list[tuple[str, str, dict[str, Any]]], floor: float) -> tuple[float, float]:
    """Round bounds around all there is to draw, in shares."""
    values = [floor]
    for _, _, figures in shown:
        overall = figures["overall"]
        bounds = (overall["low"], overall["high"], overall["accuracy"])
        values += [*figures["seeds"], *(value for value in bounds if value is not None)]
    step = 0.05
    low, high = step * (min(values) // step), step * -(-max(values) // step)
    return low, max(high, low + 2 * step)


def _x(value: float, low: float, high: float) -> float:
    return round(LEFT + WIDTH * (value - low) / (high - low), 1)


def _text(said: str, x: float, y: float, anchor: str) -> str:
    return element("text", said, x=x, y=y, text_anchor=anchor, fill="#222222")


def _axis(low: float, high: float, height: float) -> Iterator[str]:
    step = 0.05 if high - low <= 0.4 else 0.1
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        x = _x(value, low, high)
        yield element("line", x1=x, x2=x, y1=TOP - 6, y2=height - 6, stroke="#dddddd")
        yield _text(f"{100 * value:.0f} %", x, TOP - 14, "middle")


def _floor(floor: float, low: float, high: float, height: float) -> Iterator[str]:
    x = _x(floor, low, high)
    ends = {"x1": x, "x2": x, "y1": TOP - 6, "y2": height - 6}
    yield element("line", **ends, stroke=GREY, stroke_dasharray="4 3")


def _dots(figures: dict[str, Any], y: float, colour: str, low: float, high: float) -> Iterator[str]:
    overall = figures["overall"]
    if overall["low"] is not None:
        ends = {"x1": _x(overall["low"], low, high), "x2": _x(overall["high"], low, high)}
        yield element("line", **ends, y1=y, y2=y, stroke=colour, stroke_width=2)
    for seed in figures["seeds"] if len(figures["seeds"]) > 1 else ():
        yield element("circle", cx=_x(seed, low, high), cy=y + 7, r=2, fill=GREY)
    yield element("circle", cx=_x(overall["accuracy"], low, high), cy=y, r=4.5, fill=colour)
