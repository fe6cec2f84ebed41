"""Checkpoints of a stage: weights and optimizer in one safetensors file, complete or absent.

    STAGE/checkpoint-STEP/{state.safetensors, trainer_state.json}

The folder is written aside and renamed; the one before it goes when the new one is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import CheckpointError

STATE = "state.safetensors"
FIELDS = ("step", "exp_avg", "exp_avg_sq")


def last_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint of the highest step, if there is any."""
    found = [(int(m[1]), p) for p in folder.glob("checkpoint-*") if (m := _NAME.match(p.name))]
    return max(found)[1] if found else None


_NAME = re.compile(r"^checkpoint-(\d+)$")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any], state: str
) -> Path:
    """Write a checkpoint and remove the older ones. `state`: what the loop says about itself."""
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    aside = folder / f"{path.name}.writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    whole = {key: value.detach().contiguous() for key, value in tensors.items()}
    save_file(whole, aside / STATE, metadata={"about": json.dumps(dict(about))})
    (aside / "trainer_state.json").write_text(state)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(aside, path)
    for other in folder.glob("checkpoint-*"):
        if other != path and _NAME.match(other.name):
            shutil.rmtree(other, ignore_errors=True)
    return path


def tensors_of(
    weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Weights and the optimizer's memory of them, by name."""
    tensors = {f"weight.{name}": parameter.detach() for name, parameter in weights.items()}
    for name, parameter in weights.items():
        for field, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{field}.{name}"] = value.detach().clone()
    return tensors


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a checkpoint, and what was said about it.

    Raises:
        CheckpointError: it is damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(path / STATE, "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, about
    except Exception as error:  # safetensors, json and the system each raise their own
        raise CheckpointError(
            f"{path} is damaged ({error}): remove it, or start anew without --resume"
        ) from error


def load_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put back what `tensors_of` gave.

    Raises:
        CheckpointError: the tensors belong to another model; names the first one that differs.
    """
    stored = {key.removeprefix("weight.") for key in tensors if key.startswith("weight.")}
    if odd := sorted(stored ^ set(weights)):
        here = "lacks" if odd[0] in weights else "has"
        raise CheckpointError(f"{path} {here} {odd[0]}: it belongs to another recipe")
    for name, parameter in weights.items():
        value = tensors[f"weight.{name}"]
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, the model"
                f" {tuple(parameter.shape)}: it belongs to another recipe"
            )
        parameter.data.copy_(value)
        if f"exp_avg.{name}" in tensors:
            optimizer.state[parameter] = {
                field: tensors[f"{field}.{name}"].to("cpu" if field == "step" else parameter.device)
                for field in FIELDS
            }


def put_back(folder: Path, trained: nn.Module) -> None:
    """Give a stage the weights of its last checkpoint: after weights were split over processes.

    Raises:
        CheckpointError: there is none, or it belongs to another stage.
    """
    path = last_checkpoint(folder)
    if path is None:
        raise CheckpointError(f"{folder} holds no checkpoint")
    tensors, _ = read_checkpoint(path)
    weights = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    for name, parameter in weights.items():
        if f"weight.{name}" not in tensors:
            raise CheckpointError(f"{path} lacks {name}: it belongs to another recipe")
        parameter.data.copy_(tensors[f"weight.{name}"])
