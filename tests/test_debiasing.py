"""Debiasing inside a stage: what the branches are given, and that each term does its work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avqa_llm.errors import RecipeError
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import CLUE, PICTURE, SOUND
from avqa_llm.training.balance import OGMConfig, OPMConfig
from avqa_llm.training.connect import Extras, bridged, connect_losses, train_connect
from avqa_llm.training.contrast import ContrastConfig
from avqa_llm.training.debias import COCAConfig, MAVENConfig, MCCDConfig
from avqa_llm.training.debiasing import Debias, DebiasConfig, branch_scores
from avqa_llm.training.features import Features
from avqa_llm.training.layout import make_batch
from avqa_llm.training.loop import schedule
from tests.model_parts import small_model
from tests.test_training import connect, encoded, features, logged, rows

TERMS = {
    "mccd": DebiasConfig(mccd=MCCDConfig()),
    "maven": DebiasConfig(maven=MAVENConfig()),
    "coca": DebiasConfig(coca=COCAConfig()),
    "opm": DebiasConfig(opm=OPMConfig(base=0.6, strength=0.5)),
    "ogm": DebiasConfig(ogm=OGMConfig()),
}


@pytest.fixture(scope="module")
def model() -> AVQAModel:
    return small_model()


@pytest.fixture(scope="module")
def given(model: AVQAModel) -> Features:
    return features(encoded(model))


def batch_of(model: AVQAModel, given: Features, **changes: object):
    config = connect(1, debias=TERMS["mccd"], pair=0.0, drop=0.0, **changes)
    rng = np.random.default_rng(0)
    return make_batch(model, rows(), given, [0, 1, 2, 3], config, rng), config


def test_each_branch_is_given_its_part_alone_and_never_the_answer(
    model: AVQAModel, given: Features
) -> None:
    batch, _ = batch_of(model, given)
    places = {}
    for name, branch in batch.branches.items():
        ids = branch.packed.ids_BL
        places[name] = [bool((ids == kind).any()) for kind in (SOUND, PICTURE, CLUE)]
        text = model.prompt.tokenizer.decode(ids[0].clamp(min=0))
        # The first clip's record is "piano l2": the piano is seen, its loudness heard.
        before = text.split(":")[3] if name != "question" else text
        assert ("l2" in before) == (name == "sound"), before
    assert places == {
        "sound": [True, False, True],
        "picture": [False, True, True],
        "question": [False, False, False],
    }
    counts = {name: len(b.candidates.gold_N) for name, b in batch.branches.items()}
    assert set(counts.values()) == {len(batch.candidates.gold_N)} == {8}


def test_a_clip_without_a_modality_is_not_compared(model: AVQAModel, given: Features) -> None:
    batch, _ = batch_of(model, given, missing=1.0)
    assert len(batch.candidates.gold_N) == 0
    config = connect(1, debias=TERMS["mccd"], missing=1.0)
    losses = connect_losses(model, model.trunk, batch, config, Extras.of(model, config))
    assert torch.isfinite(losses["loss"]) and "mccd" not in losses


def test_the_learned_tokens_and_their_loss_stay_what_they_were(
    model: AVQAModel, given: Features
) -> None:
    batch, config = batch_of(model, given)
    plain = replace(config, debias=None)
    other = make_batch(model, rows(), given, [0, 1, 2, 3], plain, np.random.default_rng(0))
    losses = connect_losses(model, model.trunk, batch, config, Extras.of(model, config))
    alone = connect_losses(model, model.trunk, other, plain, Extras.of(model, plain))
    assert float(losses["tokens"]) == pytest.approx(float(alone["tokens"]), abs=1e-4)
    assert float(losses["grounding"]) == pytest.approx(float(alone["grounding"]), abs=1e-4)
    total = losses["tokens"] + losses["mccd"] + config.grounding * losses["grounding"]
    assert float(losses["loss"]) == pytest.approx(float(total), abs=1e-4)


def test_a_branch_knows_nothing_of_what_it_is_not_given(model: AVQAModel, given: Features) -> None:
    batch, _ = batch_of(model, given)

    def scored(name: str, clips: Features) -> torch.Tensor:
        config = connect(1, debias=TERMS["mccd"], drop=0.0, pair=0.0)
        made = make_batch(model, rows(), clips, [0, 1, 2, 3], config, np.random.default_rng(0))
        with torch.no_grad():
            branch = made.branches[name]
            return branch_scores(model, model.trunk, branch, lambda b: bridged(model, b)[0])

    deaf = replace(given, sound_NTD=given.sound_NTD.flip(1) * 2)
    blind = replace(given, picture_NTD=given.picture_NTD.flip(1) * 2)
    assert torch.equal(scored("picture", given), scored("picture", deaf))
    assert not torch.equal(scored("picture", given), scored("picture", blind))
    assert torch.equal(scored("sound", given), scored("sound", blind))
    assert not torch.equal(scored("sound", given), scored("sound", deaf))
    assert torch.equal(scored("question", given), scored("question", deaf))
    assert torch.equal(scored("question", given), scored("question", blind))


@pytest.mark.parametrize("name", list(TERMS))
def test_a_stage_learns_with_each_of_them_and_goes_on_after_a_kill(
    name: str, tmp_path: Path
) -> None:
    config = connect(3, debias=TERMS[name], missing=0.2)
    config = replace(config, loop=replace(config.loop, save_every_s=0.0, log_every=1))
    states = []
    for folder, killed in (("whole", False), ("broken", True)):
        model = small_model()
        given = features(encoded(model))
        if killed:
            short = replace(config, loop=replace(config.loop, steps=2))
            # The first two steps of a longer run: the schedule is that of three.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "avqa_llm.training.trainer.schedule", lambda n, _: schedule(n, config.loop)
                )
                train_connect("s", model, rows(), given, short, folder=tmp_path / folder,
                              resume=False)  # fmt: skip
            model = small_model()
        train_connect("s", model, rows(), given, config, folder=tmp_path / folder, resume=killed)
        states.append({k: v.clone() for k, v in model.bridge.state_dict().items()})
        last = logged(tmp_path / folder)[-1]
        assert np.isfinite(last["loss"])
        assert (name in last) == (name in ("mccd", "maven", "coca"))
    assert [k for k in states[0] if not torch.equal(states[0][k], states[1][k])] == []


def test_ogm_slows_down_the_branch_that_knows_more(model: AVQAModel) -> None:
    debias = Debias(model, model.trunk, DebiasConfig(ogm=OGMConfig(alpha=0.5, noise=0.0)), seed=0)
    for parameter in model.bridge.parameters():
        parameter.grad = torch.ones_like(parameter)
    debias.ratios = [torch.tensor(4.0), torch.tensor(4.0)]
    debias.after_backward(0)
    slow = 1 - np.tanh(0.5 * 4.0)
    for name, parameter in model.bridge.named_parameters():
        said = {"sound", "picture"} & set(name.replace("_", ".").split("."))
        wanted = slow if said == {"sound"} else 1.0
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, torch.full_like(parameter, wanted)), name
    assert debias.ratios == []
    model.zero_grad(set_to_none=True)


def test_opm_takes_the_dominant_modality_away(model: AVQAModel, given: Features) -> None:
    config = connect(1, debias=DebiasConfig(opm=OPMConfig(base=1.0, strength=0.0)), missing=0.0)
    batch = make_batch(model, rows(), given, [0, 1, 2, 3], config, np.random.default_rng(0))
    debias = Debias(model, model.trunk, config.debias, seed=0)
    candidates = batch.candidates
    n, k = candidates.blocks_NK.shape
    sure = torch.full((n, k), -9.0).scatter(1, candidates.gold_N[:, None], 0.0)
    unsure = torch.zeros(n, k)
    first = candidates.rows_N < 2
    found = {
        "sound": torch.where(first[:, None], sure, unsure),
        "picture": torch.where(first[:, None], unsure, sure),
    }
    made = debias.dropped(batch, found)
    assert made.sound.there_BN.any(1).tolist() == [False, False, True, True]
    assert made.picture.there_BN.any(1).tolist() == [True, True, False, False]
    assert (made.packed.ids_BL == SOUND).any(1).tolist() == [False, False, True, True]
    asked = [[q and q.question for q in b.asked] for b in (batch, made)]
    assert asked[0] == asked[1], "the same questions about the same clips"


def test_contrast_is_part_of_alignment(model: AVQAModel, given: Features) -> None:
    config = connect(1, questions=0, contrast=ContrastConfig(nce=0.5, matching=0.5))
    batch = make_batch(model, rows(), given, [0, 1, 2, 3], config, np.random.default_rng(0))
    losses = connect_losses(model, model.trunk, batch, config, Extras.of(model, config))
    total = losses["tokens"] + 0.5 * losses["nce"] + 0.5 * losses["matching"]
    assert float(losses["loss"]) == pytest.approx(float(total), abs=1e-4)


def test_what_cannot_work_together_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one"):
        DebiasConfig()
    with pytest.raises(RecipeError, match="use it without them"):
        DebiasConfig(opm=OPMConfig(), coca=COCAConfig())
    with pytest.raises(RecipeError, match="length 0"):
        connect(1, debias=TERMS["coca"], length=300)
