"""Preference pairs: two answers to a question about a clip, of which one is the better one.

Three files are read, and their content tells which it is: pairs of `instruct_data` (JSONL); the
rows of ADPO in AVinstruct's form (Ye et al., ECCV 2024), where two conversations end with the two
answers; and rows of one's own: `{"video": ..., "question": ..., "chosen": ..., "rejected": ...}`
as JSON, JSONL or a table, with the optional fields of `own`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic.dataclasses import dataclass as checked_dataclass

from avqa_llm.errors import AnnotationError
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn
from avqa_llm.training.fields import Fields, clip_of
from avqa_llm.training.lines import Line, read_lines, short
from avqa_llm.training.own import ABOUT, CLIP, history, kind, talk
from avqa_llm.training.records import STRICT, RecordClip, SaidTurn, checked, text, turns
from avqa_llm.training.rows import ClipRow


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """Two answers to a question about a clip."""

    video_id: str
    media: str
    """The clip's file below the folder of the media, or its name without suffix."""
    cut: Cut = Cut()
    history: tuple[Turn, ...] = ()
    question: str
    chosen: str
    rejected: str
    tag: str = ""
    """Why the rejected answer is the worse one: `ambiguous`, `wrong`, `swapped`, `muted`,
    `mined`, or one's own word; empty where nobody says."""
    type: str = ""
    choices: tuple[str, ...] = ()
    label: str | None = None
    """The right answer as a closed set has it; None where the answer is open."""

    @property
    def row(self) -> ClipRow:
        """The clip alone, as a row without questions."""
        return ClipRow(
            video_id=self.video_id,
            record="",
            record_without_sound="",
            record_without_picture="",
            questions=(),
            media=self.media,
            cut=self.cut,
        )


@checked_dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class _Pair:
    record: str
    turn: int = 0
    clip: RecordClip
    history: tuple[SaidTurn, ...] = ()
    question: str
    chosen: str
    rejected: str
    tag: str
    label: str | None = None
    source: str
    split: str
    licence: str
    provenance: tuple[str, ...]


def read_pairs(path: Path) -> list[PairRow]:
    """Read a file of preference pairs.

    Raises:
        AnnotationError: the file is missing, a row is no pair, or its two answers are the same;
            names line, field and what is known.
    """
    rows = []
    for line in read_lines(path):
        keys = set(line.value)
        if "clip" in keys and isinstance(line.value["clip"], dict):
            row = _of_builder(line)
        elif {"conversations1", "conversations2"} & keys:
            row = _of_talks(line)
        else:
            row = _of_one_s_own(line)
        if row.chosen.casefold() == row.rejected.casefold():
            raise line.wrong("rejected", f"is what was chosen, {short(row.chosen)}: name another")
        rows.append(row)
    return rows


def _of_builder(line: Line) -> PairRow:
    if "turns" in line.value:
        raise line.wrong("turns", "this is a file of records: make pairs of them with "
                         "`python -m instruct_data prefer`")  # fmt: skip
    pair = checked(line, _Pair)
    video = text(line, "clip.video", pair.clip.video)
    return PairRow(
        video_id=video,
        media=video,
        cut=pair.clip.cut(line),
        history=turns(line, "history", pair.history),
        question=text(line, "question", pair.question),
        chosen=text(line, "chosen", pair.chosen),
        rejected=text(line, "rejected", pair.rejected),
        tag=pair.tag,
        label=pair.label,
    )


def _of_talks(line: Line) -> PairRow:
    """A row of ADPO; `chosen` and `rejected` say which of the two conversations is preferred."""
    row = Fields(
        line, line.value, (*CLIP, "conversations1", "conversations2", "chosen", "rejected", "tag")
    )
    (first, parts), (second, _) = (talk(row, f"conversations{n}") for n in (1, 2))
    given = [row.text(name) for name in ("chosen", "rejected")]
    if sorted([first[-1][1], second[-1][1]]) != sorted(given):
        why = "and 'rejected' are not the last answers of the two conversations"
        raise row.wrong("chosen", f"{short(given[0])} {why}")
    if first[:-1] != second[:-1] or first[-1][0] != second[-1][0]:
        why = "asks something else than 'conversations1': they differ in the last answer alone"
        raise row.wrong("conversations2", why)
    video_id, media, cut = clip_of(row, parts, two_files=True)
    return PairRow(
        video_id=video_id,
        media=media,
        cut=cut,
        history=history(first[:-1]),
        question=first[-1][0],
        chosen=given[0],
        rejected=given[1],
        tag=row.optional_text("tag"),
    )


def _of_one_s_own(line: Line) -> PairRow:
    names = (*CLIP, *ABOUT, "question", "chosen", "rejected", "tag")
    if not {"chosen", "rejected"} & {key.strip().lower() for key in line.value}:
        raise AnnotationError(
            f"{line.path}, line {line.number}: this is no file of pairs: each row has the fields "
            f"'chosen' and 'rejected', this one has {short(', '.join(line.value))}"
        )
    row = Fields(line, line.value, names)
    video_id, media, cut = clip_of(row, {}, two_files=False)
    choices = row.texts("choices")
    return PairRow(
        video_id=video_id,
        media=media,
        cut=cut,
        question=row.asked("question", row.text("question")),
        chosen=row.text("chosen"),
        rejected=row.text("rejected"),
        tag=row.optional_text("tag"),
        type=kind(row),
        choices=choices,
        label=row.label(choices),
    )
