"""Reads conversations about clips: VideoInstruct's rows, LLaVA's rows, and files of one's own.

    {"video": "NAME", "q": "...", "a": "..."}          also `video_id` or `v_id`
    {"video": "NAME", "conversations": [{"from": "human", "value": "<video>\\n..."},
                                        {"from": "gpt", "value": "..."}, ...]}    also `id`

in a JSON list or as JSONL, which is streamed. Optional in both: `start` and `end` (seconds),
`split`, `licence`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from avqa_llm.errors import AnnotationError
from instruct_data.records import Clip, Record, Turn
from instruct_data.sources.fields import Fields, provenance, read_rows, short

NAME = "conversations"
UNSTATED = "unstated"
SPEAKERS = ("human", "gpt")

_OPTIONAL = ("start", "end", "split", "licence")
_EXCHANGE_NAMES = ("video", "video_id", "v_id")
_DIALOGUE_NAMES = ("video", "id")
MEDIA_TOKEN = r"<(?:video|audio|image)>"
_AT_THE_ENDS = re.compile(rf"^(?:\s*{MEDIA_TOKEN})+|(?:{MEDIA_TOKEN}\s*)+$")


def read(path: Path, split: str) -> Iterator[Record]:
    """One record a row; rows that name another split than `split` are not part of it.

    With an empty `split` every row is read and keeps its own.

    Raises:
        AnnotationError: the file or a row is not of this format (names file, row and field), or
            no row is of that split.
    """
    rows, sha256 = read_rows(path)
    return _records(path, rows, split, sha256)


def _records(path: Path, rows: Iterator[Fields], split: str, sha256: str) -> Iterator[Record]:
    others: dict[str, None] = {}
    some = False
    for row in rows:
        record = _record(row, split, sha256)
        if split and record.split != split:
            others[record.split] = None
            continue
        some = True
        yield record
    if not some:
        found = f": its rows are of {', '.join(others)}" if others else ""
        raise AnnotationError(f"{path} has no row of the split {split!r}{found}")


def _record(row: Fields, split: str, sha256: str) -> Record:
    if "conversations" in row.raw:
        row.only(*_DIALOGUE_NAMES, "conversations", *_OPTIONAL)
        said = exchanges(row, without_media_tokens)
        video = row.relative_path("video" if "video" in row.raw else "id")
    else:
        row.only(*_EXCHANGE_NAMES, "q", "a", *_OPTIONAL)
        said = [(without_media_tokens(row, "q", row.text("q")), row.text("a"))]
        video = _video(row)
    own_split = row.optional_text("split")
    start_s, end_s = _span(row)
    return Record(
        id=f"{NAME}:{own_split or split or '-'}:{row.path.stem}:{row.number}",
        kind="question" if len(said) == 1 else "dialogue",
        clip=Clip(video=video, start_s=start_s, end_s=end_s),
        turns=tuple(Turn(question=question, answer=answer) for question, answer in said),
        source=NAME,
        split=own_split or split,
        licence=row.optional_text("licence") or UNSTATED,
        provenance=(provenance(row.path, sha256, row.number),),
    )


def _video(row: Fields) -> str:
    names = {field: row.relative_path(field) for field in _EXCHANGE_NAMES if field in row.raw}
    if not names:
        raise row.wrong("video", f"is missing, and so are {' and '.join(_EXCHANGE_NAMES[1:])}")
    (field, name), *others = names.items()
    for other, different in others:
        if different != name:
            why = f"{short(different)} is not the clip of {field!r}, {short(name)}: keep one"
            raise row.wrong(other, why)
    return name


def _span(row: Fields) -> tuple[float | None, float | None]:
    start, end = row.number_from_zero("start"), row.number_from_zero("end")
    if end is not None and end <= (start or 0.0):
        raise row.wrong("end", f"{end:g} s is not after the start, {start or 0.0:g} s")
    return start, end


def exchanges(row: Fields, plain: Callable[[Fields, str, str], str]) -> list[tuple[str, str]]:
    """Questions with their answers, from the list `conversations`: human, gpt, human, gpt ...

    `plain` makes a question out of what the human says; it is given row, field and text.
    """
    said = row.raw.get("conversations")
    if not isinstance(said, list) or not said:
        raise row.wrong("conversations", f"should be a list of messages, is {short(said)}")
    values = [_said(row, place, message) for place, message in enumerate(said)]
    if len(values) % 2:
        raise row.wrong("conversations", f"its last message, number {len(values)}, has no answer")
    return [
        (plain(row, f"conversations[{place}].value", values[place]), values[place + 1])
        for place in range(0, len(values), 2)
    ]


def _said(row: Fields, place: int, message: object) -> str:
    field = f"conversations[{place}]"
    if not isinstance(message, dict) or set(message) != {"from", "value"}:
        raise row.wrong(field, f"should have 'from' and 'value' alone, is {short(message)}")
    wanted = SPEAKERS[place % 2]
    if message["from"] != wanted:
        order = "human and gpt take turns, human first"
        raise row.wrong(
            f"{field}.from", f"should be {wanted!r}, is {short(message['from'])}: {order}"
        )
    return row.checked(f"{field}.value", message["value"])


def without_media_tokens(row: Fields, field: str, text: str) -> str:
    """What is asked, without `<video>`, `<audio>` and `<image>` at its beginning and end."""
    question = _AT_THE_ENDS.sub("", text).strip()
    if not question:
        raise row.wrong(field, f"{short(text)} asks nothing")
    return question
