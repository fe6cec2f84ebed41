"""Fitting how sure a model may be: recovers what is so, refuses test sets, writes with care."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avqa_llm.calibrator import SIGNS
from avqa_llm.engine import LocalEngine
from eval.__main__ import main
from eval.calibrate import Judged, ask, chances, figures, fit, left_out
from eval.samples import RunError
from instruct_data.sources.music_avqa import read_annotations
from tests.media_files import Picture, Sound, at_rate, make_media
from tests.model_parts import small_model

TRUE = {"margin": 0.25, "steps_least": 0.8}
BIAS = 0.5


def judged(n: int = 4000, videos: int = 40, seed: int = 0) -> Judged:
    """Answers whose chance to be right is known; what they said of themselves is too high."""
    rng = np.random.default_rng(seed)
    signs_QS = np.zeros((n, len(SIGNS)))
    signs_QS[:, SIGNS.index("margin")] = rng.uniform(2, 12, n)
    signs_QS[:, SIGNS.index("steps_least")] = -rng.exponential(2, n)
    signs_QS[:, SIGNS.index("record_mean")] = -rng.exponential(0.1, n)
    logit_Q = BIAS + sum(w * signs_QS[:, SIGNS.index(name)] for name, w in TRUE.items())
    return Judged(
        signs_QS=signs_QS,
        probability_Q=1 / (1 + np.exp(-signs_QS[:, 0])),
        rival_Q=np.zeros(n),
        correct_Q=rng.random(n) < 1 / (1 + np.exp(-logit_Q)),
        video_Q=[f"v{number}" for number in rng.integers(0, videos, n)],
    )


def test_what_is_so_is_found_and_probabilities_become_honest() -> None:
    answers = judged()
    found = fit(answers.signs_QS, answers.correct_Q)
    for name, weight in TRUE.items():
        assert found.weights[name] == pytest.approx(weight, abs=0.08)
    assert found.bias == pytest.approx(BIAS, abs=0.3)
    assert found.weights["record_least"] == 0, "a sign that is the same everywhere"
    assert min(found.weights.values()) >= 0
    told = figures(answers, left_out(answers))
    assert told["before"]["ece"] > 0.15 and told["after"]["ece"] < 0.04
    assert told["after"]["aurc"] < told["before"]["aurc"]


def test_a_sign_that_says_the_opposite_gets_no_weight() -> None:
    answers = judged()
    answers.signs_QS[:, SIGNS.index("record_least")] = -answers.correct_Q.astype(float)
    assert fit(answers.signs_QS, answers.correct_Q).weights["record_least"] == 0


def test_a_clip_is_judged_by_what_other_clips_taught() -> None:
    answers = judged(n=600, videos=3)
    own_Q = np.array([video == "v0" for video in answers.video_Q])
    others = fit(answers.signs_QS[~own_Q], answers.correct_Q[~own_Q])
    np.testing.assert_allclose(left_out(answers)[own_Q], chances(others, answers)[own_Q])


def test_a_rival_keeps_the_answer_at_a_tie_at_least() -> None:
    answers = judged(n=50)
    answers.rival_Q[:] = 1.0
    assert chances(fit(answers.signs_QS, answers.correct_Q), answers).min() >= 0.5


def test_nothing_can_be_learned_from_one_clip_or_without_an_error() -> None:
    answers = judged(n=50, videos=1)
    with pytest.raises(RunError, match="about one clip"):
        left_out(answers)
    with pytest.raises(RunError, match="all 50 answers are right"):
        fit(answers.signs_QS, np.ones(50, bool))


def row(video: str, number: int = 0, **more: Any) -> dict[str, Any]:
    kind = '["Audio-Visual", "Existential"]'
    asked = {"video_id": video, "question_id": number, "type": kind, "templ_values": "[]"}
    return asked | {"question_content": "Is there a voiceover?", "anser": "yes"} | more


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with no more of a model than is written."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "avqa.json").write_text(json.dumps({"format": 1, "llm": "llm"}))
    return folder


def command(model: Path, questions: Path, *more: str) -> int:
    given = ["--model", str(model), "--annotations", str(questions), "--media", str(model.parent)]
    return main(["calibrate", *given, *more])


@pytest.mark.parametrize(
    ("name", "rows", "why"),
    [
        ("avqa-test.json", [row("a")], "its name says test"),
        ("avqa.json", [row("val1_000000"), row("test71_000001", 1)], "Bandstand's test clips"),
        ("mine.json", [row("test7h_000001")], "Bandstand's test clips"),
        ("mine.json", [row("a", split="tail")], "head and tail"),
    ],
)
def test_test_sets_are_refused(
    model: Path, capsys: pytest.CaptureFixture[str], name: str, rows: list, why: str
) -> None:
    questions = model.parent / name
    questions.write_text(json.dumps(rows))
    assert command(model, questions) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1
    assert "calibration" not in (model / "avqa.json").read_text()


def test_the_command_writes_reports_and_takes_back(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("eval.calibrate._engine", lambda folder: None)
    monkeypatch.setattr("eval.calibrate.ask", lambda *_: judged(n=1500))
    (model.parent / "a.mp4").touch()
    questions = model.parent / "avqa-val.json"
    questions.write_text(json.dumps([row("a"), row("gone", 1)]))
    before = (model / "avqa.json").read_text()
    assert command(model, questions, "--dry-run") == 0
    assert "1500 questions" in capsys.readouterr().out
    assert (model / "avqa.json").read_text() == before
    assert command(model, questions) == 0
    written = json.loads((model / "avqa.json").read_text())
    kept = written.pop("calibration")
    assert written == json.loads(before)
    assert kept["weights"]["margin"] == pytest.approx(TRUE["margin"], abs=0.1)
    assert kept["fitted"]["annotations"] == "avqa-val.json"
    assert kept["fitted"]["after"]["ece"] < kept["fitted"]["before"]["ece"]
    assert [path.name for path in model.iterdir()] == ["avqa.json"]
    assert main(["calibrate", "--model", str(model), "--remove"]) == 0
    assert json.loads((model / "avqa.json").read_text()) == json.loads(before)
    assert main(["calibrate", "--model", str(model)]) == 2
    assert "--annotations" in capsys.readouterr().err


@torch.no_grad()
def test_a_real_engine_is_asked_about_the_clips_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RECORD_LIMIT", "STEPS_LIMIT"):
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 5)
    files = {name: tmp_path / f"{name}.mp4" for name in ("a", "b", "broken")}
    for name in ("a", "b"):
        make_media(files[name], Picture(times_s=at_rate(5, 2)), Sound(seconds=2))
    files["broken"].write_bytes(b"no video")
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([row(name, n) for n, name in enumerate(("a", "broken", "b", "a"))]))
    found = ask(LocalEngine(small_model()), read_annotations(path).rows, files)
    assert found.video_Q == ["a", "a", "b"]
    assert found.signs_QS.shape == (3, len(SIGNS)) and np.isfinite(found.signs_QS).all()
    margin_Q = found.signs_QS[:, SIGNS.index("margin")]
    np.testing.assert_allclose(found.probability_Q, 1 / (1 + np.exp(-margin_Q)), atol=1e-4)
    assert (found.signs_QS[:, 1:] < 0).all(), "a random model is never sure of its words"
    assert "left out: " in capsys.readouterr().out
