"""What training asks about clips: one row a clip, with its record and its questions.

`read_rows` reads them from the files that `instruct_data` writes, and from a person's own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avqa_llm.errors import RecipeError
from avqa_llm.labels import LABELS
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Prompt, Turn
from avqa_llm.training.find import find_media
from avqa_llm.training.packing import Piece

if TYPE_CHECKING:
    from avqa_llm.training.pairs import PairRow

__all__ = [
    "ClipRow",
    "Event",
    "Question",
    "check_favour",
    "drawn",
    "dropped",
    "find_media",
    "question_blocks",
    "read_pairs",
    "read_rows",
]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its answer and the way there."""

    question: str
    steps: str
    answer: str
    evidence: tuple[dict[str, float | None], ...] = ()
    """Where the answer lies: `x` on the picture (None: off-screen), `start_s` and `end_s` of
    the sound (None: silent)."""
    history: tuple[Turn, ...] = ()
    """What was said before, where the question is part of a conversation."""
    type: str = ""
    """`Audio Counting` and the like, or the source's own word; `caption` for a description."""
    template: str = ""
    """One of the benchmark's 33, where it is known to come from one."""
    choices: tuple[str, ...] = ()
    """What there is to choose from, where the source gives choices."""
    label: str | None = None
    """The answer as a closed set has it; None where the answer is open."""


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
    """A clip, or a part of one, with everything that is asked about it."""

    video_id: str
    record: str
    """The event record: what the alignment stage teaches to write. Empty: none is known."""
    record_without_sound: str
    record_without_picture: str
    questions: tuple[Question, ...]
    events: tuple[Event, ...] = ()
    """What is known to be there, for `naming`."""
    media: str = ""
    """The clip's file below the folder of the media, or its name without suffix; empty: as
    `video_id`."""
    cut: Cut = Cut()
    """What is done to the clip before it is asked about."""
    written: bool = False
    """Whether the model wrote the record itself: then it is read, and not learned."""


def read_rows(path: Path, *, splits: Collection[str] = ()) -> list[ClipRow]:
    """Read a file of instruction rows, whose content tells which of these it is.

    - `instruct.jsonl` of a Bandstand set: a clip a line.
    - JSONL of instruction records (`python -m instruct_data build`): records about one clip with
      the same cut become one row.
    - JSON, JSONL or CSV of a person's own (see `own`), likewise.

    Args:
        path: of the file.
        splits: keep rows of these splits only (and rows that name none). A file with rows of
            several splits needs it, so that nobody trains on a test set by accident. A Bandstand
            set is of one split, which its rows do not name.

    Raises:
        AnnotationError: the file is missing or none of these; names line, field and what is
            known.
    """
    from avqa_llm.training.reading import read  # late: it makes the rows that are defined here

    return read(path, splits)


def read_pairs(path: Path) -> list[PairRow]:
    """Read a file of preference pairs (see `pairs`). Raises AnnotationError."""
    from avqa_llm.training.pairs import read_pairs as read  # late, as above

    return read(path)


def drawn(
    questions: Sequence[Question],
    count: int,
    favour: Mapping[str, float],
    rng: np.random.Generator,
) -> list[Question]:
    """Some of a clip's questions, each once, in an order of chance.

    `favour`: how much more often than others a question is drawn whose template holds these words.
    """
    if not favour:
        return [questions[n] for n in rng.permutation(len(questions))[:count]]
    weights = np.array([_weight(question.template, favour) for question in questions])
    if not weights.any():
        return []
    count = min(count, int(np.count_nonzero(weights)))
    chosen = rng.choice(len(questions), count, replace=False, p=weights / weights.sum())
    return [questions[n] for n in chosen]


def _weight(template: str, favour: Mapping[str, float]) -> float:
    return next((weight for part, weight in favour.items() if part in template), 1.0)


def check_favour(place: str, favour: Mapping[str, float]) -> None:
    """Refuse weights that are none. Raises RecipeError."""
    for part, weight in favour.items():
        if not 0 <= weight < math.inf:
            raise RecipeError(f"{place}: {part!r} has {weight}, should be 0 or more")


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

    A question with a history of its own has that in front, and is put in front of no other one.
    Of the rest, a share of `pair` hold an earlier question and its answer first. A share of
    `drop` of the words is left out (`dropped`).

    Returns:
        The blocks, and the question that each of them ends with.
    """
    blocks, last, waiting = [], [], list(questions)
    while waiting:
        asked = waiting.pop()
        turns = list(asked.history)
        alone = [n for n, one in enumerate(waiting) if not one.history]
        if not turns and alone and rng.random() < pair:
            before = waiting.pop(alone[-1])
            turns = [Turn(question=before.question, answer=before.answer)]
        words = dropped(asked.question, drop, rng)
        given = prompt.history(turns) + prompt.question(words, n_clues, again=bool(turns))
        blocks.append(Piece.of(given, prompt.answer(asked.steps, asked.answer)))
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
