"""AVQA: multiple choice about everyday sounds in VGGSound clips (Yang et al. 2022, ACM MM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.benchmarks.base import Benchmark, Question, QuestionSet
from eval.benchmarks.family import OVERLAP, PRIOR
from eval.benchmarks.known import recognise
from instruct_data.records import Record
from instruct_data.sources import avqa
from instruct_data.sources.fields import Fields, absent, read_rows, short

NAME = avqa.NAME


def read(path: Path) -> QuestionSet:
    """Read `train_qa.json` or `val_qa.json`. The clip is `video_name`, the gold answer a choice.

    Raises:
        AnnotationError: the file or a row is not of this format; names row and field.
    """
    if path.is_dir():
        raise AnnotationError(f"{path} is a folder: name train_qa.json or val_qa.json in it")
    rows, sha256 = read_rows(path)
    known = recognise(path, sha256)
    if known is not None and known.benchmark != NAME:
        raise AnnotationError(
            f"{path} is {known.what} of {known.benchmark}, not of {NAME}: give it as --benchmark "
            f"{known.benchmark}, or get {NAME}'s own files (python -m instruct_data get {NAME})"
        )
    # The same rows twice: records say what is asked, and drop the number of the question.
    pairs = zip(rows, avqa.read(path, ""), strict=True)
    questions = tuple(_question(row, record) for row, record in pairs)
    return QuestionSet(
        benchmark=NAME,
        path=path,
        sha256={path.name: sha256},
        questions=questions,
        version=f"{NAME}: {known.what}" if known else "",
        oddities=tuple(_odd(questions)),
    )


def _question(row: Fields, record: Record) -> Question:
    (turn,) = record.turns
    assert turn.label is not None and turn.type is not None, "the reader gives both"
    return Question(
        number=row.number,
        video_id=record.clip.video,
        question_id=_id(row),
        type=turn.type,
        question=turn.question,
        gold=turn.label,
        choices=turn.choices,
    )


def _id(row: Fields) -> int | str | None:
    value = row.raw.get("id")
    if absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise row.wrong("id", f"should be a number or text, is {short(value)}")
    return value


def _odd(questions: Sequence[Question]) -> Iterator[str]:
    """Choices that are there twice, and questions that repeat or contradict an earlier one."""
    first: dict[tuple[str, str], Question] = {}
    for one in questions:
        if len(set(one.choices)) < len(one.choices):
            yield f"row {one.number} has the same choice twice: {', '.join(one.choices)}"
        other = first.setdefault((one.video_id, one.question), one)
        if other is not one:
            same = other.gold == one.gold
            yield (
                f"row {one.number} {'repeats' if same else 'contradicts'} row {other.number}: "
                f"{one.question!r} about {one.video_id} is {one.gold!r} here"
                + ("" if same else f" and {other.gold!r} there")
            )


BENCHMARK = Benchmark(
    name=NAME,
    title="AVQA: multiple choice about everyday sounds in VGGSound clips",
    read=read,
    groups=(*OVERLAP, *PRIOR),
    data_sets=("avqa",),
    source="Yang et al. 2022, ACM Multimedia",
)
