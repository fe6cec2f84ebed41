"""Rows of which a share hedges: as many as was said, and each hedge names the right answer too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avqa_llm.training.rows import read_pairs, read_rows
from eval.hedging import ALTERNATIVES, hedge
from instruct_data.__main__ import main
from instruct_data.records import Clip, Record, Turn, write_records

KIND = "What kind of musical instrument is it?"
PLACE = "Where is the performance?"


def records() -> list[Record]:
    turns = (
        Turn(question=KIND, answer="A violin.", label="violin", template=KIND),
        Turn(question=PLACE, answer="indoor", label="indoor", template=PLACE),
        Turn(question="What is it about?", answer="Nobody knows.", label=None),
    )
    return [
        Record(
            *(), id=f"r{n}", kind="question", clip=Clip(video=f"v{n}"), turns=turns, source="own",
            split="train", licence="own", provenance=(),
        )
        for n in range(200)
    ]  # fmt: skip


def made(folder: Path, *more: str) -> list[dict[str, str]]:
    write_records(folder / "records.jsonl", records())
    command = ["hedged", str(folder / "records.jsonl"), "--rows", str(folder / "rows.jsonl")]
    assert main([*command, "--pairs", str(folder / "pairs.jsonl"), *more]) == 0
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_a_share_of_the_answers_hedges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made(tmp_path, "--share", "0.4")
    hedges = [row["answer"] for row in rows if hedge(row["answer"]) == ALTERNATIVES]
    assert 130 < len(hedges) < 190 and f"400 rows, {len(hedges)} of" in capsys.readouterr().out
    assert {row["answer"] for row in rows} - set(hedges) == {"violin", "indoor"}
    assert all("violin" in text or "indoor" in text for text in hedges)
    assert {"indoor or outdoor", "outdoor or indoor"} <= set(hedges)
    assert rows == made(tmp_path) and rows != made(tmp_path, "--seed", "1")
    assert len(read_rows(tmp_path / "rows.jsonl")) == 200
    pairs = read_pairs(tmp_path / "pairs.jsonl")
    assert len(pairs) == 400
    assert all(p.chosen in p.rejected and " or " in p.rejected for p in pairs)


def test_all_or_none_hedge_where_that_is_said(tmp_path: Path) -> None:
    for share, hedges in (("0", 0), ("1", 400)):
        assert sum(" or " in row["answer"] for row in made(tmp_path, "--share", share)) == hedges


def test_what_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path / "records.jsonl", [])
    command = ["hedged", str(tmp_path / "records.jsonl")]
    assert main(command) == 2 and "--rows, --pairs" in capsys.readouterr().err
    command += ["--rows", str(tmp_path / "rows.jsonl")]
    assert main(command) == 2 and "no answers" in capsys.readouterr().err
    assert main([*command, "--share", "2"]) == 2
    assert not (tmp_path / "rows.jsonl").exists()
