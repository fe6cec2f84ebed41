"""Training: what is killed goes on where it was, what it learns is what the engine answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avqa_llm.bridge import BridgeConfig
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AnnotationError, RecipeError
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.prompt import CLUE, PICTURE, SOUND
from avqa_llm.training.connect import (
    ConnectConfig,
    Extras,
    connect_losses,
    evidence_tokens,
    grounding_loss,
    train_connect,
)
from avqa_llm.training.features import Features
from avqa_llm.training.layout import make_batch
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.naming import Naming, slots, sounding, standing
from avqa_llm.training.rows import ClipRow, Event, Question, dropped
from tests.model_parts import BRIDGE, small_clip, small_model

LOOP = LoopConfig(
    # Whole precision: there are virtual machines on which bf16 products kill the process.
    steps=8,
    batch=4,
    lr=0.01,
    warmup=2,
    log_every=2,
    save_every_s=0.0,
    precision="fp32",
)


class Killed(Exception):
    pass


# --- connecting -----------------------------------------------------------------------------

NAMES = ("piano", "drum", "tuba", "violin")


def rows() -> list[ClipRow]:
    evidence = ({"x": 0.1, "start_s": 1.0, "end_s": 2.0},)
    return [
        ClipRow(
            video_id=str(n),
            record=f"{name} l2",
            record_without_sound=name,
            record_without_picture="l2",
            questions=(
                Question(question="What sounds?", steps="l2", answer=name, evidence=evidence),
                Question(question="Is it loud?", steps="", answer="yes" if n < 2 else "no"),
            ),
        )
        for n, name in enumerate(NAMES)
    ]


def encoded(model: AVQAModel) -> list[ClipTokens]:
    return [model.encode(small_clip(seed)) for seed in range(len(NAMES))]


def features(clips: list[ClipTokens]) -> Features:
    first = clips[0]
    return Features(
        sound_NTD=torch.stack([clip.sound.values_ND for clip in clips]).half(),
        picture_NTD=torch.stack([clip.picture.values_ND for clip in clips]).half(),
        sound_times_T=first.sound.times_N,
        picture_times_T=first.picture.times_N,
        picture_places_T2=first.picture.places_N2,
        seconds=first.seconds,
    )


def connect(steps: int, **changes: object) -> ConnectConfig:
    loop = replace(LOOP, steps=steps, lr=0.006, save_every_s=1e9, log_every=5)
    values = {"questions": 2, "pair": 0.2, "missing": 0.0, "grounding": 0.1} | changes
    return ConnectConfig(rows="rows.jsonl", features="features", loop=loop, **values)


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_miniature_learns_four_clips_by_heart_and_answers(tmp_path: Path) -> None:
    """From the collator through the loop to the engine: one wrong place and this fails."""
    model = small_model()
    # Its frozen head is random and narrow: at the usual scale no word could get more than a third.
    model.inner.model.norm.weight.data.mul_(4)
    clips = encoded(model)
    train_connect("instruct", model, rows(), features(clips), connect(80),
                  folder=tmp_path, resume=False)  # fmt: skip
    found = logged(tmp_path)
    assert found[0]["tokens"] > 2
    assert found[-1]["tokens"] < 0.3, [row["tokens"] for row in found]
    assert found[-1]["grounding"] < found[0]["grounding"] / 2
    engine = LocalEngine(model)
    halves = [replace(c, sound=half(c.sound), picture=half(c.picture)) for c in clips]
    reading = engine.digest(halves)
    assert list(reading.records) == [f"{name} l2" for name in NAMES]
    answers = engine.ask(reading, [(n, q.question) for n in range(4) for q in rows()[n].questions])
    wanted = [q.answer for row in rows() for q in row.questions]
    assert [a.label for a in answers] == wanted
    assert [a.steps for a in answers] == ["l2", ""] * 4
    assert min(a.probability for a in answers) > 0.5


def half(tokens):
    return replace(tokens, values_ND=tokens.values_ND.half().float())


def test_a_killed_stage_goes_on_bit_for_bit(tmp_path: Path, monkeypatch) -> None:
    from avqa_llm.training import connect as module

    config = connect(4, missing=0.5)
    config = replace(config, loop=replace(config.loop, save_every_s=0.0))
    models = [small_model() for _ in range(2)]
    given = features(encoded(models[0]))
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    train_connect("s", models[0], rows(), given, config, folder=tmp_path / "a", resume=False)
    with monkeypatch.context() as patch:
        calls: list[int] = []

        def dies(*args: object):
            calls.append(1)
            if len(calls) == 3:
                raise Killed
            return make_batch(*args)  # type: ignore[arg-type]

        patch.setattr(module, "make_batch", dies)
        with pytest.raises(Killed):
            train_connect("s", models[1], rows(), given, config, folder=tmp_path / "b",
                          resume=False)  # fmt: skip
    again = small_model()
    train_connect("s", again, rows(), given, config, folder=tmp_path / "b", resume=True)
    one, other = models[0].state_dict(), again.state_dict()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


@pytest.fixture(scope="module")
def model() -> AVQAModel:
    return small_model()


@pytest.fixture(scope="module")
def given(model: AVQAModel) -> Features:
    return features(encoded(model))


def test_clips_without_a_modality_have_neither_its_tokens_nor_its_places(
    model: AVQAModel, given: Features
) -> None:
    config = connect(1, missing=1.0)
    batch = make_batch(model, rows(), given, [0, 1, 2, 3] * 2, config, np.random.default_rng(1))
    deaf, blind = ~batch.sound.there_BN.any(1), ~batch.picture.there_BN.any(1)
    assert deaf.any() and blind.any() and not (deaf & blind).any() and (deaf | blind).all()
    ids = batch.packed.ids_BL
    assert torch.equal((ids == SOUND).sum(1), (~deaf) * 6)
    assert torch.equal((ids == PICTURE).sum(1), (~blind) * 3 * BRIDGE.picture_per_second)
    for n in range(len(ids)):
        asked = 1 + sum(q is not None for q in batch.asked[3 * n : 3 * n + 3])
        assert int((ids[n] == CLUE).sum()) == asked * BRIDGE.clues
        assert all(q is None or not q.steps for q in batch.asked[3 * n : 3 * n + 3])
    record = model.prompt.tokenizer.decode(batch.packed.labels_BL[deaf][0].clamp(min=0))
    assert "l2" not in record, "a deaf clip is to write what can only be heard"
    losses = connect_losses(model, model.inner.model, batch, config, Extras.of(model, config))
    assert torch.isfinite(losses["loss"])


def test_templates_without_weight_are_not_drawn(model: AVQAModel, given: Features) -> None:
    named = [replace(q, template=f"Template {n}") for n, q in enumerate(rows()[0].questions)]
    row, counts = replace(rows()[0], questions=tuple(named)), {}
    for favour in ({}, {"Template 1": 0.0}):
        config = connect(1, questions=1, favour=favour)
        asked = [
            make_batch(model, [row], given, [0], config, np.random.default_rng(seed)).asked[1]
            for seed in range(12)
        ]
        counts[len(favour)] = sum(q is not None and q.template == "Template 1" for q in asked)
    assert counts[0] > 0 and counts[1] == 0
    with pytest.raises(RecipeError, match="favour: 'x' has -1"):
        connect(1, favour={"x": -1.0})


def test_paired_questions_keep_places_and_soft_tokens_equal(
    model: AVQAModel, given: Features
) -> None:
    for pair in (0.0, 0.5, 1.0):
        for seed in range(3):
            config = connect(1, missing=0.5, pair=pair)
            batch = make_batch(model, rows(), given, [0, 1, 2], config, np.random.default_rng(seed))
            losses = connect_losses(
                model, model.inner.model, batch, config, Extras.of(model, config)
            )
            assert torch.isfinite(losses["loss"])


def test_a_stage_that_is_too_short_for_its_clips_says_so(model: AVQAModel, given: Features) -> None:
    with pytest.raises(ValueError, match="more than 10"):
        make_batch(model, rows(), given, [0], connect(1, length=10), np.random.default_rng(0))


def test_rows_of_another_set_are_refused(model: AVQAModel, given: Features, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="8 clips"):
        train_connect("x", model, rows() * 2, given, connect(1), folder=tmp_path, resume=False)


def test_evidence_is_found_in_time_and_on_the_picture(model: AVQAModel, given: Features) -> None:
    sound, picture, _ = given.batch([0])
    question = rows()[0].questions[0]
    heard = sound.times_BN[0][evidence_tokens(question, sound, 0, by_ear=True)]
    assert heard.min() >= 1 and heard.max() < 2 and len(heard) == 4
    seen = picture.places_BN2[0][evidence_tokens(question, picture, 0, by_ear=False)]
    assert len(seen) == 3 * 2 and (seen[:, 0] == 0.125).all()


def test_grounding_counts_the_attention_on_the_evidence(model: AVQAModel, given: Features) -> None:
    config = connect(1)
    batch = make_batch(model, rows(), given, [0, 1], config, np.random.default_rng(0))
    keys = model.bridge(batch.sound, batch.picture, batch.seconds_B)
    _, _, clues = model.clues(keys, batch.words)
    question = rows()[0].questions[0]
    parts = []
    for n, asked in enumerate(batch.asked):
        if asked is None or not asked.evidence:
            continue
        for weights, tokens, ear in ((clues.sound_weights_BN, batch.sound, True),
                                     (clues.picture_weights_BN, batch.picture, False)):  # fmt: skip
            hit = evidence_tokens(question, tokens, 0, by_ear=ear)
            parts.append(-float(weights[n][hit].sum().detach().log()))
    assert parts
    assert float(grounding_loss(clues, batch)) == pytest.approx(sum(parts) / len(parts), rel=1e-4)


EVENTS = (
    Event(name="tuba", x=0.3, start_s=1.0, end_s=2.0),
    Event(name="drum", x=0.99),
    Event(name="voice", start_s=0.0, end_s=1.4),
)


def test_what_sounds_is_named_at_its_time() -> None:
    names = ["drum", "tuba", "voice"]
    target = sounding(EVENTS, names, 6, BridgeConfig(sound_per_second=2))
    assert target.T.tolist() == [[0] * 6, [0, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]


def test_what_stands_is_named_in_its_band() -> None:
    shape = BridgeConfig(picture_per_second=2, picture_bands=4)
    target = standing(EVENTS, ["drum", "tuba", "voice"], 8, shape)
    assert target.T.tolist() == [[0, 0, 0, 1] * 2, [-1, 1, 0, 0] * 2, [0] * 8]


def test_timeline_tokens_come_to_lie_near_the_names_of_what_is_there(
    model: AVQAModel, given: Features
) -> None:
    events = [(Event(name=name, x=0.1, start_s=0.0, end_s=3.0),) for name in NAMES]
    naming, seconds = Naming(), torch.full((4,), 3)
    learned = [*model.bridge.parameters(), *naming.parameters()]
    before = [p.detach().clone() for p in learned]
    adam = torch.optim.Adam(learned, lr=0.01)
    losses = []
    for _ in range(60):
        keys = model.bridge(*given.batch(range(4))[:2], seconds)
        losses.append(naming.of_timeline(model, keys, events))
        adam.zero_grad(), losses[-1].backward(), adam.step()
    words = model.llm.get_input_embeddings().weight[[model.prompt.text(n)[0] for n in NAMES]]
    first_band = keys.picture_BQE[:, [0, 8]] - model.bridge.word_mean
    near = first_band @ (words - model.bridge.word_mean).T
    for parameter, old in zip(learned, before, strict=True):
        parameter.data.copy_(old)
    assert losses[-1] < losses[0] * 0.6
    assert near.argmax(-1).tolist() == [[n] * 2 for n in range(4)]


def test_the_nth_clue_is_to_hold_the_nth_event(model: AVQAModel) -> None:
    text = model.prompt.text
    row = replace(
        rows()[0],
        record="indoor ; no voice ; tuba left l2 ; drum right silent ; piano off l1",
        record_without_sound="indoor ; tuba left ; drum right",
        events=EVENTS,
    )
    heard, seen = slots(model.prompt, row, row.record)
    assert heard == [
        sorted(set(text(s))) for s in ("tuba left l2", "drum right silent", "piano off l1")
    ]
    assert seen == [sorted(set(text(s))) for s in ("tuba left", "drum right")]
    assert slots(model.prompt, replace(row, events=()), row.record) == ([], [])


def test_clues_that_hold_their_event_cost_least(model: AVQAModel) -> None:
    words = model.llm.get_input_embeddings().weight.detach()
    tuba, drum = (model.prompt.text(name)[0] for name in ("tuba", "drum"))
    held = [([[tuba], [drum]], [[tuba]])]
    mean = model.bridge.word_mean
    nothing = 3 * mean - words[tuba] - words[drum]  # points away from both
    right = torch.stack([words[tuba], words[drum], nothing, words[tuba], nothing, nothing])[None]
    wrong = right[:, [1, 0, 2, 1, 4, 5]]
    repeated = right[:, [0, 1, 1, 3, 4, 5]]  # a player too many
    exists = torch.ones(1, 6, dtype=torch.bool)
    naming = Naming()
    with torch.no_grad():
        low, high, more = (
            float(naming.of_events(model, soft, exists, held)) for soft in (right, wrong, repeated)
        )
    assert low < 0.1 < 1 < more < 5 < high
    deaf = exists.clone()
    deaf[:, :3] = False
    swapped = torch.cat([wrong[:, :3], right[:, 3:]], 1)
    assert float(naming.of_events(model, swapped, deaf, held)) < 0.1, "there are no sound clues"


def test_clips_of_which_nothing_is_known_cost_nothing(model: AVQAModel, given: Features) -> None:
    keys = model.bridge(*given.batch(range(4)))
    assert float(Naming().of_timeline(model, keys, [()] * 4)) == 0
    soft, exists = torch.zeros(4, 6, 32), torch.ones(4, 6, dtype=torch.bool)
    assert float(Naming().of_events(model, soft, exists, [([], [])] * 4)) == 0


def test_dropped_words_leave_names_and_sides() -> None:
    rng = np.random.default_rng(0)
    question = "Would you say that the violin on the left is louder than the acoustic guitar?"
    assert dropped(question, 0.0, rng) == question
    kept = dropped(question, 1.0, rng).split()
    assert kept == ["violin", "left", "acoustic", "guitar?"]
    some = dropped(question, 0.3, rng).split()
    assert 4 <= len(some) < len(question.split())


def test_computing_activations_again_changes_nothing(tmp_path: Path) -> None:
    states = []
    for checkpointing in (False, True):
        model = small_model()
        config = connect(3, checkpointing=checkpointing)
        folder = tmp_path / str(checkpointing)
        folder.mkdir()
        train_connect("s", model, rows(), features(encoded(model)), config, folder=folder,
                      resume=False)  # fmt: skip
        states.append({k: v.clone() for k, v in model.state_dict().items()})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)
