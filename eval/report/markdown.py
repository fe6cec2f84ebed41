"""The report as Markdown: sentences and tables, for papers and READMEs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from eval.report.content import (
    Beside,
    Block,
    Cell,
    Code,
    Column,
    Figures,
    Legend,
    Say,
    Section,
    Table,
)
from eval.report.front import LIGHTS, lights, small_print
from eval.report.reading import Run
from eval.report.words import missing, verdict

_SPECIAL = re.compile(r"([\\`*_|#~]|\](?=[(\[:]))")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def markdown(run: Run, others: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole text."""
    lines = [f"# {plain(run.results['benchmark'])}: {plain(run.name)}", ""]
    lines += [f"**{plain(verdict(run.results))}**", ""]
    for said in (missing(run.provenance), *others):
        lines += [plain(said), ""] if said else []
    checks = lights(run.results)
    if checks:
        lines += ["| check | state | |", "|---|---|---|"]
        lines += [
            f"| {plain(name)} | {LIGHTS[state][1]} | {plain(says)} |"
            for state, name, says in checks
        ]
        lines.append("")
    lines += [plain(" · ".join(small_print(run))), ""]
    for section in sections:
        lines += [f"## {plain(section.title)}", ""]
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    text = _BREAKS.sub(" ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Say):
        yield from (f"**{plain(block.text)}**" if block.loud else plain(block.text), "")
    elif isinstance(block, Code):
        yield from (
            "```sh",
            *(_BREAKS.sub(" ", line) for line in block.text.split("\n")),
            "```",
            "",
        )
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Beside):
        yield from _block(Figures(figures=(block.figure,)))
        yield from _table(block.table)
    elif isinstance(block, Figures):
        for figure in block.figures:
            if figure.says:
                yield from (f"{plain(figure.title)}: {plain(figure.says)}", "")
    else:
        assert isinstance(block, Legend)  # of a drawing: nothing to say without it


def _table(table: Table) -> Iterator[str]:
    shown = [n for n, column in enumerate(table.columns) if column.kind != "plot"]
    yield from (f"{plain(table.caption)}:", "")
    yield _line([plain(table.columns[n].title) for n in shown])
    yield _line([_rule(table.columns[n]) for n in shown])
    for number, row in enumerate(table.rows):
        cells = [_cell(row[n], table.columns[n]) for n in shown]
        yield _line(
            [f"**{cell}**" if cell else "" for cell in cells] if number == table.marked else cells
        )
    yield ""


def _rule(column: Column) -> str:
    return "---:" if column.kind == "figure" else "---"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell, column: Column) -> str:
    text = plain(cell.text)
    if cell.link:
        text = f"[{text}]({cell.link.replace('(', '%28').replace(')', '%29').replace('|', '%7C')})"
    if not cell.note:
        return text
    note = f"({plain(cell.note)})" if column.kind == "name" else plain(cell.note)
    return f"{text} {note}".strip()
