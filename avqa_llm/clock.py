"""The clock of a clip that is longer than any that its model knows: shown at a faster pace.

A model that was trained on clips of 10 s has never seen a token of second 30. So a longer clip is
shown as if it took the longest known length: neighbouring tokens are merged in time, as video
language models take a fixed number of frames of any clip (Video-ChatGPT, Maaz et al. 2024, section
3.1, averages over time). What leaves the engine is in the clip's own seconds.

Legend: N tokens, M merged tokens, D features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avqa_llm.encoders.tokens import Tokens

if TYPE_CHECKING:
    from avqa_llm.model import ClipTokens

LONGER = 1.05
"""How much longer than in training a clip may be before that matters (AAC adds some ms)."""
SLIGHT = 1e-3
"""A merged token of which less than this share is covered is none: rounding alone made it."""


def pace_of(seconds: float, longest_s: float) -> float:
    """Seconds of the clip that pass in one second of the model; 1 where it knows such clips.

    `longest_s` 0: no limit is known.
    """
    return seconds / longest_s if longest_s and seconds > longest_s * LONGER else 1.0


def merged(clip: ClipTokens, pace: float) -> ClipTokens:
    """As many tokens as a clip `pace` times as short has, in the clip's own seconds.

    Sound is averaged. Of the picture the moments nearest to even times are taken: an average of
    two pictures is none that an encoder gives.
    """
    if pace == 1:
        return clip
    return replace(clip, sound=averaged(clip.sound, pace), picture=picked(clip.picture, pace))


def hurried(clip: ClipTokens, pace: float) -> ClipTokens:
    """The same tokens on the clock of the model, where `pace` seconds are one."""
    if pace == 1:
        return clip
    return replace(
        clip,
        sound=_timed(clip.sound, clip.sound.times_N / pace, clip.sound.length_s / pace),
        picture=_timed(clip.picture, clip.picture.times_N / pace, clip.picture.length_s / pace),
        seconds=clip.seconds / pace,
    )


def averaged(tokens: Tokens, pace: float) -> Tokens:
    """Means over stretches of `pace` tokens of one place, each token by its share of a stretch."""
    if not tokens.n:
        return tokens
    place_N, places_P2 = _places(tokens)
    long = tokens.length_s * pace  # of a merged token; one before is shorter, so is in two at most
    start_N = ((tokens.times_N.double() - tokens.length_s / 2) / long).clamp(min=0)
    end_N = (tokens.times_N.double() + tokens.length_s / 2) / long
    first_N, last_N = start_N.long(), end_N.long()
    into_last_N = (end_N - last_N) * (last_N > first_N)
    size = (int(last_N.max()) + 1) * len(places_P2)
    sums_MD = tokens.values_ND.new_zeros(size, tokens.values_ND.shape[1], dtype=torch.float32)
    shares_M = torch.zeros(size)
    for stretch_N, share_N in (
        (first_N, end_N - start_N - into_last_N),
        (last_N, into_last_N),
    ):
        index_N, share = stretch_N * len(places_P2) + place_N, share_N.float()
        sums_MD.index_add_(0, index_N, tokens.values_ND.float() * share[:, None])
        shares_M.index_add_(0, index_N, share)
    there = (shares_M > SLIGHT).nonzero()[:, 0]
    values = (sums_MD[there] / shares_M[there, None]).to(tokens.values_ND.dtype)
    return _laid_out(values, there, places_P2, long)


def picked(tokens: Tokens, pace: float) -> Tokens:
    """Of each place and each stretch of `pace` tokens the one that is nearest to its middle."""
    if not tokens.n:
        return tokens
    place_N, places_P2 = _places(tokens)
    long = tokens.length_s * pace
    stretch_N = (tokens.times_N.double() / long + 1e-9).long().clamp(min=0)
    off_N = (tokens.times_N - (stretch_N + 0.5) * long).abs()
    index_N = stretch_N * len(places_P2) + place_N
    nearest = off_N.argsort(stable=True)
    order = nearest[index_N[nearest].argsort(stable=True)]
    there, counts = index_N[order].unique_consecutive(return_counts=True)
    best = order[counts.cumsum(0) - counts]
    return _laid_out(tokens.values_ND[best], there, places_P2, long)


def _places(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The number of each token's place (N,), and the places (P, 2), row after row."""
    found, place_N = torch.unique(tokens.places_N2.flip(1), dim=0, return_inverse=True)
    return place_N, found.flip(1)


def _laid_out(values_MD: Tensor, index_M: Tensor, places_P2: Tensor, length_s: float) -> Tokens:
    """Merged tokens in the middle of their stretches."""
    stretch_M = index_M // len(places_P2)
    return Tokens(
        values_ND=values_MD,
        times_N=((stretch_M.double() + 0.5) * length_s).float(),
        places_N2=places_P2[index_M % len(places_P2)],
        length_s=length_s,
    )


def _timed(tokens: Tokens, times_N: Tensor, length_s: float) -> Tokens:
    return replace(tokens, times_N=times_N, length_s=length_s)
