"""Questions about one's own videos, as a person writes them down: JSON, JSONL or a table.

    {"video": "a.mp4", "question": "...", "answer": "..."}
    {"video": "a.mp4", "questions": [{"question": "...", "answer": "..."}, ...]}
    {"video": "a.mp4", "conversations": [{"from": "human", "value": "..."},
                                         {"from": "gpt", "value": "..."}, ...]}
    {"video": "a.mp4", "messages": [{"role": "user", "content": "..."},
                                    {"role": "assistant", "content": "..."}, ...]}

Optional: `type`, `start` and `end` (seconds), `choices` (in a table parted by `|`), `label`,
`split`. What else a field may be called is listed in `fields.SPELLINGS`. A row that names only
a video is about its sound too; one that names only `audio` is asked by ear alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn
from avqa_llm.training.fields import Fields, clip_of
from avqa_llm.training.lines import Line, short
from avqa_llm.training.rows import Question

CLIP = ("video", "video_id", "audio", "videos", "audios", "start", "end", "split", "id")
ABOUT = ("type", "choices", "label")
ASKED = ("question", "answer")
SHAPES = ("question", "questions", "conversations")
INNER = (*ASKED, *ABOUT, "start", "end", "id")
SPEAKERS = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}
"""Who asks (0) and who answers (1)."""

Talk = list[tuple[str, str]]
"""Questions with their answers."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question with the clip that it is about."""

    video_id: str
    media: str
    cut: Cut
    split: str
    question: Question


def read_own(line: Line) -> Iterator[Asked]:
    """The questions of one row. Raises AnnotationError, which names the line and the field."""
    row = Fields(line, line.value, (*CLIP, *ABOUT, *ASKED, *SHAPES[1:]))
    shapes = [name for name in SHAPES if name in row] or ["question"]
    if len(shapes) > 1 or ("answer" in row and shapes != ["question"]):
        others = ", ".join(SHAPES)
        raise row.wrong(shapes[-1], f"a row has one of {others}, and an answer beside question")
    yield from _READERS[shapes[0]](row)


def _question(row: Fields) -> Iterator[Asked]:
    video_id, media, cut = clip_of(row, {}, two_files=False)
    yield _asked(row, video_id, media, cut, _one(row))


def _questions(row: Fields) -> Iterator[Asked]:
    video_id, media, cut = clip_of(row, {}, two_files=False)
    for n, raw in enumerate(row.items("questions")):
        inner = Fields(row.line, raw, INNER, f"{row.spelled['questions']}[{n}].")
        for name in ("type", "start", "end"):  # what the row says of all its questions
            if name in row and name not in inner:
                inner.values[name], inner.spelled[name] = row.values[name], row.spelled[name]
        own = inner.cut(sound=cut.sound, picture=cut.picture)
        yield _asked(row, video_id, media, own, _one(inner))


def _one(row: Fields) -> Question:
    choices = row.texts("choices")
    return Question(
        question=row.asked("question", row.text("question")),
        steps="",
        answer=row.text("answer"),
        type=kind(row),
        choices=choices,
        label=row.label(choices),
    )


def _conversation(row: Fields) -> Iterator[Asked]:
    said, parts = talk(row, "conversations")
    # AVinstruct names picture and sound each in a field, and has these two beside them.
    names = {name.strip().lower() for name in row.line.value}
    two_files = {"multi_choice", "correct_answer"} <= names
    video_id, media, cut = clip_of(row, parts, two_files=two_files)
    choices = row.texts("choices")
    label = row.label(choices)
    for n, (question, answer) in enumerate(said):
        asked = Question(
            question=question,
            steps="",
            answer=answer,
            history=history(said[:n]),
            type=kind(row),
            # Choices and the right one are the row's: they belong to what is asked first.
            choices=choices if n == 0 else (),
            label=label if n == 0 else None,
        )
        yield _asked(row, video_id, media, cut, asked)


_READERS = {"question": _question, "questions": _questions, "conversations": _conversation}


def _asked(row: Fields, video_id: str, media: str, cut: Cut, question: Question) -> Asked:
    split = row.optional_text("split")
    return Asked(video_id=video_id, media=media, cut=cut, split=split, question=question)


def kind(row: Fields) -> str:
    """The type of a question; MUSIC-AVQA writes it as a list of two."""
    value = row.values.get("type")
    if isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[")):
        return " ".join(row.texts("type"))
    return row.optional_text("type")


def history(said: Talk) -> tuple[Turn, ...]:
    """Questions and answers as earlier turns."""
    return tuple(Turn(question=question, answer=answer) for question, answer in said)


def talk(row: Fields, name: str) -> tuple[Talk, dict[str, list[str]]]:
    """Questions and answers of a list of messages, and the media that are named in them."""
    paths: dict[str, list[str]] = {"video": [], "audio": []}
    texts: list[str] = []
    for n, message in enumerate(row.items(name)):
        place = f"{row.spelled[name]}[{n}]"
        who, content, key = _message(row, name, place, message)
        if SPEAKERS.get(who) != n % 2:
            wanted = "human (user)" if n % 2 == 0 else "gpt (assistant)"
            more = "; the prompt has no place for a system's words" if who == "system" else ""
            why = f"is by {short(who)}, where {wanted} should speak{more}"
            raise row.wrong(name, why, place)
        said = _content(row, name, f"{place}.{key}", content, paths)
        check = row.checked if n % 2 else row.asked
        texts.append(check(name, said, f"{place}.{key}"))
    if len(texts) % 2:
        raise row.wrong(name, f"its last message, number {len(texts)}, has no answer")
    return list(zip(texts[::2], texts[1::2], strict=True)), paths


def _message(row: Fields, name: str, place: str, message: object) -> tuple[str, Any, str]:
    """Who speaks, what, and the key that it stands under."""
    if isinstance(message, dict):
        for who, what in (("from", "value"), ("role", "content")):
            if set(message) == {who, what} and isinstance(message[who], str):
                return message[who].strip().lower(), message[what], what
    why = "should have 'from' and 'value', or 'role' and 'content', and nothing else"
    raise row.wrong(name, f"{why}: {short(message)}", place)


def _content(
    row: Fields, name: str, place: str, content: object, paths: dict[str, list[str]]
) -> object:
    """The text of a message; its parts may name media, which are put to `paths`."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        what = part.get("type") if isinstance(part, dict) else None
        if not isinstance(what, str) or what not in ("text", *paths) or set(part) - {"type", what}:
            why = f"a part is text, video or audio, with no other keys: {short(part)}"
            raise row.wrong(name, why, place)
        if what == "text":
            texts.append(row.checked(name, part.get("text"), place))
        elif what in part:
            paths[what].append(row.checked(name, part[what], place))
    return " ".join(texts)
