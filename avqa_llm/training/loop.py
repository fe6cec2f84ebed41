"""One training loop for every stage: fixed order, checkpoints that resume, metrics as they come.

The batch of a step depends on the step's number alone, so a run that was killed goes on
exactly where its last checkpoint stands.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import AVQAError, CheckpointError

INIT_STD = 0.06
"""Of the weights of networks that start from nothing. The usual 0.02 is for networks many times
wider than ours: from there the picture encoder needs more than twice the steps (docs/LOG.md)."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast a stage learns."""

    steps: int
    batch: int
    """Clips a step."""
    lr: float
    warmup: int = 100
    """Steps of linear warm-up; then a cosine down to a twentieth."""
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    save_every_s: float = 120.0
    log_every: int = 20
    seed: int = 0


Loss = Callable[[int], dict[str, Tensor]]
"""Step number to named losses; `loss` is what is minimised, the others are only logged."""


def fit(
    name: str,
    trained: nn.Module,
    loss_at: Loss,
    config: LoopConfig,
    *,
    folder: Path,
    resume: bool,
    bf16: bool = True,
) -> None:
    """Train the parameters of `trained` that require gradients.

    Writes `NAME.checkpoint.safetensors` and appends to `metrics.jsonl` in `folder`.

    Raises:
        AVQAError: the loss stopped being a number; names the step.
        CheckpointError: a checkpoint that does not fit the model.
    """
    from tqdm import tqdm

    weights = {k: p for k, p in trained.named_parameters() if p.requires_grad}
    optimizer = _optimizer(weights.values(), config)
    checkpoint = folder / f"{name}.checkpoint.safetensors"
    first = load_state(checkpoint, weights, optimizer) if resume and checkpoint.exists() else 0
    saved_at = time.monotonic()
    sums: dict[str, float] = {}
    summed = 0  # fewer than log_every after a resume
    trained.train()
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=name)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config)
        torch.manual_seed(config.seed * 1_000_003 + step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            losses = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(weights.values(), config.clip_norm)
        if not torch.isfinite(norm):
            raise AVQAError(
                f"{name}: the loss is no longer a number at step {step}; lower lr (now {config.lr})"
                f" and go on from the last checkpoint with --resume"
            )
        optimizer.step()
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        summed += 1
        if (step + 1) % config.log_every == 0:
            means = {k: round(v / summed, 5) for k, v in sums.items()}
            sums, summed = {}, 0
            bar.set_postfix(means)
            log(folder, {"stage": name, "step": step + 1, **means})
        if time.monotonic() - saved_at > config.save_every_s:
            save_state(checkpoint, weights, optimizer, step + 1)
            saved_at = time.monotonic()
    save_state(checkpoint, weights, optimizer, config.steps)
    trained.eval()


def _optimizer(weights: Iterable[nn.Parameter], config: LoopConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms and scales do not decay."""
    weights = list(weights)
    matrices = [p for p in weights if p.ndim >= 2]
    others = [p for p in weights if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def schedule(step: int, config: LoopConfig) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine to 0.05."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def log(folder: Path, row: dict[str, Any]) -> None:
    """Append one row to the run's `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"time": round(time.time(), 1), **row}) + "\n")


def save_state(
    path: Path, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Weights and optimizer in one safetensors file, written aside and renamed."""
    from safetensors.torch import save_file

    tensors = {f"weight.{k}": p.detach() for k, p in weights.items()}
    for key, parameter in weights.items():
        for field, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{field}.{key}"] = value.detach().clone()
    aside = path.with_suffix(".writing")
    save_file(tensors, aside, metadata={"step": str(step)})
    os.replace(aside, path)


def load_state(
    path: Path, weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> int:
    """Bring back what `save_state` wrote; returns the step to go on with."""
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(path, "pt")
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): remove it, or start anew without --resume"
        ) from error
    with opened as file:
        names = set(file.keys())
        if missing := [k for k in weights if f"weight.{k}" not in names]:
            raise CheckpointError(f"{path} lacks {missing[0]}: it belongs to another recipe")
        for key, parameter in weights.items():
            stored = file.get_tensor(f"weight.{key}")
            if stored.shape != parameter.shape:
                raise CheckpointError(
                    f"{path}: {key} has shape {tuple(stored.shape)}, the model"
                    f" {tuple(parameter.shape)}: it belongs to another recipe"
                )
            parameter.data.copy_(stored)
            fields = ("step", "exp_avg", "exp_avg_sq")
            if f"exp_avg.{key}" in names:
                optimizer.state[parameter] = {f: file.get_tensor(f"{f}.{key}") for f in fields}
        return int((file.metadata() or {}).get("step", "0"))


def shuffled(n: int, *, batch: int, step: int, seed: int) -> list[int]:
    """Indices of a step's batch: one pass over all, in a new order each pass."""
    import numpy as np

    order: list[int] = []
    for i in range(step * batch, (step + 1) * batch):
        epoch, at = divmod(i, n)
        order.append(int(_permutation(n, epoch, seed, np)[at]))
    return order


_ORDERS: dict[tuple[int, int, int], Any] = {}


def _permutation(n: int, epoch: int, seed: int, np: Any) -> Any:
    key = (n, epoch, seed)
    if key not in _ORDERS:
        _ORDERS.clear() if len(_ORDERS) > 4 else None
        _ORDERS[key] = np.random.default_rng([seed, epoch]).permutation(n)
    return _ORDERS[key]


def cross_entropy(logits_BLV: Tensor, labels_BL: Tensor, ignore: int = -100) -> Tensor:
    """Mean next-token loss over the positions that are learned."""
    return nn.functional.cross_entropy(
        logits_BLV[:, :-1].flatten(0, 1).float(), labels_BL[:, 1:].flatten(), ignore_index=ignore
    )
