"""The whole model: what changes its soft tokens, what is trained, what is saved.

The reference systems of this field fail most of these tests: clues of the sound that do not
see the question, invariance to the order of time, parts that are saved or loaded without a word.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from avqa_llm.bridge import ClipKeys
from avqa_llm.encoders import Tokens
from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.media import Clip
from avqa_llm.model import AVQAModel, ClipTokens, config_text
from avqa_llm.prompt import CLUE, SOUND
from tests.model_parts import (
    BRIDGE,
    FAMILIES,
    QUESTIONS,
    ask_keys,
    backwards,
    last_logits,
    small_clip,
    small_model,
    stir,
    write_parts,
)

C = BRIDGE.clues
SEEN = 1e-4
"""Rounding is a hundred times smaller than this."""


@dataclass(frozen=True, kw_only=True)
class Case:
    model: AVQAModel
    clip: ClipTokens
    longer: ClipTokens


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    model = small_model(request.param)
    clips = [model.encode(small_clip(seed, seconds)) for seed, seconds in ((0, 3), (1, 5))]
    return Case(model=model, clip=clips[0], longer=clips[1])


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def clues_of(model: AVQAModel, clip: ClipTokens, question: str = QUESTIONS[0]) -> Tensor:
    return ask_keys(model, model.keys([clip]), [question])[0][0]


# --- what the clues depend on ---------------------------------------------------------------


def test_clues_of_each_modality_change_with_the_question(case: Case) -> None:
    one, other = (clues_of(case.model, case.clip, q) for q in QUESTIONS[:2])
    assert apart(one[:C], other[:C]) > SEEN, "the sound clues do not see the question"
    assert apart(one[C:], other[C:]) > SEEN, "the picture clues do not see the question"


def test_clues_see_the_order_of_the_words(case: Case) -> None:
    one = clues_of(case.model, case.clip, "Is the piano louder than the drum?")
    other = clues_of(case.model, case.clip, "Is the drum louder than the piano?")
    assert apart(one[:C], other[:C]) > SEEN
    assert apart(one[C:], other[C:]) > SEEN


@pytest.mark.parametrize("modality", ["sound", "picture"])
def test_clues_and_timeline_change_with_the_clip(case: Case, modality: str) -> None:
    other = getattr(case.model.encode(small_clip(7)), modality)
    changed = replace(case.clip, **{modality: other})
    halves = (slice(0, C), slice(C, None))
    own, there = halves if modality == "sound" else halves[::-1]
    before, after = (clues_of(case.model, clip) for clip in (case.clip, changed))
    assert apart(before[own], after[own]) > SEEN
    assert apart(before[there], after[there]) > SEEN, "one modality's clues do not hear the other's"
    lines = [getattr(case.model.keys([c]), f"{modality}_BQE") for c in (case.clip, changed)]
    assert apart(*lines) > SEEN


def test_one_moment_of_sound_is_enough_to_change_the_clues(case: Case) -> None:
    values = case.clip.sound.values_ND.clone()
    values[-1] = values[-1].flip(0)
    changed = replace(case.clip, sound=replace(case.clip.sound, values_ND=values))
    one, other = (clues_of(case.model, clip)[:C] for clip in (case.clip, changed))
    assert apart(one, other) > SEEN


def test_the_order_of_time_changes_everything(case: Case) -> None:
    turned = backwards(case.clip)
    assert torch.equal(turned.sound.times_N, case.clip.sound.times_N)
    before, after = case.model.keys([case.clip]), case.model.keys([turned])
    assert apart(before.sound_BQE, after.sound_BQE) > SEEN
    assert apart(before.picture_BQE, after.picture_BQE) > SEEN
    clues = [clues_of(case.model, clip) for clip in (case.clip, turned)]
    assert apart(clues[0][:C], clues[1][:C]) > SEEN
    assert apart(clues[0][C:], clues[1][C:]) > SEEN
    assert apart(*(last_logits(case.model, c, QUESTIONS[0]) for c in (case.clip, turned))) > SEEN


def test_left_and_right_of_the_picture_change_the_clues(case: Case) -> None:
    places = case.clip.picture.places_N2.clone()
    places[:, 0] = 1 - places[:, 0]
    mirrored = replace(case.clip, picture=replace(case.clip.picture, places_N2=places))
    one, other = (clues_of(case.model, clip)[C:] for clip in (case.clip, mirrored))
    assert apart(one, other) > SEEN


def test_attention_is_over_many_tokens_and_sums_to_one(case: Case) -> None:
    model = case.model
    _, _, clues = model.clues(model.keys([case.clip]), [model.prompt.text(QUESTIONS[0])])
    for weights in (clues.sound_weights_BN[0], clues.picture_weights_BN[0]):
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-4)
        assert float(weights.max()) < 0.9, "one token takes it all"


# --- batches and missing modalities ---------------------------------------------------------


def nothing(tokens: Tokens) -> Tokens:
    return Tokens.none(tokens.values_ND.shape[1])


def test_a_batch_equals_single_clips_of_other_lengths(case: Case) -> None:
    deaf = replace(case.longer, sound=nothing(case.longer.sound))
    clips = [case.clip, case.longer, deaf]
    together = case.model.keys(clips)
    asked = [q for q in QUESTIONS for _ in clips]
    for n, clip in enumerate(clips):
        alone = case.model.keys([clip])
        assert_same_rows(together, alone, n)
        two = ask_keys(case.model, alone, asked[n : n + 2])
        rows = together.rows(torch.tensor([n, n]))
        torch.testing.assert_close(ask_keys(case.model, rows, asked[n : n + 2]), two, **CLOSE)
    everything, exists = ask_keys(case.model, together, list(QUESTIONS))
    for n, clip in enumerate(clips):
        alone, there = ask_keys(case.model, case.model.keys([clip]), [QUESTIONS[n]])
        assert torch.equal(exists[n], there[0])
        torch.testing.assert_close(everything[n][there[0]], alone[0][there[0]], **CLOSE)


CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def assert_same_rows(together: ClipKeys, alone: ClipKeys, n: int) -> None:
    for name in ("sound", "picture"):
        soft, there = getattr(together, f"{name}_BQE")[n], getattr(together, f"{name}_there_BQ")[n]
        one, exists = getattr(alone, f"{name}_BQE")[0], getattr(alone, f"{name}_there_BQ")[0]
        torch.testing.assert_close(soft[there], one[exists], **CLOSE)


def test_timelines_have_the_length_of_their_clip(case: Case) -> None:
    keys = case.model.keys([case.clip, case.longer])
    assert keys.sound_there_BQ.sum(1).tolist() == [3 * 2, 5 * 2]
    per_second = case.model.config.bridge.picture_per_second
    assert keys.picture_there_BQ.sum(1).tolist() == [3 * per_second, 5 * per_second]


@pytest.mark.parametrize("gone", ["sound", "picture"])
def test_a_missing_modality_gives_no_soft_tokens(case: Case, gone: str) -> None:
    clip = small_clip(0)
    tokens = case.model.encode(clip.muted() if gone == "sound" else clip.blanked())
    assert getattr(tokens, gone).n == 0
    keys = case.model.keys([tokens])
    soft, exists = ask_keys(case.model, keys, [QUESTIONS[0]])
    assert not getattr(keys, f"{gone}_there_BQ").any()
    own = slice(0, C) if gone == "sound" else slice(C, None)
    assert exists.sum() == C and not exists[0, own].any()
    assert torch.isfinite(soft).all()
    assert torch.isfinite(last_logits(case.model, tokens, QUESTIONS[0])).all()
    assert apart(last_logits(case.model, tokens, QUESTIONS[0]),
                 last_logits(case.model, case.clip, QUESTIONS[0])) > SEEN  # fmt: skip


def test_a_clip_with_nothing_in_it_can_still_be_asked(case: Case) -> None:
    empty = replace(
        case.clip, sound=nothing(case.clip.sound), picture=nothing(case.clip.picture), seconds=0.0
    )
    assert torch.isfinite(last_logits(case.model, empty, QUESTIONS[0])).all()


def test_places_and_soft_tokens_that_do_not_match_raise(case: Case) -> None:
    model = case.model
    ids = torch.tensor([model.prompt.clip(5, 0, 0)])
    vectors, exists = torch.zeros(1, 6, 32), torch.ones(1, 6, dtype=torch.bool)
    with pytest.raises(AVQAError, match=r"\[5\] places for sound .* gave \[6\]"):
        model.place(ids, {SOUND: (vectors, exists)})
    exists[0, 2] = False
    placed = model.place(ids, {SOUND: (vectors, exists)})
    assert (placed[ids == SOUND] == 0).all()
    with pytest.raises(AVQAError, match="clue"):
        model.place(ids, {CLUE: (vectors, exists)})


def test_soft_tokens_are_as_large_as_words(case: Case) -> None:
    words = case.model.llm.get_input_embeddings().weight
    spread = words.std()
    keys = case.model.keys([case.clip])
    for soft in (keys.sound_BQE, keys.picture_BQE, clues_of(case.model, case.clip)):
        off = (soft - words.mean(0)).square().mean().sqrt()
        assert 0.3 < float(off / spread) < 3


# --- training -------------------------------------------------------------------------------


def step(model: AVQAModel, clip: ClipTokens, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    logits = last_logits(model, clip, QUESTIONS[0])
    torch.nn.functional.cross_entropy(logits[None], torch.tensor([5])).backward()
    optimizer.step()


@torch.enable_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_every_trained_group_learns_and_nothing_else_moves(name: str) -> None:
    model = small_model(name).train()
    for key, parameter in model.llm.named_parameters():
        if "lora_B" in key:
            torch.nn.init.zeros_(parameter)  # as LoRA starts: A learns from the second step on
    clip = model.encode(small_clip(0))
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    frozen = {k: p for k, p in model.named_parameters() if not p.requires_grad}
    assert all(k.startswith("bridge.") or ".lora_" in k for k in trained)
    before = {k: p.detach().clone() for k, p in frozen.items()}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):
        step(model, clip, optimizer)
    still = [k for k, p in trained.items() if p.grad is None or not p.grad.any()]
    # A softmax does not feel a constant added to all its scores: the keys' biases cannot learn.
    assert [k for k in still if not k.endswith("key.bias")] == []
    assert {k.split(".")[1] for k in trained if k.startswith("bridge.")} == {
        *("read_sound", "read_picture", "qformer_sound", "qformer_picture"),
        *("aggregator", "out", "gain"),
    }
    assert [k for k, p in frozen.items() if not torch.equal(p, before[k])] == []


# --- saving and loading ---------------------------------------------------------------------


Kept = tuple[Path, AVQAModel]
"""A model directory, and the model that was saved in it."""


def keep(name: str, folder: Path) -> Kept:
    config = write_parts(folder, name)
    model = AVQAModel.fresh(config, folder, seed=1)
    stir(model)
    model.eval().save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module", params=FAMILIES)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return keep(request.param, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep("llama-vit-vit", tmp_path_factory.mktemp("whole"))[0]


def test_a_saved_model_comes_back_bit_for_bit(kept: Kept) -> None:
    folder, model = kept
    again = AVQAModel.from_pretrained(folder)
    assert again.config == model.config
    one, other = model.state_dict(), again.state_dict()
    assert list(one) == list(other)
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    clips = [m.encode(small_clip(0)) for m in (model, again)]
    logits = [last_logits(m, c, QUESTIONS[0]) for m, c in zip((model, again), clips, strict=True)]
    assert torch.equal(*logits)
    for text in (*QUESTIONS, "Zürich 日本 </s> <s>?"):
        assert model.prompt.text(text) == again.prompt.text(text)
    assert model.prompt.clip(2, 1, 3) == again.prompt.clip(2, 1, 3)


def test_no_frozen_weight_and_no_pickle_is_saved(kept: Kept) -> None:
    folder, model = kept
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert all(".lora_" in key for key in file.keys())
    with safe_open(folder / "bridge.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.bridge.state_dict())
    names = {p.name for p in folder.iterdir() if p.is_file()}
    assert names == {
        *("avqa.json", "bridge.safetensors"),
        *("adapter_config.json", "adapter_model.safetensors"),
    }
    assert str(folder) not in (folder / "adapter_config.json").read_text()


def test_the_adapter_loads_in_plain_peft(kept: Kept) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, model = kept
    base = AutoModelForCausalLM.from_pretrained(folder / "llm", attn_implementation="eager")
    ids = torch.tensor([model.prompt.text(QUESTIONS[1])])
    plain = base(ids).logits.clone()
    adapted = PeftModel.from_pretrained(base, str(folder)).eval()(ids).logits
    assert torch.equal(adapted, model.llm(ids).logits)
    assert apart(adapted, plain) > SEEN


def test_numbers_of_a_list_share_a_line_and_nothing_else_changes() -> None:
    row = {"mean": [1.5, -2e-05, 3], "names": ["[1, 2]", "a"], "none": [], "in": {"x": [0.25]}}
    text = config_text(row)
    assert json.loads(text) == row
    assert '"mean": [1.5,-2e-05,3],\n' in text
    assert '"names": [\n' in text


def test_saving_leaves_other_files_alone(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("what this adapter is for")
    kept[1].save_pretrained(tmp_path)
    kept[1].save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "what this adapter is for"
    assert len(list(tmp_path.iterdir())) == 5


def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "damaged"))


@pytest.mark.parametrize(
    "name",
    [
        *("avqa.json", "bridge.safetensors", "adapter_model.safetensors", "adapter_config.json"),
        *("llm/model.safetensors", "picture/config.json", "sound/model.safetensors"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_incomplete_directories_are_refused_by_name(
    whole: Path, tmp_path: Path, name: str, how: str
) -> None:
    folder = copied(whole, tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if how == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name.split("/")[0].split(".")[0]):
        AVQAModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["bridge.safetensors", "adapter_model.safetensors"])
@pytest.mark.parametrize("how", ["lacks one", "another name", "another shape"])
def test_foreign_weights_are_refused(whole: Path, tmp_path: Path, name: str, how: str) -> None:
    folder = copied(whole, tmp_path)
    weights = load_file(folder / name)
    key = sorted(weights)[0]
    value = weights.pop(key)
    if how == "another name":
        weights[key.replace("layers.0", "language_model.layers.0") + ".old"] = value
    elif how == "another shape":
        weights[key] = torch.zeros(3, 5)
    save_file(weights, folder / name)
    with pytest.raises(CheckpointError, match=name.split(".")[0]):
        AVQAModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"colour": "red"}, "colour"),
        ({"bridge": {"wings": 2}}, "wings"),
        ({"bridge": "wide"}, "avqa.json"),
        ({"llm": "no/such-model"}, "no/such-model"),
    ],
)
def test_foreign_configurations_are_refused(
    whole: Path, tmp_path: Path, change: dict, message: str
) -> None:
    folder = copied(whole, tmp_path)
    row = json.loads((folder / "avqa.json").read_text())
    (folder / "avqa.json").write_text(json.dumps(row | change))
    with pytest.raises(CheckpointError, match=message):
        AVQAModel.from_pretrained(folder)


def test_the_model_reads_a_clip_from_its_own_frames() -> None:
    clip: Clip = small_clip(0, 4)
    model = small_model()
    assert clip.frames_THWC.shape[0] == 8
    tokens = model.encode(clip)
    assert (tokens.timeline, tokens.picture.n, tokens.sound.n) == (4, 4 * 2 * 4, 4 * 4)
