"""What is known about the answers of a set: which are given how often, and about which clips."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from instruct_data.bandstand.balance import V1_ANSWERS
from instruct_data.records import Record, Turn
from instruct_data.sentences import ANSWERS
from instruct_data.templates import TEMPLATES

CAPTIONS = 1000
"""Descriptions kept to draw those of other clips from."""
VIDEOS = 3
"""Clips remembered for each answer to a question."""
CAPTION_DRAWS = 8
"""Draws of another clip's description before it is given up."""


class NoPair(Exception):
    """Why a turn gives no pair of the wanted tag; counted, never shown as an error."""


class Answers:
    """How often each answer is given to each question of a set, and about which clips."""

    def __init__(self) -> None:
        self.shares: dict[str, Counter[str]] = defaultdict(Counter)
        """Answers by template."""
        self._asked: dict[tuple[str, ...], dict[str, list[str]]] = {}
        self._captions: list[tuple[str, str]] = []

    @classmethod
    def of(cls, records: Iterable[Record]) -> Answers:
        """Count a set."""
        answers = cls()
        for record in records:
            answers.add(record)
        return answers

    def add(self, record: Record) -> None:
        """Count a record."""
        if record.kind == "caption" and len(self._captions) < CAPTIONS:
            self._captions.append((record.clip.video, record.turns[0].answer))
        for number, turn in enumerate(record.turns):
            if turn.label is None:
                continue
            if turn.template is not None:
                self.shares[turn.template][turn.label] += 1
            if key := _asked_as(turn, follows=number > 0):
                videos = self._asked.setdefault(key, {}).setdefault(turn.label, [])
                if len(videos) < VIDEOS and record.clip.video not in videos:
                    videos.append(record.clip.video)

    def wrong(self, turn: Turn, rng: np.random.Generator) -> str:
        """Draw a plausible wrong label: as often as the set answers the template with it.

        Raises:
            NoPair: there is none to draw from.
        """
        if turn.label is None:
            raise NoPair("the answer is open: nothing is known to be wrong")
        possible = without(
            dict.fromkeys(turn.choices or ANSWERS.get(family(turn), ()), 1), turn.label
        )
        template = turn.template or ""
        for known in (self.shares.get(template, {}), V1_ANSWERS.get(template, {}), possible):
            if counts := {label: n for label, n in known.items() if label in possible}:
                return drawn(counts, rng)
        raise NoPair("no other answer to the question is known")

    def elsewhere(
        self, turn: Turn, video: str, rng: np.random.Generator, *, follows: bool
    ) -> tuple[str, str]:
        """Draw another label of the same question, which holds for another clip, and that clip.

        Raises:
            NoPair: the set does not ask the same of another clip with another answer.
        """
        key = _asked_as(turn, follows=follows) if turn.label else None
        if key is None:
            raise NoPair("the question is open or follows up on another: not asked elsewhere")
        found = [
            (label, other)
            for label, videos in self._asked.get(key, {}).items()
            for other in videos
            if label != turn.label and other != video and _fits(turn, label)
        ]
        if not found:
            raise NoPair("the same question has no other answer about another clip")
        return found[int(rng.integers(len(found)))]

    def caption(self, video: str, rng: np.random.Generator) -> tuple[str, str]:
        """Draw the description of another clip, and that clip."""
        for _ in range(CAPTION_DRAWS if self._captions else 0):
            other, text = self._captions[int(rng.integers(len(self._captions)))]
            if other != video:
                return text, other
        raise NoPair("no other clip is described")


def family(turn: Turn) -> str:
    """The kind of a turn's answers, a key of ANSWERS; `any` where it is open."""
    if turn.template in TEMPLATES:
        return TEMPLATES[turn.template].answers
    if turn.choices:
        return "any"
    return next((name for name, labels in ANSWERS.items() if turn.label in labels), "any")


def _fits(turn: Turn, label: str) -> bool:
    """Whether a label can answer the turn; a file's mistakes are not passed on."""
    kind = family(turn)
    return kind not in ANSWERS or label in ANSWERS[kind]


def _asked_as(turn: Turn, *, follows: bool) -> tuple[str, ...] | None:
    """What the same question has in common; None where its meaning hangs on earlier ones."""
    if turn.template is not None:
        return (turn.template, *turn.slots)
    return None if follows else ("", plain(turn.question), *turn.choices)


def without(counts: Mapping[str, int], label: str) -> dict[str, int]:
    return {other: count for other, count in counts.items() if other != label}


def drawn(counts: Mapping[str, int], rng: np.random.Generator) -> str:
    names = sorted(counts)  # the order in which a set is read must not matter
    weights = np.array([counts[name] for name in names], dtype=float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def plain(text: str) -> str:
    """Lower-case words without punctuation and articles."""
    words = re.findall(r"\w+", text.lower().replace("_", " "))
    return " ".join(word for word in words if word not in ("a", "an", "the"))
