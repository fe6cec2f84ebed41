"""Reads question files of the MUSIC-AVQA family: v1, v2, and the filled form of R.

A row of v1 has a template with slots; a row of R is a filled question. Both become a `Row`.
What is wrong with a row is said with its file, its number and its field; no row is skipped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import LABELS
from instruct_data.templates import SLOT, TEMPLATES, fill

TYPES = tuple(
    f"{modality} {kind}"
    for modality, kinds in {
        "Audio": ("Counting", "Comparative"),
        "Visual": ("Counting", "Location"),
        "Audio-Visual": ("Existential", "Location", "Counting", "Comparative", "Temporal"),
    }.items()
    for kind in kinds
)
"""The nine question types, in the order in which results are usually printed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question with its gold answer."""

    number: int
    """Place in the file, from 1. Question ids may be missing or occur twice; this may not."""
    video_id: str
    question_id: int | str | None
    modality: str
    kind: str
    template: str | None
    """One of the 33 templates; None where the file has filled questions only."""
    slots: tuple[str, ...]
    """What fills the template, left to right."""
    question: str
    """As it is asked, filled."""
    gold: str
    """One of the 42 answers."""

    @property
    def type(self) -> str:
        """One of `TYPES`."""
        return f"{self.modality} {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A question file that was read whole."""

    path: Path
    sha256: str
    """Of the bytes of the file: several versions of these files are in circulation."""
    rows: tuple[Row, ...]


def read_annotations(path: Path | str) -> Annotations:
    """Read a question file. Raises AnnotationError that names file, row number and field."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    try:
        raw = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, list) or not raw:
        raise AnnotationError(f"{path} should hold a list of at least one row")
    rows = tuple(_Fields(path, number, row).row() for number, row in enumerate(raw, 1))
    return Annotations(path=path, sha256=hashlib.sha256(data).hexdigest(), rows=rows)


class _Fields:
    """One raw row, read field by field."""

    def __init__(self, path: Path, number: int, raw: Any) -> None:
        self.path, self.number = path, number
        if not isinstance(raw, Mapping):
            raise AnnotationError(f"{path}, row {number}: should be an object, is {_short(raw)}")
        self.raw = raw

    def row(self) -> Row:
        modality, kind = self.type()
        template, slots, question = self.question()
        return Row(
            number=self.number,
            video_id=self.video_id(),
            question_id=self.question_id(),
            modality=modality,
            kind=kind,
            template=template,
            slots=slots,
            question=question,
            gold=self.gold(),
        )

    def wrong(self, field: str, why: str) -> AnnotationError:
        return AnnotationError(f"{self.path}, row {self.number}, field {field!r}: {why}")

    def text(self, field: str) -> str:
        value = self.raw.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, f"should be text, is {_short(value)}")
        return value.strip()

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, which may be JSON inside a string; () where the field is missing."""
        value = self.raw.get(field)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise self.wrong(field, f"{_short(value)} is not a JSON list") from error
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(field, f"should be a list of texts, is {_short(value)}")
        return tuple(item.strip() for item in value)

    def video_id(self) -> str:
        """The clip's name, which becomes part of a path: it must not lead out of the folder."""
        video_id = self.text("video_id")
        if "/" in video_id or "\\" in video_id or video_id.startswith(".") or "\0" in video_id:
            raise self.wrong("video_id", f"{_short(video_id)} is not a plain file name")
        return video_id

    def question_id(self) -> int | str | None:
        """The id; v2 leaves it out, writes null, and writes whole numbers as 12.0."""
        value = self.raw.get("question_id")
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self.wrong("question_id", f"should be a number, is {_short(value)}")
        if isinstance(value, float) and not value.is_integer():
            raise self.wrong("question_id", f"should be a whole number, is {value}")
        return value.strip() if isinstance(value, str) else int(value)

    def type(self) -> tuple[str, str]:
        pair = self.texts("type")
        if len(pair) != 2 or " ".join(pair) not in TYPES:
            raise self.wrong("type", f"{list(pair)} is none of the nine: {', '.join(TYPES)}")
        return pair[0], pair[1]

    def question(self) -> tuple[str | None, tuple[str, ...], str]:
        """Template, slot values and filled question."""
        content, slots = self.text("question_content"), self.texts("templ_values")
        if content in TEMPLATES:
            try:
                return content, slots, fill(content, slots)
            except ValueError as error:
                raise self.wrong("templ_values", str(error)) from error
        if SLOT.search(content):
            raise self.wrong("question_content", f"{_short(content)} is none of the 33 templates")
        template = self.text("template") if "template" in self.raw else None
        if template is not None and template not in TEMPLATES:
            raise self.wrong("template", f"{_short(template)} is none of the 33 templates")
        return template, slots, content

    def gold(self) -> str:
        """The answer; the benchmark spells its field `anser`."""
        field = "anser" if "anser" in self.raw else "answer"
        gold = self.text(field)
        if gold not in LABELS:
            raise self.wrong(field, f"{_short(gold)} is none of the 42 answers")
        return gold


def _short(value: object) -> str:
    """A value for a message, cut to what a line can hold."""
    shown = "missing" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
