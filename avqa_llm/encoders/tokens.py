"""What an encoder makes of a clip: tokens with their place in time and on the picture.

Legend: N tokens, D features of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of one modality of one clip, on the clip's clock."""

    values_ND: Tensor
    times_N: Tensor
    """Centre of each token, seconds."""
    places_N2: Tensor
    """Centre on the picture: (x, y), each 0..1; zeros for sound."""
    length_s: float
    """How much time one token covers."""

    @property
    def n(self) -> int:
        """How many tokens."""
        return self.values_ND.shape[0]

    def where(self, keep_N: Tensor) -> Tokens:
        """Only the chosen tokens, as if the others had never been there."""
        return Tokens(
            values_ND=self.values_ND[keep_N],
            times_N=self.times_N[keep_N],
            places_N2=self.places_N2[keep_N],
            length_s=self.length_s,
        )

    @classmethod
    def none(cls, width: int) -> Tokens:
        """No tokens at all: the modality is missing."""
        return cls(
            values_ND=torch.zeros(0, width),
            times_N=torch.zeros(0),
            places_N2=torch.zeros(0, 2),
            length_s=0.0,
        )
