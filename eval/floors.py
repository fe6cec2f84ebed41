"""The blind floor: what is reached without sound and picture, by answering what is frequent.

Zero-shot models have been published at this floor, so a result means something only as the
gain over it.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from instruct_data.sources.music_avqa import TYPES, Row, read_annotations

LEVELS = ("template", "type", "global")


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The most frequent answer of each template and type, and of all."""

    template: dict[str, str]
    type: dict[str, str]
    all: str

    def answer(self, row: Row, level: str = "template") -> str:
        """Answer blindly at a level of `LEVELS`.

        A question without a template, or with one that was not fitted, is answered by its
        type; a type that was not fitted, by what is most frequent of all.
        """
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}, should be one of {LEVELS}")
        if level == "template" and row.template in self.template:
            return self.template[row.template]
        return self.all if level == "global" else self.type.get(row.type, self.all)


def fit_floor(rows: Iterable[Row]) -> Floor:
    """Count the answers. Of equally frequent ones, the one that comes first in the file wins.

    That rule gives 51.05 on v1 and 42.57 on v2; in both, violin and piano tie in one template.
    """
    template: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_type: defaultdict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    for row in rows:
        if row.template is not None:
            template[row.template][row.gold] += 1
        by_type[row.type][row.gold] += 1
        everything[row.gold] += 1
    if not everything:
        raise ValueError("no rows to fit a floor on")
    return Floor(
        template={key: _most_frequent(counts) for key, counts in template.items()},
        type={key: _most_frequent(counts) for key, counts in by_type.items()},
        all=_most_frequent(everything),
    )


def _most_frequent(counts: Counter[str]) -> str:
    # A Counter keeps the order of first appearance, and max() keeps the first of equals.
    return max(counts, key=lambda answer: counts[answer])


@dataclass(frozen=True, kw_only=True)
class FloorScore:
    """Accuracies, 0..1."""

    overall: float
    types: dict[str, float]
    """Only the types that occur, in the order of `TYPES`."""


def score_floor(floor: Floor, rows: Sequence[Row], level: str = "template") -> FloorScore:
    """Score the blind answers. Raises ValueError without rows."""
    if not rows:
        raise ValueError("no rows to score a floor on")
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for row in rows:
        asked[row.type] += 1
        right[row.type] += floor.answer(row, level) == row.gold
    return FloorScore(
        overall=sum(right.values()) / len(rows),
        types={name: right[name] / asked[name] for name in TYPES if asked[name]},
    )


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval floor`."""
    print(floor_table(args.annotations, args.fit))


def floor_table(annotations_path: Path, fit_path: Path) -> str:
    """The floors at the three levels, overall and by type, in percent."""
    annotations, fitted_on = read_annotations(annotations_path), read_annotations(fit_path)
    rows, floor = annotations.rows, fit_floor(fitted_on.rows)
    scores = [score_floor(floor, rows, level) for level in LEVELS]
    asked = Counter(row.type for row in rows)
    lines = [
        "Blind floor: the most frequent answer per template, per type, and of all; in percent.",
        f"scored on {annotations.path}: {len(rows)} questions, sha256 {annotations.sha256[:12]}",
        f"fitted on {fitted_on.path}: {len(fitted_on.rows)} questions, "
        f"sha256 {fitted_on.sha256[:12]}",
        "",
        _line("", "questions", *LEVELS),
        _line("Overall", str(len(rows)), *(f"{100 * score.overall:.2f}" for score in scores)),
    ]
    for name in scores[0].types:
        shown = (f"{100 * score.types[name]:.2f}" for score in scores)
        lines.append(_line(name, str(asked[name]), *shown))
    without = sum(floor.template.get(row.template or "") is None for row in rows)
    if without:
        lines += ["", f"{without} questions have no fitted template: answered by their type."]
    return "\n".join(lines)


def _line(name: str, *cells: str) -> str:
    return f"{name:<26}" + "".join(f"{cell:>10}" for cell in cells)
