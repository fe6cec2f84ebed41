"""Probabilities that are worth their name, and answers that stay what they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avqa_llm.answer import Answer
from avqa_llm.calibrator import SIGNS, SUREST, Calibration, log_odds, signs_of
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import CheckpointError
from avqa_llm.model import ModelConfig
from tests.model_parts import QUESTIONS, small_clip, small_model

CLIP = small_clip(0)
SAME = Calibration(bias=0.0, weights={"margin": 1.0})
"""The log-odds themselves: probabilities stay as they are."""
DOUBTFUL = Calibration(bias=-1.0, weights={"margin": 0.3, "steps_least": 0.5, "record_mean": 0.2})


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RECORD_LIMIT", "STEPS_LIMIT", "OPEN_LIMIT"):
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 5)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    with torch.no_grad():
        return LocalEngine(small_model())


def calibrated(engine: LocalEngine, calibration: Calibration | None, **how) -> list[Answer]:
    config = engine.model.config
    engine.model.config = replace(config, calibration=calibration)
    try:
        return engine.answer(CLIP, QUESTIONS, **how)
    finally:
        engine.model.config = config


def chances(answer: Answer) -> list[float]:
    return [answer.probability or 0.0, *(a.probability for a in answer.alternatives)]


def test_signs_are_means_and_least_values_and_zero_where_nothing_was_written() -> None:
    found = signs_of(99.0, [-0.5, -1.5], [])
    assert found == {
        **{"margin": SUREST, "rival": 0.0, "steps_mean": -1.0, "steps_least": -1.5},
        **{"record_mean": 0.0, "record_least": 0.0},
    }
    assert set(SIGNS) < set(found)
    for p in (0.01, 0.5, 0.99):
        assert log_odds(math.log(p)) == pytest.approx(math.log(p / (1 - p)))
    assert log_odds(0.0) == SUREST


def test_the_rest_is_shared_and_the_order_stays() -> None:
    sure = Calibration(bias=1.0, weights={})
    likely = sure.applied({}, [0.75, 0.25])
    assert likely[0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert sum(likely) == pytest.approx(1)
    assert likely[1] / likely[2] == pytest.approx(3)
    never = Calibration(bias=-9.0, weights={})
    assert never.applied({}, [1.0]) == [0.5, 0.5], "between two answers: one half at least"
    low = never.applied({}, [0.5, 0.3, 0.2])
    assert low[0] == pytest.approx(low[1]) and low == sorted(low, reverse=True)
    assert sum(low) == pytest.approx(1)
    assert never.applied({}, []) == [never.chance({})]


def test_log_odds_alone_give_the_probabilities_back(engine: LocalEngine) -> None:
    plain, same = calibrated(engine, None), calibrated(engine, SAME)
    for one, other in zip(plain, same, strict=True):
        assert chances(other) == pytest.approx(chances(one), abs=2e-4)


@pytest.mark.parametrize("open_ended", [False, True])
def test_a_calibration_changes_probabilities_and_nothing_else(
    engine: LocalEngine, open_ended: bool
) -> None:
    plain = calibrated(engine, None, open_ended=open_ended)
    judged = calibrated(engine, DOUBTFUL, open_ended=open_ended)
    for one, other in zip(plain, judged, strict=True):
        assert (other.answer, other.label, other.steps) == (one.answer, one.label, one.steps)
        assert [a.label for a in other.alternatives] == [a.label for a in one.alternatives]
        assert other.signs == one.signs
        assert chances(other) == sorted(chances(other), reverse=True)
        expected = DOUBTFUL.applied(one.signs, [one.signs["rival"]] if not open_ended else [])[0]
        assert other.probability == pytest.approx(expected, abs=1e-4)
    assert [chances(one) for one in plain] != [chances(one) for one in judged]


def test_a_single_choice_is_no_obstacle(engine: LocalEngine) -> None:
    config = engine.model.config
    engine.model.config = replace(config, calibration=DOUBTFUL)
    try:
        rows, choices = [(0, QUESTIONS[0])] * 2, [("piano",), ("piano", "drum", "no")]
        one, many = engine.answer_many([CLIP], rows, choices=choices)
    finally:
        engine.model.config = config
    assert one.label == "piano" and one.alternatives == () and 0 < (one.probability or 0) < 1
    assert sum(chances(many)) == pytest.approx(1, abs=1e-3)


def test_it_is_kept_in_the_configuration_and_absent_where_there_is_none(tmp_path: Path) -> None:
    config = small_model().config
    assert "calibration" not in config.to_json()
    config = replace(config, calibration=replace(DOUBTFUL, fitted={"questions": 12}))
    row = json.loads(json.dumps(config.to_json()))
    assert ModelConfig.from_json(row, tmp_path) == config
    for wrong in ({"weights": {"mood": 1.0}}, {"bias": "high"}, {"weights": {"margin": math.nan}}):
        damaged = row | {"calibration": row["calibration"] | wrong}
        with pytest.raises(CheckpointError, match="calibration"):
            ModelConfig.from_json(damaged, tmp_path)
    with pytest.raises(CheckpointError, match="tint"):
        ModelConfig.from_json(row | {"calibration": {"tint": 1}}, tmp_path)
