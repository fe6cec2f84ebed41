"""The bridge between frozen encoders and the language model.

    tokens of a modality ──reader──▶ keys ──connector──▶ timeline (does not know the question)
                                      └──clue aggregator(question)──▶ clues

The recipe chooses the connector (`CONNECTORS`), how the modalities meet (`FUSIONS`), and whether
there are clues and whether they see the question. Everything leaves at the language model's
width, scaled like its word embeddings.

Legend: B clips or questions, N tokens, Q timeline tokens, C clues, D bridge width,
E language model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.aggregator import ClueAggregator, Clues, NoClues
from avqa_llm.connectors import CONNECTORS, ConnectorShape, Layout
from avqa_llm.errors import RecipeError
from avqa_llm.fusion import FUSIONS, ORDERS, Fusion, Stream
from avqa_llm.reader import TokenReader
from avqa_llm.tokenbatch import TokenBatch

NAMES = ("sound", "picture", "sound_clues", "picture_clues")
"""What leaves the bridge."""
SOUND_LAYOUT = Layout(rate=10.0)
PICTURE_LAYOUT = Layout(rate=1.0, grid=(7, 7))
"""As encoders lay out their tokens where the recipe does not say otherwise."""


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Parts and sizes of the bridge.

    Raises:
        RecipeError: a part of that name does not exist, or values do not go together.
    """

    width: int = 160
    heads: int = 5
    ratio: float = 2.0
    """Width of the feed-forward networks, in bridge widths."""
    connector: str = "qformer"
    """`qformer`, `projector`, `perceiver` or `stc`."""
    fusion: str = "concatenate"
    """`concatenate`, `sum` or `cross`: what each timeline takes from the other modality."""
    fusion_order: str = "after"
    """Sum and cross work `before` the connectors, on tokens, or `after` them, on timelines."""
    ask: bool = True
    """Whether the clue stage sees the question."""
    reader_layers: int = 1
    """Self-attention over a modality's tokens; the projector is without attention, so has none."""
    qformer_layers: int = 1
    """Blocks of the connector: of `stc` before and again after its 3D convolution; the projector
    has none."""
    clue_layers: int = 3
    sound_per_second: int = 2
    """Timeline tokens of the sound for each second."""
    picture_per_second: int = 4
    picture_bands: int = 8
    """Columns of the picture that the picture's timeline sweeps over."""
    clues: int = 8
    """Clue tokens for each modality; 0: no clue stage."""
    gated: bool = False
    """Whether clues multiply what they have found by what they look for (`GatedFeedForward`)."""

    def __post_init__(self) -> None:
        known = {"connector": [*CONNECTORS], "fusion": [*FUSIONS], "fusion_order": [*ORDERS]}
        for name, choices in known.items():
            if (value := getattr(self, name)) not in choices:
                raise RecipeError(f"{name} {value!r}: choose one of {', '.join(choices)}")
        if self.fusion == "concatenate" and self.fusion_order == "before":
            raise RecipeError(
                "fusion_order 'before' needs fusion 'sum' or 'cross': concatenated timelines meet"
                " in the language model only; leave fusion_order out"
            )
        least = dict.fromkeys(("sound_per_second", "picture_per_second", "picture_bands"), 1)
        least |= dict.fromkeys(("clues", "qformer_layers", "reader_layers"), 0)
        least |= {"clue_layers": 1} if self.clues else {}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise RecipeError(f"{name} {getattr(self, name)}: at least {limit}")


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
    """Readers, connectors, fusion and clue aggregator.

    The connectors are kept as `qformer_*` whatever they are: saved weights are called so.
    """

    def __init__(
        self,
        config: BridgeConfig,
        *,
        sound_in: int,
        picture_in: int,
        llm_width: int,
        sound_layout: Layout = SOUND_LAYOUT,
        picture_layout: Layout = PICTURE_LAYOUT,
    ) -> None:
        """`*_layout`: how the encoders lay out their tokens; only `stc` builds on it."""
        super().__init__()
        self.config = config
        shape = (config.width, config.heads)
        layers = 0 if config.connector == "projector" else config.reader_layers
        self.read_sound = TokenReader(sound_in, *shape, layers, config.ratio)
        self.read_picture = TokenReader(picture_in, *shape, layers, config.ratio)
        connector = CONNECTORS[config.connector]
        self.qformer_sound = connector(_shape(config, config.sound_per_second, 1, sound_layout))
        self.qformer_picture = connector(
            _shape(config, config.picture_per_second, config.picture_bands, picture_layout)
        )
        self.aggregator = _clue_stage(config, llm_width)
        names = NAMES if config.clues else NAMES[:2]
        self.out = nn.ModuleDict({name: nn.Linear(config.width, llm_width) for name in names})
        self.gain = nn.Parameter(torch.ones(len(names)))
        self.register_buffer("word_mean", torch.zeros(llm_width))
        self.register_buffer("word_std", torch.ones(()))
        kind = FUSIONS[config.fusion]
        self.fusion = None if kind is None else Fusion(kind, *shape, config.ratio)

    word_mean: Tensor
    word_std: Tensor

    def compiled_parts(self) -> list[nn.Module]:
        """What is worth compiling: parts whose shapes do not depend on the clips' seconds."""
        parts: list[nn.Module] = [self.read_sound, self.read_picture]
        return [*parts, self.aggregator] if self.config.clues else parts

    def fit_words(self, embeddings_VE: Tensor) -> None:
        """Learn the centre and the scale of the language model's word embeddings.

        Raw embeddings of related words are nearly collinear; around their centre they differ.
        """
        words_VE = embeddings_VE.float().to(self.word_mean.device)
        self.word_mean.copy_(words_VE.mean(0))
        self.word_std.copy_((words_VE - self.word_mean).std())

    def forward(self, sound: TokenBatch, picture: TokenBatch, seconds_B: Tensor) -> ClipKeys:
        """Read clips: keys for the aggregator, timelines for the language model."""
        keys_s, keys_p = self.read_sound(sound), self.read_picture(picture)
        tokens = _tokens(keys_s, sound), _tokens(keys_p, picture)
        into_s, into_p = keys_s, keys_p
        if self.fusion is not None and self.config.fusion_order == "before":
            into_s, into_p = self.fusion(tokens, tokens)
        line_s, there_s = self.qformer_sound(into_s, sound, seconds_B)
        line_p, there_p = self.qformer_picture(into_p, picture, seconds_B)
        there_s = there_s & sound.there_BN.any(1, keepdim=True)
        there_p = there_p & picture.there_BN.any(1, keepdim=True)
        if self.fusion is not None and self.config.fusion_order == "after":
            lines = (
                Stream.timeline(line_s, there_s, self.config.sound_per_second),
                Stream.timeline(line_p, there_p, self.config.picture_per_second),
            )
            line_s, line_p = self.fusion(lines, tokens if self.fusion.from_tokens else lines)
        return ClipKeys(
            sound=(keys_s, sound.there_BN),
            picture=(keys_p, picture.there_BN),
            sound_BQE=self._leave(line_s, 0),
            picture_BQE=self._leave(line_p, 1),
            sound_there_BQ=there_s,
            picture_there_BQ=there_p,
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
        if not self.config.clues:
            clues = self.aggregator(words_BWE, there_BW, keys.sound, keys.picture)
            return words_BWE.new_zeros(len(words_BWE), 0, len(self.word_mean)), clues
        words = (words_BWE.float() - self.word_mean) / self.word_std
        clues = self.aggregator(words, there_BW, keys.sound, keys.picture)
        sound, picture = self._leave(clues.sound_BCD, 2), self._leave(clues.picture_BCD, 3)
        return torch.cat([sound, picture], dim=1), clues

    def _leave(self, values_BQD: Tensor, kind: int) -> Tensor:
        out = self.out[NAMES[kind]](values_BQD).float()
        unit = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + 1e-6)
        return unit * self.gain[kind] * self.word_std + self.word_mean


def _shape(config: BridgeConfig, per_second: int, bands: int, layout: Layout) -> ConnectorShape:
    return ConnectorShape(
        width=config.width,
        heads=config.heads,
        layers=config.qformer_layers,
        ratio=config.ratio,
        per_second=per_second,
        bands=bands,
        layout=layout,
    )


def _clue_stage(config: BridgeConfig, llm_width: int) -> ClueAggregator | NoClues:
    if not config.clues:
        return NoClues()
    return ClueAggregator(
        config.width,
        config.heads,
        config.clue_layers,
        config.ratio,
        clues=config.clues,
        words_in=llm_width if config.ask else None,
        gated=config.gated,
    )


def _tokens(keys_BND: Tensor, tokens: TokenBatch) -> Stream:
    return Stream(values_BND=keys_BND, times_BN=tokens.times_BN, there_BN=tokens.there_BN)
