"""Two LoRA adapters on one language model: the one that it came with, and one that learns.

Preference optimisation needs the model as it was beside the model as it becomes. A second
adapter on top of the first gives both in one copy of the weights: switched off, what is left
is the first one exactly. At the end both are joined into one plain adapter, because that is
what peft, vLLM and our own directories load.

Legend: R rank, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import CheckpointError

START, STACKED = "default", "prefer"
"""Names of the adapter that a model comes with, and of the one that learns on top of it."""


def stack(llm: Any, *, rank: int | None = None, alpha: int | None = None, seed: int = 0) -> None:
    """Put a new adapter on the layers of the first one. Both are active, only the new one learns.

    Args:
        llm: a peft model with the one adapter `default`; merged weights are taken apart first.
        rank: of the new adapter; None: that of the first.
        alpha: as peft has it: the new adapter is scaled by alpha / rank; None: scaled as the
            first one is.
        seed: of the new adapter's first matrices; the second ones are zero, so that it starts
            by changing nothing.

    Raises:
        CheckpointError: the model has other adapters, or one of a kind that cannot be joined.
    """
    if (names := list(getattr(llm, "peft_config", {}))) != [START]:
        raise CheckpointError(
            f"the language model has the adapters {names}, not {START!r} alone: join them first"
        )
    first = llm.peft_config[START]
    _check(first)
    if any(layer.merged for layer in _layers(llm)):
        llm.unmerge_adapter()
    rank = rank or first.r
    scale = first.lora_alpha / (math.sqrt(first.r) if first.use_rslora else first.r)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        llm.add_adapter(STACKED, _plain(first, rank, alpha or scale * rank))
    llm.base_model.set_adapter([START, STACKED])  # peft lets all that are active learn
    llm.base_model.set_requires_grad(START, False)


@contextmanager
def start_only(llm: Any) -> Iterator[None]:
    """Within: the function of the first adapter alone, bit for bit; afterwards both again."""
    layers = _layers(llm)
    try:
        for layer in layers:
            # Not set_adapter: it also turns the gradients of weights off and on, which belong to
            # an optimizer and to other processes' copies by now.
            layer._active_adapter = [START]
        yield
    finally:
        for layer in layers:
            layer._active_adapter = [START, STACKED]


def join(llm: Any) -> int:
    """Make one adapter `default`, frozen, of the two, with their function; returns its rank.

    B₁A₁·s₁ + B₂A₂·s₂ is the product of the matrices put side by side, with the scales taken
    into A: rank r₁ + r₂, alpha equal to it, scale 1. (peft's own `add_weighted_adapter` keeps
    rank-stabilised scaling of the first adapter, under which the result would not be the sum.)

    Raises:
        CheckpointError: there are not these two adapters.
    """
    if (names := list(llm.peft_config)) != [START, STACKED]:
        raise CheckpointError(f"the language model has the adapters {names}: nothing to join")
    first = llm.peft_config[START]
    both = [(layer, *_side_by_side(layer)) for layer in _layers(llm)]
    rank = max(len(first_RI) for _, first_RI, _ in both)
    for name in (STACKED, START):
        llm.delete_adapter(name)
    with torch.random.fork_rng():
        llm.add_adapter(START, _plain(first, rank, rank, dropout=first.lora_dropout))
    llm.base_model.set_adapter(START, inference_mode=True)
    with torch.no_grad():
        for layer, first_RI, second_OR in both:
            layer.train(layer.training)  # peft's new dropout is on, whatever the model does
            for matrix, value in (
                (layer.lora_A[START].weight, first_RI),
                (layer.lora_B[START].weight, second_OR),
            ):
                # Layers of lower rank (peft's rank_pattern) are filled up with zeros.
                matrix.zero_()[tuple(map(slice, value.shape))] = value
    return rank


def without_dropout(module: nn.Module) -> None:
    """Set every dropout to zero: with it, a policy and its reference differ by chance alone."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def _layers(llm: Any) -> Sequence[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [part for part in llm.modules() if isinstance(part, BaseTunerLayer)]


def _side_by_side(layer: Any) -> tuple[Tensor, Tensor]:
    """Both adapters of a layer as one: A (R, I), scaled, and B (O, R)."""
    names = [name for name in (START, STACKED) if name in layer.lora_A]
    first = [layer.lora_A[n].weight.detach() * layer.scaling[n] for n in names]
    return torch.cat(first), torch.cat([layer.lora_B[n].weight.detach() for n in names], dim=1)


def _plain(like: Any, rank: int, alpha: float, *, dropout: float = 0.0) -> Any:
    """A configuration for the same layers without patterns and special scalings."""
    return replace(
        like,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        rank_pattern={},
        alpha_pattern={},
        use_rslora=False,
        init_lora_weights=True,
        inference_mode=False,
    )


def _check(config: Any) -> None:
    """Refuse what is no sum of products, or lies outside of linear layers."""
    kinds = (
        *("use_dora", "lora_bias", "modules_to_save"),
        *("target_parameters", "trainable_token_indices", "layer_replication"),
    )
    if odd := [kind for kind in kinds if getattr(config, kind, None)]:
        raise CheckpointError(
            f"the adapter uses {odd[0]}, which cannot be joined with a second adapter: train one"
            " without it, or merge it into the language model first"
        )
