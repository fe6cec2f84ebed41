"""From a trained model to a directory that loads anywhere: everything inside that it names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from avqa_llm.model import AVQAModel, World
from avqa_llm.training.assemble import Place, load_rows
from avqa_llm.training.features import ClipFeatures
from avqa_llm.training.recipe import Recipe
from avqa_llm.training.rows import read_pairs
from avqa_llm.training.summary import summary
from avqa_llm.world import measure

MEASURED = 3000
"""Clips from which it is learned what clips usually look and sound like."""


def write_model(
    model: AVQAModel,
    features: ClipFeatures,
    parts: Path,
    out: Path,
    *,
    world: str,
    half: bool,
) -> None:
    """Write the model to `out`, with the parts that it names relative to `parts`.

    Everything is written aside first. With `half`, weights are rounded in the files alone: what
    is shipped is what the figures are measured on.
    """
    config = model.config
    # Calibrated were the answers of the weights that training began with.
    model.config = dataclasses.replace(
        config, world=_world(model, features, world), calibration=None
    )
    aside = out.with_name(f"{out.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    own = [name for name in (config.llm, config.picture.source, config.sound.source)
           if (parts / name).is_dir() and not Path(name).is_absolute()]  # fmt: skip
    for name in own:
        shutil.copytree(parts / name, aside / name)
    if half:
        for path in aside.rglob("*.safetensors"):
            halve(path)
        for name in own:
            _say_half(aside / name / "config.json")
    out.mkdir(parents=True, exist_ok=True)
    for path in aside.iterdir():
        if path.is_dir():
            shutil.rmtree(out / path.name, ignore_errors=True)
        os.replace(path, out / path.name)
    aside.rmdir()


def _world(model: AVQAModel, features: ClipFeatures, name: str) -> World:
    clips = range(min(len(features), MEASURED))
    statistics: dict[str, list[float]] = {}
    for side in ("picture", "sound"):
        tokens = (getattr(features.clip(n), side) for n in clips)
        found = measure(one.values_ND for one in tokens if one.n)
        statistics |= {f"{side}_{key}": numbers for key, numbers in found.items()}
    longest = max(features.timeline(n) for n in clips)
    return World(
        name=name or model.config.world.name, longest_s=float(longest), statistics=statistics
    )


def data_facts(recipe: Recipe, place: Place, model: AVQAModel) -> dict[str, Any]:
    """What each stage learned from: the file with its hash, and what is in it; and the weights."""
    sets: list[dict[str, Any]] = []
    for name, stage in recipe.connects.items():
        found = summary(load_rows(stage, place))
        kept = {key: found[key] for key in ("clips", "questions", "by_modality", "blind_floor")}
        sets.append({**_file(name, place.rows(stage.rows)), **kept})
    if recipe.prefer:
        path = place.rows(recipe.prefer.rows)
        sets.append({**_file("prefer", path), "pairs": len(read_pairs(path))})
    weights = {
        "bridge": sum(p.numel() for p in model.bridge.parameters()),
        "LoRA": sum(p.numel() for name, p in model.llm.named_parameters() if "lora_" in name),
    }
    return {
        "sets": sets,
        "parameters": weights,
        "longest_s": model.config.world.longest_s,
    }


def _file(stage: str, path: Path) -> dict[str, Any]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": f"{path.name} ({stage})", "sha256": sha256}


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
