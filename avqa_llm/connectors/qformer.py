"""The Q-Former of one modality: queries collect from the tokens by attention.

First the queries look at one another, then at the tokens (the order of BLIP-2, Li et al.
2023, section 3.1). There is a fixed number of queries for each second of the clip, and a
query knows its second, so the soft tokens are a timeline of any length.

Legend: B clips, N tokens, Q queries, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avqa_llm.connectors.contract import Connector, ConnectorShape
from avqa_llm.layers import Attention, FeedForward, Waves
from avqa_llm.tokenbatch import TokenBatch


class QFormerBlock(nn.Module):
    """Queries among themselves, queries to tokens, feed-forward."""

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.norm_self, self.norm_cross = nn.LayerNorm(width), nn.LayerNorm(width)
        self.among, self.across = Attention(width, heads), Attention(width, heads)
        self.feed = FeedForward(width, ratio)

    def forward(
        self, queries_BQD: Tensor, there_BQ: Tensor, keys_BND: Tensor, there_BN: Tensor
    ) -> Tensor:
        """Keeps the shape of the queries; `there_*` are False in the padding."""
        normed = self.norm_self(queries_BQD)
        queries_BQD = queries_BQD + self.among(normed, normed, there_BQ)[0]
        looked, _ = self.across(self.norm_cross(queries_BQD), keys_BND, there_BN)
        return self.feed(queries_BQD + looked)


class QFormer(Connector):
    """`per_second` queries for every second of the clip.

    A query starts from the mean of the tokens at its anchor, so that it says something from
    the first step on; from there it can attend to everything.
    """

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__(shape)
        width = shape.width
        self.anchor = nn.Linear(width, width)
        self.queries = nn.Parameter(torch.randn(shape.per_second, width) * 0.2)
        self.time = Waves(1, width, shortest=0.3, longest=240.0)
        self.blocks = nn.ModuleList(
            QFormerBlock(width, shape.heads, shape.ratio) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Collect the timeline; see `Connector`."""
        longest = int(seconds_B.max())
        centre = torch.arange(longest, device=keys_BND.device) + 0.5
        start = (self.queries + self.time(centre[:, None, None])).flatten(0, 1)
        queries = start + self.anchor(self.at_anchors(keys_BND, tokens, longest))
        exists_BQ = self.exists(seconds_B, longest)
        for block in self.blocks:
            queries = block(queries, exists_BQ, keys_BND, tokens.there_BN)
        return self.norm(queries), exists_BQ
