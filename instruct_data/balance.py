"""What keeps answers from being guessable: the blind floor, the balance dial, and negatives.

The blind floor is what is right without sound and picture, by giving each template's most
frequent answer. Training answers with a high floor teach a model to answer from the question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.errors import AnnotationError
from instruct_data.mixing import Array, stream
from instruct_data.records import Record, Turn
from instruct_data.templates import SLOT_VALUES, TEMPLATES, fill

TWO_ANSWERS = 0.6
"""Largest share of an answer of a template with two of them, fully balanced."""
MANY_ANSWERS = 0.5
"""The same of a template with more answers."""
_TWO = frozenset({"yes-no", "place"})

Counts = Mapping[str, Counter[str]]
"""Per template, how often each label is the answer."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What is right blindly, of the questions that have a template and a label."""

    questions: int
    right: int

    @property
    def share(self) -> float | None:
        """0..1; None without questions."""
        return self.right / self.questions if self.questions else None


def blind_floor(counts: Counts) -> Floor:
    """Give each template's most frequent answer to all of its questions."""
    return Floor(
        questions=sum(answers.total() for answers in counts.values()),
        right=sum(max(answers.values(), default=0) for answers in counts.values()),
    )


def most_frequent(answers: Counter[str]) -> str:
    """The label given most often; of equally frequent ones the first in the alphabet."""
    return min(answers, key=lambda label: (-answers[label], label))


def surplus(answers: Counter[str], template: str, dial: float) -> int:
    """How many questions with the most frequent answer are too many.

    The limit moves with the dial from the share that the answer has to `TWO_ANSWERS` or
    `MANY_ANSWERS`. Limits are at least a half, so only one answer can exceed them. A template
    all of whose questions have one answer cannot be balanced by leaving out, and stays.
    """
    top = max(answers.values(), default=0)
    rest = answers.total() - top
    target = TWO_ANSWERS if TEMPLATES[template].answers in _TWO else MANY_ANSWERS
    if not rest or top <= target * (top + rest):
        return 0
    now = top / (top + rest)
    limit = now - dial * (now - target)
    # Of the answers kept, `top / (top + rest) <= limit`; the small number is for rounding.
    return max(0, top - int(limit / (1 - limit) * rest + 1e-9))


@dataclass(frozen=True, kw_only=True)
class Trim:
    """What the dial took from one template."""

    template: str
    answer: str
    before: int
    """Questions with this answer before."""
    dropped: int


def balance(
    template_N: Array,
    label_N: Array,
    draw_N: Array,
    names: tuple[list[str], list[str]],
    dial: float,
) -> tuple[Array, list[Trim]]:
    """Which of N questions stay, and what was taken.

    `template_N` and `label_N` are indices into the two lists of `names`; -1 is none, and stays.
    Of the surplus, those with the highest draw go.
    """
    keep_N = np.ones(len(template_N), bool)
    trims = []
    for at, answers in sorted(count(template_N, label_N).items()):
        named = Counter({names[1][label]: n for label, n in answers.items()})
        extra = surplus(named, names[0][at], dial)
        if not extra:
            continue
        answer = most_frequent(named)
        label = names[1].index(answer)
        fitting = np.flatnonzero((template_N == at) & (label_N == label))
        keep_N[fitting[np.argsort(draw_N[fitting], kind="stable")][-extra:]] = False
        template = names[0][at]
        trims.append(Trim(template=template, answer=answer, before=named[answer], dropped=extra))
    return keep_N, trims


def count(template_N: Array, label_N: Array) -> dict[int, Counter[int]]:
    """Per template index, how often each label index is the answer; -1 counts nowhere."""
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    known = (template_N >= 0) & (label_N >= 0)
    pairs_KD = np.stack([template_N[known], label_N[known]], 1)
    for (template, label), n in zip(*np.unique(pairs_KD, axis=0, return_counts=True), strict=True):
        counts[int(template)][int(label)] = int(n)
    return dict(counts)


# --- negatives --------------------------------------------------------------------------------

BY_EAR = "Is there a <Object> sound?"
BY_EYE = "Is there a <Object> in the entire video?"


class Negatives:
    """Questions about instruments that a Bandstand clip lacks, where its truth is known."""

    def __init__(self, folder: Path, per_clip: int, seed: int) -> None:
        from instruct_data.sources.fields import read_list

        self.path = folder / "truth.json"
        truth, self.sha256 = read_list(self.path)
        # The reader of the source has checked each scene.
        self.scenes = {scene["video_id"]: (n, scene) for n, scene in enumerate(truth, 1)}
        self.per_clip, self.seed = per_clip, seed
        self.clips: dict[str, Record] = {}
        self.asked: set[tuple[str, str, str]] = set()

    def see(self, record: Record) -> None:
        """Take note of a clip that is in the set, and of what is asked about it already."""
        video = record.clip.video
        if video not in self.scenes:
            raise AnnotationError(f"video {video} is asked about but has no scene in {self.path}")
        self.clips.setdefault(video, record)
        for turn in record.turns:
            if turn.template in (BY_EAR, BY_EYE):
                self.asked.add((video, turn.template, turn.slots[0]))

    def records(self) -> Iterator[Record]:
        """The added questions, clip by clip, by turns by ear and by eye; all answered with no."""
        from instruct_data.sources.fields import provenance

        for video, like in self.clips.items():
            number, scene = self.scenes[video]
            rng = stream(self.seed, "negatives", video)
            first = int(rng.integers(2))
            for n in range(self.per_clip):
                template = (BY_EAR, BY_EYE)[(first + n) % 2]
                absent = self._absent(video, scene, template)
                if absent:
                    name = absent[int(rng.integers(len(absent)))]
                    self.asked.add((video, template, name))
                    where = provenance(self.path, self.sha256, number)
                    yield _negative(like, template, name, where, n)

    def _absent(self, video: str, scene: Mapping[str, Any], template: str) -> list[str]:
        """Instruments that are certainly not heard, or not seen, and not asked about yet."""
        key = "start_s" if template == BY_EAR else "x"
        there = {player["instrument"] for player in scene["players"] if player[key] is not None}
        return [
            name
            for name in SLOT_VALUES["Object"]
            if name not in there and (video, template, name) not in self.asked
        ]


def _negative(like: Record, template: str, name: str, where: str, number: int) -> Record:
    modality, kind = TEMPLATES[template].type
    turn = Turn(
        question=fill(template, (name,)),
        answer="no",
        label="no",
        template=template,
        slots=(name,),
        type=f"{modality} {kind}",
    )
    return replace(
        like,
        id=f"{like.source}:{like.split}:{like.clip.video}:absent-{number + 1}",
        kind="question",
        turns=(turn,),
        provenance=(where, "negative: an instrument that is not there"),
    )
