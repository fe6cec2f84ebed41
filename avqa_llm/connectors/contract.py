"""What every connector is given and what it gives back.

A connector turns the tokens of one modality into a timeline: `per_second` soft tokens for each
second of the clip, so that the prompt is laid out the same whichever connector is chosen.

Legend: B clips, N tokens, Q timeline tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.tokenbatch import TokenBatch


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an encoder lays out its tokens."""

    rate: float = 10.0
    """Moments a second; each holds one grid of tokens."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of a moment; (1, 1) for sound."""


@dataclass(frozen=True, kw_only=True)
class ConnectorShape:
    """Sizes of one connector."""

    width: int
    heads: int
    layers: int
    ratio: float
    """Width of the feed-forward networks, in connector widths."""
    per_second: int
    """Timeline tokens for each second."""
    bands: int = 1
    """Columns of the picture that anchors sweep over; 1: anchors differ in time only."""
    layout: Layout = Layout()


class Connector(nn.Module):
    """Base of the connectors; `CONNECTORS` in this package names them all."""

    def __init__(self, shape: ConnectorShape) -> None:
        super().__init__()
        self.per_second, self.bands = shape.per_second, shape.bands

    def forward(
        self, keys_BND: Tensor, tokens: TokenBatch, seconds_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Make the timeline.

        Args:
            keys_BND: what the reader made of the tokens.
            tokens: their times, their places, and which are there.
            seconds_B: length of each clip's timeline, whole seconds.

        Returns:
            Soft tokens (B, Q, D), Q = `per_second` times the longest clip's seconds, second
            after second; and which of them exist (B, Q): clips differ in length.
        """
        raise NotImplementedError

    def exists(self, seconds_B: Tensor, longest: int) -> Tensor:
        """Which timeline tokens lie inside their clip (B, Q)."""
        second = torch.arange(longest, device=seconds_B.device)
        return (second < seconds_B[:, None]).repeat_interleave(self.per_second, dim=1)

    def at_anchors(self, keys_BND: Tensor, tokens: TokenBatch, seconds: int) -> Tensor:
        """Means of the tokens at each timeline token's anchor (B, Q, D); zero where none are.

        With one band the anchors of a second share its time; with several bands they sweep
        over the picture from left to right, second after second.
        """
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
