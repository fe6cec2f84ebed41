"""Bandstand: scenes of our own, whose truth is known exactly. The set is made, not fetched.

A set is a folder that `python -m instruct_data bandstand` wrote: `truth.json`, `avqa.json`
(templates with slots) and `avqa-reworded.json` (the same questions in other words).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.errors import AnnotationError, AVQAError
from avqa_llm.folders import user_cache
from eval.benchmarks.base import Benchmark, Question, QuestionSet
from eval.benchmarks.family import (
    BANDSTAND,
    BANDSTAND_BIASED,
    BANDSTAND_HARD,
    BANDSTAND_R,
    OVERLAP,
    PRIOR,
    SCENES,
    lend,
    read_file,
    to_set,
)
from eval.samples import read_json, write_json
from instruct_data.templates import TEMPLATES

if TYPE_CHECKING:
    from instruct_data.bandstand.scene import Scene
    from instruct_data.bandstand.write import SetConfig

TRUTH, PLAIN, REWORDED = "truth.json", "avqa.json", "avqa-reworded.json"


def read(path: Path, name: str = BANDSTAND) -> QuestionSet:
    """Read `avqa.json` or `avqa-reworded.json` of a set; the folder stands for the first.

    Raises:
        AnnotationError: a row is faulty, or the files beside are missing or of another set.
    """
    file = path / PLAIN if path.is_dir() else path
    asked = to_set(name, read_file(file, name))
    return with_slots(with_scenes(asked, file.parent), file.parent)


def with_scenes(asked: QuestionSet, folder: Path) -> QuestionSet:
    """The set with the truth about its clips. Raises AnnotationError where it is not there."""
    from instruct_data.sources.bandstand import read_scenes

    if not (folder / TRUTH).is_file():
        raise AnnotationError(
            f"{folder} has no {TRUTH}, which tells what happens in each clip: name a folder that "
            "`python -m instruct_data bandstand` wrote"
        )
    scenes, sha256 = read_scenes(folder / TRUTH)
    by_id: Mapping[str, Scene] = {scene.video_id: scene for scene in scenes}
    for question in asked.questions:
        if question.video_id not in by_id:
            raise _other_set(asked, question, "video_id", f"{question.video_id} is not in {TRUTH}")
    return replace(asked, scenes=by_id, sha256={**asked.sha256, TRUTH: sha256})


def with_slots(asked: QuestionSet, folder: Path) -> QuestionSet:
    """The set with the slots that rewordings do not show, from `avqa.json` by question id.

    Raises:
        AnnotationError: that file is not there, or does not ask the same.
    """
    if all(map(_is_whole, asked.questions)):
        return asked
    if not (folder / PLAIN).is_file():
        raise AnnotationError(
            f"{asked.path} does not say what fills its templates; {PLAIN}, which does, is not in "
            f"{folder}: put it there, or write the set anew"
        )
    lent = lend(asked, to_set(BANDSTAND, read_file(folder / PLAIN, BANDSTAND)))
    for question in lent.questions:
        if not _is_whole(question):
            why = f"{question.question_id!r} stands for another question in {PLAIN}, or for none"
            raise _other_set(asked, question, "question_id", why)
    return lent


def _is_whole(question: Question) -> bool:
    template = TEMPLATES.get(question.template or "")
    return template is not None and len(question.slots) == len(template.slots)


def _other_set(asked: QuestionSet, question: Question, field: str, why: str) -> AnnotationError:
    return AnnotationError(
        f"{asked.path}, row {question.number}, field {field!r}: {why}: the files are not of one "
        "set, write it anew"
    )


BENCHMARK = Benchmark(
    name=BANDSTAND,
    title="Bandstand: v1's questions about drawn musicians, with exact truth",
    read=read,
    groups=(*SCENES, *OVERLAP, *PRIOR),
    data_sets=(),
    source="this project",
)


# -- making a set ----------------------------------------------------------------------------

READY = "ready.json"
FIT = "fit"
FIT_CLIPS = 1000
"""Scenes without media whose answers the blind floor counts."""
SECONDS, HEIGHT, FPS = 10.0, 216, 10.0
TIMES = 25
"""Wordings of a question at most, as in MUSIC-AVQA-R."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What tells a set of the family from the others."""

    clips: int
    """So many make the set that `python -m eval sets` writes."""
    seconds: float = SECONDS
    hard: float = 0.0
    bias: float = 0.0


KINDS = {
    BANDSTAND: Kind(clips=200),
    BANDSTAND_R: Kind(clips=60),
    BANDSTAND_BIASED: Kind(clips=200, bias=1.0),
    BANDSTAND_HARD: Kind(clips=24, seconds=60.0, hard=1.0),
}
"""The sets that can be made. Those of one seed and length show the same clips, as far as they go:
what differs is what is asked."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A set that is there."""

    annotations: Path
    media: Path
    fit: Path


def sets_folder() -> Path:
    """Where sets are kept that were made on first use."""
    return user_cache() / "benchmarks"


def prepare(
    name: str, *, clips: int, seed: int, seconds: float | None = None, fps: float = FPS
) -> Prepared:
    """Make a set of `KINDS` once, in the user's cache folder; `seconds` None: as long as its kind.

    Clips are of the split `test`, rendered by all cores at hand; the scenes of `fit` are of
    `train` and of another seed. A set that was stopped goes on; one that is there is used.

    Raises:
        AVQAError: the name or a number cannot be, or the folder cannot be written.
    """
    if name not in KINDS:
        raise AVQAError(f"{name} is not made but fetched: python -m instruct_data get {name}")
    tested, fitted = configs(
        name, clips=clips, seed=seed, workers=min(clips, _cores()), seconds=seconds, fps=fps
    )
    length = "" if tested.seconds == KINDS[name].seconds else f"-{tested.seconds:g}s"
    folder = sets_folder() / f"{name}-{clips}{length}-seed{seed}"
    wanted = made_of(tested, fitted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not (folder / READY).is_file() or read_json(folder / READY) != wanted:
                if (folder / READY).exists():  # of other settings: an older version made it
                    _empty(folder)
                write(name, folder, tested, fitted)
                write_json(folder / READY, wanted)
    except OSError as error:
        raise AVQAError(
            f"cannot write to {folder}: {error.strerror}; set AVQA_CACHE to another folder"
        ) from error
    return prepared(name, folder)


def prepared(name: str, folder: Path) -> Prepared:
    """What to name of a set in this folder."""
    asked = folder if name == BANDSTAND_R else folder / REWORDED
    return Prepared(annotations=asked, media=folder / "videos", fit=folder / FIT / PLAIN)


def configs(
    name: str,
    *,
    clips: int,
    seed: int,
    workers: int = 1,
    media: str = "mp4",
    seconds: float | None = None,
    fps: float = FPS,
) -> tuple[SetConfig, SetConfig]:
    """Of the test set and of the set to fit on: as long, as hard, as biased, of another seed."""
    from instruct_data.bandstand.write import SetConfig

    kind = KINDS[name]
    seconds = kind.seconds if seconds is None else seconds
    tested = SetConfig(
        clips=clips,
        seed=seed,
        split="test",
        held_out=True,
        media=media,
        seconds=seconds,
        hard=kind.hard,
        bias=kind.bias,
        height=HEIGHT,
        fps=fps,
        workers=workers,
    )
    fitted = replace(tested, clips=FIT_CLIPS, seed=seed + 1, split="train", media="none", workers=1)
    return tested, replace(fitted, held_out=False)


def made_of(*configs: SetConfig) -> dict[str, Any]:
    """What a set's files depend on; how many processes wrote them is not among it."""
    from dataclasses import asdict

    test, fit = ({k: v for k, v in asdict(one).items() if k != "workers"} for one in configs)
    return {"test": test, "fit": fit, "times": TIMES}


def write(name: str, folder: Path, tested: SetConfig, fitted: SetConfig | None) -> None:
    """Write a set of `KINDS`, and what to fit on unless that is None. Clips that are there stay."""
    from instruct_data.bandstand.write import write_set
    from instruct_data.rephrase_set import read_questions, write_reworded

    if fitted is not None:
        write_set(folder / FIT, fitted)
    write_set(folder, tested)
    if name == BANDSTAND_R:
        rows = read_questions(folder / PLAIN)
        write_reworded(folder, rows, times=TIMES, seed=tested.seed, training=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make a set: shards of a run start together.

    Where the system has no such locks (Windows) nothing waits.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder.with_name(f"{folder.name}.lock")).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
