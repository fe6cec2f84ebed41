"""The blind floor: what is reached without sound and picture, by answering what is frequent.

Zero-shot models have been published at this floor, so a result means something only as the
gain over it.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks.base import Question, QuestionSet
from eval.benchmarks.family import to_set
from eval.samples import RunError
from instruct_data.sources.music_avqa import TYPES, read_annotations

LEVELS = ("global", "type", "template", "template+values")
"""From the coarsest to the finest; `template` is the floor that results are held against."""

Count = Mapping[str, int]
_Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """How often each answer was counted: the most frequent first, of equals the file's first."""

    filled: Mapping[_Key, Count]
    """Of a template with its values."""
    template: Mapping[str, Count]
    type: Mapping[str, Count]
    all: Count

    def answer(self, question: Question, level: str = "template") -> str:
        """Answer blindly at a level of `LEVELS`: what is most frequent there.

        A question whose values were not fitted is answered by its template; one without a
        template, or with one that was not fitted, by its type; a type that was not fitted, by
        what is most frequent of all. Of multiple choice, the most frequent choice is taken.
        """
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}, should be one of {LEVELS}")
        for counts in self._counts(question, LEVELS.index(level)):
            for answer in counts:
                if not question.choices or answer in question.choices:
                    return answer
        return question.choices[0]

    def fitted(self, question: Question, level: str) -> bool:
        """Whether the level itself answers, and not a coarser one."""
        return bool(self._counts(question, LEVELS.index(level))[0])

    def _counts(self, question: Question, level: int) -> list[Count]:
        """What was counted for a question, from the wanted level to the coarsest."""
        found = [self.all, self.type.get(question.type, _NOTHING)]
        if level > 1 and question.template is not None:
            found.append(self.template.get(question.template, _NOTHING))
            found.append(self.filled.get((question.template, question.slots), _NOTHING))
        elif level > 1:
            found += [_NOTHING, _NOTHING]
        return found[level::-1]


_NOTHING: Count = {}


def fit_floor(questions: Iterable[Question]) -> Floor:
    """Count the answers. Of equally frequent ones, the one that comes first in the file wins.

    That rule gives 51.05 on v1 and 42.57 on v2; in both, violin and piano tie in one template.
    Raises ValueError without questions.
    """
    filled: defaultdict[_Key, Counter[str]] = defaultdict(Counter)
    template: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_type: defaultdict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    for question in questions:
        if question.template is not None:
            filled[question.template, question.slots][question.gold] += 1
            template[question.template][question.gold] += 1
        by_type[question.type][question.gold] += 1
        everything[question.gold] += 1
    if not everything:
        raise ValueError("no questions to fit a floor on")
    return Floor(
        filled={key: _by_frequency(counts) for key, counts in filled.items()},
        template={key: _by_frequency(counts) for key, counts in template.items()},
        type={key: _by_frequency(counts) for key, counts in by_type.items()},
        all=_by_frequency(everything),
    )


def _by_frequency(counts: Counter[str]) -> Count:
    # A Counter keeps the order of first appearance, and most_common() keeps it among equals.
    return dict(counts.most_common())


def ordered_types(types: Iterable[str]) -> list[str]:
    """Each once: those of MUSIC-AVQA in their usual order, then others as they first appear."""
    found = dict.fromkeys(types)
    return [*(name for name in TYPES if name in found), *(n for n in found if n not in TYPES)]


@dataclass(frozen=True, kw_only=True)
class FloorScore:
    """Accuracies, 0..1."""

    overall: float
    types: dict[str, float]
    """Only the types that occur, in the order of `ordered_types`."""


def score_floor(floor: Floor, questions: Sequence[Question], level: str = "template") -> FloorScore:
    """Score the blind answers. Raises ValueError without questions."""
    if not questions:
        raise ValueError("no questions to score a floor on")
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for question in questions:
        asked[question.type] += 1
        right[question.type] += floor.answer(question, level) == question.gold
    return FloorScore(
        overall=sum(right.values()) / len(questions),
        types={name: right[name] / asked[name] for name in ordered_types(asked)},
    )


# -- the command -----------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval floor`."""
    name = getattr(args, "benchmark", None)
    print(floor_table(args.annotations, args.fit, name, parent=getattr(args, "parent", None)))


def floor_table(
    annotations: Path, fit: Path, benchmark: str | None = None, *, parent: Path | None = None
) -> str:
    """The floors at all levels, overall and by type, in percent.

    `benchmark` says how to read the files; None: files of the MUSIC-AVQA family. `parent` is the
    v1 file that lends filled questions their templates.

    Raises RunError for a parent or a folder without a benchmark.
    """
    if benchmark is None:
        _refuse_unnamed(annotations, fit, parent)
    tested = _read(annotations, benchmark, parent=parent)
    fitted = _read(fit, benchmark, like=tested)
    questions, floor = tested.questions, fit_floor(fitted.questions)
    scores = [score_floor(floor, questions, level) for level in LEVELS]
    asked = Counter(question.type for question in questions)
    lines = [
        "Blind floor: the most frequent answer of all, per type, per template, and per template "
        "with its values; in percent.",
        f"scored on {_about(tested)}",
        f"fitted on {_about(fitted)}",
        *_same_file(tested, fitted),
        "",
        _line("", "questions", *LEVELS),
        _line("Overall", str(len(questions)), *(f"{100 * score.overall:.2f}" for score in scores)),
    ]
    for name in scores[0].types:
        shown = (f"{100 * score.types[name]:.2f}" for score in scores)
        lines.append(_line(name, str(asked[name]), *shown))
    return "\n".join([*lines, *_fallen_back(floor, questions)])


def _read(path: Path, benchmark: str | None, **how: Any) -> QuestionSet:
    """Read a question file as that of a benchmark; None: of the MUSIC-AVQA family."""
    if benchmark is not None:
        from eval.benchmarks import read_benchmark

        return read_benchmark(benchmark, path, **how)
    annotations = read_annotations(path)
    return to_set("", annotations)


def _refuse_unnamed(annotations: Path, fit: Path, parent: Path | None) -> None:
    """Refuse what only a benchmark says how to read."""
    if parent is not None:
        raise RunError("--parent needs --benchmark music-avqa-r or fortisavqa")
    for path in (annotations, fit):
        if path.is_dir():
            raise RunError(
                f"{path} is a folder: name one of its files, or its benchmark with --benchmark"
            )


def _same_file(tested: QuestionSet, fitted: QuestionSet) -> list[str]:
    if not set(tested.sha256.values()) & set(fitted.sha256.values()):
        return []
    return ["fitted on the very questions that it is scored on: not a floor"]


def _about(read: QuestionSet) -> str:
    sha256 = ", ".join(sha256[:12] for sha256 in read.sha256.values())
    return f"{read.path}: {len(read.questions)} questions, sha256 {sha256}"


def _fallen_back(floor: Floor, questions: Sequence[Question]) -> list[str]:
    without = {
        level: sum(not floor.fitted(question, level) for question in questions)
        for level in LEVELS[2:]
    }
    if not any(without.values()):
        return []
    said = ", ".join(f"{n} at level {level}" for level, n in without.items() if n)
    return ["", f"Questions that a coarser level answers, for lack of fitted ones: {said}."]


def _line(name: str, *cells: str) -> str:
    return f"{name:<26}" + "".join(f"{cell:>17}" for cell in cells)
