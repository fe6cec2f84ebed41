"""`avqa ask` as a person meets it, with the model that ships: answers, JSON, broken files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from avqa_llm.asking import SAMPLES
from avqa_llm.cli import main
from avqa_llm.labels import LABELS
from tests.media_files import Picture, Sound, at_rate, make_media

QUESTION = "How many instruments are sounding in the video?"
REAL = Path(__file__).resolve().parent.parent / "app" / "samples" / "duo.mp4"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVQA_CACHE", str(tmp_path / "cache"))


def ask_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["ask", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_what_a_program_needs(capsys: pytest.CaptureFixture[str]) -> None:
    row = ask_json(capsys, str(REAL), QUESTION)
    assert row["label"] in LABELS
    assert 0 < row["probability"] <= 1
    assert row["probability"] >= row["alternatives"][0]["probability"]
    assert {e["modality"] for e in row["evidence"]} == {"sound", "picture"}
    for place in row["evidence"]:
        assert 0 <= place["start_s"] < place["end_s"] <= 10.1
        assert (place["region"] is None) == (place["modality"] == "sound")
    consumed = row["consumed"]
    assert consumed["sound"] and consumed["picture"] and consumed["picture_tokens"] == 240
    assert consumed["sound_tokens"] in (100, 101), "AAC pads the last frame"
    assert {"load", "decode", "encode", "answer"} <= set(row["timing_s"])
    assert row["warnings"] == []


def test_the_samples_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    listed = json.loads((SAMPLES / "samples.json").read_text())
    asked = sum(len(sample["questions"]) for sample in listed)
    right = out.count("✓")
    assert f"{right} of {asked} answers are right" in out
    assert right >= 0.7 * asked
    assert "listened at" in out and "looked at" in out


def test_facts_for_a_model_that_cannot_read_them_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ask", str(REAL), QUESTION, "--facts"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "model tiny" in said.err and "avqa listen" in said.err
    assert not said.out


@pytest.mark.parametrize(("flag", "gone"), [("--mute", "sound"), ("--blank", "picture")])
def test_a_missing_modality_is_named(
    capsys: pytest.CaptureFixture[str], flag: str, gone: str
) -> None:
    row = ask_json(capsys, str(REAL), QUESTION, flag)
    assert row["consumed"][gone] is False and row["consumed"][f"{gone}_tokens"] == 0
    assert any(gone in warning for warning in row["warnings"])
    assert all(e["modality"] != gone for e in row["evidence"])


def test_a_second_question_reads_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    fresh = ask_json(capsys, str(REAL), QUESTION)
    again = ask_json(capsys, str(REAL), QUESTION)
    assert {**fresh, "timing_s": 0} == {**again, "timing_s": 0}


def test_follow_up_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(REAL), QUESTION, "Where is the loudest instrument?"]) == 0
    out = capsys.readouterr().out
    assert out.count("→") == 2 and "Where is the loudest instrument?" in out


def _twenty(folder: Path) -> dict[str, Path]:
    """Twenty files as they come from people: cut, empty, renamed, lying, huge, tiny."""
    picture = Picture(times_s=at_rate(10, 3))
    whole = make_media(folder / "whole.mp4", picture, Sound(seconds=3))
    data = whole.read_bytes()
    (folder / "here.mp4").mkdir()
    rng = np.random.default_rng(0)
    contents = {
        "zero.mp4": b"",
        "text.mp4": b"this is not a video\n" * 50,
        "noise.mp4": rng.integers(0, 256, 20000, dtype=np.uint8).tobytes(),
        "cut-early.mp4": data[: len(data) // 20],
        "cut-half.mp4": data[: len(data) // 2],
        "cut-end.mp4": data[:-100],
        "no-head.mp4": data[64:],
        "holes.mp4": b"".join(data[i : i + 997] + b"\0" * 5 for i in range(0, len(data), 1002)),
        "playlist.m3u8": b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n",
        "page.mkv": b"<html><body>404</body></html>",
        "renamed.avi": data,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    make_media(folder / "silent-movie.mp4", picture, None)
    make_media(folder / "sound-only.m4a", None, Sound(seconds=3))
    make_media(folder / "silence.mp4", picture, Sound(seconds=3, volume=0.0))
    make_media(folder / "short-sound.mp4", picture, Sound(seconds=1))
    make_media(folder / "blink.mp4", Picture(times_s=at_rate(25, 0.04)), None)
    cv2.imwrite(str(folder / "still.png"), np.full((90, 160, 3), 128, np.uint8))
    cv2.imwrite(str(folder / "still-8k.png"), np.zeros((4320, 7680, 3), np.uint8))
    found = {path.name: path for path in folder.iterdir()}
    return found | {"absent.mp4": folder / "absent.mp4"}


def test_twenty_broken_files_are_answered_or_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    files = _twenty(folder)
    assert len(files) >= 20
    answered = 0
    for name, path in files.items():
        status = main(["ask", str(path), QUESTION])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, name
        if status == 0:
            answered += 1
            assert "→" in out, name
        else:
            assert status == 2, name
            assert err.startswith("avqa: ") and len(err.strip().splitlines()) == 1, (name, err)
            assert len(err) > 40, (name, err)
    assert 6 <= answered <= 16


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["no-such.mp4", "?"], id="no file"),
        pytest.param([str(REAL), "?", "--model", "no-such-model"], id="no model"),
        pytest.param([str(REAL), "?", "--model", "."], id="not a model directory"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    check: Callable[[list[str]], int] = main
    assert check(["ask", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("avqa: ") and len(err.strip().splitlines()) == 1
