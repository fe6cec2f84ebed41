"""Chat messages with media, as the common trainers read them.

LLaMA-Factory (0.9.6.dev0, August 2026, `data/README.md` and `data/mllm_video_audio_demo.json`):
"sharegpt" formatting with the tags of the openai style; `<video>` and `<audio>` stand in the text
as often as there are paths in `videos` and `audios`; pairs are `messages` up to the question with
`chosen` and `rejected` messages. `dataset_info.json` beside the file describes the columns.

ms-swift (4.6.0.dev0, August 2026, `docs/source_en/Customization/Custom-dataset.md`): the same
messages; pairs end with the chosen answer and have the other one in `rejected_response`. Paths
are best absolute.

TRL (1.10.0.dev0, July 2026, `docs/source/dataset_formats.md`): conversational rows, `messages`,
or `prompt`, `chosen` and `rejected` for DPO; contents are lists of parts as the chat templates of
transformers 5 read them (`{"type": "video", "video": PATH}`). TRL's own collators load images
only; for video and sound pass one that calls the processor's `apply_chat_template`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avqa_llm.errors import AnnotationError
from instruct_data.exports.rows import (
    ExportError,
    Format,
    Row,
    clip_of,
    files,
    pair_of,
    record_of,
    said,
    traced,
    without_marks,
)
from instruct_data.pairs import Pair
from instruct_data.records import Clip, Record, Turn

MARKS = ("<video>", "<audio>", "<image>")
INFO = "dataset_info.json"

Message = dict[str, Any]

# -- LLaMA-Factory and ms-swift: places for media in the text ------------------------------------


def _talk(turns: Sequence[Turn], question: str | None, places: str) -> list[Message]:
    """Messages of the turns and of a last question; `places` stand before the first words."""
    messages: list[Message] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    if question is not None:
        messages.append({"role": "user", "content": question})
    messages[0]["content"] = places + messages[0]["content"]
    return messages


def _media(clip: Clip, folder: Path | None) -> tuple[str, Row]:
    """Places in the text, and the columns with the paths; only of what is given."""
    picture, sound = files(clip, folder)
    columns = {"videos": [picture] if picture else None, "audios": [sound] if sound else None}
    places = ("<video>" if picture else "") + ("<audio>" if sound else "")
    return places, {key: paths for key, paths in columns.items() if paths}


def record_row(record: Record, folder: Path | None) -> Row:
    """A row for supervised training with LLaMA-Factory or ms-swift.

    Raises:
        ExportError: a text holds a place for media.
    """
    without_marks(record, MARKS)
    places, media = _media(record.clip, folder)
    return {**traced(record), "messages": _talk(record.turns, None, places), **media}


def pair_row(pair: Pair, folder: Path | None) -> Row:
    """A row for preference training with LLaMA-Factory (`ranking`)."""
    without_marks(pair, MARKS)
    places, media = _media(pair.clip, folder)
    answers = {
        side: {"role": "assistant", "content": text}
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    messages = _talk(pair.history, pair.question, places)
    return {**traced(pair), "messages": messages, **answers, **media}


def swift_pair_row(pair: Pair, folder: Path | None) -> Row:
    """A row for preference training with ms-swift."""
    row = pair_row(pair, folder)
    row["messages"].append(row.pop("chosen"))
    return {**row, "rejected_response": row.pop("rejected")["content"]}


def read_record(row: Row, folder: Path | None) -> Record:
    """A record of a row.

    Raises:
        AnnotationError: the row is not of this format.
    """
    texts = _texts(said(row, "messages"))
    if len(texts) % 2:
        raise AnnotationError("the last message should be the assistant's")
    return record_of(row, _clip(row, folder), _turns(texts), "messages")


def read_pair(row: Row, folder: Path | None) -> Pair:
    """A pair of a row in LLaMA-Factory's form or in ms-swift's.

    Raises:
        AnnotationError: the row is not of these formats.
    """
    texts = _texts(said(row, "messages"))
    if "rejected_response" in row:
        *texts, chosen = texts
        answers = chosen, str(said(row, "rejected_response", str))
    else:
        answers = said(row, "chosen", dict)["content"], said(row, "rejected", dict)["content"]
    if len(texts) % 2 == 0:
        raise AnnotationError("the messages of a pair should end with a question")
    return pair_of(row, _clip(row, folder), _turns(texts[:-1]), texts[-1], answers, "messages")


def _clip(row: Row, folder: Path | None) -> Clip:
    picture, sound = (next(iter(row.get(key) or ()), None) for key in ("videos", "audios"))
    return clip_of(picture, sound, folder)


def _texts(messages: Sequence[Message]) -> list[str]:
    """Contents in the order of user, assistant, user ...; without places for media."""
    expected = ("user", "assistant")
    texts = []
    for number, message in enumerate(messages):
        if message.get("role") != expected[number % 2]:
            raise AnnotationError(
                f"message {number} is of {message.get('role')!r}, not of the "
                f"{expected[number % 2]}: system prompts and tools have no place in a record"
            )
        texts.append(str(said(message, "content", str)))
    while texts and texts[0].startswith(MARKS):
        texts[0] = texts[0].partition(">")[2]
    return texts


def _turns(texts: Sequence[str]) -> list[Turn]:
    return [
        Turn(question=question, answer=answer)
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    ]


def describe(path: Path, pairs: bool) -> Path:
    """Enter a file into the `dataset_info.json` beside it, under its name without the suffix.

    Raises:
        ExportError: there is such a file that is no JSON object.
    """
    info = path.with_name(INFO)
    try:
        content = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
    except (OSError, ValueError) as error:
        raise ExportError(f"{info} cannot be added to: {error}; name another --out") from error
    if not isinstance(content, dict):
        raise ExportError(f"{info} is not LLaMA-Factory's list of data sets; name another --out")
    columns = {"messages": "messages", "videos": "videos", "audios": "audios"}
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {"user_tag": "user", "assistant_tag": "assistant"}
    entry: Row = {"file_name": path.name, "formatting": "sharegpt"}
    if pairs:
        entry["ranking"] = True
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    content[path.stem] = {**entry, "columns": columns, "tags": tags}
    writing = info.with_name(f"{INFO}.writing")
    writing.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(writing, info)
    return info


# -- TRL: contents as parts ----------------------------------------------------------------------


def _parts(texts: Sequence[Message], clip: Clip, folder: Path | None) -> list[Message]:
    """Messages whose contents are lists of parts, media before the first words."""
    messages = [
        {**message, "content": [{"type": "text", "text": message["content"]}]} for message in texts
    ]
    picture, sound = files(clip, folder)
    media = [{"type": "video", "video": picture}] if picture else []
    media += [{"type": "audio", "audio": sound}] if sound else []
    messages[0]["content"] = media + messages[0]["content"]
    return messages


def trl_record_row(record: Record, folder: Path | None) -> Row:
    """A row of TRL's "language modeling" type."""
    messages = _parts(_talk(record.turns, None, ""), record.clip, folder)
    return {**traced(record), "messages": messages}


def trl_pair_row(pair: Pair, folder: Path | None) -> Row:
    """A row of TRL's "preference" type with an explicit prompt."""
    prompt = _parts(_talk(pair.history, pair.question, ""), pair.clip, folder)
    chosen, rejected = (
        [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
        for text in (pair.chosen, pair.rejected)
    )
    return {**traced(pair), "prompt": prompt, "chosen": chosen, "rejected": rejected}


def read_trl_record(row: Row, folder: Path | None) -> Record:
    """A record of a row. Raises AnnotationError where it is not of this format."""
    plain, clip = _joined(said(row, "messages"), folder)
    return record_of(row, clip, _turns(_texts(plain)), "trl")


def read_trl_pair(row: Row, folder: Path | None) -> Pair:
    """A pair of a row. Raises AnnotationError where it is not of this format."""
    plain, clip = _joined(said(row, "prompt"), folder)
    texts = _texts(plain)
    chosen, rejected = (_text(said(row, side)[-1]) for side in ("chosen", "rejected"))
    return pair_of(row, clip, _turns(texts[:-1]), texts[-1], (chosen, rejected), "trl")


def _joined(messages: Sequence[Message], folder: Path | None) -> tuple[list[Message], Clip]:
    """Messages with plain texts, and the clip of the parts that are media."""
    found: dict[str, str] = {}
    for message in messages:
        for part in said(message, "content"):
            if part.get("type") in ("video", "audio"):
                found[part["type"]] = str(said(part, part["type"], str))
    plain = [{**message, "content": _text(message)} for message in messages]
    return plain, clip_of(found.get("video"), found.get("audio"), folder)


def _text(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part.get("type") == "text")


_MESSAGES = Format(
    what="chat messages with <video> and <audio> in the text, paths in videos and audios",
    suffix=".jsonl",
    record_row=record_row,
    pair_row=pair_row,
    read_record=read_record,
    read_pair=read_pair,
)

FORMATS: dict[str, Format] = {
    "messages": _MESSAGES,
    "llama-factory": replace(
        _MESSAGES, what="the same with LLaMA-Factory's dataset_info.json", beside=describe
    ),
    "ms-swift": replace(
        _MESSAGES,
        what="the same as ms-swift reads pairs, with absolute paths",
        pair_row=swift_pair_row,
        absolute=True,
    ),
    "trl": Format(
        what="TRL's conversational rows, contents as lists of parts",
        suffix=".jsonl",
        record_row=trl_record_row,
        pair_row=trl_pair_row,
        read_record=read_trl_record,
        read_pair=read_trl_pair,
    ),
}
