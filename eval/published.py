"""Published figures of the benchmarks, each with its source.

`published.csv` has what was published, measured and claimed, also what cannot be compared; `note`
says why it cannot. Figures are percent of right answers overall.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One figure."""

    method: str
    benchmark: str
    """A name of `eval.benchmarks.BENCHMARKS`."""
    split_or_sample: str
    """What it was measured on: `test`, `head`, `10 % sample`."""
    overall: float
    """In percent."""
    rule: str
    """How answers were matched, by the names of `eval.scoring.PUBLISHED`; empty: not stated."""
    rows: int | None
    """Questions counted; None where that is not stated."""
    source: str
    note: str
    """What keeps it from being compared with others; empty where nothing is known."""


@lru_cache(maxsize=1)
def read_published() -> tuple[Published, ...]:
    """Every figure, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                method=row["method"],
                benchmark=row["benchmark"],
                split_or_sample=row["split_or_sample"],
                overall=float(row["overall"]),
                rule=row["rule"],
                rows=int(row["rows"]) if row["rows"] else None,
                source=row["source"],
                note=row["note"],
            )
            for row in csv.DictReader(file, strict=True)
        )


def published(benchmark: str) -> list[Published]:
    """The figures of one benchmark, best first; none where none was published."""
    found = [figure for figure in read_published() if figure.benchmark == benchmark]
    return sorted(found, key=lambda figure: -figure.overall)
