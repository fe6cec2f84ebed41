"""Audio tags: what they say of a clip, and where they are kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avqa_llm.encoders import SoundConfig, Tokens
from avqa_llm.encoders.load import load_sound_encoder
from avqa_llm.encoders.tags import HEADS, TagHeads, Tags, tags_of
from avqa_llm.errors import CheckpointError
from avqa_llm.training import bandstand
from avqa_llm.training.bandstand import sound_targets
from avqa_llm.training.encoders import EncodersConfig, SoundTagger
from avqa_llm.training.loop import LoopConfig
from instruct_data.bandstand.record import level_word, rate_word
from instruct_data.bandstand.scene import sample_scene
from tests.miniatures import sound_model

KINDS = ("piano", "drum", "acoustic_guitar")
SCALES = (("l0", "l1", "l2"), ("r0", "r1", "r2"))


def reading_heads() -> TagHeads:
    """Token features are the numbers themselves: three logits, three loudnesses, three rhythms."""
    return TagHeads(weight=torch.eye(9), bias=torch.zeros(9), kinds=KINDS, scales=SCALES)


def heard(*rows: list[float]) -> Tags:
    values = torch.tensor(rows)
    tokens = Tokens(
        values_ND=values,
        times_N=torch.arange(len(rows)) + 0.5,
        places_N2=torch.zeros(len(rows), 2),
        length_s=1.0,
    )
    return tags_of(tokens, reading_heads())


# -- what is heard ------------------------------------------------------------------------------


def test_values_are_means_over_the_tokens_where_a_kind_sounds() -> None:
    found = heard(
        [20.0, -20, -20, 1.0, 9, 9, 0.0, 9, 9],
        [20.0, -20, -20, 2.0, 9, 9, 1.0, 9, 9],
        [-2.0, -20, -20, 7.0, 9, 9, 7.0, 9, 9],
    )
    assert found.values == {"piano": pytest.approx((1.5, 0.5))}
    assert found.scales == SCALES


def test_a_doubtful_token_counts_less() -> None:
    sure, doubtful = [20.0, -20, -20, 1.0, 0, 0, 0, 0, 0], [0.0, -20, -20, 2.0, 0, 0, 0, 0, 0]
    assert heard(sure, doubtful).values["piano"][0] == pytest.approx(4 / 3)


def test_where_there_is_no_sound_nothing_is_heard() -> None:
    assert tags_of(Tokens.none(9), reading_heads()).values == {}
    assert heard([-20.0] * 9).values == {}


# -- kept beside the encoder --------------------------------------------------------------------


def test_heads_come_back_from_their_file(tmp_path: Path) -> None:
    reading_heads().save(tmp_path)
    found = TagHeads.load(tmp_path)
    assert found is not None
    torch.testing.assert_close(found.weight, torch.eye(9))
    assert (found.kinds, found.scales) == (KINDS, SCALES)
    assert [path.name for path in tmp_path.iterdir()] == [HEADS]


def test_an_encoder_without_heads_has_none(tmp_path: Path) -> None:
    sound_model("vit").save_pretrained(tmp_path)
    assert load_sound_encoder(SoundConfig(source=str(tmp_path))).heads is None
    reading_heads().save(tmp_path)
    heads = load_sound_encoder(SoundConfig(source=str(tmp_path))).heads
    assert heads is not None and heads.kinds == KINDS


def test_damaged_heads_are_refused(tmp_path: Path) -> None:
    (tmp_path / HEADS).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=f"{HEADS} holds no tags"):
        TagHeads.load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.eye(5)}, "should have 9 rows"),
        ({"bias": torch.zeros(3)}, "should have 9 rows"),
        ({"kinds": (), "weight": torch.zeros(0, 9), "bias": torch.zeros(0)}, "at least one kind"),
        ({"scales": (("l0",), ("r0", "r1"))}, "two words for each scale"),
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
    for scale, (name, _) in enumerate(bandstand.SCALES.items()):
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
