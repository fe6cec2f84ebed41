"""What a set of rows holds, for a person who is about to train on it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from avqa_llm.media.changes import Cut
from avqa_llm.training.lines import short
from avqa_llm.training.records import CAPTION
from avqa_llm.training.rows import ClipRow, Question

SHOWN = 5
UNTYPED = "without type"
MODALITIES = {
    (True, True): "both",
    (False, True): "video-only",
    (True, False): "sound-only",
    (False, False): "neither",
}
"""By whether sound and picture are given."""


def summary(rows: Sequence[ClipRow]) -> dict[str, Any]:
    """Counts of a set.

    Returns:
        `clips` (rows), `files` (different media), `with_record`, `questions`, `with_history`;
        `by_type` and `by_modality`, questions of each; `longest_question` and `longest_answer`,
        in words; `repeated`, questions that were asked and answered the same before;
        `contradictions`, questions about a clip that have different answers, with the first few
        in words; `blind_floor`, in percent, see `blind_floor`, and `blind_floor_of`, how many
        questions that share is of.
    """
    asked = [(row, question) for row in rows for question in row.questions]
    floor, counted = blind_floor(rows)
    repeated, different = _repeated(rows)
    return {
        "clips": len(rows),
        "files": len({row.media or row.video_id for row in rows}),
        "with_record": sum(bool(row.record) for row in rows),
        "questions": len(asked),
        "with_history": sum(bool(question.history) for _, question in asked),
        "by_type": dict(Counter(q.type or UNTYPED for _, q in asked).most_common()),
        "by_modality": dict(Counter(_modality(row.cut) for row, _ in asked).most_common()),
        "longest_question": max((len(q.question.split()) for _, q in asked), default=0),
        "longest_answer": max((len(q.answer.split()) for _, q in asked), default=0),
        "blind_floor": floor,
        "blind_floor_of": counted,
        "repeated": repeated,
        "contradictions": {"count": len(different), "first": different[:SHOWN]},
    }


def blind_floor(rows: Sequence[ClipRow]) -> tuple[float | None, int]:
    """How many percent are right by the most frequent answer, without hearing or seeing a clip.

    Questions are one if they have the same template, or the same words where none is known.
    Counted are those that are asked at least twice: a question that is asked once would always
    be right. Descriptions are not counted.

    Returns:
        The share, None where no question comes twice; and of how many questions it is.
    """
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for question in row.questions:
            if question.type != CAPTION:
                answers[question.template or _words(question.question)][_answer(question)] += 1
    asked = [counts for counts in answers.values() if counts.total() > 1]
    total = sum(counts.total() for counts in asked)
    right = sum(max(counts.values()) for counts in asked)
    return (100 * right / total if total else None), total


def _repeated(rows: Sequence[ClipRow]) -> tuple[int, list[str]]:
    """How many questions come again with the same answer; those with different ones, in words."""
    answers: dict[tuple[Any, ...], dict[str, Question]] = {}
    repeated = 0
    for row in rows:
        for question in row.questions:
            said = tuple((_words(t.question), _words(t.answer)) for t in question.history)
            key = (row.media or row.video_id, row.cut, said, _words(question.question))
            known = answers.setdefault(key, {})
            # Descriptions may differ and all be right.
            if _answer(question) in known or (known and question.type == CAPTION):
                repeated += 1
                continue
            known[_answer(question)] = question
    return repeated, list(_different(answers))


def _different(answers: dict[tuple[Any, ...], dict[str, Question]]) -> Iterator[str]:
    for (media, *_), known in answers.items():
        if len(known) > 1:
            said = " and ".join(short(question.answer) for question in known.values())
            question = next(iter(known.values())).question
            yield f"{media}: {short(question)} is answered {said}"


def _modality(cut: Cut) -> str:
    return MODALITIES[cut.sound, cut.picture]


def _words(text: str) -> str:
    """A text of which only the words count."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _answer(question: Question) -> str:
    return _words(question.answer if question.label is None else question.label)
