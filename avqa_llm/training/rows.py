"""Instruction rows as files give them: one clip a line, with its record and its questions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.errors import AnnotationError
from avqa_llm.prompt import Prompt
from avqa_llm.training.packing import Piece


@dataclass(frozen=True, kw_only=True)
class Question:
    question: str
    steps: str
    answer: str
    evidence: tuple[dict[str, float | None], ...] = ()
    """Where the answer lies: `x` on the picture (None: off-screen), `start_s`, `end_s` of the sound."""


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    video_id: str
    record: str
    """The event record: what the alignment stage teaches to write."""
    questions: tuple[Question, ...]


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
    return ClipRow(video_id=row["video_id"], record=row["record"], questions=questions)


def question_blocks(
    prompt: Prompt, questions: list[Question], *, n_clues: int, pair: float, rng: np.random.Generator
) -> list[Piece]:
    """Questions as blocks of a packed sequence; some follow another one as a conversation does.

    `pair` is the share of blocks that hold an earlier question and its answer first.
    """
    blocks, waiting = [], list(questions)
    while waiting:
        asked = waiting.pop()
        given: list[int] = []
        learned_first: list[bool] = []
        again = bool(waiting) and rng.random() < pair
        if again:
            earlier = waiting.pop()
            head = prompt.question(earlier.question, 0)
            said = prompt.answer("", earlier.answer)
            given = head + said + prompt.turn_close
            learned_first = [False] * len(given)
        head = prompt.question(asked.question, n_clues, again=again)
        said = prompt.answer(asked.steps, asked.answer)
        blocks.append(
            Piece(
                ids=given + head + said,
                learn=learned_first + [False] * len(head) + [True] * len(said),
            )
        )
    return blocks
