"""How a model does on rows that it does not learn from, in the figures of the evaluation.

Closed questions are answered as `avqa ask` answers them, by likelihood over the labels (or the
row's choices); an answer is right if its label is the row's. What counts is the share of right
answers in percent, with a 95 % interval from resampling whole videos, beside the floor: what the
most frequent answer to each question's template (or text) reaches without seeing or hearing.

Legend: V videos.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import NO_ANSWER, to_label
from avqa_llm.model import AVQAModel
from avqa_llm.training.features import ClipFeatures
from avqa_llm.training.rows import ClipRow, Question

CLIPS = 16
"""Clips that are read as one batch."""
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of the validation rows with the answer that it got."""

    video: str
    type: str
    gold: str
    answer: str
    floor: bool
    """Whether the most frequent answer to this kind of question is right."""

    @property
    def right(self) -> bool:
        """Whether the answer is."""
        return self.answer == self.gold


class Validation:
    """Asks the validation rows whatever the model's weights are at the moment."""

    def __init__(
        self,
        model: AVQAModel,
        rows: Sequence[ClipRow],
        features: ClipFeatures,
        *,
        questions: int,
        known: Sequence[ClipRow] = (),
    ) -> None:
        """`known`: the rows that are learned from; the floor is what their answers make.

        Raises:
            AnnotationError: none of the rows has a closed answer.
        """
        self.model, self.features = model, features
        self.pairs = _closed(rows)[:questions]
        if not self.pairs:
            raise AnnotationError(
                "none of the validation rows has an answer of the closed set (or choices), so"
                " there is nothing that could be right or wrong; leave `validate` out"
            )
        self.rows = rows
        self.usual = usual_answers([*known, *rows] if not known else known)
        self.asked: list[Asked] = []

    def __call__(self) -> dict[str, float]:
        """Overall accuracy in percent, as `score` and `accuracy`, and the floor."""
        self.asked = self.ask()
        accuracy = percent([a.right for a in self.asked])
        return {
            "score": accuracy,
            "accuracy": accuracy,
            "floor": percent([a.floor for a in self.asked]),
        }

    def ask(self) -> list[Asked]:
        """Ask all questions, clip after clip."""
        from avqa_llm.engine import LocalEngine

        by_clip: dict[int, list[Question]] = defaultdict(list)
        for clip, question in self.pairs:
            by_clip[clip].append(question)
        engine = LocalEngine(self.model, merge=False)
        clips, asked = list(by_clip), []
        for at in range(0, len(clips), CLIPS):
            some = clips[at : at + CLIPS]
            pairs = [(n, q) for n, clip in enumerate(some) for q in by_clip[clip]]
            answers = engine.ask(
                engine.digest([self.features.clip(clip) for clip in some]),
                [(n, q.question) for n, q in pairs],
                choices=[q.choices for _, q in pairs],
            )
            for (n, question), answer in zip(pairs, answers, strict=True):
                asked.append(self._judged(some[n], question, answer.label))
        return asked

    def _judged(self, clip: int, question: Question, label: str) -> Asked:
        gold = gold_of(question)
        return Asked(
            video=self.rows[clip].video_id,
            type=question.type,
            gold=gold,
            answer=label,
            floor=self.usual.get(kind_of(question)) == gold,
        )

    def results(self) -> dict[str, object]:
        """What goes into `results.json`: overall and by type, with n and 95 % intervals."""
        asked = self.asked or self.ask()
        types = sorted({a.type for a in asked if a.type})
        return {
            "overall": figures(asked),
            "types": {name: figures([a for a in asked if a.type == name]) for name in types},
            "questions": len(asked),
            "videos": len({a.video for a in asked}),
        }


def _closed(rows: Sequence[ClipRow]) -> list[tuple[int, Question]]:
    """Closed questions, the first of each clip before the second of any."""
    found = [
        (n, k, question)
        for k, row in enumerate(rows)
        for n, question in enumerate(q for q in row.questions if gold_of(q) != NO_ANSWER)
    ]
    return [(k, question) for _, k, question in sorted(found, key=lambda item: item[:2])]


def gold_of(question: Question) -> str:
    """The right answer as an engine would name it."""
    if question.choices:
        return question.answer if question.answer in question.choices else NO_ANSWER
    return question.label or to_label(question.answer)


def kind_of(question: Question) -> str:
    """What questions have in common that a blind guesser would answer alike."""
    return question.template or question.question


def usual_answers(rows: Sequence[ClipRow]) -> dict[str, str]:
    """The most frequent answer to each kind of question; of several the first in the alphabet."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for question in row.questions:
            counts[kind_of(question)][gold_of(question)] += 1
    return {text: min(c, key=lambda a: (-c[a], a)) for text, c in counts.items()}


def figures(asked: Sequence[Asked]) -> dict[str, object]:
    """Accuracy and floor, n, and the interval of the accuracy; as shares, 0 to 1."""
    low, high = interval(asked)
    return {
        "accuracy": round(sum(a.right for a in asked) / len(asked), 4),
        "low": low,
        "high": high,
        "floor": round(sum(a.floor for a in asked) / len(asked), 4),
        "n": len(asked),
    }


def percent(right: Sequence[bool]) -> float:
    """Share of True in percent, two decimals."""
    return round(100 * sum(right) / len(right), 2)


def interval(asked: Sequence[Asked], *, draws: int = DRAWS) -> tuple[float, float]:
    """Percentile interval (95 %) of the accuracy, 0 to 1; whole videos drawn with replacement."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for a in asked:
        sums[a.video][0] += a.right
        sums[a.video][1] += 1
    counts_V2 = np.array(list(sums.values()))
    drawn = np.random.default_rng(0).integers(len(counts_V2), size=(draws, len(counts_V2)))
    right, of = counts_V2[drawn].sum(1).T
    low, high = np.percentile(right / of, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)
