"""A test set in the shape of MUSIC-AVQA-R, made from a question file of MUSIC-AVQA v1 or v2.

MUSIC-AVQA-R states no licence, so it cannot be passed on. This asks each question in other
words of this project's own, by preference in those that training never sees.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from avqa_llm.errors import AnnotationError, AVQAError
from instruct_data.rephrase import spoken_slots
from instruct_data.templates import TEMPLATES
from instruct_data.wordings import fill_wording, split

if TYPE_CHECKING:
    from instruct_data.sources.music_avqa import Row

HEAD_FACTOR = 1.2
PARTS = ("head", "tail", "headtail")

Group = tuple[str, str, str]
"""Modality, kind and family of answers."""


def read_questions(path: Path) -> tuple[Row, ...]:
    """Read a question file whose questions are templates with slots.

    Raises:
        AnnotationError: the file cannot be read, a row is faulty, or its question is filled in
            already, so that nobody knows what fills its slots; names row and field.
    """
    from instruct_data.sources.music_avqa import read_annotations

    rows = read_annotations(path).rows
    for row in rows:
        if row.template is None or len(row.slots) != len(TEMPLATES[row.template].slots):
            raise AnnotationError(
                f"{path}, row {row.number}, field 'question_content': {row.question!r:.80} is "
                "filled in already; give a file of MUSIC-AVQA v1 or v2, with templates and slots"
            )
    return rows


def head_answers(rows: Sequence[Row]) -> frozenset[tuple[Group, str]]:
    """The frequent answers, as (group, answer): more than 1.2 times the mean of their group.

    A group is a question type and a family of answers; the mean is over the answers that
    occur in it. This is the rule that MUSIC-AVQA-R documents. It does not reproduce the
    split of the files that R ships: for R itself use those.
    """
    groups: dict[Group, Counter[str]] = defaultdict(Counter)
    for row in rows:
        groups[_group(row)][row.gold] += 1
    return frozenset(
        (group, answer)
        for group, counts in groups.items()
        for answer, count in counts.items()
        if count > HEAD_FACTOR * counts.total() / len(counts)
    )


def _group(row: Row) -> Group:
    return row.modality, row.kind, TEMPLATES[_template(row)].answers


def _template(row: Row) -> str:
    assert row.template is not None, "read_questions lets no such row through"
    return row.template


def wordings_of(
    row: Row, *, times: int, seed: int, training: bool = False
) -> Iterator[tuple[str, bool]]:
    """Up to `times` different ways to ask a question, each with whether it is held out.

    Held-out wordings come first and, without `training`, alone.
    """
    rng = np.random.default_rng([seed, row.number])
    others, held = split(_template(row))
    order = [(held[int(i)], True) for i in rng.permutation(len(held))]
    if training:
        order += [(others[int(i)], False) for i in rng.permutation(len(others))]
    seen: set[str] = set()
    for wording, is_held in order:
        text = fill_wording(wording, spoken_slots(row.slots, rng))
        if text not in seen and len(seen) < times:
            seen.add(text)
            yield text, is_held


def write_reworded(
    out: Path, rows: Sequence[Row], *, times: int, seed: int, training: bool = False
) -> Counter[str]:
    """Write `avqa-test-head.json`, `-tail.json` and `-headtail.json` (both) into a folder.

    Rows are filled and have no slots, as in MUSIC-AVQA-R; beside them `template` names what
    the question no longer shows, and `wording` says whether it is `held-out` (training never
    sees it) or one of `training`. The files take their names when all of them are complete.
    Returns how many rows there are, by part and by kind of wording.

    Raises:
        AVQAError: the folder or a file in it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(out, rows, times, seed, training)
    except OSError as error:
        raise AVQAError(
            f"cannot write to {out}: {error.strerror}; name a folder that can be written"
        ) from error


def _write(out: Path, rows: Sequence[Row], times: int, seed: int, training: bool) -> Counter[str]:
    from tqdm import tqdm

    head, counts = head_answers(rows), Counter[str]()
    paths = {part: out / f"avqa-test-{part}.json" for part in PARTS}
    aside = {part: path.with_name(f"{path.name}.writing") for part, path in paths.items()}
    with ExitStack() as stack:
        files = {p: stack.enter_context(aside[p].open("w", encoding="utf-8")) for p in PARTS}
        for row in tqdm(rows, unit="question", disable=None):
            part = "head" if (_group(row), row.gold) in head else "tail"
            for text, is_held in wordings_of(row, times=times, seed=seed, training=training):
                wording = "held-out" if is_held else "training"
                line = json.dumps(_reworded(row, text, wording), ensure_ascii=False)
                for name in (part, "headtail"):
                    _add(files[name], line, is_first=not counts[name])
                    counts[name] += 1
                counts[wording] += 1
        for name, file in files.items():
            file.write("\n]\n" if counts[name] else "[]\n")
    for part, path in paths.items():
        os.replace(aside[part], path)
    return counts


def _add(file: IO[str], line: str, *, is_first: bool) -> None:
    file.write(f"{'[' if is_first else ','}\n{line}")


def _reworded(row: Row, text: str, wording: str) -> dict[str, Any]:
    filled = {
        "video_id": row.video_id,
        "question_id": row.question_id,
        "type": json.dumps([row.modality, row.kind]),
        "question_content": text,
        "templ_values": "[]",
        "question_deleted": int(row.deleted),
        "anser": row.gold,
        "template": row.template,
        "wording": wording,
    }
    # v2 asks of some clips with the sound of another one: without it the answer would be wrong.
    return filled | ({"unmatch_audio": row.sound_of} if row.sound_of else {})
