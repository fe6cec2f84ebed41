"""Crowded scenes, sounds that are drowned by several others, and spectrograms that are added up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avqa_llm.errors import AVQAError, RecipeError
from avqa_llm.layers import FeedForward, GatedFeedForward
from avqa_llm.training.connect import AlignConfig
from avqa_llm.training.encoders import mixed
from avqa_llm.training.loop import LoopConfig
from instruct_data.bandstand.questions import is_masked
from instruct_data.bandstand.scene import Player, Scene, sample_scene
from instruct_data.bandstand.sound import TRAIN_TIMES, bank_index
from instruct_data.bandstand.write import SetConfig


def test_hard_scenes_are_crowded_and_noisy_and_others_stay_as_they_were() -> None:
    plain = [sample_scene(3, i) for i in range(200)]
    hard = [sample_scene(3, i, hard=True) for i in range(200)]
    assert sum(len(s.seen) == 5 for s in hard) > 100 > sum(len(s.seen) == 5 for s in plain)
    assert min(s.noise_db for s in hard) >= max(s.noise_db for s in plain)
    assert any(len(s.seen) == 5 and not s.players[-1].visible for s in hard)
    assert not {s.video_id for s in hard} & {s.video_id for s in plain}


def test_a_share_of_hard_clips_is_spread_evenly() -> None:
    config = SetConfig(clips=10, seed=1, hard=0.3)
    hard = ["h_" in config.scene(i).video_id for i in range(10)]
    assert sum(hard) == 3 and sum(hard[:5]) in (1, 2)
    with pytest.raises(AVQAError, match="--hard 1.5"):
        SetConfig(clips=1, seed=1, hard=1.5)


def test_training_draws_from_more_banks_and_none_of_them_is_tested_on() -> None:
    players = [p for i in range(300) for p in sample_scene(4, i).players]
    tested = [p for i in range(300) for p in sample_scene(4, i, split="test").players]
    train = {bank_index(p.timbre) for p in players}
    assert len(train) > 48 * (TRAIN_TIMES - 1)
    assert not train & {bank_index(p.timbre) for p in tested}


def _scene(*levels: float) -> Scene:
    players = tuple(
        Player(instrument=kind, x=0.5, pan=0.0, start_s=0.0, end_s=5.0, level_db=level, rate_hz=2.0)
        for kind, level in zip(("violin", "flute", "piano"), levels, strict=False)
    )
    return replace(sample_scene(1), players=players, voiceover=None)


@pytest.mark.parametrize(
    ("levels", "masked"),
    [((-30.0, -18.0), False), ((-30.0, -16.5), True), ((-30.0, -18.0, -18.0), True)],
)
def test_others_together_drown_a_player(levels: tuple[float, ...], masked: bool) -> None:
    scene = _scene(*levels)
    assert is_masked(scene.players[0], scene) is masked
    assert not is_masked(scene.players[1], scene)


def test_two_clips_at_once_have_both_powers_and_both_players() -> None:
    def row(power: float, active: int, level: float) -> dict[str, torch.Tensor]:
        facts = {name: torch.full((3, 2), torch.nan) for name in ("rate", "pan")}
        known = torch.full((3, 2), torch.nan)
        known[:, active] = level
        on = torch.zeros(3, 3)
        on[:, active] = 1
        mel = torch.full((2, 4, 5), (float(np.log10(power)) + 5) / 4)
        return {"mel": mel, "active": on, "level": known, **facts}

    both = mixed(row(1e-3, 0, 0.5), row(3e-3, 1, -0.5))
    assert torch.allclose(10 ** (4 * both["mel"] - 5), torch.tensor(4e-3), rtol=1e-4)
    assert both["active"][0].tolist() == [1, 1, 0] and both["level"][0].tolist() == [0.5, -0.5]
    same = mixed(row(1e-3, 0, 0.5), row(1e-3, 0, 0.1))
    assert same["active"][0].tolist() == [2, 0, 0] and bool(same["level"].isnan().all())


def test_gates_cost_no_weights_and_make_products() -> None:
    torch.manual_seed(0)
    plain, gated = FeedForward(12, 2.0), GatedFeedForward(12, 2.0)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (plain, gated)]
    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[0]
    with torch.no_grad():
        gated.gate.weight.zero_()
        gated.gate.bias.zero_()
    values = torch.randn(2, 3, 12)
    assert torch.equal(gated(values), values + gated.down.bias)  # gelu(0) = 0: nothing passes


def test_without_token_loss_there_is_nothing_to_tune_in_the_language_model() -> None:
    loop = LoopConfig(steps=1, batch=1, lr=1e-3)
    assert AlignConfig(rows="r", loop=loop, tokens=0).tokens == 0
    with pytest.raises(RecipeError, match="tokens 0"):
        AlignConfig(rows="r", loop=loop, tokens=0, questions=2)
