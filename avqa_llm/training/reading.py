"""Which of the known files a file of rows is, and its questions put together by clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from avqa_llm.errors import AnnotationError
from avqa_llm.media.changes import Cut
from avqa_llm.training.lines import Line, read_lines
from avqa_llm.training.own import Asked, read_own
from avqa_llm.training.records import read_instruct, read_record
from avqa_llm.training.rows import ClipRow, Question

INSTRUCT, RECORDS, OWN = "Bandstand's instruct.jsonl", "instruction records", "rows of one's own"
QUESTIONS: dict[str, Callable[[Line], Iterable[Asked]]] = {RECORDS: read_record, OWN: read_own}
"""Files whose rows are questions, which are put together by clip."""


def read(path: Path, splits: Collection[str] = ()) -> list[ClipRow]:
    """See `rows.read_rows`."""
    lines = read_lines(path)
    kind = _kind(lines[0])
    for line in lines:
        if (other := _kind(line)) != kind:
            raise AnnotationError(
                f"{path}, line {line.number}: looks like {other}, the file begins with {kind}: "
                "put them into files of their own"
            )
    if kind == INSTRUCT:
        rows = [read_instruct(line) for line in lines]
        _refuse_twice(lines, rows)
        return rows
    asked = [one for line in lines for one in QUESTIONS[kind](line)]
    return list(joined(chosen(path, asked, splits)))


def _kind(line: Line) -> str:
    keys = set(line.value)
    if {"chosen", "rejected"} <= {key.strip().lower() for key in keys}:
        raise line.wrong("chosen", "this is a file of preference pairs: name it in `prefer`")
    if "turns" in keys:
        return RECORDS
    if keys & {"record", "record_without_sound", "record_without_picture"}:
        return INSTRUCT
    if "question_content" in keys:
        raise line.wrong(
            "question_content",
            "these are a benchmark's annotations: make records of them with "
            "`python -m instruct_data build`",
        )
    return OWN


def _refuse_twice(lines: list[Line], rows: list[ClipRow]) -> None:
    first: dict[str, int] = {}
    for line, row in zip(lines, rows, strict=True):
        if row.video_id in first:
            why = f"{row.video_id} stands in line {first[row.video_id]} too: a clip has one line"
            raise line.wrong("video_id", why)
        first[row.video_id] = line.number


def chosen(path: Path, asked: list[Asked], splits: Collection[str]) -> list[Asked]:
    """The questions of some splits.

    Raises:
        AnnotationError: the file has several splits and none is named, or none of those named.
    """
    counts = Counter(one.split for one in asked)
    named = ", ".join(f"{split!r} ({n} questions)" for split, n in counts.items() if split)
    if not splits:
        if len(set(counts) - {""}) > 1:
            raise AnnotationError(f"{path} has rows of several splits, {named}: say which (splits)")
        return asked
    if absent := [split for split in splits if split not in counts and "" not in counts]:
        there = f"there are {named}"
        raise AnnotationError(f"{path} has no row of the split {absent[0]!r}; {there}")
    return [one for one in asked if one.split in ("", *splits)]


def joined(asked: list[Asked]) -> Iterator[ClipRow]:
    """One row for all questions about one clip with the same cut, in order of appearance."""
    questions: dict[tuple[str, Cut], list[Question]] = {}
    names: dict[str, str] = {}
    for one in asked:
        questions.setdefault((one.media, one.cut), []).append(one.question)
        names.setdefault(one.media, one.video_id)
    for (media, cut), some in questions.items():
        yield ClipRow(
            video_id=names[media],
            record="",
            record_without_sound="",
            record_without_picture="",
            questions=tuple(some),
            media=media,
            cut=cut,
        )
