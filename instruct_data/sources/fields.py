"""Rows of JSON and JSONL files, read field by field; what is wrong is said with its place."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avqa_llm.errors import AnnotationError
from avqa_llm.folders import sha256_of

MAX_LIST_BYTES = 1_000_000_000
"""A JSON list is read whole, and takes several times its size in memory; JSONL has no limit."""

_HASHED_AT_ONCE = 1 << 20


class Fields:
    """One raw row. Every method raises AnnotationError that names file, row and field."""

    def __init__(self, path: Path, number: int, raw: Any) -> None:
        self.path, self.number = path, number
        if not isinstance(raw, Mapping):
            raise AnnotationError(f"{path}, row {number}: should be an object, is {short(raw)}")
        self.raw = raw

    def wrong(self, field: str, why: str) -> AnnotationError:
        """The error about one field, to be raised."""
        return AnnotationError(f"{self.path}, row {self.number}, field {field!r}: {why}")

    def only(self, *known: str) -> None:
        """Refuse fields that are not known: a misspelt one would be lost without a word."""
        for field in self.raw:
            if field not in known:
                why = f"is none of the fields of this format ({', '.join(known)}): rename it"
                raise self.wrong(field, f"{why} or take it out")

    def checked(self, field: str, value: Any) -> str:
        """A value as text without the white space around it; `field` is its name in messages."""
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, f"should be text, is {short(value)}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                half = f"{short(value)} holds half of a surrogate pair at {error.start}"
                raise self.wrong(field, f"{half}: no text file can hold that") from error
        return value.strip()

    def text(self, field: str) -> str:
        """A text that has to be there."""
        return self.checked(field, self.raw.get(field))

    def optional_text(self, field: str) -> str | None:
        """A text, or None where the field is absent, null or NaN."""
        value = self.raw.get(field)
        return None if absent(value) else self.checked(field, value)

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, which may be JSON inside a string; () where the field is absent."""
        value = self.raw.get(field)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise self.wrong(field, f"{short(value)} is not a JSON list") from error
        value = [] if absent(value) else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(field, f"should be a list of texts, is {short(value)}")
        return tuple(item.strip() for item in value)

    def number_from_zero(self, field: str) -> float | None:
        """A number that is not negative, or None where the field is absent, null or NaN."""
        value = self.raw.get(field)
        if absent(value):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(field, f"should be a number, is {short(value)}")
        if not 0 <= value < math.inf:
            raise self.wrong(field, f"{value} is outside 0 to infinity")
        return float(value)

    def index(self, field: str, length: int) -> int:
        """A place in a list of `length` items, counted from 0."""
        value = self.raw.get(field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(field, f"should be a whole number, is {short(value)}")
        if not 0 <= value < length:
            raise self.wrong(field, f"{value} is outside 0 to {length - 1}, the list's places")
        return value

    def file_name(self, field: str) -> str:
        """A clip's name, which becomes part of a path: it must not lead out of its folder."""
        name = self.text(field)
        if "/" in name or "\\" in name or name.startswith(".") or "\0" in name:
            raise self.wrong(field, f"{short(name)} is not a plain file name")
        return name

    def relative_path(self, field: str) -> str:
        """A clip's path below the folder of the media: folders yes, ways out of it no."""
        path = self.text(field)
        if "\0" in path or "\\" in path:
            raise self.wrong(field, f"{short(path)} holds a character that no path should have")
        if path.startswith("/") or path[1:2] == ":":
            why = "is absolute: name the clip relative to the folder of the media"
            raise self.wrong(field, f"{short(path)} {why}")
        if ".." in path.split("/"):
            raise self.wrong(field, f"{short(path)} leads out of the folder of the media")
        return path


def absent(value: object) -> bool:
    """Whether a field says nothing: tables that were JSON once have NaN where nothing was."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def short(value: object) -> str:
    """A value for a message, cut to what a line can hold."""
    shown = "missing" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def read_list(path: Path) -> tuple[list[Any], str]:
    """Read a file that holds one JSON list; returns its rows and the file's sha-256.

    Raises:
        AnnotationError: the file cannot be read, is larger than `MAX_LIST_BYTES`, or holds
            anything but a list of at least one row.
    """
    try:
        size = path.stat().st_size
        if size > MAX_LIST_BYTES:
            raise AnnotationError(
                f"{path} is a JSON list of {size / 1e9:.1f} GB, and more than "
                f"{MAX_LIST_BYTES / 1e9:g} GB are not read at once: write it as JSONL, an object a "
                "line"
            )
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    try:
        rows = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise AnnotationError(f"{path} should hold a list of at least one row")
    return rows, hashlib.sha256(data).hexdigest()


def read_rows(path: Path) -> tuple[Iterator[Fields], str]:
    """Read a file that holds a JSON list, or JSONL, which is streamed; with its sha-256.

    In JSONL a row's number is its line's, and empty lines are no rows. Raises AnnotationError
    as `read_list`, and while lines are read.
    """
    if _starts_list(path):
        rows, sha256 = read_list(path)
        return (Fields(path, number, row) for number, row in enumerate(rows, 1)), sha256
    return _lines(path), sha256_of(path)


def _starts_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_HASHED_AT_ONCE).removeprefix(codecs.BOM_UTF8)
            while not start.strip() and (more := file.read(_HASHED_AT_ONCE)):
                start = more
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    if not start.strip():
        raise AnnotationError(f"{path} is empty: it should hold a JSON list, or an object a line")
    return start.lstrip().startswith(b"[")


def _lines(path: Path) -> Iterator[Fields]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                raw = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                why = f"row {number} is not JSON: {error}"
                raise AnnotationError(f"{path}, {why}; write one object a line") from error
            yield Fields(path, number, raw)


def provenance(path: Path, sha256: str, number: int) -> str:
    """The first entry of a record's provenance: file, the start of its hash, row."""
    name = path.name.encode("utf-8", "replace").decode()
    return f"{name} sha256:{sha256[:12]} row {number}"
