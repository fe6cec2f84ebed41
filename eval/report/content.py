"""What a report is made of: sections of sentences, tables and drawings.

Built once, written twice: `page` makes HTML of it, `markdown` makes Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place of a table."""

    text: str = ""
    note: str = ""
    """Said small under the text; in Markdown, behind it."""
    drawn: str = ""
    """SVG; Markdown leaves it out, so `text` or other cells must say the same."""
    link: str = ""
    """Address of a source, http or https only."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """What a click sets in the browser of answers, e.g. {"type": "Audio Counting"}."""


Kind = Literal["name", "figure", "short", "words", "plot"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """Head of a column. Plots are for eyes only: Markdown leaves their column out."""

    title: str
    kind: Kind = "figure"
    drawn: str = ""
    """SVG of the axis."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a caption."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    """Shown on a click on its caption."""
    marked: int | None = None
    """Row that stands out."""


@dataclass(frozen=True, kw_only=True)
class Say:
    """A paragraph."""

    text: str
    loud: bool = False
    """A warning that must not be read over."""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What the marks of a drawing mean: (class of the mark, words)."""

    marks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing; its words are in the SVG itself as its text alternative."""

    title: str
    drawn: str
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Drawings side by side, as many as the window is wide."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A drawing with a table at its side."""

    figure: Figure
    table: Table


@dataclass(frozen=True, kw_only=True)
class Code:
    """Commands, as they are typed."""

    text: str


Block = Table | Say | Legend | Figures | Beside | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what stands under it."""

    key: str
    """Names the place in the page."""
    title: str
    blocks: tuple[Block, ...]


def columns(*parts: Column | str | tuple[str, Kind]) -> tuple[Column, ...]:
    """Heads of a table: whole ones, titles of figures, or titles with their kind."""
    made = []
    for part in parts:
        if isinstance(part, str):
            part = Column(title=part)
        elif isinstance(part, tuple):
            part = Column(title=part[0], kind=part[1])
        made.append(part)
    return tuple(made)
