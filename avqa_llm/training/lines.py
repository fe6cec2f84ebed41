"""Rows of JSON, JSONL and CSV files, each with its line, before anything is known of their fields.

Which of the three a file is, its content says: a list of JSON starts with `[`, JSONL with `{`;
anything else has to be a table whose first line names its columns. Texts are UTF-8, with or
without a byte order mark, or UTF-16 with one.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avqa_llm.errors import AnnotationError

DELIMITERS = ",;\t"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a file."""

    path: Path
    number: int
    """The line that it begins in, from 1."""
    value: dict[str, Any]
    """As JSON has it; the cells of a table are texts, empty ones are left out."""

    def wrong(self, field: str, why: str) -> AnnotationError:
        """The error about one field, to be raised."""
        return AnnotationError(f"{self.path}, line {self.number}, field {field!r}: {why}")


def read_lines(path: Path) -> list[Line]:
    """Rows of a file, in order.

    Raises:
        AnnotationError: the file cannot be read, is empty, is none of the three kinds, has a row
            that is no object, or says a key twice.
    """
    text = _text(path)
    start = text.lstrip()[:1]
    if not start:
        raise AnnotationError(f"{path} holds no rows: it is empty")
    if start == "[":
        found = list(_listed(path, text))
    elif start == "{":
        found = list(_each_line(path, text))
    else:
        found = list(_table(path, text))
    if not found:
        raise AnnotationError(f"{path} holds no rows: write one for each question")
    lines = []
    for number, value in found:
        if not isinstance(value, dict):
            raise AnnotationError(
                f"{path}, line {number}: a row is an object such as "
                f'{{"video": "a.mp4", "question": "...", "answer": "..."}}, not {short(value)}'
            )
        lines.append(Line(path=path, number=number, value=value))
    return lines


def short(value: object) -> str:
    """A value for a message, cut to what a line can hold."""
    try:
        shown = repr(value)
    except RecursionError:
        shown = f"a {type(value).__name__} in which too much is nested"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def unknown(name: str, known: Mapping[str, str]) -> str:
    """What to say about a name that is not known, with the nearest one that is.

    `known` holds all spellings, each with the name under which it is listed.
    """
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7)
    hint = f"; did you mean {known[close[0]]!r}?" if close else ""
    return f"is not known{hint} (known: {', '.join(dict.fromkeys(known.values()))})"


def _is_text(value: str) -> bool:
    """Whether a file can hold it: half of a surrogate pair cannot be written."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(value: str) -> str | None:
    """A text without the white space around it; None where nothing or no text is left."""
    stripped = value.strip()
    return stripped if stripped and _is_text(stripped) and "\0" not in stripped else None


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(
            f"{path} does not exist: check the path, or write it with `python -m instruct_data`"
        ) from None
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    encoding = "UTF-16" if data.startswith(_UTF16) else "UTF-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AnnotationError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is no {encoding}: "
            "save the file as UTF-8"
        ) from error


# -- JSON --------------------------------------------------------------------------------------


class _Twice(ValueError):
    """An object says one key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"the key {short(twice)} stands twice in one row: keep one")
    return value


_ONE_A_LINE = "write each row on one line, or all between '[' and ']' with commas"
_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _listed(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Items of the one list that the text is, each with its line."""
    at, line = _after(text, text.index("[") + 1), 1
    counted = 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = _decoded(path, text, at, line)
        yield line, value
        at = _after(text, at)
        mark = text[at : at + 1]
        line, counted = line + text.count("\n", counted, at), at
        if mark not in (",", "]") or not mark:
            why = "should go on with ',' or end with ']'" if mark else "ends without ']'"
            raise AnnotationError(f"{path}, line {line}: the list of rows {why}")
        if mark == ",":
            at = _after(text, at + 1)
            if text[at : at + 1] == "]":
                raise AnnotationError(
                    f"{path}, line {line}: a comma stands after the last row: take it out"
                )
    if text[at + 1 :].strip():
        line += text.count("\n", counted, _after(text, at + 1))
        raise AnnotationError(
            f"{path}, line {line}: something stands after the list of rows: put all into one list"
        )


def _after(text: str, at: int) -> int:
    """The next place that is no white space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _each_line(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): it would also part a text at the separators that JSON leaves unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        start = _after(line, 0)
        if start == len(line):
            continue
        if line.rstrip() == "{":
            raise AnnotationError(f"{path}, line {number}: a row over several lines; {_ONE_A_LINE}")
        try:
            value, end = _decoded(path, line, start, number)
        except AnnotationError as error:
            raise AnnotationError(f"{error}; {_ONE_A_LINE}") from error
        if after := line[end:].strip():
            raise AnnotationError(
                f"{path}, line {number}: something stands after the row, {short(after)}; "
                f"{_ONE_A_LINE}"
            )
        yield number, value


def _decoded(path: Path, text: str, at: int, line: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        place = line + text.count("\n", at, error.pos)
        column = error.pos - text.rfind("\n", 0, error.pos)
        raise AnnotationError(
            f"{path}, line {place}, column {column}: is not JSON: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # a key twice, too many digits, too deep
        why = str(error) if isinstance(error, ValueError) else "too much is nested in it"
        raise AnnotationError(f"{path}, line {line}: {why}") from error


# -- tables ------------------------------------------------------------------------------------


def _table(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    head = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=head.count)
    if not head.count(delimiter):
        raise AnnotationError(
            f"{path}, line 1: neither JSON, JSONL nor a table whose first line names its columns "
            f"(video,question,answer): it starts with {short(head.strip())}"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    start = 1
    try:
        for cells in reader:
            if not names:
                names = _columns(path, reader.line_num, cells)
            elif any(cell.strip() for cell in cells):
                yield start, _cells(path, start, names, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {reader.line_num}: no such table: {error}") from error


def _columns(path: Path, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:  # a delimiter at the end of the line
        names.pop()
    for name in names:
        if not name or names.count(name) > 1:
            why = f"stands {names.count(name)} times" if name else "has no name"
            raise AnnotationError(f"{path}, line {number}: the column {name!r} {why}")
    return names


def _cells(path: Path, number: int, names: list[str], cells: list[str]) -> dict[str, str]:
    if any(cell.strip() for cell in cells[len(names) :]):
        raise AnnotationError(
            f"{path}, line {number}: {len(cells)} cells for {len(names)} columns: a text that "
            'holds the delimiter stands between quotes, "like, this"'
        )
    given = zip(names, cells, strict=False)
    return {name: cell for name, cell in given if cell.strip()}
