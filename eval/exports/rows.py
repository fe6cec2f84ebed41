"""Questions as rows that others read, and folders that are whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks.base import Question, QuestionSet
from eval.media import find_media
from eval.samples import RunError

TEST = "data/test.jsonl"
OTHER_SOUND = "about a clip with the sound of another, which no file holds"
NO_FILE = "about a clip that has no file of its own in the media folder"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is exported of a set, and what is not."""

    rows: tuple[dict[str, Any], ...]
    files: dict[str, Path]
    """The media files by their paths in the rows."""
    left_out: Counter[str]
    """Questions by why they are left out."""

    @property
    def said(self) -> list[str]:
        """A line for each reason; empty where every question is there."""
        return [
            f"{count:,} question{'s' * (count != 1)} left out: {why}"
            for why, count in self.left_out.items()
        ]


def rows_of(asked: QuestionSet, media: Path) -> Rows:
    """Questions whose clip lies in the folder, as plain rows of the same columns.

    Raises:
        RunError: the folder is none, or has not one of the clips.
    """
    found = find_media(media)
    rows: list[dict[str, Any]] = []
    files: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    for question in asked.questions:
        path = found.get(question.video_id)
        if question.sound_of is not None or path is None:
            left_out[OTHER_SOUND if question.sound_of is not None else NO_FILE] += 1
            continue
        name = path.relative_to(media).as_posix()
        files[name] = path
        rows.append(_row(asked.benchmark, question, name))
    if not rows:
        raise RunError(
            f"{media} has a file for none of the {len(asked.questions)} questions of {asked.path}; "
            "it should hold VIDEO_ID.mp4 of each clip"
        )
    return Rows(rows=tuple(rows), files=files, left_out=left_out)


def _row(benchmark: str, question: Question, video: str) -> dict[str, Any]:
    """The columns, in order; ids are text, since some files mix text and numbers."""
    number = question.question_id
    return {
        "benchmark": benchmark,
        "row": question.number,
        "video_id": question.video_id,
        "question_id": None if number is None else str(number),
        "original": "/".join(map(str, question.original)),
        "type": question.type,
        "template": question.template,
        "subset": question.subset,
        "question": question.question,
        "choices": list(question.choices),
        "answer": question.gold,
        "video": video,
    }


FEATURES = [
    *({"name": name, "dtype": kind} for name, kind in (("benchmark", "string"), ("row", "int64"))),
    *(
        {"name": name, "dtype": "string"}
        for name in ("video_id", "question_id", "original", "type", "template", "subset")
    ),
    {"name": "question", "dtype": "string"},
    {"name": "choices", "list": "string"},
    {"name": "answer", "dtype": "string"},
    {"name": "video", "dtype": "string"},
]
"""The columns as `dataset_info` of a dataset card names them."""


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder that takes the place of `out` once it is whole, and vanishes if it never is.

    Raises:
        RunError: `out` is there already, and not an empty folder, or a file cannot be written.
    """
    out = Path(os.path.abspath(out))
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out} is there already; name another --out, or remove it")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
        ) as shut:
            aside = Path(shut) / "whole"  # a folder within: the outer one is closed to others
            aside.mkdir()
            yield aside
            if out.exists():
                out.rmdir()
            os.replace(aside, out)
    except OSError as error:
        raise RunError(f"cannot export to {out}: {error}") from error


def files_below(out: Path) -> list[Path]:
    """All files of a folder, sorted."""
    return sorted(path for path in out.rglob("*") if path.is_file())
