"""What the readers of the MUSIC-AVQA family share: rows as questions, and whose file one is.

What is wrong with a row, and a file of another data set, is an AnnotationError. What is merely
odd is told (`QuestionSet.oddities`), and no row is taken out for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.benchmarks.base import Question, QuestionSet
from eval.benchmarks.known import recognise
from instruct_data.overlap import video_name
from instruct_data.sources.music_avqa import (
    WORDING,
    Annotations,
    Row,
    left_out,
    read_annotations,
)
from instruct_data.sources.music_avqa_files import faults
from instruct_data.sources.music_avqa_files import version as known_version
from instruct_data.templates import TEMPLATES

V1, V2, R, FORTIS = "music-avqa", "music-avqa-v2", "music-avqa-r", "fortisavqa"
BANDSTAND, BANDSTAND_R = "bandstand", "bandstand-r"
BANDSTAND_BIASED, BANDSTAND_HARD = "bandstand-biased", "bandstand-hard"
BANDSTANDS = (BANDSTAND, BANDSTAND_R, BANDSTAND_BIASED, BANDSTAND_HARD)

SCENES = ("Audio", "Visual", "Audio-Visual")
SUBSETS = ("head", "tail")
MADE = ("real", "synthetic")
OVERLAP = ("video-disjoint",)
PRIOR = ("prior-agreeing", "prior-disagreeing")
WORDINGS = ("held-out wordings", "training wordings")

# Put together from two videos, by sound or by picture; real clips have eight digits, or in v2
# the id of a YouTube video.
_SYNTHETIC = re.compile(r"(?:va|sa|vv|esa|eva|evv)\d{8}")
_OF_BANDSTAND = re.compile(r"(?:train|val|test)\d+h?_\d{6}")


def is_synthetic(video_id: str) -> bool:
    """Whether MUSIC-AVQA made the clip from two videos."""
    return _SYNTHETIC.fullmatch(video_name(video_id)) is not None


def read_file(path: Path, benchmark: str) -> Annotations:
    """Read a question file of a benchmark.

    Raises:
        AnnotationError: it is a folder, a row is faulty, or the file is known to be another's.
    """
    if path.is_dir():
        raise AnnotationError(f"{path} is a folder: name the question file of {benchmark} in it")
    annotations = read_annotations(path)
    known = recognise(path, annotations.sha256)
    if known is not None and known.benchmark != benchmark:
        raise AnnotationError(
            f"{path} is {known.what} of {known.benchmark}, not of {benchmark}: "
            f"{way_out(benchmark, known.benchmark)}"
        )
    return annotations


def way_out(benchmark: str, other: str) -> str:
    """What to do with a file of another benchmark."""
    get = f"python -m instruct_data get {benchmark}"
    own = "make a set with python -m instruct_data bandstand" if "bandstand" in benchmark else get
    return f"give it as --benchmark {other}, or get {benchmark}'s own files ({own})"


def refuse_marks(annotations: Annotations, *allowed: str) -> None:
    """Raise AnnotationError for the first row with what only other benchmarks' rows have.

    The first of `allowed` is the benchmark that is read.
    """
    benchmark = allowed[0]
    for row in annotations.rows:
        for field, what, other in _marks(row):
            if other not in allowed:
                raise AnnotationError(
                    f"{annotations.path}, row {row.number}, field {field!r}: {what}, which belongs "
                    f"to {other}: {way_out(benchmark, other)}"
                )


def _marks(row: Row) -> Iterator[tuple[str, str, str]]:
    """Field, what it says, and whose rows say such a thing."""
    if row.subset is not None:
        yield "split", f"says {row.subset!r}", FORTIS
    if row.sound_of is not None:
        yield "unmatch_audio", f"names the sound of {row.sound_of}", V2
    if row.mirrored:
        yield "video_id", f"{row.video_id} is a mirrored clip", V2
    if _OF_BANDSTAND.fullmatch(row.video_id):
        yield "video_id", f"{row.video_id} is a clip of Bandstand", BANDSTAND


def refuse_filled(annotations: Annotations, benchmark: str) -> None:
    """Raise AnnotationError for the first question that is no template: v1 and v2 have no other."""
    for row in annotations.rows:
        if row.template is None or len(row.slots) != len(TEMPLATES[row.template].slots):
            raise AnnotationError(
                f"{annotations.path}, row {row.number}, field 'question_content': "
                f"{row.question!r:.80} is filled in, and {benchmark} has templates only: "
                f"{way_out(benchmark, f'{R} or {FORTIS}')}"
            )


def refuse_templates(annotations: Annotations, benchmark: str) -> None:
    """Raise AnnotationError for the first template with slots: R and Fortis are filled in."""
    for row in annotations.rows:
        if row.slots:
            raise AnnotationError(
                f"{annotations.path}, row {row.number}, field 'templ_values': fills the template "
                f"{row.template!r}, and the questions of {benchmark} are filled in already: "
                f"{way_out(benchmark, f'{V1} or {V2}')}"
            )


def to_question(row: Row, *, subset: str | None = None) -> Question:
    """A row as a question; `subset` where the row itself does not say it."""
    return Question(
        number=row.number,
        video_id=row.video_id,
        question_id=row.question_id,
        type=row.type,
        question=row.question,
        gold=row.gold,
        template=row.template,
        slots=row.slots,
        sound_of=row.sound_of,
        subset=subset or row.subset,
        held_out=None if row.wording is None else WORDING[row.wording],
    )


def to_set(
    benchmark: str,
    annotations: Annotations,
    questions: Sequence[Question] | None = None,
    *,
    version: str | None = None,
    oddities: Iterable[str] = (),
) -> QuestionSet:
    """A file as a set; its own oddities come after those that are given."""
    if questions is None:
        questions = [to_question(row) for row in annotations.rows]
    return QuestionSet(
        benchmark=benchmark,
        path=annotations.path,
        sha256={annotations.path.name: annotations.sha256},
        questions=tuple(questions),
        version=version_of(annotations) if version is None else version,
        oddities=(*oddities, *_about_rows(questions), *_odd(annotations)),
    )


def version_of(annotations: Annotations) -> str:
    """Which of the circulating versions a file is, in words; empty where nothing says."""
    told = known_version(annotations)
    known = None if told else recognise(annotations.path, annotations.sha256)
    return told if known is None else f"{known.benchmark}: {known.what}"


def _odd(annotations: Annotations) -> list[str]:
    """`faults`, without the rows that only records cannot say: a question can (`sound_of`)."""
    unsayable = frozenset(left_out(annotations))
    return [line for line in faults(annotations) if line not in unsayable]


def _about_rows(questions: Sequence[Question]) -> Iterator[str]:
    """What is odd about many rows alike."""
    without = sum(question.question_id is None for question in questions)
    if without:
        yield f"{without} of {len(questions)} rows have no question_id: the row number tells them"
    swapped = [question for question in questions if question.sound_of is not None]
    if swapped:
        own = {(one.video_id, one.question) for one in questions if one.sound_of is None}
        both = sum((one.video_id, one.question) in own for one in swapped)
        yield (
            f"{len(swapped)} rows are asked with the sound of another clip (unmatch_audio), {both} "
            "of them also with the clip's own, and the answers may differ"
        )


def read_companion(path: Path, benchmark: str) -> QuestionSet:
    """Any file of the family that goes along with a test: what is fitted on, or trained on.

    It may be of another version (v1's val for R) and gets no head and tail but its own. The
    folder of a Bandstand set stands for its `avqa.json`. Raises AnnotationError as a test does.
    """
    annotations = read_annotations(path / "avqa.json" if path.is_dir() else path)
    known = recognise(annotations.path, annotations.sha256)
    return to_set(known.benchmark if known else benchmark, annotations)


# -- templates from a parent -----------------------------------------------------------------


_WITHOUT = "questions have no template: the blind floor answers them by their type"


def tell_templates(asked: QuestionSet) -> QuestionSet:
    """The set with a line on how many of its questions have no template, if any."""
    without = sum(question.template is None for question in asked.questions)
    line = (f"{without} of {len(asked.questions)} {_WITHOUT}",) if without else ()
    others = tuple(line for line in asked.oddities if not line.endswith(_WITHOUT))
    return replace(asked, oddities=(*line, *others))


def lend(asked: QuestionSet, parent: QuestionSet) -> QuestionSet:
    """Give rewordings the template and slots of the question that they reword.

    A question takes them from those of `parent` with its clip, id and type, where these agree.
    Answers that differ from the parent's are told. The parent's hash joins the set's.
    """
    known: dict[object, set[tuple[str, str | None, tuple[str, ...]]]] = {}
    golds: dict[object, set[str]] = {}
    for question in parent.questions:
        if question.question_id is not None:
            shape = (question.type, question.template, question.slots)
            known.setdefault(question.original, set()).add(shape)
            golds.setdefault(question.original, set()).add(question.gold)
    lent = [_lent(question, known) for question in asked.questions]
    other = [q for q in lent if q.original in golds and q.gold not in golds[q.original]]
    oddities = asked.oddities
    if other:
        line = (
            f"{len(other)} rows give another answer than their question in {parent.path.name}; the "
            f"first is row {other[0].number}, {other[0].gold!r}"
        )
        oddities = (line, *oddities)
    return replace(
        asked,
        questions=tuple(lent),
        sha256={**asked.sha256, **_unmistakable(parent, asked)},
        oddities=oddities,
    )


def _lent(
    question: Question, known: dict[object, set[tuple[str, str | None, tuple[str, ...]]]]
) -> Question:
    shapes = known.get(question.original, set()) if question.question_id is not None else set()
    if len(shapes) != 1:
        return question
    ((kind, template, slots),) = shapes
    if kind != question.type or question.template not in (None, template):
        return question
    return replace(question, template=template, slots=slots)


def _unmistakable(parent: QuestionSet, asked: QuestionSet) -> dict[str, str]:
    """The parent's hashes, by path where a name is taken."""
    return {
        str(parent.path) if name in asked.sha256 else name: sha256
        for name, sha256 in parent.sha256.items()
    }
