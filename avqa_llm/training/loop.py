"""One training loop for every stage: fixed order, checkpoints that resume, metrics as they come.

The batch of a step depends on the step's number alone, so a run that was killed goes on exactly
where its last checkpoint stands, and several processes, or several small batches after one
another, do together what one process does with the whole batch.

The loop itself is the one of transformers (`trainer`), which also spreads it over processes:
`torchrun --nproc-per-node 2 -m avqa_llm train RECIPE`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from avqa_llm.errors import RecipeError

INIT_STD = 0.06
"""Of the weights of networks that start from nothing. The usual 0.02 is for networks many times
wider than ours: from there the picture encoder needs more than twice the steps
(docs/LOG-tiny.md)."""

Item = TypeVar("Item")
Precision = Literal["auto", "bf16", "fp16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast a stage learns."""

    steps: int
    batch: int
    """Clips a step, over all processes."""
    lr: float
    warmup: int = 100
    """Steps of linear warm-up; then a cosine down to a twentieth."""
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    parts: int = 1
    """So many small batches, one after another, make a step: for less memory. Each process has as
    many."""
    precision: Precision = "auto"
    """Of the products; weights that are trained are float32. `auto`: bf16 where the hardware is
    fast at it, else fp16 on a GPU, else fp32."""
    fsdp: bool = False
    """Split weights over the processes, where there are several (not with 4-bit weights)."""
    spike: float = 10.0
    """A step whose gradient is so many times longer than usual is left out; 0: none is."""
    bad_steps: int = 5
    """So many steps in a row that had to be left out end the run."""
    validate_every: int = 0
    """Steps between two looks at the validation rows; 0: none."""
    patience: int = 0
    """Stop after so many of them without a better result; 0: never."""
    save_every_s: float = 120.0
    log_every: int = 20
    workers: int = 0
    """Processes that prepare batches beside the training; 0: it does so itself."""
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "lr": (0 <= self.lr < math.inf, "0 or more, and a number"),
            "warmup": (self.warmup >= 0, "0 or more"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "clip_norm": (self.clip_norm > 0, "above 0"),
            "parts": (1 <= self.parts <= self.batch, f"from 1 to batch ({self.batch})"),
            "spike": (self.spike >= 0, "0 or more"),
            "bad_steps": (self.bad_steps >= 1, "at least 1"),
            "validate_every": (self.validate_every >= 0, "0 or more"),
            "patience": (0 <= self.patience and (not self.patience or self.validate_every),
                         "0 without validate_every, else 0 or more"),
            "log_every": (self.log_every >= 1, "at least 1"),
            "workers": (self.workers >= 0, "0 or more"),
        }  # fmt: skip
        for name, (good, wanted) in checks.items():
            if not good:
                raise RecipeError(f"loop.{name} is {getattr(self, name)}, should be {wanted}")


BatchAt = Callable[[int, int, int], Any]
"""Step, part and number of parts to that part of the step's batch, which has `.to(device)`."""
Loss = Callable[[Any], dict[str, Tensor]]
"""A batch to named losses; `loss` is what is minimised, the others are only logged."""
Validate = Callable[[], dict[str, float]]
"""Figures of the validation rows; `score` is the one that should rise."""


def fit(
    name: str,
    trained: nn.Module,
    batch_at: BatchAt,
    config: LoopConfig,
    *,
    folder: Path,
    resume: bool,
    loss: Loss | None = None,
    validate: Validate | None = None,
    after_backward: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Train the parameters of `trained` that require gradients.

    Writes checkpoints to `NAME/checkpoint-STEP` and appends to `metrics.jsonl` in `folder`.

    Args:
        name: of the stage.
        trained: everything that learns here; frozen parts may be in it.
        batch_at: gives the batches; must not depend on anything but its arguments.
        config: length, speed and precision.
        folder: of the run.
        resume: go on from the last checkpoint, if there is one.
        loss: what is minimised; absent: `trained` itself, called with a batch.
        validate: asked every `config.validate_every` steps; the weights of its best `score` are
            the ones that `trained` has at the end.
        after_backward: called with the step's number when its gradients are complete, before they
            are clipped.

    Returns:
        The validation figures of the weights that `trained` ends with; empty without `validate`.

    Raises:
        AVQAError: the loss stopped being a number; names the step.
        CheckpointError: a checkpoint that does not fit the model.
    """
    from avqa_llm.training.trainer import Stage, StageTrainer

    stage = Stage(trained, loss)
    trainer = StageTrainer(
        name,
        stage,
        batch_at,
        config,
        folder=folder,
        validate=validate,
        after_backward=after_backward,
    )
    best = trainer.run(resume=resume)
    trained.eval()
    return best


def schedule(step: int, config: LoopConfig) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine to 0.05."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


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


POOL = 50
"""Batches whose clips are sorted by length together."""


def grouped(costs: Sequence[int], *, batch: int, step: int, seed: int) -> list[int]:
    """As `shuffled`, but clips of about the same cost come together.

    A pass is shuffled, cut into pools of `POOL` batches, and each pool sorted; then the batches
    are shuffled. The last batch of a pass is filled up from its beginning.
    """
    import numpy as np

    epoch, at = divmod(step, -(-len(costs) // batch))
    order = _permutation(len(costs), epoch, seed, np)
    order = np.concatenate([order, np.resize(order, -len(order) % batch)])
    pools = [order[i : i + POOL * batch] for i in range(0, len(order), POOL * batch)]
    ranked = np.concatenate([sorted(pool, key=lambda i: (costs[i], i)) for pool in pools])
    batches = ranked.reshape(-1, batch)
    turn = np.random.default_rng([seed, epoch, 1]).permutation(len(batches))
    return [int(i) for i in batches[turn[at]]]


def part_of(items: list[Item], part: int, parts: int) -> list[Item]:
    """The items of one part: every `parts`-th, so that parts differ by one item at most."""
    return items[part::parts]


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def is_split(config: LoopConfig) -> bool:
    """Whether weights are split over processes; one alone has nobody to split them with."""
    return config.fsdp and int(os.environ.get("WORLD_SIZE", "1")) > 1


def precision_here(wanted: Precision) -> Literal["bf16", "fp16", "fp32"]:
    """What `auto` means on this machine; to be asked after `devices.prepare_training`.

    On processors bf16 pays with AMX tiles only: without them, float32 was half as fast again.
    """
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return "bf16" if tiles and "ONEDNN_MAX_CPU_ISA" not in os.environ else "fp32"
