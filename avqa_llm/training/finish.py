"""From a trained model to a directory that can be shipped: everything inside, half precision."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avqa_llm.model import AVQAModel, ModelConfig, World
from avqa_llm.training.encoders import PICTURE, SOUND
from avqa_llm.world import measure

if TYPE_CHECKING:
    from avqa_llm.training.features import Features
    from avqa_llm.training.recipe import Recipe

PARTS = ("llm", "picture", "sound")


def fresh_model(recipe: Recipe, work: Path) -> AVQAModel:
    """A new bridge and adapter around the parts that the earlier stages left in `work`."""
    config = ModelConfig(
        picture=PICTURE, sound=SOUND, bridge=recipe.bridge, llm="llm", lora=recipe.lora
    )
    return AVQAModel.fresh(config, work)


def finish(
    model: AVQAModel, features: Features, work: Path, out: Path, *, clips: int = 3000
) -> None:
    """Write the model with all its parts to `out`, as float16, and what its world looks like.

    Weights are rounded in the files alone: what is shipped is what the figures are measured on.
    """
    model.config = dataclasses.replace(model.config, world=_world(features, clips))
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    for name in PARTS:
        shutil.copytree(work / name, out / name, dirs_exist_ok=True)
    for path in out.rglob("*.safetensors"):
        halve(path)
    for path in (out / "llm", out / "picture", out / "sound"):
        _say_half(path / "config.json")


def _world(features: Features, clips: int) -> World:
    statistics: dict[str, list[float]] = {}
    for name, values in (("picture", features.picture_NTD), ("sound", features.sound_NTD)):
        found = measure(row.float() for row in values[:clips])
        statistics |= {f"{name}_{key}": numbers for key, numbers in found.items()}
    return World(name="Bandstand", longest_s=features.seconds, statistics=statistics)


def halve(path: Path) -> None:
    """Store a safetensors file in float16; written aside and renamed."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    small = {k: v.half() if v.dtype == torch.float32 else v for k, v in tensors.items()}
    aside = path.with_suffix(".writing")
    save_file(small, aside, metadata=metadata)
    os.replace(aside, path)


def _say_half(path: Path) -> None:
    config: dict[str, Any] = json.loads(path.read_text())
    config["dtype"] = "float16"
    path.write_text(json.dumps(config, indent=2) + "\n")
