"""MUSIC-AVQA-R: v1's test questions in about 25 wordings each (Ma et al. 2024, NeurIPS).

Whether a row is head or tail is what the authors' files say, and is never worked out again: the
rule that they document does not reproduce them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import (
    MADE,
    OVERLAP,
    PRIOR,
    SCENES,
    SUBSETS,
    V2,
    R,
    read_file,
    refuse_marks,
    refuse_templates,
    tell_templates,
    to_question,
    to_set,
    version_of,
)
from instruct_data.sources.music_avqa import Annotations, Row
from instruct_data.templates import TEMPLATES

Key = tuple[str, "int | str | None", str, str]
"""Clip, question id, question and answer."""

HEAD, TAIL, BOTH = "head", "tail", "headtail"
NAME = "avqa-test-{}.json"
"""Of the authors' files, with head, tail or headtail in its place."""
_WORD = re.compile(rf"(?<![^-_.])({BOTH}|{HEAD}|{TAIL})(?![^-_.])")
"""One of the three as a word of a file's name: `details` and `retail` say nothing."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The rows of one or more of the three files, numbered on."""

    annotations: Annotations
    subsets: tuple[str, ...]
    """`head` or `tail` of each row."""
    sha256: dict[str, str]
    version: str
    oddities: tuple[str, ...] = ()


def read(path: Path) -> QuestionSet:
    """Read a folder with `avqa-test-{head,tail,headtail}.json`, or one of these files.

    A folder gives headtail where it is there, else head and tail one after the other.

    Raises:
        AnnotationError: a row is faulty, the file is another set's, or nothing says which rows
            are head and which are tail.
    """
    parts = read_parts(path, _read)
    return tell_templates(to_parted_set(R, parts, oddities=_ours(parts.annotations)))


def _read(path: Path) -> Annotations:
    annotations = read_file(path, R)
    refuse_templates(annotations, R)
    # Rewordings of v2's questions keep the sound that they are asked about.
    refuse_marks(annotations, R, V2)
    return annotations


def to_parted_set(benchmark: str, parts: Parts, *, oddities: Iterable[str] = ()) -> QuestionSet:
    """The rows with their head and tail as a set."""
    rows = zip(parts.annotations.rows, parts.subsets, strict=True)
    questions = [to_question(row, subset=subset) for row, subset in rows]
    asked = to_set(
        benchmark,
        parts.annotations,
        questions,
        version=parts.version,
        oddities=(*oddities, *parts.oddities),
    )
    return replace(asked, sha256=parts.sha256)


def _ours(annotations: Annotations) -> Iterator[str]:
    """Say that rewordings of `python -m instruct_data rephrase` are not those of the authors."""
    named = sum(
        row.template is not None and row.question not in TEMPLATES for row in annotations.rows
    )
    if named:
        yield (
            f"{named} rows name the template that they reword, as `python -m instruct_data "
            "rephrase` writes them: these are not the questions of the authors of MUSIC-AVQA-R"
        )


# -- head and tail ---------------------------------------------------------------------------


def read_parts(path: Path, read_one: Callable[[Path], Annotations]) -> Parts:
    """Read a folder or file with each row's head or tail; `read_one` reads each of the files.

    Raises AnnotationError as `read`.
    """
    if path.is_dir():
        both, head, tail = (path / NAME.format(part) for part in (BOTH, HEAD, TAIL))
        return _both(both, read_one) if both.exists() else _joined(path, head, tail, read_one)
    part = _part(path)
    if part == BOTH:
        return _both(path, read_one)
    annotations = read_one(path)
    return Parts(
        annotations=annotations,
        subsets=(part,) * len(annotations.rows),
        sha256={path.name: annotations.sha256},
        version=version_of(annotations),
    )


def _part(path: Path) -> str:
    """Which of the three a file is, which its name alone tells."""
    parts = set(_WORD.findall(path.stem))
    if len(parts) == 1:
        return str(parts.pop())
    raise AnnotationError(
        f"{path}: the file's name should tell which rows it holds: {HEAD}, {TAIL} or {BOTH}, as in "
        f"{NAME.format(HEAD)}. Give it the name that its authors gave it"
    )


def _joined(folder: Path, head: Path, tail: Path, read_one: Callable[[Path], Annotations]) -> Parts:
    """Head, then tail, numbered on."""
    for path in (head, tail):
        if not path.exists():
            raise AnnotationError(
                f"{folder} has neither {NAME.format(BOTH)} nor {path.name}: put the authors' files "
                "there, or name one of them"
            )
    files = [read_one(path) for path in (head, tail)]
    first = len(files[0].rows)
    rows = [*files[0].rows, *(replace(row, number=first + row.number) for row in files[1].rows)]
    unread = [
        *files[0].unread,
        *(replace(left, first=first + left.first) for left in files[1].unread),
    ]
    return Parts(
        annotations=Annotations(path=folder, sha256="", rows=tuple(rows), unread=tuple(unread)),
        subsets=(HEAD,) * first + (TAIL,) * len(files[1].rows),
        sha256={file.path.name: file.sha256 for file in files},
        version="; ".join(filter(None, map(version_of, files))),
        oddities=(f"rows from {first + 1} on are row 1 on of {tail.name}",),
    )


def _both(path: Path, read_one: Callable[[Path], Annotations]) -> Parts:
    """All rows; which are head and which are tail is looked up in the files beside."""
    annotations = read_one(path)
    beside = [path.with_name(_WORD.sub(part, path.stem) + path.suffix) for part in SUBSETS]
    for one in beside:
        if not one.is_file():
            raise AnnotationError(
                f"{path} does not say which rows are head and which are tail; {one.name}, which "
                "does, is not beside it: put the authors' head and tail files there, or name one "
                "of them"
            )
    files = [read_one(one) for one in beside]
    found = [Counter(map(_key, file.rows)) for file in files]
    subsets = tuple(_subset(row, found, annotations.path, beside) for row in annotations.rows)
    left = found[0].total() + found[1].total()
    more = f"{left} rows of {beside[0].name} and {beside[1].name} are not in {path.name}"
    return Parts(
        annotations=annotations,
        subsets=subsets,
        sha256={file.path.name: file.sha256 for file in (annotations, *files)},
        version=version_of(annotations),
        oddities=(more,) if left else (),
    )


def _key(row: Row) -> Key:
    return row.video_id, row.question_id, row.question, row.gold


def _subset(
    row: Row,
    left: Sequence[Counter[tuple[str, int | str | None, str, str]]],
    path: Path,
    beside: Sequence[Path],
) -> str:
    """Take a row out of what is left of head or tail: rows that are equal may be in both."""
    key = _key(row)
    for subset, rows in zip(SUBSETS, left, strict=True):
        if rows[key] > 0:
            rows[key] -= 1
            return subset
    raise AnnotationError(
        f"{path}, row {row.number}, field 'question_content': {row.question!r:.80} about "
        f"{row.video_id} is neither in {beside[0].name} nor in {beside[1].name}: the three files "
        "are not of one version, get them anew"
    )


BENCHMARK = Benchmark(
    name=R,
    title="MUSIC-AVQA-R: v1's test questions in about 25 wordings each, head and tail",
    read=read,
    groups=(*SCENES, *SUBSETS, *MADE, *OVERLAP, *PRIOR),
    data_sets=("music-avqa-r",),
    source="Ma et al. 2024, NeurIPS",
)
