"""Language models of every family: loading, what LoRA may change in them, quantised weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from avqa_llm.errors import CheckpointError, RecipeError
from avqa_llm.llm import ALL_LINEAR, Merged, load_adapter, load_llm, lora_targets
from tests.model_parts import LORA, small_llm, small_tokenizer

GATED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LINEAR = {
    "llama": GATED,
    "qwen2": GATED,
    "qwen3": GATED,
    "mistral": GATED,
    "gemma3_text": GATED,
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    "phi3": ["o_proj", "qkv_proj", "gate_up_proj", "down_proj"],
}
"""The linear layers of a decoder layer."""
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: pip install 'avqa-llm[train]'",
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("llms")
    for family in LINEAR:
        small_llm(family).save_pretrained(root / family)
        small_tokenizer().save_pretrained(root / family)
    return {family: root / family for family in LINEAR}


# --- what LoRA changes ------------------------------------------------------------------------


@pytest.mark.parametrize("family", LINEAR)
def test_all_linear_is_every_layer_of_the_decoder_and_not_the_head(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    llm = small_llm(family)
    targets = lora_targets(llm, ALL_LINEAR)
    assert sorted(targets) == sorted(LINEAR[family])
    wrapped = get_peft_model(llm, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    changed = {name for name, _ in wrapped.named_parameters() if "lora_A" in name}
    assert len(changed) == 2 * len(targets), "one pair in each of the two layers"
    assert all(".layers." in name for name in changed)


def test_a_choice_is_kept_and_a_wrong_name_is_answered_with_what_there_is() -> None:
    llm = small_llm("phi")
    assert lora_targets(llm, ("fc1", "q_proj")) == ["q_proj", "fc1"]
    with pytest.raises(RecipeError, match="'o_proj': the layers of this phi model have.*dense"):
        lora_targets(llm, LORA.targets)
    with pytest.raises(RecipeError, match="did you mean 'k_proj'"):
        lora_targets(llm, ("k_porj",))
    with pytest.raises(RecipeError, match="lm_head"):
        lora_targets(llm, ("lm_head",))
    with pytest.raises(RecipeError, match="no lora targets"):
        lora_targets(llm, ())


def test_transposed_layers_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    llm = GPT2LMHeadModel(GPT2Config(n_embd=32, n_head=2, n_layer=2, vocab_size=64))
    with pytest.raises(RecipeError, match="gpt2.*Conv1D"):
        lora_targets(llm, ALL_LINEAR)


# --- loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", LINEAR)
def test_a_loaded_model_computes_as_the_saved_one(
    checkpoints: dict[str, Path], family: str
) -> None:
    llm, tokenizer = load_llm(str(checkpoints[family]), None)
    ids = torch.tensor([tokenizer("How many violins sound?")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(llm(ids).logits, small_llm(family)(ids).logits)
    half, _ = load_llm(str(checkpoints[family]), None, dtype="bfloat16", attention="sdpa")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.config._attn_implementation == "sdpa"


def changed_copy(folder: Path, where: Path, **said: Any) -> Path:
    """A checkpoint whose tokenizer says other things."""
    shutil.copytree(folder, where)
    path = where / "tokenizer_config.json"
    row = json.loads(path.read_text()) | said
    path.write_text(json.dumps({key: value for key, value in row.items() if value is not None}))
    return where


def test_a_tokenizer_without_padding_or_beginning_still_fills_and_ends(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from avqa_llm.prompt import Prompt

    folder = changed_copy(checkpoints["llama"], tmp_path / "a", pad_token=None, bos_token=None)
    _, tokenizer = load_llm(str(folder), None)
    assert tokenizer.bos_token_id is None
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None
    prompt = Prompt(tokenizer)
    assert prompt.opening == [] and prompt.answer("", "two")[-1] == tokenizer.eos_token_id


def test_the_end_is_learned_although_the_filling_has_its_id() -> None:
    from avqa_llm.training.packing import Piece, pack

    end = small_tokenizer().eos_token_id
    prefix = Piece.of([7, 8], [])
    rows = [(prefix, [Piece.of([9], [10, end])]), (prefix, [Piece.of([9], [end])])]
    packed = pack(rows, pad_id=end)
    learned = packed.ids_BL[packed.labels_BL >= 0]
    assert learned.tolist().count(end) == 2, "the two answers' ends"
    filling = packed.blocks_BL < 0
    assert bool(filling.any()) and bool((packed.ids_BL[filling] == end).all())
    assert bool((packed.labels_BL[filling] < 0).all())


def test_a_tokenizer_without_an_end_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed_copy(checkpoints["llama"], tmp_path / "a", eos_token=None)
    with pytest.raises(CheckpointError, match="no end token"):
        load_llm(str(folder), None)


def test_pickles_missing_weights_and_models_of_more_than_text_are_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(checkpoints["qwen3"], tmp_path / "damaged"))
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if "1.mlp.up" not in k}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights.*up_proj"):
        load_llm(str(folder), None)
    weights.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_llm(str(folder), None)
    with pytest.raises(CheckpointError, match="neither|cannot be loaded"):
        load_llm(str(tmp_path / "nowhere"), None)
    with pytest.raises(CheckpointError, match="bfloat16"):
        load_llm(str(checkpoints["llama"]), None, dtype="float8")


def test_a_model_with_a_picture_tower_is_refused(tmp_path: Path) -> None:
    import transformers as t

    text = small_llm("gemma3_text").config.to_dict()
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = t.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=16)
    t.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="gemma3 model.*text-only variant"):
        load_llm(str(tmp_path), None)


def test_a_merged_model_has_no_adapter_to_save(tmp_path: Path) -> None:
    llm = load_adapter(small_llm("llama"), tmp_path, rank=0)
    assert isinstance(llm, Merged) and not any(p.requires_grad for p in llm.parameters())
    assert llm.get_base_model().get_input_embeddings() is llm.get_input_embeddings()
    with pytest.raises(CheckpointError, match="was merged"):
        _ = llm.peft_config


# --- quantised --------------------------------------------------------------------------------


def test_without_bitsandbytes_the_message_says_what_to_install(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"pip install 'avqa-llm\[train\]'"):
        load_llm(str(checkpoints["llama"]), None, quantize="nf4")


def test_an_unknown_way_to_quantise_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="'int3': choose one of nf4, int8"):
        load_llm(str(checkpoints["llama"]), None, quantize="int3")


LEARN = """
import sys
from avqa_llm.devices import prepare_training
prepare_training(1)  # products in bfloat16: some processors must be prepared for them
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from avqa_llm.llm import ALL_LINEAR, load_llm, lora_targets
llm, tokenizer = load_llm(sys.argv[1], None, quantize="nf4")
stored = {n.rpartition(".")[2]: m for n, m in llm.named_modules() if isinstance(m, Linear4bit)}
states = [module.weight.quant_state for module in stored.values()]
assert all(state.quant_type == "nf4" and state.nested for state in states)
assert sorted(stored) == sorted(lora_targets(llm, ALL_LINEAR)), sorted(stored)
llm.requires_grad_(False)
tuned = get_peft_model(llm, LoraConfig(r=4, target_modules=list(stored), task_type="CAUSAL_LM"))
ids = torch.tensor([tokenizer("How many violins sound?")["input_ids"]])
trained = [p for p in tuned.train().parameters() if p.requires_grad]
optimizer, losses = torch.optim.Adam(trained, lr=1e-2), []
for _ in range(6):
    loss = tuned(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(float(loss))
print(*stored, losses[0], losses[-1])
"""


@needs_bitsandbytes
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_lora_learns_over_nf4_weights(tmp_path: Path, family: str) -> None:
    small_llm(family, hidden=64).save_pretrained(tmp_path)  # blocks of scales hold 64 weights
    small_tokenizer().save_pretrained(tmp_path)
    command = [sys.executable, "-c", LEARN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *names, first, last = done.stdout.splitlines()[-1].split()
    assert sorted(names) == sorted(LINEAR[family])
    assert float(last) < 0.9 * float(first)
