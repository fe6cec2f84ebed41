"""The loop of `fit`, on the Trainer of transformers.

What is ours: the batches (made from the step's number), the checkpoints (safetensors, with no
pickled state: random numbers are drawn from the step's number too), the guard, and the figures.
What is the Trainer's: processes, accumulation, mixed precision, sharding, clipping.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments

from avqa_llm.errors import AVQAError
from avqa_llm.training.checkpoints import (
    last_checkpoint,
    load_tensors,
    read_checkpoint,
    save_checkpoint,
    tensors_of,
)
from avqa_llm.training.loop import (
    BatchAt,
    LoopConfig,
    Loss,
    Validate,
    is_split,
    precision_here,
    schedule,
)

USUAL = 50
"""Steps of which the usual length of a gradient is taken."""


class Stage(nn.Module):
    """What is trained, called with a batch."""

    def __init__(self, trained: nn.Module, loss: Loss | None) -> None:
        super().__init__()
        self.trained = trained
        self._loss = loss or trained

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Named losses of a batch."""
        losses: dict[str, Tensor] = self._loss(batch)
        return losses


class _Parts(Dataset):
    """Number i is part i % parts of step i // parts."""

    def __init__(self, batch_at: BatchAt, steps: int, parts: int) -> None:
        self.batch_at, self.steps, self.parts = batch_at, steps, parts

    def __len__(self) -> int:
        return self.steps * self.parts

    def __getitem__(self, number: int) -> Any:
        return self.batch_at(number // self.parts, number % self.parts, self.parts)


def _only(items: list[Any]) -> Any:
    return items[0]


class Guard:
    """Leaves out steps whose gradient is no number, or far longer than it usually is."""

    def __init__(self, name: str, config: LoopConfig) -> None:
        self.name, self.config = name, config
        self.norms: deque[float] = deque(maxlen=USUAL)
        self.bad = 0

    def bad_step(self, norm: float, step: int) -> str | None:
        """Why a step must be left out, if it must.

        Raises:
            AVQAError: too many in a row.
        """
        why = None
        usual = statistics.median(self.norms) if len(self.norms) >= USUAL // 2 else None
        if not norm < float("inf"):  # NaN is not either
            why = "the loss is no longer a number"
        elif self.config.spike and usual and norm > self.config.spike * usual:
            why = f"the gradient is {norm / usual:.0f} times longer than usual"
        else:
            self.norms.append(norm)
        self.bad = self.bad + 1 if why else 0
        if self.bad >= self.config.bad_steps:
            raise AVQAError(
                f"{self.name}: {why} at step {step}, as in the {self.bad - 1} steps before it;"
                f" lower lr (now {self.config.lr:g}) with --set and go on from the last checkpoint"
                " with --resume: the same steps would fail again"
            )
        return why


class StageTrainer(Trainer):
    """A Trainer whose checkpoints and batches are ours."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        batch_at: BatchAt,
        config: LoopConfig,
        *,
        folder: Path,
        validate: Validate | None,
        after_backward: Callable[[int], None] | None,
    ) -> None:
        self.name, self.config, self.folder = name, config, folder
        self.validate, self.after_backward = validate, after_backward
        self.guard = Guard(name, config)
        self.best: dict[str, Any] = {"figures": {}, "waited": 0}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.left_out = 0
        self.saved_at = time.monotonic()
        self.part = 0
        arguments = _arguments(name, config, folder, stage)
        self.parts = config.parts * arguments.world_size
        if config.batch < self.parts:
            raise AVQAError(
                f"{name}: a batch of {config.batch} clips cannot be split into {self.parts} parts"
                f" ({arguments.world_size} processes with {config.parts} each); raise batch"
            )
        super().__init__(
            model=stage,
            args=arguments,
            data_collator=_only,
            train_dataset=_Parts(batch_at, config.steps, self.parts),
            callbacks=[_Follow(self)],
        )
        self.remove_callback(_printer())

    def run(self, *, resume: bool) -> dict[str, float]:
        """Train to the end; returns the validation figures of the weights that stay."""
        found = last_checkpoint(self.folder / self.name) if resume else None
        if found is not None and self._had_stopped(found):
            return dict(self.best["figures"])
        self.train(resume_from_checkpoint=str(found) if found else None)
        self._keep_best()
        return dict(self.best["figures"])

    def _had_stopped(self, path: Path) -> bool:
        """Whether a run that is gone on with had lost its patience; then it stands at its end."""
        tensors, about = read_checkpoint(path)
        if not self.config.patience or about["best"]["waited"] < self.config.patience:
            return False
        load_tensors(path, tensors, self._weights(), self.create_optimizer())
        self.best, self.state.global_step = about["best"], int(path.name.rpartition("-")[2])
        self._keep_best()
        return True

    # -- a step ----------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def _get_num_items_in_batch(self, batch_samples: list, device: Any) -> None:
        """Batches know their share of the step themselves."""

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs.to(self.args.device) if hasattr(inputs, "to") else self._prepare_input(inputs)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated."""
        return 0

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward of one part of a step."""
        part = self.part * self.args.world_size + self.args.process_index
        torch.manual_seed(
            (self.config.seed * 1_000_003 + self.state.global_step) * self.parts + part
        )
        self.part = (self.part + 1) % self.config.parts
        return super().training_step(model, inputs)

    def compute_loss(self, model: nn.Module, inputs: Any, **_: Any) -> Tensor:
        """The loss of one part; all of its terms are noted."""
        losses = model(inputs)
        for key, value in losses.items():
            before = self.sums.get(key, torch.zeros((), device=value.device))
            self.sums[key] = before + value.detach().float()
            self.counts[key] = self.counts.get(key, 0) + 1
        return losses["loss"]

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        if self.after_backward is not None:
            self.after_backward(self.state.global_step)
        norm: Tensor = super()._clip_grad_norm(model)
        length = float(norm) if self.sums["loss"].isfinite() else float("nan")
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and not math.isfinite(length) and scaler.get_scale() > 1:
            return norm  # too large a scale for fp16: the scaler leaves the step out by itself
        why = self.guard.bad_step(length, self.state.global_step)
        if why:
            self.left_out += 1
            tqdm.write(f"{self.name}: step {self.state.global_step} is left out: {why}")
            model.zero_grad(set_to_none=True)  # the optimizer passes over what has no gradient
            self.sums["loss"] = self.sums["loss"].nan_to_num(0.0, 0.0, 0.0)
        return norm

    # -- optimizer -------------------------------------------------------------------------

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; biases, norms and scales do not decay."""
        if self.optimizer is None:  # type: ignore[has-type]
            weights = [p for p in (model or self.model).parameters() if p.requires_grad]
            groups = [
                {
                    "params": [p for p in weights if p.ndim >= 2],
                    "weight_decay": self.config.weight_decay,
                },
                {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
            ]
            self.optimizer = torch.optim.AdamW(groups, lr=self.config.lr, betas=(0.9, 0.98))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Warm-up and cosine, from the step's number."""
        if self.lr_scheduler is None:  # type: ignore[has-type]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: schedule(step, self.config)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # -- checkpoints -----------------------------------------------------------------------

    def _weights(self) -> dict[str, nn.Parameter]:
        stage = self.accelerator.unwrap_model(self.model)
        return {k: p for k, p in stage.trained.named_parameters() if p.requires_grad}

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        self.saved_at = time.monotonic()
        if is_split(self.config):
            from avqa_llm.training.sharded import whole_tensors

            tensors = whole_tensors(self.model, self.optimizer)
        else:
            tensors = tensors_of(self._weights(), _plain(self.optimizer))
        if not self.is_world_process_zero():
            return
        about = {"best": self.best, "norms": list(self.guard.norms), "left_out": self.left_out}
        scaler = getattr(self.accelerator, "scaler", None)
        about["scaler"] = scaler.state_dict() if scaler is not None else None
        state = json.dumps(dataclasses.asdict(self.state) | {"log_history": []})
        save_checkpoint(self.folder / self.name, self.state.global_step, tensors, about, state)

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Weights come back with the optimizer, when both are in place."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """There is none: random numbers are drawn from the step's number."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Done with the optimizer."""

    def _load_callback_state(self) -> None:
        """Callbacks have none."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = Path(checkpoint)
        tensors, about = read_checkpoint(path)
        if is_split(self.config):
            from avqa_llm.training.sharded import put_whole_tensors

            put_whole_tensors(path, self.model, self.optimizer, tensors)
        else:
            load_tensors(path, tensors, self._weights(), _plain(self.optimizer))
        self.best, self.left_out = about["best"], about["left_out"]
        self.guard.norms.extend(about["norms"])
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and about["scaler"]:
            scaler.load_state_dict(about["scaler"])
        self.lr_scheduler.last_epoch = self.state.global_step

    # -- figures ---------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Append the means of all terms since the last time to `metrics.jsonl`."""
        if not self.sums:
            return
        row = {key: round(value, 5) for key, value in self._means().items()}
        self.sums, self.counts = {}, {}
        row["lr"] = float(f"{self._get_learning_rate():.4g}")
        if self.left_out:
            row["left_out"] = self.left_out
        self._write(row)

    def _means(self) -> dict[str, float]:
        """Of each term over the parts that had it, in all processes."""
        mine = {key: (float(value), self.counts[key]) for key, value in self.sums.items()}
        everybody = [mine]
        if self.args.world_size > 1:
            everybody = [{} for _ in range(self.args.world_size)]
            torch.distributed.all_gather_object(everybody, mine)
        means = {}
        for key in dict.fromkeys(key for one in everybody for key in one):
            found = [one[key] for one in everybody if key in one]
            means[key] = sum(total for total, _ in found) / sum(count for _, count in found)
        return means

    def _write(self, row: dict[str, float]) -> None:
        if self.is_world_process_zero():
            write_row(self.folder, {"stage": self.name, "step": self.state.global_step, **row})
        now = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_log(self.args, self.state, now, dict(row))

    def check(self) -> None:
        """Look at the validation rows; keep the best weights, stop when nothing gets better."""
        assert self.validate is not None
        self.model.eval()
        with torch.no_grad():
            figures = self.validate()
        self._write({f"val_{key}": round(value, 5) for key, value in figures.items()})
        known = self.best["figures"].get("score")
        if known is None or figures["score"] > known:
            self.best = {"figures": figures, "waited": 0, "step": self.state.global_step}
            if self.is_world_process_zero():
                save_checkpoint(self._best, 0, _copies(self._weights()), {}, "{}")
        else:
            self.best["waited"] += 1
        if self.config.patience and self.best["waited"] >= self.config.patience:
            self.control.should_training_stop = True

    @property
    def _best(self) -> Path:
        return self.folder / self.name / "best"

    def _keep_best(self) -> None:
        """Take the weights back that did best, if others came after them."""
        self.accelerator.wait_for_everyone()
        if self.best["figures"] and self.best["step"] != self.state.global_step:
            tensors, _ = read_checkpoint(self._best / "checkpoint-0")
            load_tensors(self._best, tensors, self._weights(), _plain(self.optimizer))


class _Follow(TrainerCallback):
    """The bar with the time left, and when to save and to look at the validation rows."""

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        hidden = not self.trainer.is_world_process_zero()
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.trainer.name,
            disable=hidden,
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # From the step's number: a scheduler does not count the steps that fp16 leaves out.
        trainer = self.trainer
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.config.lr * schedule(state.global_step, trainer.config)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, config = self.trainer, self.trainer.config
        self.bar.update(1)
        step, last = state.global_step, state.global_step >= state.max_steps
        if trainer.validate and config.validate_every:
            if step % config.validate_every == 0 or last:
                trainer.check()
        control.should_log = step % config.log_every == 0 or last
        due = time.monotonic() - trainer.saved_at > config.save_every_s
        control.should_save = _agreed(trainer, due) or last or control.should_training_stop

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.bar is not None and logs:
            self.bar.set_postfix({k: v for k, v in logs.items() if k in _SHOWN})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


_SHOWN = ("loss", "lr", "val_score", "accuracy")


def _agreed(trainer: StageTrainer, due: bool) -> bool:
    """What the first process says: clocks differ, and all of them must save together."""
    if trainer.args.world_size == 1:
        return due
    flag = torch.tensor(float(due), device=trainer.args.device)
    torch.distributed.broadcast(flag, 0)
    return bool(flag)


def _arguments(name: str, config: LoopConfig, folder: Path, stage: nn.Module) -> TrainingArguments:
    precision = precision_here(config.precision)
    sharding: dict[str, Any] = {}
    if is_split(config):
        from avqa_llm.training.sharded import arguments

        sharding = arguments(stage)
    return TrainingArguments(
        output_dir=str(folder / name),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.parts,
        max_grad_norm=config.clip_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=True,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=["tensorboard"] if config.tensorboard else [],
        disable_tqdm=True,
        seed=config.seed,
        **sharding,
    )


def _printer() -> Any:
    """The callback that prints every row, for which there is the bar."""
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def _copies(weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {f"weight.{key}": parameter.detach().clone() for key, parameter in weights.items()}


def write_row(folder: Path, row: dict[str, Any]) -> None:
    """Append one row to the run's `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"time": round(time.time(), 1), **row}) + "\n")
