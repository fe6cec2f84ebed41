"""Bandstand in the shape of MUSIC-AVQA-R: each question in up to 25 wordings, head and tail.

A set is a folder of Bandstand with the three files that `python -m instruct_data rephrase
OUT/avqa.json --out OUT --training-wordings` adds. A row says whether training never sees its
wording.
"""

from __future__ import annotations

from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.benchmarks.bandstand import with_scenes, with_slots
from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import (
    BANDSTAND_R,
    OVERLAP,
    PRIOR,
    SCENES,
    SUBSETS,
    WORDINGS,
    read_file,
    refuse_templates,
)
from eval.benchmarks.music_avqa_r import read_parts, to_parted_set
from instruct_data.sources.music_avqa import Annotations


def read(path: Path) -> QuestionSet:
    """Read a set's folder, or one of its `avqa-test-{head,tail,headtail}.json`.

    Raises:
        AnnotationError: a row is faulty, or the files are not of one set.
    """
    parts = read_parts(path, _read)
    folder = path if path.is_dir() else path.parent
    return with_slots(with_scenes(to_parted_set(BANDSTAND_R, parts), folder), folder)


def _read(path: Path) -> Annotations:
    annotations = read_file(path, BANDSTAND_R)
    refuse_templates(annotations, BANDSTAND_R)
    for row in annotations.rows:
        if row.wording is None:
            raise AnnotationError(
                f"{path}, row {row.number}, field 'wording': is missing, and should be held-out or "
                "training: write the file anew with python -m instruct_data rephrase"
            )
    return annotations


BENCHMARK = Benchmark(
    name=BANDSTAND_R,
    title="Bandstand-R: Bandstand's questions in up to 25 wordings each, head and tail",
    read=read,
    groups=(*SCENES, *SUBSETS, *OVERLAP, *PRIOR, *WORDINGS),
    data_sets=(),
    source="this project",
)
