"""Rows of which a share hedges: as many as was said, and nothing but the answer is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avqa_llm.training.rows import read_rows
from instruct_data.__main__ import main
from instruct_data.pairs import Pair, write_pairs
from instruct_data.records import Clip


def pairs(tag: str = "ambiguous") -> list[Pair]:
    return [
        Pair(
            record=f"r{n}",
            clip=Clip(video=f"v{n // 4}"),
            question=f"Question {n}?",
            chosen="It is the violin.",
            rejected="Hard to say.",
            tag=tag,  # type: ignore[arg-type]
            source="own",
            split="train",
            licence="own",
            provenance=(),
        )
        for n in range(400)
    ]


def made(folder: Path, *more: str) -> list[dict[str, str]]:
    write_pairs(folder / "pairs.jsonl", pairs())
    command = ["hedged", str(folder / "pairs.jsonl"), "--out", str(folder / "rows.jsonl"), *more]
    assert main(command) == 0
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_a_share_of_the_answers_hedges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made(tmp_path, "--share", "0.4")
    hedges = sum(row["answer"] == "Hard to say." for row in rows)
    assert 130 < hedges < 190 and f"400 rows, {hedges} of them hedge" in capsys.readouterr().out
    assert {row["answer"] for row in rows} == {"Hard to say.", "It is the violin."}
    assert [row["question"] for row in rows] == [pair.question for pair in pairs()]
    assert rows == made(tmp_path) and rows != made(tmp_path, "--seed", "1")
    assert len(read_rows(tmp_path / "rows.jsonl")) == 100


def test_all_or_none_hedge_where_that_is_said(tmp_path: Path) -> None:
    for share, answer in (("0", "It is the violin."), ("1", "Hard to say.")):
        assert {row["answer"] for row in made(tmp_path, "--share", share)} == {answer}


def test_what_cannot_be_made_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs.jsonl", pairs("wrong"))
    command = ["hedged", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "rows.jsonl")]
    assert main(command) == 2
    assert "--tags ambiguous:1" in capsys.readouterr().err
    assert main([*command, "--share", "2"]) == 2
    assert not (tmp_path / "rows.jsonl").exists()
