"""The reader of one modality: encoder tokens to keys, which all that follows works with.

Legend: B clips, N tokens, D features.
"""

from __future__ import annotations

from torch import Tensor, nn

from avqa_llm.layers import SelfBlock, Waves
from avqa_llm.tokenbatch import TokenBatch


class TokenReader(nn.Module):
    """Puts encoder tokens on the bridge's width, with time and place, and lets them mix."""

    def __init__(self, wide_in: int, width: int, heads: int, layers: int, ratio: float) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(wide_in)
        self.project = nn.Linear(wide_in, width)
        self.time = Waves(1, width, shortest=0.3, longest=240.0)
        self.place = Waves(2, width, shortest=0.1, longest=4.0)
        self.blocks = nn.ModuleList(SelfBlock(width, heads, ratio) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Tokens to keys (B, N, D) that everything after this attends to."""
        values = self.project(self.norm_in(tokens.values_BND))
        values = values + self.time(tokens.times_BN[..., None]) + self.place(tokens.places_BN2)
        for block in self.blocks:
            values = block(values, tokens.there_BN)
        return self.norm_out(values)
