"""What the report says of parts of a benchmark, of missing answers, gaps and clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval.report import write_report
from eval.samples import RESULTS, write_json
from tests.report_world import (
    Page,
    answered,
    browser_field,
    finished,
    mostly_right,
    muted,
    questions,
)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    asked = questions(6)
    samples = mostly_right(asked)
    return finished(tmp_path / "run", samples, asked, probes=muted(samples))


def test_what_was_asked_only_in_part_is_said(whole: Path) -> None:
    results = json.loads((whole / RESULTS).read_text())
    results["provenance"] |= {"limit": 400, "mute": True, "shard": [2, 4]}
    write_json(whole / RESULTS, results)
    html, markdown = write_report([whole])
    text = Page(html).text
    assert "first 400 questions only part 2 of 4 only muted: without sound" in text
    assert "first 400 questions only · part 2 of 4 only" in markdown.read_text()


def test_predictions_that_are_missing_and_the_command_that_scores_them(whole: Path) -> None:
    results = json.loads((whole / RESULTS).read_text())
    results["provenance"] |= {
        "media": None,
        "missing_clips": {"c": "no prediction for 3 of its 3 questions"},
        "missing_questions": 3,
        "asked": 15,
        "files": {"my test.json": "0" * 64},
        "parent": {"v1 test.json": "0" * 64},
        "predictions": {"a b.jsonl": "0" * 64},
    }
    write_json(whole / RESULTS, results)
    text = Page(write_report([whole])[0]).text
    assert "No prediction for 3 of 15 questions: they are in no figure here." in text
    assert "missing or broken" not in text
    assert "--annotations 'my test.json' --parent 'v1 test.json'" in text
    assert "--predictions 'a b.jsonl' --partial --out RUN" in text


def test_silence_is_counted_by_itself(whole: Path) -> None:
    results = json.loads((whole / RESULTS).read_text())
    counts = {"n": 4, "steady": 1, "flighty": 0, "silent": 3}
    results["probes"]["mute"]["should_stay"] = counts
    results["probes"]["mute"]["should_change"] = {
        "n": 2,
        "faithful": 1,
        "stubborn": 1,
        "flighty": 0,
    }
    write_json(whole / RESULTS, results)
    text = Page(write_report([whole])[0]).text
    assert "25.00 % steady, 75.00 % silent, n 4" in text
    assert "50.00 % faithful, 50.00 % stubborn, n 2" in text


@pytest.mark.parametrize(
    ("head", "tail", "said"),
    [
        ((0.7, 0.6, 0.8), (0.3, 0.2, 0.4), "+40.00 points: frequent answers are preferred."),
        ((0.3, 0.2, 0.4), (0.7, 0.6, 0.8), "-40.00 points: frequent answers are not preferred."),
        ((0.5, 0.4, 0.6), (0.4, 0.3, 0.5), "+10.00 points, with intervals that overlap."),
        ((0.5, None, None), (0.4, None, None), "+10.00 points, of too few clips to tell more."),
    ],
)
def test_a_gap_says_no_more_than_its_intervals(
    whole: Path,
    head: tuple[float, float | None, float | None],
    tail: tuple[float, float | None, float | None],
    said: str,
) -> None:
    results = json.loads((whole / RESULTS).read_text())
    results["groups"] = {
        name: dict(zip(("accuracy", "low", "high"), one, strict=True)) | {"n": 6, "videos": 3}
        for name, one in (("head", head), ("tail", tail))
    }
    write_json(whole / RESULTS, results)
    assert f"Head minus tail: {said}" in Page(write_report([whole])[0]).text


def test_clips_are_found_wherever_they_lie(tmp_path: Path) -> None:
    asked = [
        replace(one, video_id=name)
        for one, name in zip(
            questions(2), ("plain", "deep down", "other", "plain_flip"), strict=True
        )
    ]
    samples = [replace(answered(one, one.gold), sound_of="other") for one in asked]
    folder = finished(tmp_path / "run", samples, asked)
    assert Page(write_report([folder])[0]).data["files"] == {}
    (tmp_path / "clips" / "sub").mkdir(parents=True)
    for name in ("plain.mp4", "sub/deep down.mp4", "other.webm"):
        (tmp_path / "clips" / name).write_bytes(b"")
    data = Page(write_report([folder])[0]).data
    assert data["files"] == {
        "deep down": "sub/deep%20down.mp4",
        "other": "other.webm",
        "plain_flip": "plain.mp4",
    }
    sounds = {data["strings"][row[browser_field("sound_of")]] for row in data["samples"]}
    assert sounds == {"other"}
