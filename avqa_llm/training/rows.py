"""Instruction rows as files give them: one clip a line, with its record and its questions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import LABELS
from avqa_llm.prompt import Prompt, Turn
from avqa_llm.training.packing import Piece


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its answer and the way there."""

    question: str
    steps: str
    answer: str
    evidence: tuple[dict[str, float | None], ...] = ()
    """Where the answer lies: `x` on the picture (None: off-screen), `start_s` and `end_s` of
    the sound (None: silent)."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that is heard or seen in a clip."""

    name: str
    x: float | None = None
    """Across the picture, 0 to 1; None: not to be seen."""
    start_s: float | None = None
    end_s: float | None = None
    """Of its sound; None: silent."""


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """A clip's line of an instruction file."""

    video_id: str
    record: str
    """The event record: what the alignment stage teaches to write."""
    record_without_sound: str
    record_without_picture: str
    questions: tuple[Question, ...]
    events: tuple[Event, ...] = ()
    """What is known to be there, for `naming`."""


def read_rows(path: Path) -> list[ClipRow]:
    """Read a JSONL file of instruction rows.

    Raises:
        AnnotationError: a missing file, a line that is no JSON, a row without a field.
    """
    if not path.exists():
        raise AnnotationError(f"{path} does not exist: write it with `python -m instruct_data`")
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise AnnotationError(f"{path}, line {number}: {error!r}") from error
    return rows


def _row(row: dict[str, Any]) -> ClipRow:
    questions = tuple(
        Question(
            question=q["question"],
            steps=q.get("steps", ""),
            answer=q["answer"],
            evidence=tuple(q.get("evidence", ())),
        )
        for q in row["questions"]
    )
    return ClipRow(
        video_id=row["video_id"],
        record=row["record"],
        record_without_sound=row.get("record_without_sound", row["record"]),
        record_without_picture=row.get("record_without_picture", row["record"]),
        questions=questions,
        events=tuple(Event(**event) for event in row.get("events", ())),
    )


def question_blocks(
    prompt: Prompt,
    questions: list[Question],
    *,
    n_clues: int,
    pair: float,
    drop: float,
    rng: np.random.Generator,
) -> tuple[list[Piece], list[Question]]:
    """Questions as blocks of a packed sequence; some follow another one as a conversation does.

    A share of `pair` of the blocks hold an earlier question and its answer first; a share of
    `drop` of the words is left out (`dropped`).

    Returns:
        The blocks, and the question that each of them ends with.
    """
    blocks, last, waiting = [], [], list(questions)
    while waiting:
        asked = waiting.pop()
        earlier: list[int] = []
        if again := bool(waiting) and rng.random() < pair:
            before = waiting.pop()
            earlier = prompt.history([Turn(question=before.question, answer=before.answer)])
        words = dropped(asked.question, drop, rng)
        head = prompt.question(words, n_clues, again=again)
        blocks.append(Piece.of(earlier + head, prompt.answer(asked.steps, asked.answer)))
        last.append(asked)
    return blocks, last


def dropped(question: str, share: float, rng: np.random.Generator) -> str:
    """The question without some of its words; names, sides and orders always stay."""
    words = question.split()
    gone = rng.random(len(words)) < share
    kept = [w for w, out in zip(words, gone, strict=True) if not out or w.strip("?.,") in _KEPT]
    return " ".join(kept)


_KEPT = frozenset(
    word
    for name in (
        *LABELS,
        *"first last second third fourth fifth before after loudest lowest".split(),
    )
    if name != "more than ten"
    for word in (*name.replace("_", " ").split(), f"{name}s")
)
