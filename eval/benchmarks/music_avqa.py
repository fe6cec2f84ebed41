"""MUSIC-AVQA v1: questions from 33 templates about music clips (Li et al. 2022, CVPR).

The 2022 files ask some questions twice with two answers. They are read too, since many papers
use them, and say so in `version` and `oddities`.
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import (
    MADE,
    OVERLAP,
    PRIOR,
    SCENES,
    V1,
    read_file,
    refuse_filled,
    refuse_marks,
    to_set,
)


def read(path: Path) -> QuestionSet:
    """Read train, val or test. Raises AnnotationError: a faulty row, or another set's file."""
    annotations = read_file(path, V1)
    refuse_marks(annotations, V1)
    refuse_filled(annotations, V1)
    return to_set(V1, annotations)


BENCHMARK = Benchmark(
    name=V1,
    title="MUSIC-AVQA v1: questions from 33 templates about music clips",
    read=read,
    groups=(*SCENES, *MADE, *OVERLAP, *PRIOR),
    data_sets=("music-avqa", "music-avqa-2022"),
    source="Li et al. 2022, CVPR",
)
