"""What both encoders share: they are frozen, stay in eval mode, and can say who they are."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from typing_extensions import Self


ORIGIN = (
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "transformers_version",
)
"""Entries of a model's configuration that tell where it was saved, not what it computes."""


class FrozenEncoder(nn.Module):
    """A model of someone else's with its preparation."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: `.train()` of a parent must not switch on an encoder's dropout."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are; tokens come back on the CPU."""
        return next(self.model.parameters()).device

    def preparation(self) -> dict[str, Any]:
        """What is done to the input and the output, weights and their origin aside."""
        own = dataclasses.asdict(self.config)
        return {key: value for key, value in own.items() if key not in ("source", "revision")}

    def description(self) -> str:
        """All that decides the tokens except the weights, as JSON."""
        shape = self.model.config.to_dict()
        for key in ORIGIN:
            shape.pop(key, None)
        parts = {"kind": type(self).__name__, "model": shape, "own": self.preparation()}
        return json.dumps(parts, sort_keys=True, default=str)
