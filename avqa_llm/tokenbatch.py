"""Tokens of several clips as one padded batch. Legend: B clips, N tokens, D features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from avqa_llm.encoders.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """One modality of a batch; `there_BN` is False in the padding and for a missing modality."""

    values_BND: Tensor
    times_BN: Tensor
    places_BN2: Tensor
    there_BN: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tokens]) -> TokenBatch:
        """Pad tokens of single clips to the longest; at least one place is kept."""
        longest = max(1, max(row.n for row in rows))
        width = rows[0].values_ND.shape[1]
        size = (len(rows), longest)
        values, places = torch.zeros(*size, width), torch.zeros(*size, 2)
        times, there = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
        for n, row in enumerate(rows):
            values[n, : row.n] = row.values_ND.float()
            times[n, : row.n], places[n, : row.n] = row.times_N, row.places_N2
            there[n, : row.n] = True
        return cls(values_BND=values, times_BN=times, places_BN2=places, there_BN=there)

    def to(self, device: Any, **how: Any) -> TokenBatch:
        """The same elsewhere."""
        return TokenBatch(**{f.name: getattr(self, f.name).to(device, **how) for f in fields(self)})

    def without(self, gone_B: Tensor) -> TokenBatch:
        """The batch with this modality missing where `gone_B` is True."""
        return self.hidden(self.there_BN & gone_B[:, None])

    def hidden(self, mask_BN: Tensor) -> TokenBatch:
        """The batch with some tokens masked: nothing can look at them."""
        return TokenBatch(
            values_BND=self.values_BND,
            times_BN=self.times_BN,
            places_BN2=self.places_BN2,
            there_BN=self.there_BN & ~mask_BN,
        )

    def repeat(self, times: int) -> TokenBatch:
        """Every clip `times` times in a row."""
        fields = (self.values_BND, self.times_BN, self.places_BN2, self.there_BN)
        values, stamps, places, there = (f.repeat_interleave(times, dim=0) for f in fields)
        return TokenBatch(values_BND=values, times_BN=stamps, places_BN2=places, there_BN=there)
