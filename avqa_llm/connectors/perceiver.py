"""The perceiver resampler: latents read the tokens and one another in one attention.

Flamingo (Alayrac et al. 2022, section 3.1 and appendix A.1.1): learned latents are the queries;
keys and values are the tokens with the latents appended. Flamingo has one set of latents for a
whole clip; here each second has its own, which know their time and attend to the whole clip.

Legend: B clips, N tokens, Q latents, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avqa_llm.connectors.contract import Connector, ConnectorShape
from avqa_llm.layers import Attention, FeedForward, Waves
from avqa_llm.tokenbatch import TokenBatch


class PerceiverBlock(nn.Module):
    """Latents to tokens and latents, feed-forward; both as residuals."""

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.norm_latents, self.norm_keys = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = FeedForward(width, ratio)

    def forward(
        self, latents_BQD: Tensor, there_BQ: Tensor, keys_BND: Tensor, there_BN: Tensor
    ) -> Tensor:
        """Keeps the shape of the latents; `there_*` are False in the padding."""
        latents, keys = self.norm_latents(latents_BQD), self.norm_keys(keys_BND)
        both = torch.cat([keys, latents], dim=1)
        there = torch.cat([there_BN, there_BQ], dim=1)
        return self.feed(latents_BQD + self.attention(latents, both, there)[0])


class Perceiver(Connector):
    """`per_second` latents for every second of the clip."""

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__(shape)
        self.latents = nn.Parameter(torch.randn(shape.per_second, shape.width) * 0.2)
        self.time = Waves(1, shape.width, shortest=0.3, longest=240.0)
        self.blocks = nn.ModuleList(
            PerceiverBlock(shape.width, shape.heads, shape.ratio) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.width)

    def forward(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Resample the timeline; see `Connector`."""
        longest = int(seconds_B.max())
        centre = torch.arange(longest, device=keys_BND.device) + 0.5
        start_QD = (self.latents + self.time(centre[:, None, None])).flatten(0, 1)
        latents, exists_BQ = start_QD.expand(len(keys_BND), -1, -1), self.exists(seconds_B, longest)
        for block in self.blocks:
            latents = block(latents, exists_BQ, keys_BND, tokens.there_BN)
        return self.norm(latents), exists_BQ
