"""The preference pair: two answers to a question about a clip, and which one is preferred.

A file of pairs is JSONL, a pair a line. Builders are `preference` and `mine`; trainers of other
projects read what `exports` makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from instruct_data.records import Clip, Turn, read_lines, write_lines

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
    return read_lines(path, PAIR)


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write pairs to a JSONL file, aside first; returns how many."""
    return write_lines(path, map(dump_pair, pairs))


def dump_pair(pair: Pair) -> bytes:
    """A pair as its line; what has its default value is left out."""
    return PAIR.dump_json(pair, exclude_defaults=True) + b"\n"
