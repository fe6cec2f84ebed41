"""The preference pair: two answers to a question about a clip, and which one is preferred.

A file of pairs is JSONL, a pair a line. Builders are `preference` and `mine`; trainers of other
projects read what `exports` makes of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from avqa_llm.errors import AnnotationError
from instruct_data.records import Clip, Turn, first_fault

Tag = Literal["ambiguous", "wrong", "swapped", "muted", "mined"]
"""Why the rejected answer is the worse one: it hedges; it is wrong; it holds for another clip; it
is what one says who does not hear the clip; the model itself said it, and it is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(extra="forbid", strict=True))
class Pair:
    """Two answers to a question about a clip, and which one is preferred."""

    record: str
    """Id of the record that it was made of."""
    turn: int = 0
    """Number of the record's turn, from 0."""
    clip: Clip
    history: tuple[Turn, ...] = ()
    """What was said before."""
    question: str
    chosen: str
    rejected: str
    tag: Tag
    label: str | None = None
    """The right answer as a closed set has it; absent where the answer is open."""
    source: str
    split: str
    licence: str
    provenance: tuple[str, ...]


PAIR: TypeAdapter[Pair] = TypeAdapter(Pair)


def read_pairs(path: Path) -> Iterator[Pair]:
    """Read a JSONL file of pairs, one at a time.

    Raises:
        AnnotationError: the file is missing, or a line is no pair; names line and field.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield PAIR.validate_json(line)
            except ValidationError as error:
                raise AnnotationError(f"{path}, line {number}: {first_fault(error)}") from error


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write pairs to a JSONL file, aside first; returns how many."""
    count = 0
    with aside(path) as file:
        for pair in pairs:
            file.write(dump_pair(pair))
            count += 1
    return count


def dump_pair(pair: Pair) -> bytes:
    """A pair as its line; what has its default value is left out."""
    return PAIR.dump_json(pair, exclude_defaults=True) + b"\n"


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
