"""Reads question files of the MUSIC-AVQA family: v1, v2, and the filled forms of R and Fortis.

A row of v1 or v2 has a template with slots; a row of R or FortisAVQA is a filled question, often
without a question mark. All become a `Row`, and a `Row` becomes a `Record`. What is wrong with a
row is said with its file, its number and its field; no row is skipped.

Sources: Li et al. 2022 (MUSIC-AVQA), Liu et al. 2024 (v2), Ma et al. 2024 (R).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import LABELS
from avqa_llm.prompt import spoken
from instruct_data.records import Clip, Record, Turn
from instruct_data.sources.fields import Fields, absent, provenance, read_list, short
from instruct_data.templates import SLOT, TEMPLATES, fill

TYPES = tuple(
    f"{modality} {kind}"
    for modality, kinds in {
        "Audio": ("Counting", "Comparative"),
        "Visual": ("Counting", "Location"),
        "Audio-Visual": ("Existential", "Location", "Counting", "Comparative", "Temporal"),
    }.items()
    for kind in kinds
)
"""The nine question types, in the order in which results are usually printed."""

FLIP = "_flip"
"""v2 names a mirrored clip by this ending; the mirrored file is made from the clip itself."""

WORDING = {"held-out": True, "training": False}
"""What `wording` says of a reworded question: whether training never sees its wording."""

_FULL_WIDTH, _ASCII = "\uff1f", "?"
# By the text with an ASCII mark: one template ends in a full-width one, and copies of it do not.
_BY_TEXT = {text.replace(_FULL_WIDTH, _ASCII): text for text in TEMPLATES}
_FIELDS = frozenset(
    "video_id question_id type question_content templ_values anser answer template "
    "question_deleted split unmatch_audio wording "
    # Say nothing about question or answer: a value of Fortis' formula, and notes of v2.
    "x audio_instrument video_instrument person".split()
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question with its gold answer."""

    number: int
    """Place in the file, from 1. Question ids may be missing or occur twice; this may not."""
    video_id: str
    question_id: int | str | None
    modality: str
    kind: str
    template: str | None
    """One of the 33 templates; None where the file has filled questions only."""
    slots: tuple[str, ...]
    """What fills the template, left to right."""
    question: str
    """As it is asked, filled."""
    gold: str
    """One of the 42 answers."""
    sound_of: str | None = None
    """The clip whose sound is heard in place of the clip's own: `unmatch_audio` of v2."""
    subset: str | None = None
    """`head` or `tail`: the `split` of a row of FortisAVQA."""
    wording: str | None = None
    """One of `WORDING`; None where the file does not say."""
    deleted: bool = False
    """Whether the row is marked as deleted (`question_deleted`)."""

    @property
    def type(self) -> str:
        """One of `TYPES`."""
        return f"{self.modality} {self.kind}"

    @property
    def mirrored(self) -> bool:
        """Whether the clip is shown with left and right exchanged."""
        return self.video_id.endswith(FLIP)

    @property
    def original(self) -> str:
        """The clip's id without the mark of a mirrored one."""
        return self.video_id.removesuffix(FLIP)


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A field that this reader does not know."""

    field: str
    first: int
    """Number of the first row that has it."""
    rows: int


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A question file that was read whole."""

    path: Path
    sha256: str
    """Of the bytes of the file: several versions of these files are in circulation."""
    rows: tuple[Row, ...]
    unread: tuple[Unread, ...] = ()
    """Fields that were left out, in the order in which they first occur."""


def read_annotations(path: Path | str) -> Annotations:
    """Read a question file. Raises AnnotationError that names file, row number and field."""
    path = Path(path)
    raw, sha256 = read_list(path)
    unread: dict[str, tuple[int, int]] = {}
    rows = []
    for number, row in enumerate(raw, 1):
        fields = _RowFields(path, number, row)
        rows.append(fields.row())
        for field in fields.unknown():
            first, count = unread.get(field, (number, 0))
            unread[field] = (first, count + 1)
    left = (Unread(field=field, first=at, rows=n) for field, (at, n) in unread.items())
    return Annotations(path=path, sha256=sha256, rows=tuple(rows), unread=tuple(left))


class _RowFields(Fields):
    """One raw row of the family."""

    def row(self) -> Row:
        modality, kind = self.type()
        template, slots, question = self.question()
        return Row(
            number=self.number,
            video_id=self.file_name("video_id"),
            question_id=self.question_id(),
            modality=modality,
            kind=kind,
            template=template,
            slots=slots,
            question=question,
            gold=self.gold(),
            sound_of=None if absent(self.raw.get("unmatch_audio")) else self.sound_of(),
            subset=self.optional_text("split"),
            wording=self.wording(),
            deleted=self.raw.get("question_deleted") in (1, "1"),
        )

    def unknown(self) -> list[str]:
        """Fields that are not read; the examples in Fortis' README carry comments."""
        return [key for key in self.raw if key not in _FIELDS and not key.startswith("_comment")]

    def sound_of(self) -> str:
        return self.file_name("unmatch_audio")

    def question_id(self) -> int | str | None:
        """The id; v2 leaves it out, writes null or NaN, and writes whole numbers as 12.0."""
        value = self.raw.get("question_id")
        if absent(value):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self.wrong("question_id", f"should be a number, is {short(value)}")
        if isinstance(value, float) and not value.is_integer():
            raise self.wrong("question_id", f"should be a whole number, is {value}")
        return value.strip() if isinstance(value, str) else int(value)

    def type(self) -> tuple[str, str]:
        pair = self.texts("type")
        if len(pair) != 2 or " ".join(pair) not in TYPES:
            raise self.wrong("type", f"{list(pair)} is none of the nine: {', '.join(TYPES)}")
        return pair[0], pair[1]

    def question(self) -> tuple[str | None, tuple[str, ...], str]:
        """Template, slot values and filled question, whose characters are all the file's own."""
        content, slots = self.text("question_content"), self.texts("templ_values")
        template = _BY_TEXT.get(content.replace(_FULL_WIDTH, _ASCII))
        if template is not None:
            try:
                return template, slots, fill(content, slots)
            except ValueError as error:
                raise self.wrong("templ_values", str(error)) from error
        if SLOT.search(content):
            raise self.wrong("question_content", f"{short(content)} is none of the 33 templates")
        named = self.text("template") if "template" in self.raw else None
        if named is not None and named not in TEMPLATES:
            raise self.wrong("template", f"{short(named)} is none of the 33 templates")
        return named, slots, content

    def wording(self) -> str | None:
        """Which part of the bank of wordings a question comes from, where the file says it."""
        value = self.optional_text("wording")
        if value is not None and value not in WORDING:
            raise self.wrong("wording", f"{short(value)} is none of {', '.join(WORDING)}")
        return value

    def gold(self) -> str:
        """The answer; the benchmark spells its field `anser`."""
        field = "anser" if "anser" in self.raw else "answer"
        gold = self.text(field)
        if gold not in LABELS:
            raise self.wrong(field, f"{short(gold)} is none of the 42 answers")
        if field == "anser" and "answer" in self.raw and self.text("answer") != gold:
            other = short(self.raw["answer"])
            raise self.wrong("answer", f"{other} is not what 'anser' says, {gold!r}: keep one")
        return gold


# -- records -------------------------------------------------------------------------------


def reader(source: str, licence: str) -> Callable[[Path, str], Iterator[Record]]:
    """The reader of one data set of the family, for `SOURCES`.

    What it returns raises AnnotationError where a row is faulty, has a field that is not known,
    or belongs to another data set of the family. Faults that leave every row readable are logged.
    """

    def read(path: Path, split: str) -> Iterator[Record]:
        from instruct_data.sources.music_avqa_files import check

        annotations = read_annotations(path)
        for message in check(annotations, source, split):
            _log.warning("%s", message)
        return records(annotations, source=source, split=split, licence=licence)

    return read


def records(annotations: Annotations, *, source: str, split: str, licence: str) -> Iterator[Record]:
    """Each row as a record, but for those of `left_out`."""
    for row in annotations.rows:
        if row.sound_of is None:
            yield _record(annotations, row, source, split, licence)


def clips(annotations: Annotations) -> frozenset[str]:
    """Every clip that a file names, by its original id: those of `left_out` too, and those whose
    sound alone is used. An overlap check that goes by `records` would miss them.
    """
    pictures = (row.original for row in annotations.rows)
    sounds = (row.sound_of for row in annotations.rows if row.sound_of is not None)
    return frozenset((*pictures, *sounds))


def left_out(annotations: Annotations) -> list[str]:
    """The rows that `records` cannot give, a line each.

    v2 asks of some clips with the sound of another one. A record names one clip; with the
    clip's own sound the gold answer, always "no", would be wrong.
    """
    return [
        f"row {row.number}: {row.video_id} is asked about with the sound of {row.sound_of}, which "
        "a record cannot say"
        for row in annotations.rows
        if row.sound_of is not None
    ]


def _record(annotations: Annotations, row: Row, source: str, split: str, licence: str) -> Record:
    turn = Turn(
        question=row.question,
        answer=spoken(row.gold),
        label=row.gold,
        template=row.template,
        slots=row.slots,
        type=row.type,
    )
    origin = provenance(annotations.path, annotations.sha256, row.number)
    return Record(
        id=f"{source}:{split or '-'}:{row.number}",
        kind="question",
        clip=Clip(video=row.original, mirrored=row.mirrored),
        turns=(turn,),
        source=source,
        split=split,
        licence=licence,
        provenance=(origin, f"{row.subset} subset") if row.subset else (origin,),
    )


def refuse_unread(annotations: Annotations) -> None:
    """Raise AnnotationError that names the first row with a field that is not known."""
    for left in annotations.unread:
        raise AnnotationError(
            f"{annotations.path}, row {left.first}, field {left.field!r}: is none of the fields of "
            f"MUSIC-AVQA and its relatives ({left.rows} rows have it): rename it or take it out"
        )
