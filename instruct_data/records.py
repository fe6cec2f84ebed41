"""The one record of instruction data: a conversation about one clip, and where it comes from.

Readers make records of what others wrote, the builder makes more of them out of these, exports
write them in the formats of other trainers. A file of records is JSONL, a record a line;
`python -m instruct_data schema` prints its JSON schema.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from avqa_llm.errors import AnnotationError

_STRICT = ConfigDict(extra="forbid", strict=True)

Line = TypeVar("Line")
Kind = Literal["question", "dialogue", "caption"]
"""One question; several about the same clip; a description, for alignment."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Clip:
    """Which media are asked about, and what is done to them on the way."""

    video: str
    """Name of the clip in its source (without a folder), or a path of the user's own."""
    start_s: float | None = None
    end_s: float | None = None
    """The part that is meant; both absent: all of it."""
    sound: bool = True
    picture: bool = True
    """Whether the model is given it: mixed training also asks by ear and by eye alone."""
    mirrored: bool = False
    """Left and right exchanged, in the picture and between the stereo channels."""
    reversed: bool = False
    """Played backwards, sound and picture."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Turn:
    """A question and its answer."""

    question: str
    """As it is asked, filled."""
    answer: str
    """What the model is to say: a label's words or a sentence."""
    label: str | None = None
    """The answer as a closed set has it; absent where the answer is open."""
    template: str | None = None
    """One of the benchmark's 33, where the question comes from one."""
    slots: tuple[str, ...] = ()
    """What fills the template, left to right."""
    type: str | None = None
    """`Audio Counting` and the like: one of the nine types of MUSIC-AVQA, or the source's own."""
    choices: tuple[str, ...] = ()
    """What there is to choose from, where the source gives choices."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Record:
    """A clip, what is said about it, and how that came to be."""

    id: str
    """Unique in a set; the same input gives the same id."""
    kind: Kind
    clip: Clip
    turns: tuple[Turn, ...]
    source: str
    """Name of the data set: `music-avqa`, `bandstand`, ..."""
    split: str
    """`train`, `val`, `test`, or the source's own word; empty where it has none."""
    licence: str
    """As the source states it; `unstated` where it does not."""
    provenance: tuple[str, ...]
    """From the file it was read from to the last thing that was done to it."""


RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a line."""
    return RECORD.json_schema()


def read_records(path: Path) -> Iterator[Record]:
    """Read a JSONL file of records, one at a time.

    Raises:
        AnnotationError: the file is missing, or a line is no record; names line and field.
    """
    return read_lines(path, RECORD)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records to a JSONL file, aside first; returns how many."""
    return write_lines(path, map(dump, records))


def read_lines(path: Path, kind: TypeAdapter[Line]) -> Iterator[Line]:
    """Read a JSONL file whose lines are all of one kind. Raises AnnotationError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield kind.validate_json(line)
            except ValidationError as error:
                raise AnnotationError(f"{path}, line {number}: {first_fault(error)}") from error


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write lines to a file, aside first; returns how many."""
    count = 0
    with aside(path) as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


@contextlib.contextmanager
def aside(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is whole, and vanishes if it never is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f"{path.name}.writing")
    try:
        with writing.open("wb") as file:
            yield file
        os.replace(writing, path)
    finally:
        writing.unlink(missing_ok=True)


def dump(record: Record) -> bytes:
    """A record as its line; what has its default value is left out."""
    return RECORD.dump_json(record, exclude_defaults=True) + b"\n"


def first_fault(error: ValidationError) -> str:
    """What is wrong, in a line: the field and why."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the line"
    given = json.dumps(fault["input"], default=str)
    shown = given if len(given) <= 60 else f"{given[:57]}..."
    return f"field {place}: {fault['msg'].lower()} (given {shown})"
