"""Preference tuning against hand computations on plain one-sequence passes.

Legend: P pairs, L tokens, V vocabulary, E width of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from avqa_llm.errors import AnnotationError, RecipeError
from avqa_llm.media.changes import Cut
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.prompt import CLUE, PICTURE, SOUND, Turn, spoken
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.packing import IGNORE
from avqa_llm.training.pair_batches import lay_out
from avqa_llm.training.pairs import PairRow as Pair
from avqa_llm.training.prefer import PairBatch, PairBatches, Prefer, PreferConfig
from tests.model_parts import small_clip, small_model, small_tokenizer


@dataclass(frozen=True)
class InMemory:
    """Features of a few clips."""

    clips: Sequence[ClipTokens]

    def __len__(self) -> int:
        return len(self.clips)

    def clip(self, index: int) -> ClipTokens:
        return self.clips[index]

    def timeline(self, index: int) -> int:
        return self.clips[index].timeline

    def present(self, index: int) -> tuple[bool, bool]:
        return bool(self.clips[index].sound.n), bool(self.clips[index].picture.n)

    def batch(self, indices: Sequence[int]) -> tuple[TokenBatch, TokenBatch, Tensor]:
        some = [self.clips[i] for i in indices]
        sound, picture = TokenBatch.of([c.sound for c in some]), TokenBatch.of(
            [c.picture for c in some]
        )  # fmt: skip
        return sound, picture, torch.tensor([clip.timeline for clip in some])


HISTORY = (Turn(question="Is the tuba indoor?", answer="no"),)
PAIRS = (
    Pair(video_id="a", media="a.mp4", question="How many violins sound?", chosen="two",
         rejected="Two or three violins, or no violin."),
    Pair(video_id="a", media="a.mp4", question="Where is the tuba?", rejected="right",
         chosen="the tuba sounds on the left", history=HISTORY),
    Pair(video_id="b", media="", question="Is the piano louder than the drum?", chosen="yes",
         rejected="It is the drum or the piano."),
)  # fmt: skip
RECORDS = ("violin l2 s0 e2; tuba r1", "piano l2 s3")


@pytest.fixture(scope="module")
def features() -> InMemory:
    """Clips of three and two seconds; the second has no sound."""
    model = small_model()
    first, second = (model.encode(small_clip(n, seconds)) for n, seconds in ((0, 3), (1, 2)))
    silent = replace(second.sound, **{
        f"{name}": getattr(second.sound, name)[:0] for name in ("values_ND", "times_N", "places_N2")
    })  # fmt: skip
    return InMemory([first, replace(second, sound=silent)])


def config(**changes: Any) -> PreferConfig:
    loop = LoopConfig(steps=4, batch=2, lr=1e-3, warmup=0)
    return PreferConfig(rows="pairs.jsonl", features="features", loop=loop, **changes)


def prepared(
    features: InMemory, *, records: bool = True, pairs: Sequence[Pair] = PAIRS, **changes: Any
) -> tuple[AVQAModel, Prefer, PairBatch]:
    model = small_model()
    model.config = replace(model.config, records=records)
    stage = Prefer(model, config(**changes))
    stage.train()
    batches = PairBatches(
        model, pairs, features, stage.config, records=RECORDS if records else None
    )
    return model, stage, batches(0)


def stir(model: AVQAModel, name: str = "prefer", *, std: float = 0.1) -> None:
    """As after some training."""
    torch.manual_seed(8)
    with torch.no_grad():
        for key, parameter in model.llm.named_parameters():
            if f"lora_B.{name}" in key:
                parameter.normal_(std=std)


# --- by hand ------------------------------------------------------------------------------------


def prompt_of(model: AVQAModel, features: InMemory, clip: int, pair: Pair, record: str) -> Tensor:
    """Embeddings (1, L, E) of clip and question, built as the engine builds them."""
    keys = model.keys([features.clip(clip)])
    words = [model.prompt.events, model.prompt.text(spoken(pair.question))]
    soft, exists, _ = model.clues(keys, words)
    counts = int(keys.sound_there_BQ[0].sum()), int(keys.picture_there_BQ[0].sum())
    ids = model.prompt.clip(*counts, int(exists[0].sum()))
    ids += model.prompt.record(record) if record else []
    ids += model.prompt.history(pair.history)
    ids += model.prompt.question(pair.question, int(exists[1].sum()), again=bool(pair.history))
    where = {
        SOUND: (keys.sound_BQE, keys.sound_there_BQ),
        PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
        CLUE: (soft.flatten(0, 1)[None], exists.flatten()[None]),
    }
    return model.place(torch.tensor([ids]), where)


@torch.no_grad()
def logps_by_hand(model: AVQAModel, given_1LE: Tensor, answer: str) -> list[float]:
    """Log-probability of each token of an answer and its end, by one plain pass and `math`."""
    said = model.prompt.answer("", answer)
    answer_1LE = model.llm.get_input_embeddings()(torch.tensor([said]))
    logits = model.llm(inputs_embeds=torch.cat([given_1LE, answer_1LE], 1)).logits[0].tolist()
    mark, found = len(model.prompt.steps_end), []
    for place, token in enumerate(said[mark:], start=given_1LE.shape[1] + mark):
        row = logits[place - 1]
        highest = max(row)
        total = math.log(sum(math.exp(value - highest) for value in row)) + highest
        found.append(row[token] - total)
    return found


def loss_by_hand(
    policy: AVQAModel, start: AVQAModel, features: InMemory, how: PreferConfig, *, records: bool
) -> dict[str, float]:
    dpo, tokens, sums = [], 0, {"chosen": 0.0, "rejected": 0.0, "likely": 0.0}
    for pair in PAIRS:
        clip = "ab".index(pair.video_id)
        record = RECORDS[clip] if records else ""
        logs = {}
        for name, model in (("policy", policy), ("start", start)):
            given = prompt_of(model, features, clip, pair, record)
            for side in ("chosen", "rejected"):
                logs[name, side] = logps_by_hand(model, given, getattr(pair, side))
        reward = {
            side: how.beta * (sum(logs["policy", side]) - sum(logs["start", side]))
            for side in ("chosen", "rejected")
        }
        margin = reward["chosen"] - reward["rejected"]
        sure = 1 - how.label_smoothing
        dpo.append(
            sure * math.log(1 + math.exp(-margin)) + (1 - sure) * math.log(1 + math.exp(margin))
        )
        tokens += len(logs["policy", "chosen"])
        sums["likely"] += sum(logs["policy", "chosen"])
        sums["chosen"] += reward["chosen"] / len(PAIRS)
        sums["rejected"] += reward["rejected"] / len(PAIRS)
    mean, sft = sum(dpo) / len(dpo), -sums["likely"] / tokens
    return {
        "loss": mean + how.sft * sft, "dpo": mean, "sft": sft,
        "chosen": sums["chosen"], "rejected": sums["rejected"],
        "margin": sums["chosen"] - sums["rejected"],
    }  # fmt: skip


@pytest.mark.parametrize("records", [True, False])
def test_loss_is_that_of_plain_sequences(features: InMemory, records: bool) -> None:
    how = {"beta": 0.3, "sft": 0.2, "label_smoothing": 0.1}
    policy, stage, batch = prepared(features, records=records, **how)
    stir(policy)
    losses = stage(batch)
    wanted = loss_by_hand(policy, small_model(), features, stage.config, records=records)
    found = {name: float(losses[name].detach()) for name in wanted}
    assert found == pytest.approx(wanted, rel=1e-4, abs=2e-5)
    assert abs(found["margin"]) > 0.05, "nothing to compare"
    assert (batch.packed.blocks_BL < 0).any() and not batch.used_R.all(), "no padding was tested"


def test_starts_at_the_reference_exactly(features: InMemory) -> None:
    _, stage, batch = prepared(features)
    losses = {name: value.detach() for name, value in stage(batch).items()}
    assert float(losses["dpo"].detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert {
        float(losses[name].detach()) for name in ("margin", "chosen", "rejected", "accuracy")
    } == {0.0}
    assert float(losses["loss"] - 0.1 * losses["sft"]) == pytest.approx(math.log(2), abs=1e-6)


def test_starts_at_the_reference_under_half_precision_too(features: InMemory) -> None:
    model, stage, batch = prepared(features)
    half = torch.autocast("cpu", dtype=torch.float16)  # bf16 kills processes on some machines
    with half:
        assert float(stage(batch)["margin"]) == 0.0
    stir(model)
    with half:
        losses = stage(batch)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    losses["loss"].backward()
    learning = [p for p in stage.parameters() if p.requires_grad]
    assert learning and all(p.grad is not None and p.grad.abs().max() > 0 for p in learning)


# --- what enters ----------------------------------------------------------------------------------


def test_only_answers_and_their_ends_are_learned(features: InMemory) -> None:
    model, _, batch = prepared(features)
    prompt, packed = model.prompt, batch.packed
    for n, pair in enumerate(p for name in "ab" for p in PAIRS if p.video_id == name):
        row = int(batch.clips_P[n])
        for block, said in ((batch.chosen_P[n], pair.chosen), (batch.rejected_P[n], pair.rejected)):
            own = packed.blocks_BL[row] == block
            wanted = prompt.text(spoken(said)) + prompt.eos
            assert packed.labels_BL[row][own].tolist() == wanted
    learned = int((packed.labels_BL != IGNORE).sum())
    assert learned == sum(
        len(prompt.text(spoken(text))) + 1 for p in PAIRS for text in (p.chosen, p.rejected)
    )


def changed(batch: PairBatch, where_BL: Tensor) -> PairBatch:
    """The batch with other tokens in some places, labels included."""
    other_BL = batch.packed.ids_BL.clone()
    other_BL[where_BL] = (other_BL[where_BL] + 7) % 60 + 5
    labels = batch.packed.labels_BL.clone()
    learned = where_BL & (labels != IGNORE)
    labels[learned] = other_BL[learned]
    return replace(batch, packed=replace(batch.packed, ids_BL=other_BL, labels_BL=labels))


def test_padding_and_the_other_answer_never_enter(features: InMemory) -> None:
    model, stage, batch = prepared(features)
    stir(model)
    before, blocks_BL = stage(batch), batch.packed.blocks_BL
    after = stage(changed(batch, blocks_BL < 0))
    assert all(torch.equal(before[name], after[name]) for name in before)

    rows = torch.arange(len(blocks_BL))[:, None]
    rejected_BL = torch.zeros_like(blocks_BL, dtype=torch.bool)
    for row, block in zip(batch.clips_P.tolist(), batch.rejected_P.tolist(), strict=True):
        rejected_BL |= (blocks_BL == block) & (rows == row)
    after = stage(changed(batch, rejected_BL))
    for name in ("sft", "chosen"):  # they hang on the chosen answers alone
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=1e-6)
    assert abs(float(after["rejected"] - before["rejected"])) > 1e-3


def test_what_is_only_read_has_no_loss_of_its_own(features: InMemory) -> None:
    """The question changes what is likely, never what is counted."""
    _, stage, batch = prepared(features)
    stage.requires_grad_(False)
    given_BL = (batch.packed.labels_BL == IGNORE) & (batch.packed.ids_BL >= 0)
    other = changed(batch, given_BL & (batch.packed.blocks_BL > 0))
    assert torch.equal(other.packed.labels_BL, batch.packed.labels_BL)
    losses = stage(other)
    assert float(losses["dpo"].detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert abs(float(losses["sft"] - stage(batch)["sft"])) > 1e-3


@pytest.mark.parametrize("sft", [0.0, 0.1])
def test_a_step_raises_the_chosen_and_lowers_the_rejected(features: InMemory, sft: float) -> None:
    _, stage, batch = prepared(features, sft=sft)
    learning = [p for p in stage.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        stage(batch)["loss"].backward()
        optimizer.step()
    losses = stage(batch)
    assert float(losses["chosen"].detach()) > 0 > float(losses["rejected"].detach())
    assert float(losses["accuracy"].detach()) > 0.5
    assert float(losses["dpo"].detach()) < math.log(2)


def test_a_batch_moves_whole(features: InMemory) -> None:
    _, _, batch = prepared(features)
    moved = batch.to("meta")
    tensors = [v for v in vars(moved).values() if isinstance(v, Tensor)]
    for part in (moved.sound, moved.picture, moved.packed):
        tensors += list(vars(part).values())
    assert len(tensors) > 15 and all(tensor.is_meta for tensor in tensors)


# --- what learns ----------------------------------------------------------------------------------


def test_only_the_new_adapter_learns(features: InMemory) -> None:
    model, stage, batch = prepared(features)
    stir(model)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    learning = {k for k, p in stage.named_parameters() if p.requires_grad}
    assert learning and all(".prefer." in key for key in learning)
    optimizer = torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=0.1)
    stage(batch)["loss"].backward()
    optimizer.step()
    moved = {k for k, p in model.named_parameters() if not torch.equal(p, before[k])}
    assert moved and all(".prefer." in key for key in moved)
    assert len(moved) == len(learning)


def test_a_learning_bridge_is_held_against_a_frozen_copy(features: InMemory) -> None:
    model, stage, batch = prepared(features, train_bridge=True)
    losses = stage(batch)
    assert float(losses["margin"].detach()) == 0.0
    losses["loss"].backward()
    with torch.no_grad():
        for parameter in model.bridge.parameters():
            if parameter.grad is not None:
                parameter -= 0.3 * parameter.grad
    after = stage(batch)
    assert float(after["margin"].detach()) > 0
    assert not any(p.requires_grad for p in stage.start_bridge.parameters())  # type: ignore[union-attr]
    wanted = loss_by_hand(model, small_model(), features, stage.config, records=True)
    assert float(after["loss"].detach()) == pytest.approx(wanted["loss"], rel=1e-4)


def test_dropout_is_off_while_training(features: InMemory) -> None:
    model = small_model()
    for part in model.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    stage = Prefer(model, config())
    stage.train()
    batch = PairBatches(model, PAIRS, features, stage.config, records=RECORDS)(0)
    assert float(stage(batch)["margin"]) == 0.0


# --- batches --------------------------------------------------------------------------------------


def many(n: int) -> list[Pair]:
    return [replace(PAIRS[i % 3], video_id=f"{i % 2}", media="", tag=str(i)) for i in range(n)]


def fingerprint(batch: PairBatch) -> list[Any]:
    return [batch.packed.ids_BL.tolist(), batch.clips_P.tolist(), batch.words_RW.tolist()]


def test_batches_hang_on_the_number_of_the_step_alone(features: InMemory) -> None:
    model = small_model()
    pairs, how = many(12), config(pairs=2)
    one, other = (PairBatches(model, pairs, features, how, records=RECORDS) for _ in range(2))
    other(1)
    assert fingerprint(one(3)) == fingerprint(other(3))
    assert fingerprint(one(0)) != fingerprint(one(1))
    last = PairBatches(model, pairs, features, replace(how, loop=replace(how.loop, seed=1)),
                       records=RECORDS)  # fmt: skip
    assert [fingerprint(last(s)) for s in range(3)] != [fingerprint(one(s)) for s in range(3)]


def test_a_pass_takes_every_pair_once(features: InMemory) -> None:
    pairs = [replace(p, rejected=f"three piano {'violin ' * n}") for n, p in enumerate(many(11))]
    batches = PairBatches(small_model(), pairs, features, config(pairs=3), records=RECORDS)
    assert len(batches.groups) == 4  # 6 pairs of the one clip, 5 of the other
    assert sorted(pair for _, own in batches.groups for pair in own) == list(range(11))
    seen = [int(n) for step in range(2) for n in batches(step).rejected_P]
    assert len(seen) == 11


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_a_step_add_up_to_it(features: InMemory, parts: int) -> None:
    model = small_model()
    how = config(pairs=2)
    how = replace(how, loop=replace(how.loop, batch=4))
    stage = Prefer(model, how)
    stir(model)
    batches = PairBatches(model, many(7), features, how, records=RECORDS)
    whole = stage(batches(0))
    some = [stage(batches(0, part, parts)) for part in range(parts)]
    assert sum(len(batches(0, part, parts).clips_P) for part in range(parts)) == 7
    for name in ("loss", "dpo", "sft"):
        mean = sum(float(losses[name].detach()) for losses in some) / parts
        assert mean == pytest.approx(float(whole[name].detach()), rel=1e-5)
    with pytest.raises(RecipeError, match="4 clips cannot be cut in 5"):
        batches(0, 4, 5)


def test_clips_are_told_by_file_and_cut(features: InMemory) -> None:
    cuts = Cut(end_s=3), Cut(end_s=3), Cut(start_s=3)
    pairs = [replace(PAIRS[0], cut=cut) for cut in cuts]
    batches = PairBatches(small_model(), pairs, features, config(), records=RECORDS)
    assert batches.groups == [(0, [0, 1]), (1, [2])]
    named = PairBatches(small_model(), pairs, features, config(), records=RECORDS, clips=[1, 1, 0])
    assert named.groups == [(1, [0, 1]), (0, [2])]


def test_what_a_cut_takes_away_is_not_given(features: InMemory) -> None:
    cuts = Cut(), Cut(sound=False), Cut(picture=False)
    pairs = [replace(PAIRS[0], cut=cut) for cut in cuts]
    batches = PairBatches(
        small_model(), pairs, features, config(), records=RECORDS, clips=[0, 0, 0]
    )
    assert batches.groups == [(0, [0]), (0, [1]), (0, [2])]
    stage = Prefer(small_model(), config())
    for group, sound, picture in zip(batches.groups, (1, 0, 1), (1, 1, 0), strict=True):
        batch = batches.batch([group], pairs_due=1.0, tokens_due=1.0)
        ids_BL = batch.packed.ids_BL
        assert bool((ids_BL == SOUND).any()) == bool(batch.sound.there_BN.any()) == bool(sound)
        assert (
            bool((ids_BL == PICTURE).any()) == bool(batch.picture.there_BN.any()) == bool(picture)
        )
        assert math.isfinite(float(stage(batch)["loss"].detach()))


def test_layout_of_a_clip_without_sound(features: InMemory) -> None:
    model, _, batch = prepared(features)
    row = int(batch.clips_P[[p.tolist() for p in batch.clips_P.bincount()].index(1)])
    assert row in (0, 1)
    prefix, blocks = lay_out(model, PAIRS[2:], seconds=2, there=(False, True))
    shape = model.config.bridge
    assert prefix.ids.count(SOUND) == 0
    assert prefix.ids.count(PICTURE) == 2 * shape.picture_per_second
    assert prefix.ids.count(CLUE) == blocks[0].ids.count(CLUE) == shape.clues
    assert prefix.ids[-len(model.prompt.events) :] == model.prompt.events
    written, _ = lay_out(model, PAIRS[2:], seconds=2, there=(False, True), record="")
    assert written.ids == prefix.ids + model.prompt.eos, "the model wrote that there is nothing"
    assert [block.parent for block in blocks] == [0, 1, 1]


def test_faulty_pairs_are_refused(features: InMemory) -> None:
    model, how = small_model(), config()
    same = [replace(PAIRS[0], rejected="two")]
    third = [*PAIRS, replace(PAIRS[0], media="c.mp4")]
    for pairs, records, said in (
        ([], RECORDS, "0 preference pairs"),
        (same, RECORDS, "prefers 'two' to the same text"),
        (third, RECORDS, "about 3 clips, features are there of 2"),
        (PAIRS, None, "0 records are given for 2 clips"),
        (PAIRS, RECORDS[:1], "1 records are given for 2 clips"),
    ):
        with pytest.raises(AnnotationError, match=said):
            PairBatches(model, pairs, features, how, records=records)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", 0.0), ("sft", -0.1), ("label_smoothing", 0.5), ("pairs", 0), ("rank", 0)],
)
def test_values_that_cannot_work_are_refused(name: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"prefer: {name} is {value}"):
        config(**{name: value})


def test_the_small_tokenizer_knows_the_words() -> None:
    """Unknown words would make different answers the same tokens."""
    ids = [tuple(small_tokenizer()(p.rejected)["input_ids"]) for p in PAIRS]
    assert len(set(ids)) == len(PAIRS)
