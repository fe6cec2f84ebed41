"""Bandstand with questions as one-sided as those of MUSIC-AVQA v1.

The clips are those of the balanced set of the same seed, the answers have the shares of v1: what
a model gains here over the balanced set it owes to answering what is frequent.
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks import bandstand
from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import BANDSTAND_BIASED, OVERLAP, PRIOR, SCENES


def read(path: Path) -> QuestionSet:
    """Read a set's folder, or a question file in it; as `bandstand.read`."""
    return bandstand.read(path, BANDSTAND_BIASED)


BENCHMARK = Benchmark(
    name=BANDSTAND_BIASED,
    title="Bandstand-biased: the same clips, answers as one-sided as in MUSIC-AVQA v1",
    read=read,
    groups=(*SCENES, *OVERLAP, *PRIOR),
    data_sets=(),
    source="this project",
)
