"""The bridge between frozen encoders and the language model.

    tokens of a modality ──reader──▶ keys ──Q-Former──▶ timeline (does not know the question)
                                      └──clue aggregator(question)──▶ clues

Everything leaves at the language model's width, scaled like its word embeddings.

Legend: B clips or questions, N tokens, Q timeline tokens, C clues, D bridge width,
E language model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.aggregator import ClueAggregator, Clues
from avqa_llm.qformer import QFormer, TokenReader
from avqa_llm.tokenbatch import TokenBatch


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Sizes of the bridge."""

    width: int = 160
    heads: int = 5
    ratio: float = 2.0
    """Width of the feed-forward networks, in bridge widths."""
    reader_layers: int = 1
    qformer_layers: int = 1
    clue_layers: int = 3
    sound_per_second: int = 2
    """Timeline tokens of the sound for each second."""
    picture_per_second: int = 4
    picture_bands: int = 8
    """Columns of the picture that the picture's timeline sweeps over."""
    clues: int = 8
    """Clue tokens for each modality."""


@dataclass(frozen=True, kw_only=True)
class ClipKeys:
    """What the bridge knows of some clips before it hears the question."""

    sound: tuple[Tensor, Tensor]
    """Keys (B, N, D) and which of them are there (B, N)."""
    picture: tuple[Tensor, Tensor]
    sound_BQE: Tensor
    """The timeline, ready for the language model."""
    picture_BQE: Tensor
    sound_there_BQ: Tensor
    """False past the end of a clip, and everywhere where the modality is missing."""
    picture_there_BQ: Tensor

    def rows(self, index: Tensor) -> ClipKeys:
        """The same for chosen clips, in any order and number."""
        return ClipKeys(
            sound=(self.sound[0][index], self.sound[1][index]),
            picture=(self.picture[0][index], self.picture[1][index]),
            sound_BQE=self.sound_BQE[index],
            picture_BQE=self.picture_BQE[index],
            sound_there_BQ=self.sound_there_BQ[index],
            picture_there_BQ=self.picture_there_BQ[index],
        )


class Bridge(nn.Module):
    """Q-Formers and clue aggregator."""

    def __init__(
        self, config: BridgeConfig, *, sound_in: int, picture_in: int, llm_width: int
    ) -> None:
        super().__init__()
        self.config = config
        shape = (config.width, config.heads)
        readers = (*shape, config.reader_layers, config.ratio)
        formers = (*shape, config.qformer_layers, config.ratio)
        self.read_sound = TokenReader(sound_in, *readers)
        self.read_picture = TokenReader(picture_in, *readers)
        self.qformer_sound = QFormer(*formers, per_second=config.sound_per_second, bands=1)
        self.qformer_picture = QFormer(
            *formers, per_second=config.picture_per_second, bands=config.picture_bands
        )
        self.aggregator = ClueAggregator(
            *shape, config.clue_layers, config.ratio, clues=config.clues, words_in=llm_width
        )
        names = ("sound", "picture", "sound_clues", "picture_clues")
        self.out = nn.ModuleDict({name: nn.Linear(config.width, llm_width) for name in names})
        self.gain = nn.Parameter(torch.ones(4))
        self.register_buffer("word_mean", torch.zeros(llm_width))
        self.register_buffer("word_std", torch.ones(()))

    word_mean: Tensor
    word_std: Tensor

    def fit_words(self, embeddings_VE: Tensor) -> None:
        """Learn the centre and the scale of the language model's word embeddings.

        Raw embeddings of related words are nearly collinear; around their centre they differ.
        """
        self.word_mean.copy_(embeddings_VE.float().mean(0))
        self.word_std.copy_((embeddings_VE.float() - self.word_mean).std())

    def forward(self, sound: TokenBatch, picture: TokenBatch, seconds_B: Tensor) -> ClipKeys:
        """Read clips: keys for the aggregator, timelines for the language model."""
        keys_s, keys_p = self.read_sound(sound), self.read_picture(picture)
        line_s, there_s = self.qformer_sound(keys_s, sound, seconds_B)
        line_p, there_p = self.qformer_picture(keys_p, picture, seconds_B)
        return ClipKeys(
            sound=(keys_s, sound.there_BN),
            picture=(keys_p, picture.there_BN),
            sound_BQE=self._leave(line_s, 0),
            picture_BQE=self._leave(line_p, 1),
            sound_there_BQ=there_s & sound.there_BN.any(1, keepdim=True),
            picture_there_BQ=there_p & picture.there_BN.any(1, keepdim=True),
        )

    def clues(self, keys: ClipKeys, words_BWE: Tensor, there_BW: Tensor) -> tuple[Tensor, Clues]:
        """Clues for questions, the same number for each clip, in the order of the clips.

        Args:
            keys: what `forward` gave.
            words_BWE: the question's word embeddings of the language model, as they are.
            there_BW: False in the padding.

        Returns:
            Soft tokens (B, 2 C, E), sound before picture, and the clues with their weights.
        """
        words = (words_BWE.float() - self.word_mean) / self.word_std
        clues = self.aggregator(words, there_BW, keys.sound, keys.picture)
        sound, picture = self._leave(clues.sound_BCD, 2), self._leave(clues.picture_BCD, 3)
        return torch.cat([sound, picture], dim=1), clues

    def _leave(self, values_BQD: Tensor, kind: int) -> Tensor:
        name = ("sound", "picture", "sound_clues", "picture_clues")[kind]
        out = self.out[name](values_BQD).float()
        unit = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + 1e-6)
        return unit * self.gain[kind] * self.word_std + self.word_mean
