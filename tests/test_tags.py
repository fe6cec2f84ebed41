"""Audio tags: what they say, what they change in a record, where they are kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avqa_llm.encoders import SoundConfig, SoundEncoder, Tokens
from avqa_llm.encoders.load import load_sound_encoder
from avqa_llm.encoders.tags import HEADS, TagHeads, Tags, apart, corrected, tags_of
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import CheckpointError
from avqa_llm.generation import Parts, Written, read
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.training import bandstand
from avqa_llm.training.bandstand import sound_targets
from avqa_llm.training.encoders import EncodersConfig, SoundTagger
from avqa_llm.training.loop import LoopConfig
from instruct_data.bandstand.record import level_word, rate_word
from instruct_data.bandstand.scene import sample_scene
from tests.miniatures import sound_model
from tests.model_parts import small_clip, small_model

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


def tags(**values: tuple[float, float]) -> Tags:
    return Tags(values=values, scales=SCALES)


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


# -- what is written ----------------------------------------------------------------------------


def test_values_of_the_record_are_those_of_the_tags() -> None:
    record = "indoor ; no voice ; piano left s0 e9 l2 r0 ; drum right silent ; drum off s3 e9 l0 r1"
    right = corrected(record, tags(piano=(0.2, 1.9), drum=(1.6, 0.4)))
    assert right == (
        "indoor ; no voice ; piano left s0 e9 l0 r2 ; drum right silent ; drum off s3 e9 l2 r0"
    )


def test_what_tags_cannot_know_stays() -> None:
    known = tags(piano=(0.0, 0.0), drum=(0.0, 0.0))
    for record in (
        "indoor ; piano left s0 l2 r2 ; piano right s3 l1 r1",  # two of a kind
        "indoor ; acoustic guitar left s0 l2 r2",  # not heard
        "indoor ; drum left silent",
        "indoor ; drummer left s0 l2 r2",
        "piano",
        "",
    ):
        assert corrected(record, known) == record


def test_names_of_two_words_are_known_as_they_are_written() -> None:
    known = tags(acoustic_guitar=(0.0, 1.0))
    assert corrected("acoustic guitar off s1 l2 r2", known) == "acoustic guitar off s1 l0 r1"


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([], []),
        ([3.4], [3]),
        ([0.2, 3.8, 2.1], [0, 4, 2]),
        ([2.45, 2.3], [3, 2]),  # both are nearest to 2, and one is greater
        ([1.9, 2.0, 2.1], [1, 2, 3]),
        ([4.4, 4.2], [4, 3]),
        ([2.0, 2.0], [2, 2]),
        ([-1.0, -0.5], [0, 1]),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 4.2], [0, 1, 2, 3, 4, 4]),  # no step is left, near or far
    ],
)
def test_values_are_written_apart_where_that_is_near(values: list[float], steps: list[int]) -> None:
    assert apart(values, 5) == steps


def test_the_order_of_values_is_never_turned_round() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.uniform(-1, 5, int(rng.integers(1, 7))).tolist()
        steps = apart(values, 5)
        assert all(0 <= step < 5 for step in steps)
        pairs = [(a, b) for a in range(len(values)) for b in range(len(values))]
        assert all(steps[a] <= steps[b] for a, b in pairs if values[a] < values[b])


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


# -- in a model ---------------------------------------------------------------------------------


def tagged_model(scale: float = 1.0) -> AVQAModel:
    """A miniature whose encoder hears everything, at one place of each scale."""
    plain = small_model()
    bias = torch.cat([torch.full((3,), 20.0), torch.full((6,), scale)])
    heads = TagHeads(
        weight=torch.zeros(9, plain.sound.width), bias=bias, kinds=KINDS, scales=SCALES
    )
    return AVQAModel(
        replace(plain.config, tagged=True),
        picture=plain.picture,
        sound=SoundEncoder(plain.sound.config, plain.sound.model, None, heads),
        llm=plain.llm,
        tokenizer=plain.prompt.tokenizer,
    ).eval()


def clip_of(model: AVQAModel) -> ClipTokens:
    clip = small_clip(1)
    return ClipTokens(sound=model.sound(clip), picture=model.picture(clip), seconds=3.0)


def writing(monkeypatch: pytest.MonkeyPatch, model: AVQAModel, record: str) -> None:
    """Let every model write this record, whatever it would write."""
    ids = model.prompt.text(record)

    def write(decoder, context, logits_BV, *, stops, limit, watch=None):
        rows = len(logits_BV)
        words = torch.tensor([ids + model.prompt.eos] * rows)
        context, logits = read(decoder, list(decoder.embed(words)), context)
        return (
            Written([list(ids)] * rows, [[-0.5] * (len(ids) + 1)] * rows),
            logits,
            Parts.of(context),
        )

    monkeypatch.setattr("avqa_llm.engine.greedy", write)


def test_the_engine_reads_on_from_the_corrected_record(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagged_model()
    clip, record = clip_of(model), "piano left s0 l2 ; drum off s1 l2"
    engine = LocalEngine(model, merge=False)
    writing(monkeypatch, model, record)
    reading = engine.digest([clip, clip])
    assert reading.records == ("piano left s0 l1 ; drum off s1 l1",) * 2
    assert [len(chances) for chances in reading.chances] == [len(model.prompt.text(record)) + 1] * 2
    writing(monkeypatch, model, reading.records[0])
    model.config = replace(model.config, tagged=False)
    as_written = LocalEngine(model, merge=False).digest([clip, clip])
    for mine, plain in zip(
        reading.context.cache.layers, as_written.context.cache.layers, strict=True
    ):
        for one, other in zip(mine.own(), plain.own(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_the_sound_the_record_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagged_model()
    deaf = replace(clip_of(model), sound=Tokens.none(model.sound.width))
    writing(monkeypatch, model, "piano left s0 l2")
    assert LocalEngine(model, merge=False).digest([deaf]).records == ("piano left s0 l2",)


def test_a_tagged_model_needs_heads() -> None:
    plain = small_model()
    with pytest.raises(CheckpointError, match=r"tagged: the sound encoder .* has no tags\.saf"):
        AVQAModel(
            replace(plain.config, tagged=True),
            picture=plain.picture,
            sound=plain.sound,
            llm=plain.llm,
            tokenizer=plain.prompt.tokenizer,
        )
