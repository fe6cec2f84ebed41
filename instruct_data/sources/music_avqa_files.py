"""What is known about files of the MUSIC-AVQA family: which version one is, what is odd in it.

The 2022 files of v1 ask some questions twice, with two different answers; the authors' corrected
files (`json_update`) do not. Both are in use, so a result has to say which one it is about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from avqa_llm.errors import AnnotationError
from instruct_data.sources.music_avqa import Annotations, Row, left_out, refuse_unread

V1, V2, R, FORTIS = "music-avqa", "music-avqa-v2", "music-avqa-r", "fortisavqa"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A file that was seen before."""

    source: str
    split: str
    what: str
    corrected: bool = True
    """False for the files with contradictory answers."""


KNOWN_FILES: dict[str, Known] = {
    "76ce24ee02fd85e28038605aedd4f62633e1335ccda96a1fcf7340b5feaf230e": Known(
        source=V1, split="test", what="the corrected test file (9,129 questions)"
    ),
    "650ca7e9e577139f43b7895d5b8207a2e287d8cdad940522b2122a12c0c9b8ef": Known(
        source=V1, split="val", what="the corrected validation file (4,568 questions)"
    ),
    "fa79cbd8e7f0bf043e1761271b216f130832dd419a171bce9d9b561017af6cc2": Known(
        source=V1, split="test", what="the 2022 test file (9,185 questions)", corrected=False
    ),
    "a5b0faaa357178ef5712f0a3b6be8e66d99c1e4d1b9fa6a1f95ec08b6b3f7cc4": Known(
        source=V1,
        split="train",
        what="the synthetic clips of the 2022 training file (6,233 questions)",
        corrected=False,
    ),
    "78e854694bc5944f63a49b26a2a95bfe672ed7de6a455a8a097f1731d98a70a0": Known(
        source=V2, split="test", what="the balanced test file (10,819 questions)"
    ),
    "2b8ad91e181bc76e23d89bc029f04fa0f6c37c87584ebf60e217d3f7e932efbe": Known(
        source=V2, split="val", what="the balanced validation file (5,346 questions)"
    ),
}
"""By sha-256."""


def version(annotations: Annotations) -> str:
    """Which version a file is, in words; empty where neither hash nor content says."""
    known = KNOWN_FILES.get(annotations.sha256)
    if known:
        return f"{known.source}: {known.what}"
    pairs = contradictions(annotations)
    twice = len({row.question_id for one, row in pairs if row.template and _same_id(one, row)})
    if twice:
        return f"{V1}: a 2022 file by its content ({twice} ids occur twice with two answers)"
    return ""


def contradictions(annotations: Annotations) -> list[tuple[Row, Row]]:
    """Pairs of rows that ask the same of the same clip and give different answers."""
    return [(one, other) for one, other in _repeated(annotations) if one.gold != other.gold]


def duplicates(annotations: Annotations) -> list[tuple[Row, Row]]:
    """Pairs of rows that ask the same of the same clip and give the same answer."""
    return [(one, other) for one, other in _repeated(annotations) if one.gold == other.gold]


def faults(annotations: Annotations) -> list[str]:
    """What is odd about a file that could be read, a line each; no row is taken out for it."""
    return [
        *_about_version(annotations),
        *(
            f"row {other.number} contradicts row {one.number}: {other.question!r} about "
            f"{other.video_id} is {other.gold!r} here and {one.gold!r} there"
            for one, other in contradictions(annotations)
        ),
        *(
            f"row {other.number} repeats row {one.number}: {other.question!r} about "
            f"{other.video_id}"
            for one, other in duplicates(annotations)
        ),
        *_about_ids(annotations),
        *left_out(annotations),
        *(f"row {row.number}: is marked as deleted" for row in annotations.rows if row.deleted),
        *(
            f"row {left.first}: has a field {left.field!r} that is not read, as {left.rows} rows do"
            for left in annotations.unread
        ),
    ]


def check(annotations: Annotations, source: str, split: str) -> list[str]:
    """What should be said before the file is used as records of `source`.

    Raises:
        AnnotationError: a field is not known, or the file belongs to another data set of the
            family: a paraphrased test question must not come in under another name.
    """
    refuse_unread(annotations)
    known = KNOWN_FILES.get(annotations.sha256)
    if known and known.source != source:
        raise AnnotationError(
            f"{annotations.path} is {known.what} of {known.source}, not of {source}: "
            f"name the source {known.source}"
        )
    if source in (V1, V2):
        _refuse_filled(annotations, source)
    return [*_about_split(annotations, known, split), *_summary(annotations)]


def _refuse_filled(annotations: Annotations, source: str) -> None:
    for row in annotations.rows:
        if row.template is None:
            raise AnnotationError(
                f"{annotations.path}, row {row.number}, field 'question_content': "
                f"{row.question[:60]!r} is no template, and {source} has templates only: name the "
                f"source {R} or {FORTIS} for their files, or conversations for questions of yours"
            )


def _about_split(annotations: Annotations, known: Known | None, split: str) -> list[str]:
    if known is None or known.split == split:
        return []
    return [f"{annotations.path} is {known.what}, and is read as split {split!r}"]


def _summary(annotations: Annotations) -> Iterator[str]:
    """Faults in a line, and rows that are left out in another."""
    left = left_out(annotations)
    if left:
        rows = f"{len(left)} of {len(annotations.rows)} rows"
        yield f"{annotations.path}: {rows} are left out; the first is {left[0]}"
    said = frozenset(left)
    others = [line for line in faults(annotations) if line not in said]
    if others:
        yield f"{annotations.path}: {len(others)} oddities; the first: {others[0]}"


def _about_version(annotations: Annotations) -> list[str]:
    known = KNOWN_FILES.get(annotations.sha256)
    by_content = known is None and bool(version(annotations))
    if not by_content and (known is None or known.corrected):
        return []
    way_out = "the authors' corrected files are in their folder data/json_update"
    return [f"this is {version(annotations)}: {way_out}"]


def _repeated(annotations: Annotations) -> Iterator[tuple[Row, Row]]:
    """Each row with the first one that asks the same of the same clip with the same sound."""
    first: dict[tuple[str, str | None, str], Row] = {}
    for row in annotations.rows:
        key = (row.video_id, row.sound_of, row.question)
        one = first.setdefault(key, row)
        if one is not row:
            yield one, row


def _about_ids(annotations: Annotations) -> Iterator[str]:
    """Ids that stand for questions about several clips. R gives its paraphrases one id."""
    clips: defaultdict[int | str, dict[str, int]] = defaultdict(dict)
    for row in annotations.rows:
        if row.question_id is not None:
            clips[row.question_id].setdefault(row.video_id, row.number)
    for question_id, rows in clips.items():
        if len(rows) > 1:
            named = ", ".join(f"row {number}" for number in list(rows.values())[:5])
            yield f"question_id {question_id} stands for questions about {len(rows)} clips: {named}"


def _same_id(one: Row, other: Row) -> bool:
    return one.question_id is not None and one.question_id == other.question_id
