"""Tokens as tensors of a safetensors file, and back.

Legend: N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from avqa_llm.encoders.tokens import Tokens

PARTS = ("values_ND", "times_N", "places_N2")
SCALES = "scales_N"
DTYPES = ("float16", "int8", "float32")
"""How values can be kept. Times and places are float32 always."""
LARGEST_INT8 = 127


def packed(name: str, tokens: Tokens, dtype: str = "float16") -> dict[str, Tensor]:
    """Tensors `NAME.values_ND` and so on.

    `int8` keeps a float32 scale for each token: no value is off by more than 1/225 of the
    largest of its token (1/254 by the steps, the rest as `unpacked` rounds). Values that do not
    fit the wanted kind are kept in float32.
    """
    values, scales = _values(tokens.values_ND.float(), dtype)
    parts = (values, tokens.times_N.float(), tokens.places_N2.float())
    tensors = dict(zip(PARTS, parts, strict=True))
    if scales is not None:
        tensors[SCALES] = scales
    return {f"{name}.{part}": tensor.contiguous() for part, tensor in tensors.items()}


def unpacked(file: Any, name: str, length_s: float) -> Tokens:
    """What `packed` made, from an open safetensors file; values are float32.

    8-bit values are rounded to half precision as `rounded` does, so that whoever reads them
    has the same.
    """
    values, times, places = (file.get_tensor(f"{name}.{part}") for part in PARTS)
    eight_bit = values.dtype == torch.int8
    values = values.float()
    if eight_bit:
        values = values * file.get_tensor(f"{name}.{SCALES}")[:, None]
    tokens = Tokens(values_ND=values, times_N=times, places_N2=places, length_s=length_s)
    return rounded(tokens) if eight_bit else tokens


def rounded(tokens: Tokens) -> Tokens:
    """Values as half precision has them, if they fit: as they come back from a file."""
    half = tokens.values_ND.half()
    return replace(tokens, values_ND=half.float()) if half.isfinite().all() else tokens


def size_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _values(values_ND: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    if dtype == "float32" or not values_ND.isfinite().all():
        return values_ND, None
    if dtype == "int8":
        scales_N = values_ND.abs().amax(1) / LARGEST_INT8
        safe_N1 = scales_N.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        steps = (values_ND / safe_N1).round().clamp(-LARGEST_INT8, LARGEST_INT8)
        return steps.to(torch.int8), scales_N
    half = values_ND.half()
    return (half, None) if half.isfinite().all() else (values_ND, None)
