"""Bandstand, hard: a minute long, crowded and noisy.

Mostly five players, often several of one instrument, often a sound from off-screen.
"""

from __future__ import annotations

import re
from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.benchmarks import bandstand
from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import BANDSTAND, BANDSTAND_HARD, OVERLAP, PRIOR, SCENES

_HARD = re.compile(r"(?:train|val|test)\d+h_\d{6}")


def read(path: Path) -> QuestionSet:
    """Read a set's folder, or a question file in it.

    Raises:
        AnnotationError: as `bandstand.read`, and for a clip that is not hard.
    """
    asked = bandstand.read(path, BANDSTAND_HARD)
    for question in asked.questions:
        if not _HARD.fullmatch(question.video_id):
            raise AnnotationError(
                f"{asked.path}, row {question.number}, field 'video_id': {question.video_id} is "
                f"no hard clip: give it as --benchmark {BANDSTAND}, or make a hard set with "
                "python -m eval sets"
            )
    return asked


BENCHMARK = Benchmark(
    name=BANDSTAND_HARD,
    title="Bandstand-hard: a minute long, crowded and noisy",
    read=read,
    groups=(*SCENES, *OVERLAP, *PRIOR),
    data_sets=(),
    source="this project",
)
