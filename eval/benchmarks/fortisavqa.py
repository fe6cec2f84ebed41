"""FortisAVQA: the questions of MUSIC-AVQA-R; each row says itself whether it is head or tail.

Source: Ma et al., "Robustness Evaluation and Bias Mitigation in AVQA", the extension of R.
"""

from __future__ import annotations

from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.benchmarks.base import Benchmark, QuestionSet
from eval.benchmarks.family import (
    FORTIS,
    MADE,
    OVERLAP,
    PRIOR,
    SCENES,
    SUBSETS,
    R,
    read_file,
    refuse_marks,
    refuse_templates,
    tell_templates,
    to_set,
    way_out,
)
from instruct_data.sources.music_avqa import Annotations


def read(path: Path) -> QuestionSet:
    """Read the question file.

    Raises:
        AnnotationError: a row is faulty or does not say `head` or `tail` in `split`, or the
            file is another set's.
    """
    annotations = read_file(path, FORTIS)
    refuse_templates(annotations, FORTIS)
    _refuse_without_split(annotations)
    refuse_marks(annotations, FORTIS)
    return tell_templates(to_set(FORTIS, annotations))


def _refuse_without_split(annotations: Annotations) -> None:
    for row in annotations.rows:
        if row.subset not in SUBSETS:
            said = "is missing" if row.subset is None else f"is {row.subset!r}"
            raise AnnotationError(
                f"{annotations.path}, row {row.number}, field 'split': {said}, and should be head "
                f"or tail. If the file is one of MUSIC-AVQA-R: {way_out(FORTIS, R)}"
            )


BENCHMARK = Benchmark(
    name=FORTIS,
    title="FortisAVQA: the questions of MUSIC-AVQA-R with another head and tail",
    read=read,
    groups=(*SCENES, *SUBSETS, *MADE, *OVERLAP, *PRIOR),
    data_sets=("fortisavqa",),
    source="Ma et al. 2025",
)
