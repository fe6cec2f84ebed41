"""The recipe of a set of instruction data: what is mixed, and in which shares.

One YAML is one build. Every choice that a recipe leaves to chance is drawn from its seed and the
record's id, so that adding a source or turning one dial does not redraw everything else.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import struct
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avqa_llm.errors import RecipeError
from instruct_data.records import Record
from instruct_data.templates import TEMPLATES

JOINT, SOUND, PICTURE = MODALITIES = ("joint", "sound", "picture")
"""What a record gives to the model: both, its sound only, its picture only."""

Array = np.ndarray[Any, np.dtype[Any]]


def _share(place: str, key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RecipeError(f"{place}: {key} is {value:g}, should be a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Modalities:
    """How a source's questions are divided; shares of its questions, summing to 1."""

    joint: float | None = None
    """Absent: what the other two leave."""
    sound: float = 0.0
    picture: float = 0.0

    def __post_init__(self) -> None:
        for key, value in (("sound", self.sound), ("picture", self.picture)):
            _share("modalities", key, value)
        rest = 1 - self.sound - self.picture
        if rest < -1e-6 or (self.joint is not None and abs(self.joint - rest) > 1e-6):
            given = dataclasses.astuple(self)
            raise RecipeError(f"modalities: joint, sound and picture {given} should sum to 1")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source of the mix."""

    name: str
    """Name in `instruct_data.sources.SOURCES`."""
    path: str
    """File or folder, as the source's reader wants it; relative to the current folder."""
    split: str
    """What the records are to be called: `train`, ..."""
    share: float | None = None
    """Part of the records that is taken; absent, with `limit` absent: all."""
    limit: int | None = None
    """Number of records that is taken."""
    modalities: Modalities = dataclasses.field(default_factory=Modalities)
    without_template: tuple[str, ...] = (JOINT,)
    """What questions without a template, and captions, may be given with: nothing tells whether
    they can be answered by ear or by eye alone, so only the recipe's author can say so."""
    negatives: int = 0
    """Questions about instruments that are not there, added to each clip. Bandstand only."""

    def __post_init__(self) -> None:
        place = f"source {self.name}"
        if self.share is not None and self.limit is not None:
            raise RecipeError(f"{place}: has a share and a limit; give one of them")
        if self.share is not None:
            _share(place, "share", self.share)
        if self.limit is not None and self.limit < 1:
            raise RecipeError(f"{place}: limit is {self.limit}, should be at least 1")
        if not self.without_template or set(self.without_template) - set(MODALITIES):
            given, known = list(self.without_template), ", ".join(MODALITIES)
            raise RecipeError(f"{place}: without_template is {given}, should list some of {known}")
        if self.negatives and self.name != "bandstand":
            raise RecipeError(
                f"{place}: negatives is {self.negatives}, but which instruments are absent is "
                "known of bandstand clips only; leave it out"
            )
        if not 0 <= self.negatives <= 20:
            raise RecipeError(f"{place}: negatives is {self.negatives}, should be from 0 to 20")


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """Questions about one clip, asked in one conversation."""

    share: float = 0.0
    """Part of the questions that is merged."""
    turns: int = 4
    """Most questions of a dialogue; the fewest are 2."""

    def __post_init__(self) -> None:
        _share("dialogues", "share", self.share)
        if not 2 <= self.turns <= 32:
            raise RecipeError(f"dialogues: turns is {self.turns}, should be from 2 to 32")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Shares of the questions that are changed, in place, where their answers stay known."""

    mirror: float = 0.0
    reverse: float = 0.0
    swap: float = 0.0

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            _share("augment", key, value)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A test file that the set may not overlap with."""

    name: str
    path: str
    split: str
    drop: bool = False
    """Leave out what is about a video of this file, instead of refusing to build."""


@dataclass(frozen=True, kw_only=True)
class BuildRecipe:
    """Everything that one set is made of."""

    out: str
    """Folder of the finished set, relative to the current folder."""
    seed: int
    sources: tuple[Part, ...]
    rephrase: float = 0.0
    """Share of the questions with a template that are reworded."""
    sentences: float = 0.0
    """Share of the questions with a template that are answered in a sentence; the rest, by the
    label."""
    captions: float = 1.0
    """Share of the captions that is kept."""
    balance: float = 0.0
    """0: answers as they are. 1: no answer above 60 % of a template with two answers, or 50 % of
    one with more. Between: that part of the way, template by template."""
    augment: Augment = dataclasses.field(default_factory=Augment)
    dialogues: Dialogues = dataclasses.field(default_factory=Dialogues)
    evaluation: tuple[Evaluation, ...] = ()

    def __post_init__(self) -> None:
        for key in ("rephrase", "sentences", "captions", "balance"):
            _share("recipe", key, getattr(self, key))
        if not self.sources:
            raise RecipeError("recipe: sources is empty; name at least one")
        if self.seed < 0:
            raise RecipeError(f"recipe: seed is {self.seed}, should be 0 or more")


def read_build_recipe(path: Path) -> BuildRecipe:
    """Read and check a recipe, and that each source exists and may be trained on.

    Raises:
        RecipeError: the file is missing or no YAML, a key is unknown, a value has the wrong type
            or cannot work, a source is unknown or for evaluation only.
    """
    import yaml

    from avqa_llm.training.recipe import build

    try:
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is no YAML: {error}") from error
    recipe = typing.cast(BuildRecipe, build(BuildRecipe, row, str(path)))
    check_sources(recipe)
    return recipe


def check_sources(recipe: BuildRecipe) -> None:
    """Refuse unknown names, and sources that may not be trained on."""
    from instruct_data.sources import SOURCES

    entries: list[Part | Evaluation] = [*recipe.sources, *recipe.evaluation]
    for entry in entries:
        if entry.name not in SOURCES:
            close = difflib.get_close_matches(entry.name, SOURCES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(SOURCES)}"
            raise RecipeError(f"source {entry.name!r} is unknown; {hint}")
    for part in recipe.sources:
        if SOURCES[part.name].evaluation_only:
            raise RecipeError(
                f"source {part.name!r} is for evaluation only and may not be trained on; list it "
                "under `evaluation` if the set must not overlap with it, else leave it out"
            )


class Draws(NamedTuple):
    """What chance says about a record: numbers from 0 to below 1, one a purpose."""

    share: float
    limit: float
    caption: float
    mirror: float
    reverse: float
    swap: float
    modality: float
    balance: float
    dialogue: float
    rephrase: float
    sentences: float


def draws(seed: int, record_id: str) -> Draws:
    """The draws of a record; they depend on nothing but the seed and its id."""
    digest = hashlib.blake2b(f"{seed}:{record_id}".encode()).digest()
    return Draws._make(n / 2**32 for n in struct.unpack("<16I", digest)[: len(Draws._fields)])


def stream(seed: int, purpose: str, record_id: str) -> np.random.Generator:
    """A generator of one record's own, for what needs more than one number."""
    digest = hashlib.blake2b(f"{seed}:{purpose}:{record_id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def given_with(record: Record) -> str:
    """One of `MODALITIES`: what the record gives to the model now."""
    if record.clip.sound and record.clip.picture:
        return JOINT
    return SOUND if record.clip.sound else PICTURE


def can_be_given(record: Record, part: Part) -> tuple[bool, bool]:
    """Whether a record can be asked by ear alone, and by eye alone.

    A template's modality is what the benchmark says is needed: a question that needs the sound
    must not be asked about a picture. What its source restricts already stays as it is.
    """
    if given_with(record) != JOINT:
        return False, False
    allowed = [set(MODALITIES)]
    for turn in record.turns:
        template = TEMPLATES.get(turn.template or "")
        alone = {"Audio": {SOUND}, "Visual": {PICTURE}}
        fitting = alone.get(template.modality, set()) if template else part.without_template
        allowed.append({JOINT, *fitting})
    both = set.intersection(*allowed)
    return SOUND in both, PICTURE in both


def divide(mix: Modalities, by_ear_N: Array, by_eye_N: Array, draw_N: Array) -> Array:
    """Which of `MODALITIES` each of N records gets, as an index; as many as are fit for it.

    The wanted number of each is exact where enough records are fit, else all that are.
    """
    chosen_N = np.zeros(len(draw_N), np.int8)
    for index, share, fit_N in ((1, mix.sound, by_ear_N), (2, mix.picture, by_eye_N)):
        fit = np.flatnonzero(fit_N & (chosen_N == 0))
        order = fit[np.argsort(draw_N[fit], kind="stable")]
        chosen_N[order[: round(share * len(draw_N))]] = index
    return chosen_N


def pick_dialogues(
    settings: Dialogues, group_N: Array, question_N: Array, draw_N: Array, seed: int
) -> list[list[int]]:
    """Which of N questions are merged, as lists of indices in the order of asking.

    `group_N` says which are about the same clip; a question (`question_N`) is asked once in a
    dialogue. The share that is reached may be less, where too few clips have two questions.
    """
    rng = np.random.default_rng([seed, 2])
    order = np.lexsort((draw_N, group_N))
    starts = np.flatnonzero(np.diff(group_N[order], prepend=-1))
    chunks: list[list[int]] = []
    for members in np.split(order, starts[1:]) if len(order) else []:
        different = list({question_N[at]: int(at) for at in members[::-1]}.values())[::-1]
        while len(different) >= 2:
            size = int(rng.integers(2, settings.turns + 1))
            chunks.append(different[:size])
            different = different[size:]
    wanted = round(settings.share * len(order))
    taken: list[list[int]] = []
    for at in rng.permutation(len(chunks)):
        chunk = chunks[at][:wanted]
        if len(chunk) < 2:
            break
        taken.append(chunk)
        wanted -= len(chunk)
    return taken


# --- what becomes of a record ---------------------------------------------------------------


def finished(recipe: BuildRecipe, record: Record, modality: str) -> Record:
    """A record with the sound or picture it is given with, reworded and answered as drawn."""
    from instruct_data.rephrase import rephrased
    from instruct_data.sentences import with_sentences

    if modality != JOINT:
        clip = replace(record.clip, sound=modality != PICTURE, picture=modality != SOUND)
        record = replace(record, clip=clip, provenance=(*record.provenance, f"{modality} only"))
    if record.kind == "caption" or not any(turn.template for turn in record.turns):
        return record
    draw = draws(recipe.seed, record.id)
    if draw.rephrase < recipe.rephrase:
        record = rephrased(record, stream(recipe.seed, "rephrase", record.id))
    if draw.sentences < recipe.sentences:
        record = with_sentences(record, stream(recipe.seed, "sentences", record.id))
    return record


def merged(records: Sequence[Record]) -> Record:
    """Records about the same clip as one dialogue; each turn keeps its provenance, on a line."""
    first, *others = records
    if any(record.clip != first.clip or record.source != first.source for record in others):
        raise ValueError(f"{first.id} and others are not about the same clip")
    return replace(
        first,
        id=f"{first.id}+{len(others)}",
        kind="dialogue",
        turns=tuple(turn for record in records for turn in record.turns),
        provenance=(
            *("; ".join(record.provenance) for record in records),
            f"dialogue: {len(records)} questions about one clip",
        ),
    )
