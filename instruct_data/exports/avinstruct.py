"""The formats of CAT (Ye et al., ECCV 2024): AVinstruct, and the pairs of its ADPO.

After the repository of its authors (rikeilong/Bay-CAT: `AVinstruct/README.md` for rows,
`ADPO_CAT/dpo_dataset_new.py` for pairs). Both are one JSON list. The question stands between
two `<Q>`, which is what CAT's clue aggregator is guided by; `<video>` is where the soft tokens of
picture and sound go, so it stays where only one of them is given.

CAT's own loader reads precomputed features (`.npy`) under `video` and `audio`; here they are media
files, and a key is left out where the record does not give that modality. `multi_choice` and
`correct_answer` are empty, as they are in the row that the authors show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from avqa_llm.errors import AnnotationError
from instruct_data.exports.rows import (
    Format,
    Row,
    clip_of,
    files,
    pair_of,
    record_of,
    said,
    traced,
    without_marks,
)
from instruct_data.pairs import Pair
from instruct_data.records import Record, Turn

MARKS = ("<Q>", "<video>", "<image>")

_LEAD = "Summarize the video to help answer:\n"
_ASKED = re.compile(r"<Q>(.*?)<Q>", re.DOTALL)

Talk = list[dict[str, str]]


def record_row(record: Record, folder: Path | None) -> Row:
    """A row of AVinstruct; later turns follow as they are, as only one question guides the clues.

    Raises:
        ExportError: a text holds one of the format's own marks.
    """
    without_marks(record, MARKS)
    picture, sound = files(record.clip, folder)
    row: Row = {"video_id": record.clip.video, "multi_choice": "", "correct_answer": ""}
    media = {"video": picture, "audio": sound}
    row |= {key: path for key, path in media.items() if path} | traced(record)
    return {**row, "conversations": _talk(record.turns)}


def pair_row(pair: Pair, folder: Path | None) -> Row:
    """A row of ADPO: the chosen conversation first, then the rejected one.

    CAT's loader calls them the other way round, and its loss then takes the halves of the batch
    the other way round again: with this order it prefers the chosen one.

    Raises:
        ExportError: a text holds one of the format's own marks.
    """
    without_marks(pair, MARKS)
    picture, sound = files(pair.clip, folder)
    media = {"video": picture, "audio": sound}
    row: Row = {key: path for key, path in media.items() if path} | traced(pair)
    for key, answer in (("conversations1", pair.chosen), ("conversations2", pair.rejected)):
        row[key] = _talk([*pair.history, Turn(question=pair.question, answer=answer)])
    return {**row, "chosen": pair.chosen, "rejected": pair.rejected}


def read_record(row: Row, folder: Path | None) -> Record:
    """A record of a row of AVinstruct. Raises AnnotationError where it is none."""
    turns = _turns(said(row, "conversations"))
    clip = clip_of(row.get("video"), row.get("audio"), folder)
    return record_of(row, clip, turns, "avinstruct")


def read_pair(row: Row, folder: Path | None) -> Pair:
    """A pair of a row of ADPO. Raises AnnotationError where it is none.

    The fields `chosen` and `rejected` say which answer is preferred, in whichever order the two
    conversations stand.
    """
    chosen, rejected = (str(said(row, key, str)) for key in ("chosen", "rejected"))
    talks = [_turns(said(row, key)) for key in ("conversations1", "conversations2")]
    if {talks[0][-1].answer, talks[1][-1].answer} != {chosen, rejected}:
        raise AnnotationError("chosen and rejected are not the answers of the two conversations")
    *before, last = talks[0]
    clip = clip_of(row.get("video"), row.get("audio"), folder)
    return pair_of(row, clip, before, last.question, (chosen, rejected), "adpo")


def _talk(turns: Sequence[Turn]) -> Talk:
    talk: Talk = []
    for number, turn in enumerate(turns):
        asked = turn.question if number else f"{_LEAD}<Q>{turn.question}<Q>\n<video>"
        talk.append({"from": "human", "value": asked})
        talk.append({"from": "gpt", "value": turn.answer})
    return talk


def _turns(talk: Sequence[Row]) -> list[Turn]:
    speakers = [part.get("from") for part in talk]
    if not talk or speakers != ["human", "gpt"] * (len(talk) // 2):
        raise AnnotationError(f"human and gpt should take turns in a conversation, not {speakers}")
    texts = [str(said(part, "value", str)) for part in talk]
    return [
        Turn(question=_question(asked), answer=answer)
        for asked, answer in zip(texts[::2], texts[1::2], strict=True)
    ]


def _question(text: str) -> str:
    """What is asked, without the marks around it; human turns without `<Q>` are all question."""
    asked = _ASKED.search(text)
    return asked[1] if asked else text.replace("<video>", "").replace("<image>", "").strip("\n")


FORMATS: dict[str, Format] = {
    "avinstruct": Format(
        what="CAT's AVinstruct rows; pairs become CAT's ADPO rows",
        suffix=".json",
        record_row=record_row,
        pair_row=pair_row,
        read_record=read_record,
        read_pair=read_pair,
    )
}
