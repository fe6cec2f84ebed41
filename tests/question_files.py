"""Rows of question files in the shapes that their authors document, and the files themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AVQAError
from eval.benchmarks import read_benchmark
from eval.benchmarks.base import QuestionSet

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))

V1: dict[str, Any] = {
    "video_id": "00000823",
    "question_id": 2945,
    "type": '["Audio", "Comparative"]',
    "question_content": "Is the <Object> louder than the <Object>?",
    "templ_values": '["clarinet", "acoustic_guitar"]',
    "question_deleted": 0,
    "anser": "yes",
}
R: dict[str, Any] = {
    "video_id": "00000823",
    "question_id": 2945,
    "type": '["Audio", "Comparative"]',
    "question_content": "When compared to the acoustic_guitar does the clarinet sound louder",
    "anser": "yes",
}
FORTIS: dict[str, Any] = R | {"split": "tail", "x": 0.7958979489744872}
AVQA: dict[str, Any] = {
    "id": 183,
    "video_name": "-HG3Omg_89c_000030",
    "video_id": 341,
    "question_text": "What happened in the video?",
    "multi_choice": ["motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"],
    "answer": 1,
    "question_relation": "View",
    "question_type": "Happening",
}
EXAMPLES = {"music-avqa-r": R, "fortisavqa": FORTIS, "avqa": AVQA, "music-avqa": V1}


def data(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    return path


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_r(
    folder: Path, head: list[dict[str, Any]], tail: list[dict[str, Any]], *both: dict[str, Any]
) -> Path:
    """The three files of R, and the path of headtail."""
    write(folder / "avqa-test-head.json", *head)
    write(folder / "avqa-test-tail.json", *tail)
    return write(folder / "avqa-test-headtail.json", *both)


def refused(name: str, path: Path, **how: Any) -> str:
    with pytest.raises(AVQAError) as error:
        read_benchmark(name, path, **how)
    return str(error.value)


def said(asked: QuestionSet, what: str) -> list[str]:
    return [line for line in asked.oddities if what in line]


def r(question: str, gold: str = "yes", question_id: int = 2945) -> dict[str, Any]:
    return R | {"question_content": question, "anser": gold, "question_id": question_id}
