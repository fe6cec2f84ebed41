"""Lines of the files that `instruct_data` writes: instruction records, pairs, Bandstand's rows.

The files are the contract between the two folders: what stands here is read from them alone,
and a field that is not known is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from avqa_llm.errors import MediaError
from avqa_llm.labels import LABELS
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn
from avqa_llm.training.lines import Line, clean, short, unknown
from avqa_llm.training.own import Asked
from avqa_llm.training.rows import ClipRow, Event, Question

CAPTION = "caption"
"""The type of a question that asks for a description."""
DESCRIBE = "Describe what happens in the clip."
"""What a description is asked for with, where its record has no question."""

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class SaidTurn:
    """A turn of a record."""

    question: str
    answer: str
    label: str | None = None
    template: str | None = None
    slots: tuple[str, ...] = ()
    type: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class RecordClip:
    """The clip of a record."""

    video: str
    start_s: float | None = None
    end_s: float | None = None
    sound: bool = True
    picture: bool = True
    mirrored: bool = False
    reversed: bool = False

    def cut(self, line: Line) -> Cut:
        """What is done to the clip. Raises AnnotationError where times are wrong."""
        names = ("start_s", "end_s", "sound", "picture", "mirrored", "reversed")
        try:
            return Cut(**{name: getattr(self, name) for name in names})
        except MediaError as error:
            raise line.wrong("clip", str(error)) from error


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class _Record:
    id: str
    kind: Literal["question", "dialogue", "caption"]
    clip: RecordClip
    turns: tuple[SaidTurn, ...]
    source: str
    split: str
    licence: str
    provenance: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class _InstructQuestion:
    question: str
    answer: str
    steps: str = ""
    template: str = ""
    question_id: int | None = None
    evidence: tuple[dict[str, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class _InstructEvent:
    name: str
    x: float | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class _Instruct:
    video_id: str
    record: str
    record_without_sound: str | None = None
    record_without_picture: str | None = None
    questions: tuple[_InstructQuestion, ...]
    events: tuple[_InstructEvent, ...] = ()


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_INNER: dict[tuple[str, str], type] = {
    ("_Record", "clip"): RecordClip,
    ("_Record", "turns"): SaidTurn,
    ("_Pair", "clip"): RecordClip,
    ("_Pair", "history"): SaidTurn,
    ("_Instruct", "questions"): _InstructQuestion,
    ("_Instruct", "events"): _InstructEvent,
}
"""What lies in a field, to name its fields in a message."""


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked(line: Line, kind: type[Read]) -> Read:
    """A line as the dataclass that it should be. Raises AnnotationError: line, field, why."""
    try:
        text = json.dumps(line.value)
        found: Read = _adapter(cast(Any, kind)).validate_json(text)
    except ValidationError as error:
        raise line.wrong(*_first_fault(kind, error)) from error
    except (ValueError, RecursionError) as error:
        raise line.wrong("the line", "too much is nested in it") from error
    return found


def _first_fault(kind: type, error: ValidationError) -> tuple[str, str]:
    """The field that is wrong, and why."""
    faults = error.errors(include_url=False, include_context=False)
    # A field that is misspelt is missing too: what stands there says more.
    fault = next((one for one in faults if one["type"] in _UNKNOWN), faults[0])
    *above, last = map(str, fault["loc"]) if fault["loc"] else ["the line"]
    place = ".".join((*above, last))
    if fault["type"] in _UNKNOWN:
        inner = _INNER.get((kind.__name__, above[0]), kind) if above else kind
        names = [field.name for field in fields(inner)]
        return place, unknown(last, dict(zip(names, names, strict=True)))
    if fault["type"] in ("missing", "missing_argument"):
        return place, "is missing"
    return place, f"{fault['msg'].lower()}, is {short(fault['input'])}"


def text(line: Line, field: str, value: str) -> str:
    """A text that says something. Raises AnnotationError."""
    said = clean(value)
    if said is None:
        raise line.wrong(field, f"should be text, is {short(value)}")
    return said


def turns(line: Line, field: str, said: tuple[SaidTurn, ...]) -> tuple[Turn, ...]:
    """Turns of a record as earlier turns of a prompt."""
    return tuple(
        Turn(
            question=text(line, f"{field}.{n}.question", turn.question),
            answer=text(line, f"{field}.{n}.answer", turn.answer),
        )
        for n, turn in enumerate(said)
    )


def read_record(line: Line) -> Iterator[Asked]:
    """The questions of an instruction record; later turns carry the earlier ones as history."""
    record = checked(line, _Record)
    if not record.turns:
        raise line.wrong("turns", "is empty: a record asks at least one question")
    caption = record.kind == CAPTION
    said = record.turns
    if caption and not said[0].question.strip():
        first = said[0]
        said = (SaidTurn(question=DESCRIBE, answer=first.answer, label=first.label), *said[1:])
    earlier, cut = turns(line, "turns", said), record.clip.cut(line)
    video = text(line, "clip.video", record.clip.video)
    for n, turn in enumerate(said):
        asked = Question(
            question=earlier[n].question,
            steps="",
            answer=earlier[n].answer,
            history=earlier[:n],
            type=turn.type or (CAPTION if caption else ""),
            template=turn.template or "",
            choices=turn.choices,
            label=turn.label,
        )
        yield Asked(video_id=video, media=video, cut=cut, split=record.split, question=asked)


def read_instruct(line: Line) -> ClipRow:
    """A clip's line of Bandstand's `instruct.jsonl`; its answers are labels."""
    row = checked(line, _Instruct)
    video = text(line, "video_id", row.video_id)
    record = row.record
    deaf, blind = row.record_without_sound, row.record_without_picture
    return ClipRow(
        video_id=video,
        record=record,
        record_without_sound=record if deaf is None else deaf,
        record_without_picture=record if blind is None else blind,
        questions=tuple(
            Question(
                question=text(line, f"questions.{n}.question", asked.question),
                steps=asked.steps,
                answer=text(line, f"questions.{n}.answer", asked.answer),
                evidence=asked.evidence,
                template=asked.template,
                label=asked.answer if asked.answer in LABELS else None,
            )
            for n, asked in enumerate(row.questions)
        ),
        events=tuple(
            Event(name=event.name, x=event.x, start_s=event.start_s, end_s=event.end_s)
            for event in row.events
        ),
        media=video,
    )
