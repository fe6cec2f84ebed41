"""HTML that is safe by construction: what is not markup of our own is escaped.

Everything that came from a user, a file or a model is a plain `str` and becomes text; only what
`tag` and `join` made is taken as markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass

Attribute = str | int | float | bool | None


class Html(str):
    """Markup of our own."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: Attribute) -> Html:
    """An element. `class_` and `data_seek` become `class` and `data-seek`; None is left out."""
    head = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in ("img", "br", "hr"):
        return Html(f"<{head}>")
    return Html(f"<{head}>{join(children)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """Parts in a row."""
    return Html(escaped(between).join(escaped(part) for part in parts))


def escaped(text: str) -> Html:
    """Text as markup; markup as it is."""
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'


@dataclass(frozen=True, kw_only=True)
class Playing:
    """What a moment's button moves, and the stretch of time that a panel shows of it."""

    player: str
    """Element id around the `video`."""
    starts_s: float
    """Where the shown clip's 0 s lies in what the player plays."""
    duration_s: float
    """Of the shown clip."""

    def moment(self, at_s: float, until_s: float | None = None, *shown: str) -> Html:
        """A time as a button that plays from there. `shown` in place of the time itself."""
        start = self.starts_s + self.held(at_s)
        end = None if until_s is None else self.starts_s + self.held(until_s)
        text = said(start) if end is None else f"{said(start, unit=False)}–{said(end)}"
        label = f"play from {said(start)}" + ("" if end is None else f" to {said(end)}")
        return tag(
            "button",
            *(shown or (text,)),
            type="button",
            class_="av-time",
            data_player=self.player,
            data_seek=f"{start:.3f}",
            data_until=None if end is None else f"{end:.3f}",
            aria_label=label,
        )

    def block(self, start_s: float, end_s: float) -> str:
        """Style of what covers a stretch of time."""
        left, right = self.part(start_s), self.part(end_s)
        return f"left:{left:.2%};width:{max(0.0, right - left):.2%}"

    def part(self, at_s: float) -> float:
        """A time as a part (0..1) of what is shown."""
        return self.held(at_s) / self.duration_s if self.duration_s > 0 else 0.0

    def held(self, at_s: float) -> float:
        """A time within what is shown; a server may say anything."""
        return min(max(at_s, 0.0), self.duration_s) if math.isfinite(at_s) else 0.0


def said(seconds: float, *, unit: bool = True) -> str:
    """A time as it is read: `3.2 s`, `1:03.5`."""
    minutes, rest = divmod(round(seconds, 1), 60)
    if minutes:
        return f"{minutes:.0f}:{rest:04.1f}"
    return f"{rest:.1f}".removesuffix(".0") + (" s" if unit else "")


def percent(part: float) -> str:
    """`92 %`, which does not break; never 0 or 100 for what is neither."""
    if 0 < part < 0.005:
        return "<\u00a01\u00a0%"
    if 0.995 <= part < 1:
        return ">\u00a099\u00a0%"
    return f"{part * 100:.0f}\u00a0%"


def share(value: float) -> float:
    """A weight or probability within 0..1; a server may say anything."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
