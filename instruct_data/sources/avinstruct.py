"""Reads AVinstruct, the joint audio-visual instructions of CAT, about clips of MUSIC-AVQA and AVQA.

A row's question stands between two `<Q>`, after a lead-in that all rows share and before a
`<video>` token; its answer is a sentence or more. Source: Ye et al. 2024, "CAT: Enhancing
Multimodal Large Language Model to Answer Questions in Dynamic Audio-Visual Scenarios".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from instruct_data.records import Clip, Record, Turn
from instruct_data.sources.conversations import MEDIA_TOKEN, exchanges
from instruct_data.sources.fields import Fields, absent, provenance, read_rows, short

NAME = "avinstruct"
LICENCE = "unstated"
LEAD_IN = "Summarize the video to help answer:"
"""What stands before a question; it is taken off, and named in the record's provenance."""

_FIELDS = ("video_id", "multi_choice", "correct_answer", "video", "audio", "conversations")
_TOKEN = re.compile(rf"[^\S\n]*{MEDIA_TOKEN}[^\S\n]*")
_MARK = re.compile(r"</?Q>")


def read(path: Path, split: str) -> Iterator[Record]:
    """One record a row; `video` and `audio`, the authors' feature files, are not kept.

    Raises:
        AnnotationError: the file or a row is not of this format; names file, row and field.
    """
    rows, sha256 = read_rows(path)
    return (_record(row, split, sha256) for row in rows)


def _record(row: Fields, split: str, sha256: str) -> Record:
    row.only(*_FIELDS)
    said = exchanges(row, _plain)
    choices = _choices(row)
    label = _label(row, choices)
    turns = [
        Turn(
            question=question.removeprefix(LEAD_IN).lstrip(),
            answer=answer,
            # Choices and the right one are the row's: they belong to what is asked first.
            label=None if place else label,
            choices=() if place else choices,
        )
        for place, (question, answer) in enumerate(said)
    ]
    origin: tuple[str, ...] = (provenance(row.path, sha256, row.number),)
    if any(question.startswith(LEAD_IN) for question, _ in said):
        origin += (f"lead-in taken off: {LEAD_IN}",)
    return Record(
        id=f"{NAME}:{split or '-'}:{row.number}",
        kind="question" if len(turns) == 1 else "dialogue",
        clip=Clip(video=row.file_name("video_id")),
        turns=tuple(turns),
        source=NAME,
        split=split,
        licence=LICENCE,
        provenance=origin,
    )


def _plain(row: Fields, field: str, text: str) -> str:
    """What the human says, without marks and media tokens; all other characters stay."""
    marks = len(_MARK.findall(text))
    if marks % 2:
        raise row.wrong(field, f"has {marks} marks <Q>, which should come in pairs")
    lines = _MARK.sub("", _TOKEN.sub(_gap, text)).strip()
    asked = lines.removeprefix(LEAD_IN).strip()
    if not asked:
        raise row.wrong(field, f"{short(text)} asks nothing")
    return lines


def _gap(token: re.Match[str]) -> str:
    """What stays of a media token: a space where it parted two words."""
    text, start, end = token.string, token.start(), token.end()
    inside = start > 0 and text[start - 1] != "\n" and end < len(text) and text[end] != "\n"
    return " " if inside else ""


def _choices(row: Fields) -> tuple[str, ...]:
    """What there is to choose from; rows about MUSIC-AVQA have an empty text there."""
    given = row.raw.get("multi_choice")
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise row.wrong("multi_choice", f"{short(given)} is not a JSON list") from error
    if absent(given) or given == "" or given == []:
        return ()
    several = given if isinstance(given, list) else [given]
    return tuple(
        row.checked(f"multi_choice[{place}]", choice) for place, choice in enumerate(several)
    )


def _label(row: Fields, choices: tuple[str, ...]) -> str | None:
    """The right choice, which a row names or numbers from 0."""
    given = row.raw.get("correct_answer")
    if absent(given) or given == "":
        return None
    if isinstance(given, str):
        return row.text("correct_answer")
    return choices[row.index("correct_answer", len(choices))]
