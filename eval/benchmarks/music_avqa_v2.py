"""MUSIC-AVQA v2.0, balanced and biased: v1 with more clips (Liu et al. 2024, WACV).

Some of its clips are mirrored (ids end in `_flip`), and some are asked about with the sound of
another clip (`unmatch_audio`).
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import (
    MADE,
    OVERLAP,
    PRIOR,
    SCENES,
    V2,
    read_file,
    refuse_filled,
    refuse_marks,
    to_set,
)


def read(path: Path) -> QuestionSet:
    """Read a file of the balanced or biased set. Raises AnnotationError as v1's reader."""
    annotations = read_file(path, V2)
    refuse_marks(annotations, V2)
    refuse_filled(annotations, V2)
    return to_set(V2, annotations)


BENCHMARK = Benchmark(
    name=V2,
    title="MUSIC-AVQA v2.0: v1 with more clips, its answers balanced",
    read=read,
    groups=(*SCENES, *MADE, *OVERLAP, *PRIOR),
    data_sets=("music-avqa-v2",),
    source="Liu et al. 2024, WACV",
)
