"""Acoustic facts in words: what they say, where they stand in a prompt, where they are kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avqa_llm.encoders import SoundConfig, SoundEncoder, Tokens
from avqa_llm.encoders.load import load_sound_encoder
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import CheckpointError, RecipeError
from avqa_llm.facts import HEADS, FactHeads, Facts
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.training.bandstand import SCALES, sound_targets
from avqa_llm.training.encoders import EncodersConfig, SoundTagger
from avqa_llm.training.layout import clip_ids
from avqa_llm.training.loop import LoopConfig
from instruct_data.bandstand.record import level_word, rate_word
from instruct_data.bandstand.scene import sample_scene
from tests.miniatures import sound_model
from tests.model_parts import small_clip, small_model

KINDS, SCALE = ("piano", "drum", "violin"), ("l0", "l1", "l2")
WORDS = {word: torch.eye(7)[n] for n, word in enumerate((*KINDS, *SCALE))}
NOBODY = torch.eye(7)[6]


def reading_heads() -> FactHeads:
    """Token features are the numbers themselves: three logits, then three loudnesses."""
    return FactHeads(weight=torch.eye(6), bias=torch.zeros(6), kinds=KINDS, scales=(SCALE,))


def told(tokens_ND: Tensor, count: int = 2, there_N: Tensor | None = None) -> Tensor:
    facts = Facts(reading_heads(), count, WORDS.__getitem__)
    there = torch.ones(len(tokens_ND), dtype=torch.bool) if there_N is None else there_N
    return facts(tokens_ND[None], there[None], NOBODY)[0]


def test_the_likeliest_kind_comes_first_with_its_loudness_between_two_steps() -> None:
    said = told(torch.tensor([[-20.0, 20.0, -20.0, 0.0, 1.25, 2.0]]))
    torch.testing.assert_close(said[0], WORDS["drum"])
    torch.testing.assert_close(said[1], 0.75 * WORDS["l1"] + 0.25 * WORDS["l2"])
    torch.testing.assert_close(said[2:], NOBODY.expand(2, -1))


def test_values_beyond_the_scale_are_its_ends() -> None:
    said = told(torch.tensor([[20.0, 10.0, -20.0, -3.0, 7.0, 0.0]]))
    torch.testing.assert_close(said[1], WORDS["l0"])
    torch.testing.assert_close(said[3], WORDS["l2"], rtol=0, atol=1e-3)


def test_a_value_counts_where_its_kind_sounds_and_a_doubtful_kind_fades() -> None:
    on, off, padding = [0.0, -20, -20, 1, 0, 0], [-20.0, -20, -20, 2, 0, 0], [20.0] * 6
    there = torch.tensor([True, True, False])
    said = told(torch.tensor([on, off, padding]), 1, there)
    torch.testing.assert_close(said[0], 0.5 * WORDS["piano"] + 0.5 * NOBODY)
    torch.testing.assert_close(said[1], 0.5 * WORDS["l1"] + 0.5 * NOBODY, rtol=0, atol=1e-4)


def test_no_more_is_told_than_there_are_kinds() -> None:
    assert told(torch.zeros(1, 6), 9).shape == (6, 7)


# -- kept beside the encoder --------------------------------------------------------------------


def test_heads_come_back_from_their_file(tmp_path: Path) -> None:
    reading_heads().save(tmp_path)
    found = FactHeads.load(tmp_path)
    assert found is not None
    torch.testing.assert_close(found.weight, torch.eye(6))
    assert (found.kinds, found.scales) == (KINDS, (SCALE,))
    assert [path.name for path in tmp_path.iterdir()] == [HEADS]


def test_an_encoder_without_heads_has_none(tmp_path: Path) -> None:
    sound_model("vit").save_pretrained(tmp_path)
    assert load_sound_encoder(SoundConfig(source=str(tmp_path))).heads is None
    reading_heads().save(tmp_path)
    heads = load_sound_encoder(SoundConfig(source=str(tmp_path))).heads
    assert heads is not None and heads.kinds == KINDS


def test_damaged_heads_are_refused(tmp_path: Path) -> None:
    (tmp_path / HEADS).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=f"{HEADS} holds no heads of facts"):
        FactHeads.load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.eye(5)}, "should have 6 rows"),
        ({"bias": torch.zeros(3)}, "should have 6 rows"),
        ({"kinds": (), "weight": torch.zeros(0, 6), "bias": torch.zeros(0)}, "at least one kind"),
        ({"scales": (("l0",),)}, "two words for each scale"),
    ],
)
def test_heads_that_cannot_be_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        replace(reading_heads(), **changed)


def test_taught_heads_give_the_steps_of_the_record() -> None:
    loop = LoopConfig(steps=1, batch=1, lr=1e-3)
    tagger = SoundTagger(EncodersConfig(arrays="", picture=loop, sound=loop, hidden=10))
    heads = tagger.heads()
    count = len(heads.kinds)
    players = [p for n in range(40) for p in sample_scene(5, n, split="train").heard]
    assert len(players) > 40
    for scale, (name, _) in enumerate(SCALES.items()):
        rows = slice(scale * count, (scale + 1) * count)
        taught = tagger.facts.weight[rows], tagger.facts.bias[rows]
        kept = slice((scale + 1) * count, (scale + 2) * count)
        token = torch.randn(10)
        value = taught[0] @ token + taught[1]
        step = heads.weight[kept] @ token + heads.bias[kept]
        word = {"level": level_word, "rate": rate_word}[name]
        for player in players:
            scene = {"players": [asdict(player)], "voiceover": None}
            target = np.nanmax(sound_targets(scene, np.arange(0.0, 10.0, 0.1))[name])
            slope = (step[1] - step[0]) / (value[1] - value[0])
            found = float(step[0] + slope * (target - value[0]))
            assert heads.scales[scale][round(found)] == word(player)


# -- in the prompt ------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def model_with_facts() -> AVQAModel:
    """A miniature that tells of two kinds."""
    plain = small_model()
    width = plain.sound.width
    torch.manual_seed(1)
    heads = FactHeads(
        weight=torch.randn(6, width), bias=torch.zeros(6), kinds=KINDS, scales=(SCALE,)
    )
    config = replace(plain.config, bridge=replace(plain.config.bridge, facts=2))
    return AVQAModel(
        config,
        picture=plain.picture,
        sound=SoundEncoder(plain.sound.config, plain.sound.model, None, heads),
        llm=plain.llm,
        tokenizer=plain.prompt.tokenizer,
    ).eval()


@lru_cache(maxsize=1)
def encoded() -> ClipTokens:
    model = model_with_facts()
    clip = small_clip(1)
    return ClipTokens(sound=model.sound(clip), picture=model.picture(clip), seconds=3.0)


def test_facts_follow_the_timeline_and_are_words_of_the_model() -> None:
    model = model_with_facts()
    keys = model.keys([encoded()])
    assert keys.sound_there_BQ.sum() == 3 * 2 + 2 * 2
    told_4E = keys.sound_BQE[0, -4:]
    words = [*KINDS, *SCALE]
    table = model.llm.get_input_embeddings().weight
    known = torch.stack([table[model.prompt.text(word)].mean(0) for word in words])
    spread = torch.cat([known, model.bridge.word_mean[None]])
    weights = torch.linalg.lstsq(spread.T, told_4E.T).solution
    torch.testing.assert_close(spread.T @ weights, told_4E.T, rtol=0, atol=1e-3)
    torch.testing.assert_close(weights.sum(0), torch.ones(4), rtol=0, atol=1e-2)


def test_training_counts_on_as_many_tokens_as_the_bridge_gives() -> None:
    model = model_with_facts()
    for deaf in (False, True):
        clip = replace(encoded(), sound=Tokens.none(model.sound.width)) if deaf else encoded()
        keys = model.keys([clip])
        ids, _ = clip_ids(model, 3, deaf=deaf, blind=False)
        assert ids.count(-1) == int(keys.sound_there_BQ.sum()) == (0 if deaf else 10)


def test_the_engine_answers_with_facts_and_does_not_need_them() -> None:
    engine = LocalEngine(model_with_facts(), merge=False)
    deaf = replace(encoded(), sound=Tokens.none(engine.model.sound.width))
    reading = engine.digest([encoded(), deaf])
    answers = engine.ask(reading, [(0, "How many violins sound?"), (1, "How many violins sound?")])
    assert [answer.consumed.sound for answer in answers if answer.consumed] == [True, False]


def test_what_is_told_changes_the_answer() -> None:
    model = model_with_facts()
    engine = LocalEngine(model, merge=False)
    question = [(0, "How many violins sound?")]
    before = engine.ask(engine.digest([encoded()]), question)[0].alternatives
    assert model.bridge.facts is not None
    names = model.bridge.facts.names_KE
    kept = names.clone()
    try:
        names.copy_(kept.flip(0))
        after = engine.ask(engine.digest([encoded()]), question)[0].alternatives
    finally:
        names.copy_(kept)
    assert before != after


def test_nothing_of_the_heads_is_saved_with_the_bridge_or_learned() -> None:
    bridge = model_with_facts().bridge
    assert not [name for name in bridge.state_dict() if name.startswith("facts")]
    assert not [name for name, _ in bridge.named_parameters() if name.startswith("facts")]


def test_facts_without_heads_are_refused() -> None:
    plain = small_model()
    config = replace(plain.config, bridge=replace(plain.config.bridge, facts=2))
    parts = {"picture": plain.picture, "llm": plain.llm, "tokenizer": plain.prompt.tokenizer}
    with pytest.raises(CheckpointError, match=r"has no facts\.safetensors: set bridge\.facts to 0"):
        AVQAModel(config, sound=plain.sound, **parts)
    foreign = SoundEncoder(plain.sound.config, plain.sound.model, None, reading_heads())
    with pytest.raises(CheckpointError, match="is for tokens of 6 numbers"):
        AVQAModel(config, sound=foreign, **parts)
    with pytest.raises(RecipeError, match="facts -1: at least 0"):
        replace(plain.config.bridge, facts=-1)
