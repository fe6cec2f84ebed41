"""The benchmarks by name, how one is read, and what two of their files share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from avqa_llm.errors import AnnotationError, AVQAError
from eval.benchmarks import (
    avqa,
    bandstand,
    bandstand_biased,
    bandstand_hard,
    bandstand_r,
    fortisavqa,
    music_avqa,
    music_avqa_r,
    music_avqa_v2,
)
from eval.benchmarks.base import Benchmark, Question, QuestionSet
from eval.benchmarks.family import is_synthetic, lend, read_companion, tell_templates
from instruct_data.overlap import plain_question, video_name

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        music_avqa,
        music_avqa_v2,
        music_avqa_r,
        fortisavqa,
        avqa,
        bandstand,
        bandstand_r,
        bandstand_biased,
        bandstand_hard,
    )
}
REWORDINGS = ("music-avqa-r", "fortisavqa")
"""Whose questions come filled: a parent lends them templates and slots."""


def read_benchmark(
    name: str, path: Path, *, parent: Path | None = None, like: QuestionSet | None = None
) -> QuestionSet:
    """Read a question file of a benchmark.

    Args:
        name: of `BENCHMARKS`.
        path: a file of its authors, or a folder where the benchmark has several.
        parent: the test file of MUSIC-AVQA v1 that R and Fortis reword; lends them templates
            and slots, by clip and question id.
        like: the set that this file only goes along with, to fit a floor on or to look for
            overlap: any file of the same family will do then, v1's val for R for instance.

    Raises:
        AVQAError: no benchmark has that name.
        AnnotationError: a row is malformed (named with its field), or the file is another
            benchmark's.
    """
    if name not in BENCHMARKS:
        raise AVQAError(f"no benchmark {name!r}: choose one of {', '.join(BENCHMARKS)}")
    if like is not None and name != avqa.NAME:
        return read_companion(path, name)
    asked = BENCHMARKS[name].read(path)
    if parent is None:
        return asked
    if name not in REWORDINGS:
        raise AnnotationError(
            f"{name} needs no parent, its questions have their templates: leave {parent} out"
        )
    return tell_templates(lend(asked, BENCHMARKS["music-avqa"].read(parent)))


# -- overlap ---------------------------------------------------------------------------------


def seen_videos(seen: QuestionSet) -> frozenset[str]:
    """The clips that a set shows or lets hear, by `instruct_data.overlap.video_name`."""
    return frozenset(name for question in seen.questions for name in _videos(question))


def overlap(tested: QuestionSet, seen: QuestionSet) -> dict[str, Any]:
    """How many videos and questions of a test are in what was seen before.

    A question is shared where the same is asked, but for case and punctuation, about the same
    clip with the same sound; a mirrored clip counts as the clip itself. `synthetic` has the
    same figures of the clips that MUSIC-AVQA made from two videos, None where there are none.
    """
    there, asked = seen_videos(seen), {_asked(question) for question in seen.questions}
    made = [question for question in tested.questions if is_synthetic(question.video_id)]
    figures: dict[str, Any] = _figures(tested.questions, there, asked)
    return figures | {"synthetic": _figures(made, there, asked) if made else None}


def _figures(
    questions: Iterable[Question], there: frozenset[str], asked: set[tuple[str, ...]]
) -> dict[str, int]:
    questions = list(questions)
    videos = {name for question in questions for name in _videos(question)}
    return {
        "videos": len(videos),
        "shared_videos": len(videos & there),
        "questions": len(questions),
        "shared_questions": sum(_asked(question) in asked for question in questions),
    }


def _videos(question: Question) -> set[str]:
    return {video_name(one) for one in (question.video_id, question.sound_of) if one}


def _asked(question: Question) -> tuple[str, ...]:
    sound = video_name(question.sound_of) if question.sound_of else ""
    return video_name(question.video_id), sound, plain_question(question.question)
