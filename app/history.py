"""What was said before, in one shape.

Gradio hands a conversation over in three: messages whose content is a list of blocks, a list that
mixes `{"path": ...}` with text, and a bare string. All of it comes from the visitor's side, so
nothing in it is trusted: what has an unknown shape counts as nothing, and lengths are bounded.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_EXCHANGES = 200
MOST_CHARS = 2000
"""Of a question or an answer."""
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question of the visitor, and what was answered."""

    question: str
    answer: str
    """The first line of what was said, without its markup; may be empty."""
    answered: bool
    """Whether anything was said to it yet."""
    files: tuple[str, ...] = ()
    """As the visitor's side names them: for people, not to be opened."""


def exchanges(history: object) -> list[Exchange]:
    """The conversation, each question with its answer; never raises.

    Messages of one speaker in a row are one: a file and its question arrive as two.
    """
    found: list[Exchange] = []
    texts: list[str] = []
    files: list[str] = []
    answers: list[str] = []
    for role, content in _messages(history):
        if role == "user" and answers:
            found.append(_exchange(texts, answers, files))
            texts, files, answers = [], [], []
        if role == "user":
            for kind, value in _pieces(content):
                (files if kind == "file" else texts).append(value)
        elif texts or files:
            answers += [value for kind, value in _pieces(content) if kind == "text"] or [""]
    if texts or files:
        found.append(_exchange(texts, answers, files))
    return found[-MOST_EXCHANGES:]


def request(message: object) -> tuple[str, tuple[str, ...]]:
    """Text and files of what was just sent: `{"text", "files"}`, or bare text."""
    if isinstance(message, str):
        return cleaned(message), ()
    if not isinstance(message, dict):
        return "", ()
    text = message.get("text")
    listed = message.get("files")
    files = listed if isinstance(listed, list) else []
    named = tuple(name for one in files for name in (_path(one),) if name)
    return cleaned(text) if isinstance(text, str) else "", named


def cleaned(text: str) -> str:
    """Without control characters, which could pass for marks of a prompt; bounded."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text[:MOST_CHARS])
    return " ".join(kept.split())


def _exchange(texts: list[str], answers: list[str], files: list[str]) -> Exchange:
    said = next((line for text in answers for line in text.splitlines() if line.strip()), "")
    return Exchange(
        question=cleaned(" ".join(texts)),
        answer=_plain(said),
        answered=bool(answers),
        files=tuple(dict.fromkeys(files)),
    )


def turns_of(history: object) -> int:
    """How many questions were put before the one that comes now.

    Where a question is edited, the clip that came with it stands in the history already.
    """
    return sum(exchange.answered for exchange in exchanges(history))


def _plain(line: str) -> str:
    """A line of an answer as it was said: bold, tags and entities taken away."""
    bold = re.match(r"\s*\*\*(.+?)\*\*", line)
    line = bold[1] if bold else line
    return cleaned(html.unescape(_TAG.sub("", line)))


def _messages(history: object) -> Iterator[tuple[str, object]]:
    for message in history if isinstance(history, list) else ():
        if isinstance(message, dict) and message.get("role") in ("user", "assistant"):
            yield message["role"], message.get("content")


def _pieces(content: object) -> Iterator[tuple[str, str]]:
    """What a content consists of: `text` or `file`, and its value."""
    for piece in content if isinstance(content, list | tuple) else (content,):
        if isinstance(piece, str):
            yield "text", piece
        elif name := _path(piece):
            yield "file", name
        elif isinstance(piece, dict) and isinstance(piece.get("text"), str):
            yield "text", piece["text"]


def _path(piece: Any) -> str:
    """The name of a file in one of the shapes that have one; empty where there is none."""
    if isinstance(piece, str):
        return piece
    if not isinstance(piece, dict):
        return ""
    inner = piece.get("file")
    path = inner.get("path") if isinstance(inner, dict) else piece.get("path")
    return path[:4096] if isinstance(path, str) else ""
