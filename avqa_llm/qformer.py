"""The Q-Former of one modality: encoder tokens to a few soft tokens a second.

Tokens first look at one another (with their times and places), then queries collect from
them: first the queries look at one another, then at the tokens (the order of BLIP-2,
Li et al. 2023, section 3.1). There is a fixed number of queries for each second of the
clip, and a query knows its second, so the soft tokens are a timeline of any length.

Legend: B clips, N tokens, Q queries, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avqa_llm.layers import Attention, FeedForward, SelfBlock, Waves
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


class QFormer(nn.Module):
    """`per_second` queries for every second of the clip.

    A query starts from the mean of the tokens at its anchor, so that it says something from
    the first step on; from there it can attend to everything. With one band the anchors of a
    second share its time; with several bands they sweep over the picture from left to right,
    second after second.
    """

    def __init__(
        self, width: int, heads: int, layers: int, ratio: float, *, per_second: int, bands: int
    ) -> None:
        super().__init__()
        self.per_second, self.bands = per_second, bands
        self.anchor = nn.Linear(width, width)
        self.queries = nn.Parameter(torch.randn(per_second, width) * 0.2)
        self.time = Waves(1, width, shortest=0.3, longest=240.0)
        self.blocks = nn.ModuleList(QFormerBlock(width, heads, ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Collect the timeline.

        Returns:
            Soft tokens (B, Q, D), and which of them exist (B, Q): clips differ in length.
        """
        longest = int(seconds_B.max())
        centre = torch.arange(longest, device=keys_BND.device) + 0.5
        start = (self.queries + self.time(centre[:, None, None])).flatten(0, 1)
        queries = start + self.anchor(self._at_anchors(keys_BND, tokens, longest))
        exists = centre[None] < seconds_B[:, None]
        exists_BQ = exists.repeat_interleave(self.per_second, dim=1)
        for block in self.blocks:
            queries = block(queries, exists_BQ, keys_BND, tokens.there_BN)
        return self.norm(queries), exists_BQ

    def _at_anchors(self, keys_BND: Tensor, tokens: TokenBatch, seconds: int) -> Tensor:
        """Means of the tokens at each query's anchor (B, Q, D); zero where there are none."""
        number = torch.arange(seconds * self.per_second, device=keys_BND.device)
        if self.bands == 1:
            here = (tokens.times_BN * self.per_second).long()[:, None] == number[:, None]
        else:
            second, band = number // self.per_second, number % self.bands
            here = tokens.times_BN.long()[:, None] == second[:, None]
            across = (tokens.places_BN2[..., 0] * self.bands).long().clamp(max=self.bands - 1)
            here = here & (across[:, None] == band[:, None])
        share_BQN = (here & tokens.there_BN[:, None]).to(keys_BND.dtype)
        return share_BQN @ keys_BND / share_BQN.sum(-1, keepdim=True).clamp(min=1)
