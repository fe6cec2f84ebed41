"""How sound and picture meet on their way to the language model.

Both timelines always keep their places in the prompt; what differs is what they hold.

- concatenate: each holds its own modality; they stand one after the other, and the language
  model is the first to see both.
- sum: each place also holds the mean of the other modality in the same second.
- cross: each place attends to all of the other modality's tokens, through a gate that starts
  closed (Flamingo's gated cross-attention, Alayrac et al. 2022, section 3.2).

Sum and cross work *before* the connectors, on the encoders' tokens (early fusion), or *after*
them, on the timelines (late fusion). Where the other modality is missing they change nothing,
not by a rounding. The clue stage reads the tokens as they were, each modality by itself.

Legend: B clips, N tokens or timeline places, M those of the other modality, S seconds,
D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.layers import Attention, FeedForward


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One modality on its way: encoder tokens, or a timeline."""

    values_BND: Tensor
    times_BN: Tensor
    """Seconds; they decide what is in the same second."""
    there_BN: Tensor

    @classmethod
    def timeline(cls, values_BND: Tensor, exists_BN: Tensor, per_second: int) -> Stream:
        """A timeline, every place at the middle of its second."""
        place = torch.arange(exists_BN.shape[1], device=exists_BN.device)
        times_BN = ((place // per_second) + 0.5).expand(exists_BN.shape)
        return cls(values_BND=values_BND, times_BN=times_BN, there_BN=exists_BN)


class Sum(nn.Module):
    """Adds the other modality's mean of the same second; nothing to train."""

    from_tokens = False

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()

    def forward(self, own: Stream, other: Stream) -> Tensor:
        """New values (B, N, D) of `own`; a second without anything of `other` adds nothing."""
        same = own.times_BN.long()[:, :, None] == other.times_BN.long()[:, None]
        share_BNM = (same & other.there_BN[:, None]).to(other.values_BND.dtype)
        mean = share_BNM @ other.values_BND / share_BNM.sum(-1, keepdim=True).clamp(min=1)
        return own.values_BND + mean


class Cross(nn.Module):
    """Gated cross-attention and gated feed-forward, as residuals. Both gates start closed."""

    from_tokens = True

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = FeedForward(width, ratio)
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, own: Stream, other: Stream) -> Tensor:
        """New values (B, N, D) of `own`."""
        values, (attend, feed) = own.values_BND, self.gates.tanh()
        keys = other.values_BND
        looked, _ = self.attention(self.norm(values), keys, other.there_BN)
        fused = values + attend * looked
        fused = fused + feed * (self.feed(fused) - fused)
        heard_B11 = other.there_BN.any(1)[:, None, None]
        return torch.where(heard_B11, fused, values)


FUSIONS: dict[str, type[Sum] | type[Cross] | None] = {
    "concatenate": None,
    "sum": Sum,
    "cross": Cross,
}
ORDERS = ("before", "after")


class Fusion(nn.Module):
    """One fusion in both directions."""

    def __init__(self, kind: type[Sum] | type[Cross], width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.from_tokens = kind.from_tokens
        """Whether timelines take from the other's tokens, not from its timeline."""
        self.into_sound, self.into_picture = (kind(width, heads, ratio) for _ in range(2))

    def forward(
        self, own: tuple[Stream, Stream], other: tuple[Stream, Stream]
    ) -> tuple[Tensor, Tensor]:
        """Sound and picture of `own` with, in turn, the picture and the sound of `other`."""
        return self.into_sound(own[0], other[1]), self.into_picture(own[1], other[0])
