"""`python -m eval report`: a page to read, and Markdown, made of the files of finished runs.

Nothing is measured here but the paired difference of two runs: all other figures are those of
`results.json`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

HTML, MARKDOWN = "report.html", "report.md"


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval report`."""
    for path in write_report(args.runs, out=args.out):
        print(path)


def write_report(runs: Sequence[Path], *, out: Path | None = None) -> tuple[Path, Path]:
    """Write `report.html` and `report.md`, and return their paths.

    Args:
        runs: folders of finished runs; all are compared with the first.
        out: where to write; by default the first run's folder.

    Raises:
        RunError: a folder holds no finished run, a file in it is broken, or the report cannot be
            written.
    """
    from eval.report import accuracy, beyond, dependence, leanings, probing
    from eval.report.browser import browser_data
    from eval.report.markdown import markdown
    from eval.report.page import page
    from eval.report.reading import read_runs
    from eval.samples import RunError

    found = read_runs(runs)
    first, folder = found[0], (out or runs[0]).resolve()
    others = beyond.against(found)
    sections = [beyond.side_by_side(found, others)] if others else []
    for part in (accuracy, dependence, probing, leanings):
        sections += part.sections(first.results)
    board = beyond.leaderboard(first)
    sections += [board] if board else []
    sections.append(beyond.provenance(found))
    said = [other.says for other in others]
    html = page(first, said, sections, browser_data(found, folder))
    text = markdown(first, said, sections)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / HTML, html)
        _write(folder / MARKDOWN, text)
    except OSError as error:
        raise RunError(f"cannot write the report to {folder}: {error.strerror}") from error
    return folder / HTML, folder / MARKDOWN


def _write(path: Path, text: str) -> None:
    """Write aside, then rename: a reader sees the old page or the new one, never a half."""
    aside = path.with_name(f"{path.name}.part")
    # A text may hold half a character (a lone surrogate), which no file can.
    aside.write_bytes(text.encode("utf-8", "replace"))
    os.replace(aside, path)
