"""The controls that every run carries along: a few questions of some chunks, asked four ways.

- *leak*: without sound and picture, with another gold answer planted in the question's record.
  Whoever gives back what was planted has seen the gold answer.
- *empty*: without sound and picture. More than the blind floor cannot be known.
- *deaf*, *blind*: without the sound, without the picture. Where nothing at all changes, the
  modality does not reach the answer, whatever the engine says that it consumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from avqa_llm.answer import Answer
from avqa_llm.labels import COUNT_LABELS, INSTRUMENT_LABELS
from avqa_llm.media import Clip
from eval.benchmarks.base import Question
from eval.engines import Asked, Engine
from eval.scoring import Scorer

CLIPS, QUESTIONS = 2, 8
"""How many clips of a chunk, and of each how many questions."""

SAME = 1e-3
"""Probabilities that differ by less are equal."""

_WAYS: dict[str, Callable[[Clip], Clip]] = {
    "leak": lambda clip: clip.muted().blanked(),
    "empty": lambda clip: clip.muted().blanked(),
    "deaf": lambda clip: clip.muted(),
    "blind": lambda clip: clip.blanked(),
}

Wording = Callable[[Question], str]
"""How a question's record becomes what is asked."""

_FAMILIES = (
    ("yes", "no"),
    COUNT_LABELS,
    INSTRUMENT_LABELS,
    ("left", "middle", "right", "simultaneously"),
    ("indoor", "outdoor"),
)


def asked_as(question: Question) -> str:
    """What is asked: the question, and nothing else of its record."""
    return question.question


def family(question: Question) -> tuple[str, ...]:
    """The answers that could be meant as well as the gold one."""
    return question.choices or next(
        (labels for labels in _FAMILIES if question.gold in labels), (question.gold,)
    )


def planted(question: Question) -> Question:
    """The record with a gold answer drawn evenly from its family; the same one every time."""
    labels = family(question)
    return replace(question, gold=labels[_lot(f"planted {question.number}") % len(labels)])


def controls(
    engine: Engine,
    clips: Sequence[Clip],
    questions: Sequence[Sequence[Question]],
    before: Mapping[int, Answer],
    *,
    wording: Wording,
    score: Scorer,
) -> list[dict[str, Any]]:
    """Ask the controls of a chunk; a row each. `before` are the answers by row."""
    picked = sorted(range(len(clips)), key=lambda n: _lot(f"{questions[n][0].number} clip"))
    chosen = sorted(picked[:CLIPS])
    asked = [
        (at, question)
        for at, n in enumerate(chosen)
        for question in sorted(questions[n], key=lambda q: _lot(f"{q.number} question"))[:QUESTIONS]
    ]
    own = [clips[n] for n in chosen]
    shown: list[Clip] = []
    rows: list[tuple[str, int, Question]] = []
    for name, change in _WAYS.items():
        rows += [
            (name, len(shown) + at, planted(question) if name == "leak" else question)
            for at, question in asked
        ]
        shown += [change(clip) for clip in own]
    answers = engine.answer(
        shown,
        [
            Asked(clip=at, question=wording(question), choices=question.choices)
            for _, at, question in rows
        ],
    )
    return [
        _row(name, question, answer, before[question.number], own[at % len(own)], score)
        for (name, at, question), answer in zip(rows, answers, strict=True)
    ]


def _row(
    name: str,
    question: Question,
    answer: Answer,
    before: Answer,
    clip: Clip,
    score: Scorer,
) -> dict[str, Any]:
    label, could_be = score(answer.answer, question), family(question)
    return {
        "control": name,
        "row": question.number,
        "video_id": question.video_id,
        "gold": question.gold,
        "label": label,
        # How often an answer hits what was drawn evenly, if it knows nothing of it.
        "chance": 1 / len(could_be) if label in could_be else 0.0,
        "same": _same(answer, before),
        "measured": answer.probability is not None,
        "had_sound": clip.has_sound,
        "had_picture": clip.has_picture,
    }


def _same(one: Answer, other: Answer) -> bool:
    """Equal but for what another batch changes in the last digits."""
    if one.probability is None or other.probability is None:
        return one.answer == other.answer
    return one.answer == other.answer and abs(one.probability - other.probability) < SAME


def _lot(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
