"""The clue aggregator: what in the sound and in the picture matters to this question.

Clue queries of both modalities and the question's words look at one another, then the
sound clues look at the sound tokens and the picture clues at the picture tokens; several
times over, all with residuals. So both modalities see the question, each sees what the
other has found, and with the attention of the last layer the clues say where they looked:
that is the evidence.

The idea is CAT's (Ye et al., ECCV 2024, section 3.2); there the clues of the sound do not
depend on the question, because all of its attention goes to a single token.

Legend: B questions, C clues of one modality, W words, N tokens, D features, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.layers import Attention, FeedForward, GatedFeedForward, SelfBlock

Keys = tuple[Tensor, Tensor]
"""Keys of `TokenReader` (B, N, D), and which of them are there (B, N)."""


@dataclass(frozen=True, kw_only=True)
class Clues:
    """Soft tokens for one question, and where they come from."""

    sound_BCD: Tensor
    picture_BCD: Tensor
    sound_weights_BN: Tensor
    """Attention to each sound token, averaged over clues and heads; sums to 1, or to 0
    where there is no sound."""
    picture_weights_BN: Tensor


class ClueBlock(nn.Module):
    """One round: among clues and words, then out to the tokens."""

    def __init__(self, width: int, heads: int, ratio: float, *, gated: bool) -> None:
        super().__init__()
        self.norm_self, self.norm_cross = nn.LayerNorm(width), nn.LayerNorm(width)
        self.among = Attention(width, heads)
        self.to_sound, self.to_picture = Attention(width, heads), Attention(width, heads)
        self.feed = (GatedFeedForward if gated else FeedForward)(width, ratio)

    def forward(
        self, state_BSD: Tensor, there_BS: Tensor, clues: int, sound: Keys, picture: Keys
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State is sound clues, picture clues, words; `clues` of each modality.

        Returns:
            The new state, and the attention to sound and to picture tokens (B, N).
        """
        normed = self.norm_self(state_BSD)
        state_BSD = state_BSD + self.among(normed, normed, there_BS)[0]
        asking, words = state_BSD[:, : 2 * clues], state_BSD[:, 2 * clues :]
        normed = self.norm_cross(asking)
        heard, sound_weights = _look(self.to_sound, normed[:, :clues], sound)
        seen, picture_weights = _look(self.to_picture, normed[:, clues:], picture)
        asking = asking + torch.cat([heard, seen], dim=1)
        return self.feed(torch.cat([asking, words], dim=1)), sound_weights, picture_weights


class ClueAggregator(nn.Module):
    """`clues` queries for each modality.

    `words_in`: width of the question's words; None: clues do not see the question. `gated`: see
    `GatedFeedForward`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        ratio: float,
        *,
        clues: int,
        words_in: int | None,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.clues, self.asks = clues, words_in is not None
        self.queries = nn.Parameter(torch.randn(2 * clues, width) * 0.2)
        if words_in is not None:
            self.read_words = nn.Sequential(nn.LayerNorm(words_in), nn.Linear(words_in, width))
            self.word_order = nn.Embedding(64, width)
            self.words = SelfBlock(width, heads, ratio)
        self.blocks = nn.ModuleList(
            ClueBlock(width, heads, ratio, gated=gated) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        words_BWD: Tensor,
        words_there_BW: Tensor,
        sound: Keys,
        picture: Keys,
    ) -> Clues:
        """Collect clues.

        Args:
            words_BWD: the question in the language model's (centred) embeddings; words past
                the 64th share the last place.
            words_there_BW: False in the padding.
            sound: keys (G, N, D) of `TokenReader` and which of them are there (G, N). B is a
                multiple of the G clips: the first B / G questions are about the first clip.
            picture: the same.
        """
        state = self.queries.expand(len(words_BWD), -1, -1)
        there = words_there_BW.new_ones(state.shape[:2])
        if self.asks:
            state = torch.cat([state, self._read(words_BWD, words_there_BW)], dim=1)
            there = torch.cat([there, words_there_BW], dim=1)
        sound_weights = picture_weights = torch.empty(0)
        for block in self.blocks:
            state, sound_weights, picture_weights = block(state, there, self.clues, sound, picture)
        out = self.norm(state[:, : 2 * self.clues])
        return Clues(
            sound_BCD=out[:, : self.clues],
            picture_BCD=out[:, self.clues :],
            sound_weights_BN=sound_weights,
            picture_weights_BN=picture_weights,
        )

    def _read(self, words_BWD: Tensor, there_BW: Tensor) -> Tensor:
        """The question on the bridge's width, its words mixed."""
        place = torch.arange(words_BWD.shape[1], device=words_BWD.device).clamp(max=63)
        words = self.read_words(words_BWD) + self.word_order(place)
        mixed: Tensor = self.words(words, there_BW)
        return mixed


class NoClues(nn.Module):
    """In the place of the aggregator where there is no clue stage."""

    def forward(
        self, words_BWD: Tensor, words_there_BW: Tensor, sound: Keys, picture: Keys
    ) -> Clues:
        """No clues (B, 0, D), and weights of zero: nothing was looked at."""
        questions, each = len(words_BWD), len(words_BWD) // len(sound[0])
        none = sound[0].new_zeros(questions, 0, sound[0].shape[2])
        weights = (keys.new_zeros(len(keys) * each, keys.shape[1]) for keys, _ in (sound, picture))
        sound_weights_BN, picture_weights_BN = weights
        return Clues(
            sound_BCD=none,
            picture_BCD=none,
            sound_weights_BN=sound_weights_BN,
            picture_weights_BN=picture_weights_BN,
        )


def _look(attention: Attention, clues_BCD: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
    """Clues look at their clip's tokens; the questions of one clip share its keys and values."""
    clips, (questions, n, _) = len(keys[0]), clues_BCD.shape
    each = questions // clips
    grouped = clues_BCD.unflatten(0, (clips, each)).flatten(1, 2)
    looked, weights_GHQN = attention(grouped, *keys)
    weights = weights_GHQN.mean(1).unflatten(1, (each, n)).mean(2).flatten(0, 1)
    return looked.unflatten(1, (each, n)).flatten(0, 1), weights
