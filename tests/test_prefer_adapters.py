"""Two LoRA adapters on one model, the reference with one of them off, and both as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avqa_llm.errors import CheckpointError
from avqa_llm.model import AVQAModel
from avqa_llm.training.adapters import join, stack, start_only
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.prefer import Prefer, PreferConfig
from tests.model_parts import small_llm, small_model, write_parts


def config(**changes: Any) -> PreferConfig:
    loop = LoopConfig(steps=4, batch=2, lr=1e-3, warmup=0)
    return PreferConfig(rows="pairs.jsonl", features="features", loop=loop, **changes)


def stir(llm: Any, *names: str) -> None:
    """As after some training."""
    torch.manual_seed(8)
    with torch.no_grad():
        for key, parameter in llm.named_parameters():
            if any(f"lora_B.{name}" in key for name in names):
                parameter.normal_(std=0.1)


IDS = torch.arange(5, 25).view(2, 10)


def logits_of(llm: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = llm(input_ids=IDS).logits
    return found


def test_the_joined_adapter_says_the_same_and_again() -> None:
    model = small_model()
    start = logits_of(model.llm)
    for rank in (3, None):
        before = logits_of(model.llm)
        stage = Prefer(model, config(rank=rank))
        assert torch.equal(logits_of(model.llm), before)
        stir(model.llm, "prefer")
        both = logits_of(model.llm)
        with start_only(model.llm):
            assert torch.equal(logits_of(model.llm), before)
        assert torch.equal(logits_of(model.llm), both)
        stage.finish()
        torch.testing.assert_close(logits_of(model.llm), both, atol=1e-5, rtol=1e-5)
        assert (both - before).abs().max() > 0.01
    assert list(model.llm.peft_config) == ["default"]
    assert model.config.lora.rank == model.config.lora.alpha == 14  # (4 + 3) twice
    assert (logits_of(model.llm) - start).abs().max() > 0.01
    assert not any(p.requires_grad for p in model.llm.parameters())


def test_the_joined_model_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shape = write_parts(tmp_path, "llama-vit-vit")
    model = AVQAModel.fresh(shape, tmp_path)
    stir(model.llm, "default")
    stage = Prefer(model, config(rank=2, alpha=3))
    stir(model.llm, "prefer")
    both = logits_of(model.llm)
    stage.finish()
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], said["rank_pattern"]) == (6, 6, {})
    again = AVQAModel.from_pretrained(tmp_path)
    assert (again.config.lora.rank, again.config.lora.alpha) == (6, 6)
    assert again.config.lora.targets == shape.lora.targets
    torch.testing.assert_close(logits_of(again.llm), both, atol=1e-5, rtol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "llm", attn_implementation="eager")
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    assert torch.equal(logits_of(plain), logits_of(again.llm))


def test_special_scalings_and_patterns_are_joined_too() -> None:
    from peft import LoraConfig, get_peft_model

    special = LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, rank_pattern={"q_proj": 2}, task_type="CAUSAL_LM",
        target_modules=["q_proj", "v_proj"], lora_dropout=0.3,
    )  # fmt: skip
    llm = get_peft_model(small_llm("qwen2"), special).eval()
    stack(llm, rank=3)
    stir(llm, "default", "prefer")
    both = logits_of(llm)
    assert join(llm) == 7
    torch.testing.assert_close(logits_of(llm), both, atol=1e-5, rtol=1e-5)
    assert llm.peft_config["default"].lora_dropout == 0.3


def test_merged_weights_are_taken_apart_first() -> None:
    model = small_model()
    before = logits_of(model.llm)
    model.llm.merge_adapter()
    stack(model.llm)
    torch.testing.assert_close(logits_of(model.llm), before, atol=1e-5, rtol=1e-5)
    with start_only(model.llm):
        assert not any(getattr(part, "merged", False) for part in model.llm.modules())


def test_what_cannot_be_stacked_or_joined_is_refused() -> None:
    model = small_model()
    with pytest.raises(CheckpointError, match="nothing to join"):
        join(model.llm)
    stack(model.llm)
    with pytest.raises(CheckpointError, match=r"\['default', 'prefer'\]"):
        stack(model.llm)
    with pytest.raises(CheckpointError, match="adapters"):
        stack(model.inner)
    other = small_model()
    other.llm.peft_config["default"].use_dora = True
    with pytest.raises(CheckpointError, match="use_dora"):
        stack(other.llm)
