"""Reads AVQA: multiple-choice questions about VGGSound clips of everyday sounds.

A file (`train_qa.json`, `val_qa.json`) is a JSON list. Source: Yang et al. 2022, "AVQA: A Dataset
for Audio-Visual Question Answering on Videos".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from instruct_data.records import Clip, Record, Turn
from instruct_data.sources.fields import Fields, provenance, read_rows, short

NAME = "avqa"
LICENCE = "unstated"
_FIELDS = (
    "id",
    "video_name",
    "video_id",
    "question_text",
    "multi_choice",
    "answer",
    "question_relation",
    "question_type",
)


def read(path: Path, split: str) -> Iterator[Record]:
    """One record a question; the clip is `video_name`, the VGGSound name `YOUTUBE-ID_START`.

    Raises:
        AnnotationError: the file or a row is not of this format; names file, row and field.
    """
    rows, sha256 = read_rows(path)
    return (_record(row, split, sha256) for row in rows)


def _record(row: Fields, split: str, sha256: str) -> Record:
    row.only(*_FIELDS)
    choices = _choices(row)
    right = choices[row.index("answer", len(choices))]
    turn = Turn(
        question=row.text("question_text"),
        answer=right,
        label=right,
        type=f"{row.text('question_relation')} {row.text('question_type')}",
        choices=choices,
    )
    return Record(
        id=f"{NAME}:{split or '-'}:{row.number}",
        kind="question",
        clip=Clip(video=row.file_name("video_name")),
        turns=(turn,),
        source=NAME,
        split=split,
        licence=LICENCE,
        provenance=(provenance(row.path, sha256, row.number),),
    )


def _choices(row: Fields) -> tuple[str, ...]:
    given = row.raw.get("multi_choice")
    if not isinstance(given, list) or len(given) < 2:
        raise row.wrong("multi_choice", f"should be a list of choices, is {short(given)}")
    return tuple(
        row.checked(f"multi_choice[{place}]", choice) for place, choice in enumerate(given)
    )
