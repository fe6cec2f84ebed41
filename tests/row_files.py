"""Writes files of rows for tests, and says what is expected of a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avqa_llm.errors import AnnotationError
from avqa_llm.training.rows import read_rows

OWN = {"video": "a.mp4", "question": "What sounds?", "answer": "a violin"}
"""A row of one's own."""


def written(folder: Path, value: object, name: str = "rows.json") -> Path:
    path = folder / name
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, *said: str) -> None:
    with pytest.raises(AnnotationError) as error:
        read_rows(path)
    for part in (path.name, *said):
        assert part in str(error.value), str(error.value)


def talk(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
