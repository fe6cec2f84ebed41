"""What every benchmark gives: questions with gold answers, and what is odd about their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instruct_data.bandstand.scene import Scene

Key = tuple[str, "int | str"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its gold answer."""

    number: int
    """Row in the annotation file, from 1: what identifies the question within it."""
    video_id: str
    question_id: int | str | None
    type: str
    """One of the nine types of MUSIC-AVQA, or what another benchmark calls its own."""
    question: str
    """As it is asked: filled, and not a character lost."""
    gold: str
    """One of the 42 answers, or one of `choices`."""
    template: str | None = None
    slots: tuple[str, ...] = ()
    """What fills the template; may be unknown although the template is known."""
    choices: tuple[str, ...] = ()
    """Of multiple choice; empty where the answers are the 42."""
    sound_of: str | None = None
    """The clip whose sound is heard instead of the clip's own (v2)."""
    subset: str | None = None
    """`head` or `tail`."""
    held_out: bool | None = None
    """Whether the wording is one that training never sees; None where nobody knows."""

    @property
    def scene(self) -> str:
        """`Audio`, `Visual` or `Audio-Visual`: the type without its last word."""
        return self.type.rpartition(" ")[0] or self.type

    @property
    def original(self) -> Key:
        """What all wordings of one question have in common."""
        return self.video_id, self.number if self.question_id is None else self.question_id


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """A question file that was read whole."""

    benchmark: str
    path: Path
    sha256: Mapping[str, str]
    """Of each file that was read, by its name."""
    questions: tuple[Question, ...]
    version: str = ""
    """Which of the circulating versions it is, in words; empty where that is not known."""
    oddities: tuple[str, ...] = ()
    """Duplicates, contradictions, fields that were not read: a line each. No row is taken out."""
    scenes: Mapping[str, Scene] = field(default_factory=dict)
    """The exact truth of each clip by its id; empty but for Bandstand."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A set of questions that results are published on."""

    name: str
    title: str
    read: Callable[[Path], QuestionSet]
    """Reads a file (or folder) of the authors. Raises AnnotationError: file, row, field."""
    groups: tuple[str, ...]
    """Names of `eval.groups.GROUPS` that its results are broken down by, beside the types."""
    data_sets: tuple[str, ...]
    """Names in `instruct_data.places.CATALOGUE`; empty where the set is made here."""
    source: str
    """Who made it."""
