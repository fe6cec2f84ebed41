"""What the export formats share: rows, what they do not carry, and clips made of them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from avqa_llm.errors import AnnotationError, AVQAError
from instruct_data.exports.media import media_path, video_of
from instruct_data.pairs import Pair, Tag
from instruct_data.records import Clip, Record, Turn

Row = dict[str, Any]

IMPORTED = "unstated"
"""Licence of what comes back from a format that carries none."""


class ExportError(AVQAError):
    """Records that a format cannot express, or a place that cannot be written to."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How records and pairs look in the files of another trainer."""

    what: str
    """In a few words, for `--help`."""
    suffix: str
    """`.jsonl`: a row a line; `.json`: one list."""
    record_row: Callable[[Record, Path | None], Row]
    pair_row: Callable[[Pair, Path | None], Row]
    read_record: Callable[[Row, Path | None], Record]
    read_pair: Callable[[Row, Path | None], Pair]
    beside: Callable[[Path, bool], Path] | None = None
    """Writes what the trainer wants beside the file of records (or pairs); returns its path."""
    absolute: bool = False
    """Whether the trainer wants absolute paths."""


@dataclass(kw_only=True)
class Summary:
    """What became of a file that was exported."""

    rows: int = 0
    pairs: bool = False
    """Whether it holds pairs rather than records."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Rows left out on request, by reason."""
    lost: Counter[str] = field(default_factory=Counter)
    """How many rows had something that the format has no place for."""
    absent: set[str] = field(default_factory=set)
    """Clips whose file is not in the media folder."""

    def lines(self) -> list[str]:
        """The counts for a person."""
        found = [f"{self.rows} {'pairs' if self.pairs else 'records'} written"]
        found += [f"  {n} skipped: the clip is {why}" for why, n in self.skipped.most_common()]
        if self.lost:
            parts = ", ".join(f"{what} ({n} rows)" for what, n in sorted(self.lost.items()))
            found.append(f"  the format does not carry: {parts}")
        if self.absent:
            first = min(self.absent)
            found.append(f"  {len(self.absent)} clips have no file, {first} the first of them")
        return found


def losses(item: Record | Pair) -> list[str]:
    """What of a record or a pair has no place in the message formats."""
    turns: Sequence[Turn] = item.turns if isinstance(item, Record) else item.history
    found = [
        name
        for name in ("label", "template", "slots", "type", "choices")
        if any(getattr(turn, name) for turn in turns)
    ]
    if isinstance(item, Pair) and item.label and "label" not in found:
        found.append("label")
    if isinstance(item, Record) and item.kind != kind_of(item.turns):
        found.append("kind")
    return found + [
        name for name in ("source", "split", "licence", "provenance") if getattr(item, name)
    ]


def kind_of(turns: Sequence[Turn]) -> str:
    """What turns alone tell of a record's kind."""
    return "question" if len(turns) == 1 else "dialogue"


def files(clip: Clip, folder: Path | None) -> tuple[str | None, str | None]:
    """Paths of picture and sound, which are one file; None for what is not given."""
    path = media_path(clip, folder)
    return path if clip.picture else None, path if clip.sound else None


def clip_of(picture: str | None, sound: str | None, folder: Path | None) -> Clip:
    """The clip of two paths, one of which may be absent.

    Raises:
        AnnotationError: both are absent.
    """
    path = picture or sound
    if not path:
        raise AnnotationError("a row names neither a video nor an audio file")
    return Clip(video=video_of(path, folder), sound=sound is not None, picture=picture is not None)


def record_of(row: Row, clip: Clip, turns: Sequence[Turn], source: str) -> Record:
    """A record of what a row carries."""
    return Record(
        id=str(row.get("id") or f"{source}/{clip.video}"),
        kind="question" if len(turns) == 1 else "dialogue",
        clip=clip,
        turns=tuple(turns),
        source=source,
        split="",
        licence=IMPORTED,
        provenance=(f"read from {source} rows",),
    )


def pair_of(
    row: Row,
    clip: Clip,
    turns: Sequence[Turn],
    question: str,
    answers: tuple[str, str],
    source: str,
) -> Pair:
    """A pair of what a row carries; `answers`: the chosen and the rejected one."""
    name, _, number = str(row.get("id") or "").rpartition("/")
    tag = row.get("tag")
    return Pair(
        record=name or f"{source}/{clip.video}",
        turn=int(number) if number.isdecimal() else len(turns),
        clip=clip,
        history=tuple(turns),
        question=question,
        chosen=answers[0],
        rejected=answers[1],
        # Foreign files have no tags; the paper's pairs are about ambiguity.
        tag=cast(Tag, tag) if tag in get_args(Tag) else "ambiguous",
        source=source,
        split="",
        licence=IMPORTED,
        provenance=(f"read from {source} rows",),
    )


def traced(item: Record | Pair) -> Row:
    """Columns that trace a row to where it comes from; trainers drop columns they do not know."""
    if isinstance(item, Record):
        return {"id": item.id}
    return {"id": f"{item.record}/{item.turn}", "tag": item.tag}


def without_marks(item: Record | Pair, marks: Sequence[str]) -> None:
    """Refuse texts that hold what the format reads as a place for media.

    Raises:
        ExportError: names the record and the mark.
    """
    turns = item.turns if isinstance(item, Record) else item.history
    texts = [text for turn in turns for text in (turn.question, turn.answer)]
    if isinstance(item, Pair):
        texts += [item.question, item.chosen, item.rejected]
    for mark in marks:
        if any(mark in text for text in texts):
            name = item.id if isinstance(item, Record) else item.record
            raise ExportError(
                f"record {name!r} has {mark} in its text, which this format reads as a place "
                "for media; take it out of the text, or leave the record out"
            )


def said(row: Row, key: str, kind: type = list) -> Any:
    """A field of a foreign row.

    Raises:
        AnnotationError: it is missing or of another type.
    """
    value = row.get(key)
    if not isinstance(value, kind):
        raise AnnotationError(f"field {key!r} should be a {kind.__name__}, not {value!r:.60}")
    return value
