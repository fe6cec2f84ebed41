"""Values put right: of records by tags, of steps by the record, and in a model that does so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from avqa_llm.encoders import SoundEncoder, Tokens
from avqa_llm.encoders.tags import TagHeads, Tags
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import CheckpointError
from avqa_llm.generation import Parts, Written, read
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.values import apart, corrected, quoted
from tests.model_parts import small_clip, small_model
from tests.test_tags import KINDS, SCALES


def tags(**values: tuple[float, float]) -> Tags:
    return Tags(values=values, scales=SCALES)


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


# -- what steps quote ---------------------------------------------------------------------------

RECORD = (
    "indoor ; no voice ; acoustic guitar left s1 e9 n8 l0 r2 ; pipa left s2 e8 n6 l3 r1 ;"
    " banjo right s0 e5 n5 l1 r1 ; banjo right s4 e9 n5 l2 r2 ; drum off silent"
)


@pytest.mark.parametrize(
    ("steps", "right"),
    [
        ("pipa left l0 acoustic guitar left l3", "pipa left l3 acoustic guitar left l0"),
        ("pipa left s1 acoustic guitar left s2 n6", "pipa left s2 acoustic guitar left s1 n8"),
        ("pipa left l3", "pipa left l3"),
        ("banjo right l0", "banjo right l0"),  # which of the two is not said
        ("drum off l2", "drum off l2"),  # the record has no value
        ("pipa right l0", "pipa right l0"),  # nobody is there
        ("suona none pipa left s9", "suona none pipa left s2"),
        ("pipa banjo", "pipa banjo"),
        ("", ""),
    ],
)
def test_steps_quote_what_the_record_says(steps: str, right: str) -> None:
    assert quoted(steps, RECORD) == right


def test_a_record_of_no_players_changes_nothing() -> None:
    assert quoted("pipa left l0", "indoor ; voice") == quoted("pipa left l0", "") == "pipa left l0"


# -- in a model ---------------------------------------------------------------------------------


def tagged_model() -> AVQAModel:
    """A miniature whose encoder hears everything, at the middle of each scale."""
    plain = small_model()
    bias = torch.cat([torch.full((3,), 20.0), torch.full((6,), 1.0)])
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


def writing(monkeypatch: pytest.MonkeyPatch, model: AVQAModel, *texts: str) -> None:
    """Let the model write these one after the other, whatever it would write."""
    coming = list(texts)

    def write(decoder, context, logits_BV, *, stops, limit, watch=None):
        rows, text = len(logits_BV), coming.pop(0)
        end = model.prompt.steps_end if model.prompt.steps_end[-1] in stops else model.prompt.eos
        ids = model.prompt.text(text)
        words = torch.tensor([ids + end] * rows)
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


def test_a_tagged_model_needs_heads_that_fit() -> None:
    plain = small_model()
    parts = {"picture": plain.picture, "llm": plain.llm, "tokenizer": plain.prompt.tokenizer}
    foreign = TagHeads(weight=torch.eye(9), bias=torch.zeros(9), kinds=KINDS, scales=SCALES)
    for heads in (None, foreign):
        sound = SoundEncoder(plain.sound.config, plain.sound.model, None, heads)
        with pytest.raises(CheckpointError, match=r"has no tags\.safetensors for its tokens of 32"):
            AVQAModel(replace(plain.config, tagged=True), sound=sound, **parts)


def asked(engine: LocalEngine, clip: ClipTokens, questions: Sequence[str]):
    return engine.ask(engine.digest([clip]), [(0, question) for question in questions])


def test_answers_follow_the_steps_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagged_model()
    clip, record, questions = clip_of(model), "piano left s0 l1", ["How many violins?", "Which?"]
    engine = LocalEngine(model, merge=False)
    writing(monkeypatch, model, record, "piano left l1")
    expected = asked(engine, clip, questions)
    writing(monkeypatch, model, record, "piano left l2")
    found = asked(engine, clip, questions)
    for one, other in zip(found, expected, strict=True):
        assert one.steps == other.steps == "piano left l1"
        assert one.label == other.label
        ranks = [(a.label, pytest.approx(a.probability, abs=2e-3)) for a in other.alternatives]
        assert [(a.label, a.probability) for a in one.alternatives] == ranks
    model.config = replace(model.config, tagged=False)
    writing(monkeypatch, model, record, "piano left l2")
    plain = asked(LocalEngine(model, merge=False), clip, questions)
    assert [answer.steps for answer in plain] == ["piano left l2"] * 2
    assert [a.alternatives for a in plain] != [a.alternatives for a in expected]
