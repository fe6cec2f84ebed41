"""Adapters that must not be served, each refused with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avqa_llm.errors import CheckpointError
from avqa_llm.serving.adapters import Base, check
from avqa_llm.serving.houses import VLLMHouse, name_there
from tests.served_world import BRIDGE, LORA, TINY, adapter, rewrite


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.of(TINY)


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def renamed(start: str) -> Callable[[Path], None]:
    old = "base_model.model.model."

    def change(folder: Path) -> None:
        rewrite(folder / LORA, lambda w: {k.replace(old, start): v for k, v in w.items()})

    return change


def untrained(folder: Path) -> None:
    (folder / BRIDGE).write_bytes((TINY / BRIDGE).read_bytes())
    rewrite(folder / LORA, lambda w: {k: v * (".lora_B." not in k) for k, v in w.items()})


def copied(folder: Path) -> None:
    for name in (BRIDGE, LORA):
        (folder / name).write_bytes((TINY / name).read_bytes())


def other_base(folder: Path) -> None:
    (folder / "llm").unlink()
    (folder / "llm").mkdir()
    for path in (TINY / "llm").iterdir():
        (folder / "llm" / path.name).write_bytes(path.read_bytes())
    rewrite(folder / "llm" / "model.safetensors", lambda w: {k: v * 1.01 for k, v in w.items()})


def merged(folder: Path) -> None:
    path = folder / "avqa.json"
    row = json.loads(path.read_text())
    row["lora"]["rank"] = 0
    path.write_text(json.dumps(row))


def not_finite(folder: Path) -> None:
    rewrite(folder / LORA, lambda w: {k: torch.full_like(v, torch.nan) for k, v in w.items()})


def wrong_shape(folder: Path) -> None:
    rewrite(folder / LORA, lambda w: {k: v[:, :8].contiguous() for k, v in w.items()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (untrained, "change nothing: .* all its LoRA matrices B are zero"),
        (copied, "change nothing: .* so is its LoRA"),
        (renamed("base_model.model.model.language_model."), "around a whole omni model"),
        (renamed("base_model.model.decoder."), "of no module of the language model"),
        (renamed("model."), "of no module of the language model"),
        (lambda folder: rewrite(folder / LORA, lambda w: {}), "no weights at all"),
        (not_finite, "values that are no numbers"),
        (wrong_shape, "the weight that it changes is"),
        (other_base, "of another base"),
        (merged, "merged into a language model of its own"),
        (config(use_dora=True), "DoRA"),
        (config(modules_to_save=["lm_head"]), "modules_to_save"),
        (config(init_lora_weights="pissa"), "changes the base itself"),
        (config(bias="all"), "biases are not loaded"),
        (config(peft_type="IA3"), "not LORA"),
        (lambda folder: (folder / BRIDGE).unlink(), "needs the bridge that was trained with it"),
        (lambda folder: (folder / LORA).unlink(), "LoRA weights are incomplete"),
        (lambda folder: (folder / "avqa.json").unlink(), "has no avqa.json"),
        (lambda folder: (folder / LORA).write_bytes(b"cut"), "cannot be read"),
    ],
)
def test_an_unfit_adapter_is_refused_with_the_reason(
    change: Callable[[Path], Any], said: str, base: Base, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "adapter")
    check(folder, base)
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        check(folder, base)


def test_a_bridge_alone_or_lora_alone_is_something(base: Base, tmp_path: Path) -> None:
    check(adapter(tmp_path / "bridge", lora=0.0), base)
    check(adapter(tmp_path / "lora", bridge=0.0), base)
    zero = adapter(tmp_path / "zero")
    rewrite(zero / LORA, lambda w: {k: v * (".lora_B." not in k) for k, v in w.items()})
    check(zero, base)


def test_a_folder_that_is_none(base: Base, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no directory"):
        check(tmp_path / "nowhere", base)


class Process:
    """What a house asks of a `VLLMProcess`."""

    def __init__(self) -> None:
        self.client, self.state, self.why, self.restarts = None, "ok", "", 0


def test_weights_that_changed_on_disk_are_not_mixed_with_those_in_memory(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "model")
    process = Process()
    house = VLLMHouse(None, process=process, there={name_there("m", folder): folder})
    house.load("m", folder)
    process.restarts = 1
    assert house.state() == ("ok", "")
    rewrite(folder / LORA, lambda w: {k: v + 1 for k, v in w.items()})
    assert house.state() == ("ok", ""), "vLLM has still what it read"
    process.restarts = 2
    state, why = house.state()
    assert state == "degraded" and "has changed since it was loaded" in why
    process.state, process.why = "restarting", "it died"
    assert house.state() == ("degraded", "vLLM is restarting: it died")
