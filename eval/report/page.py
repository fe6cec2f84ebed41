"""The report as one HTML file that fetches nothing.

Its rules for the browser (Content-Security-Policy) let no script run but its own, named by hash,
and let nothing be loaded but clips.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report.browser import as_json
from eval.report.content import (
    Beside,
    Block,
    Cell,
    Code,
    Column,
    Figure,
    Figures,
    Legend,
    Say,
    Section,
    Table,
)
from eval.report.front import front
from eval.report.reading import Run
from eval.report.svg import element, escaped
from eval.report.words import NONE

ASSETS = Path(__file__).resolve().parent


def page(
    run: Run, others: Sequence[str], sections: Sequence[Section], answers: dict[str, Any]
) -> str:
    """The whole file."""
    style, script = _asset("style.css"), _asset("browser.js")
    links = [(section.key, section.title) for section in sections] + [("answers", "All answers")]
    nav = element(
        "nav",
        *(element("a", escaped(title), href=f"#{key}") for key, title in links),
        aria_label="Sections",
    )
    body = [
        element("main", front(run, list(others)), nav, *map(_section, sections), _browser(answers)),
        element("script", as_json(answers), type="application/json", id="data"),
        f"<script>{script}</script>",
    ]
    title = escaped(f"{run.results['benchmark']}: {run.name}")
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title>",
        f"<style>{style}</style>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            element("head", "\n", *(f"{line}\n" for line in head)),
            element("body", "\n".join(body)),
            "</html>",
            "",
        ]
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


# --- sections -------------------------------------------------------------------------------


def _section(section: Section) -> str:
    head = element("h2", escaped(section.title), id=section.key)
    return element(
        "section", head, *map(_block, section.blocks), class_="part-of", aria_labelledby=section.key
    )


def _block(block: Block) -> str:
    if isinstance(block, Say):
        return element("p", escaped(block.text), class_="loud" if block.loud else "say")
    if isinstance(block, Code):
        return element("pre", element("code", escaped(block.text)), tabindex=0)
    if isinstance(block, Legend):
        marks = (
            element("li", element("span", class_=f"key {mark}"), escaped(said))
            for mark, said in block.marks
        )
        return element("ul", *marks, class_="legend")
    if isinstance(block, Figures):
        return element("div", *map(_figure, block.figures), class_="figures")
    if isinstance(block, Beside):
        sides = (_figure(block.figure), element("div", _table(block.table)))
        return element("div", *sides, class_="beside")
    return _table(block)


def _figure(figure: Figure) -> str:
    title = element("strong", escaped(figure.title))
    said = element("figcaption", title, " ", escaped(figure.says))
    return element("figure", said, figure.drawn)


# Roles are said although they are a table's own: on a telephone the rows are laid out as blocks,
# and browsers then forget what they were.
def _table(table: Table) -> str:
    heads = "".join(_head(column) for column in table.columns)
    rows = "".join(
        element(
            "tr",
            *(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)),
            role="row",
            class_="marked" if number == table.marked else None,
        )
        for number, row in enumerate(table.rows)
    )
    inner = [
        element("thead", element("tr", heads, role="row"), role="rowgroup"),
        element("tbody", rows, role="rowgroup"),
    ]
    if table.folded:
        whole = element("table", *inner, role="table", aria_label=table.caption)
        return element("details", element("summary", escaped(table.caption)), whole)
    caption = element("caption", escaped(table.caption))
    return element("table", caption, *inner, role="table")


def _head(column: Column) -> str:
    title = element("span", escaped(column.title), class_="title")
    return element("th", title, column.drawn, scope="col", role="columnheader", class_=column.kind)


def _cell(cell: Cell, column: Column) -> str:
    parts = [cell.drawn]
    if cell.chosen:
        choice = {f"data_{key}": value for key, value in cell.chosen.items()}
        hint = "Show these answers below"
        parts.append(
            element("a", escaped(cell.text), href="#answers", class_="choose", title=hint, **choice)
        )
    elif cell.link:
        parts.append(element("a", escaped(cell.text), href=cell.link, rel="noreferrer"))
    elif cell.text:
        parts.append(element("span", escaped(cell.text), class_="text"))
    if cell.note:
        parts.append(element("small", escaped(cell.note)))
    kind = f"{column.kind} none" if cell.text == NONE else column.kind
    attributes: dict[str, Any] = {"class_": kind, "data_title": column.title or None}
    if column.kind == "name":
        return element("th", *parts, scope="row", role="rowheader", **attributes)
    return element("td", *parts, role="cell", **attributes)


def _browser(answers: dict[str, Any]) -> str:
    others = "" if len(answers["runs"]) > 1 else " hidden"
    form = _asset("browser.html").replace("{others}", others)
    return form.replace("{says}", escaped(answers["says"]))
