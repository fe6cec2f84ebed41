"""Weights split over processes (FSDP2), for language models that one card cannot hold.

Each decoder layer is a unit, and what is around them another. Checkpoints are whole all the same:
tensors are gathered before they are written, so a run may go on with another number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import CheckpointError
from avqa_llm.training.checkpoints import FIELDS

PREFIX = "trained."
"""Of the stage's weights inside the loop's model."""


def arguments(trained: nn.Module) -> dict[str, Any]:
    """What the Trainer is told."""
    return {
        "fsdp": "full_shard auto_wrap",
        "fsdp_config": {
            "version": 2,
            "transformer_layer_cls_to_wrap": layer_classes(trained),
            "reshard_after_forward": True,
            "state_dict_type": "FULL_STATE_DICT",
        },
    }


def layer_classes(trained: nn.Module) -> list[str]:
    """The classes of the decoder layers of the language models in a stage."""
    found: dict[str, None] = {}
    for module in trained.modules():
        for name in getattr(module, "_no_split_modules", None) or ():
            found[name] = None
    return list(found)


def whole_tensors(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """Trained weights and the optimizer's memory of them, gathered by the first process.

    All processes take part; the others get nothing.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    inner = getattr(optimizer, "optimizer", optimizer)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights, states = get_state_dict(model, inner, options=options)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = {f"weight.{_short(n)}": value for n, value in weights.items() if n in learned}
    memory: Any = states.get("state", {})
    for name, state in memory.items():
        for field in FIELDS:
            tensors[f"{field}.{_short(name)}"] = torch.as_tensor(state[field])
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def put_whole_tensors(
    path: Path, model: nn.Module, optimizer: Any, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `whole_tensors` gave.

    Raises:
        CheckpointError: the tensors belong to another model.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_state_dict,
    )

    inner = getattr(optimizer, "optimizer", optimizer)
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
    now: Any = get_optimizer_state_dict(model, inner, options=options)
    names: list[str] = [name for group in now["param_groups"] for name in group["params"]]
    if odd := sorted({_short(n) for n in names} ^ {k[7:] for k in tensors if k[:7] == "weight."}):
        raise CheckpointError(f"{path} does not fit: {odd[0]} is in one only: another recipe?")
    now["state"] = {name: _memory(tensors, _short(name)) for name in names}
    set_state_dict(
        model,
        inner,
        model_state_dict={name: tensors[f"weight.{_short(name)}"] for name in names},
        optim_state_dict=now,
        options=options,
    )


def _memory(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What the optimizer knows of a weight; a weight that never had a gradient has nothing."""
    nothing = torch.zeros_like(tensors[f"weight.{name}"])
    empty = {"step": torch.zeros(()), "exp_avg": nothing, "exp_avg_sq": nothing.clone()}
    return {field: tensors.get(f"{field}.{name}", empty[field]) for field in FIELDS}


def _short(name: str) -> str:
    return name.removeprefix(PREFIX)
