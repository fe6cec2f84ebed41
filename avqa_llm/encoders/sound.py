"""Frozen sound encoders: tokens over the whole clip, never one pooled vector.

A family (see `sound_families`) says how a Hugging Face audio model wants its sound and where
its tokens lie in time. Windows follow one another over the clip; tokens past the end of the
sound are cut off.

Legend: W windows, C channels, S samples, T tokens of a window, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.encoders.frozen import FrozenEncoder
from avqa_llm.encoders.sound_families import (
    HOP,
    N_FFT,
    N_MELS,
    RATE_HZ,
    SOUND_FAMILIES,
    WINDOW_S,
    SoundFamily,
    _encode_spectrogram,
    log_mel,
)
from avqa_llm.encoders.tags import TagHeads
from avqa_llm.encoders.tokens import Tokens
from avqa_llm.errors import CheckpointError
from avqa_llm.media import Clip

__all__ = [
    "HOP",
    "N_FFT",
    "N_MELS",
    "RATE_HZ",
    "SOUND_FAMILIES",
    "WINDOW_S",
    "SoundConfig",
    "SoundEncoder",
    "SoundFamily",
    "_encode_spectrogram",
    "log_mel",
    "pool",
    "window_tokens",
    "windows",
]


EPSILON_S = 1e-6
"""A token that would cover less than this of the sound is left out."""


@dataclass(frozen=True, kw_only=True)
class SoundConfig:
    """How sound is prepared and which tokens come out."""

    source: str
    """Directory or hub name of the audio model."""
    revision: str | None = None
    """Of a hub name: a commit, so that the weights cannot change behind one's back."""
    tokens_per_s: float = 10.0
    """The encoder's own tokens are averaged down to about this rate."""


class SoundEncoder(FrozenEncoder):
    """A frozen audio model with its preparation.

    `extractor` is the content of the checkpoint's preprocessor_config.json; what it leaves out
    follows the model. `heads` say what the tokens hold, where the encoder was taught with some.

    Raises:
        CheckpointError: the model is of no known family.
    """

    config: SoundConfig

    def __init__(
        self,
        config: SoundConfig,
        model: Any,
        extractor: dict[str, Any] | None = None,
        heads: TagHeads | None = None,
    ) -> None:
        super().__init__(config, model)
        self.heads = heads
        kind = model.config.model_type
        if kind not in SOUND_FAMILIES:
            known = ", ".join(SOUND_FAMILIES)
            raise CheckpointError(
                f"{config.source} is a {kind!r} model; sound encoders are {known}"
            )
        self._extractor = extractor or {}
        self.family = SOUND_FAMILIES[kind](model.config, self._extractor)

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.family.width

    def preparation(self) -> dict[str, Any]:
        """With what the checkpoint says about its input."""
        return super().preparation() | {"extractor": self._extractor}

    def forward(self, clip: Clip, batch: int = 8) -> Tokens:
        """Encode the whole sound of a clip."""
        return self.many([clip], batch)[0]

    @torch.no_grad()
    def many(self, clips: Sequence[Clip], batch: int = 8) -> list[Tokens]:
        """The same for several clips, whose windows share batches."""
        found, family = [Tokens.none(self.width) for _ in clips], self.family
        there = [n for n, clip in enumerate(clips) if clip.has_sound]
        if not there:
            return found
        sounds = [
            torch.from_numpy(clips[n].sound_at(family.rate_hz, family.channels).copy())
            for n in there
        ]
        heard = [windows(sound_CS, family) for sound_CS in sounds]
        known = [windows(torch.ones_like(sound_CS[:1]), family)[:, 0].bool() for sound_CS in sounds]
        parts = [
            self._encode(part, there_WS).float()
            for part, there_WS in zip(
                torch.cat(heard).split(batch), torch.cat(known).split(batch), strict=True
            )
        ]
        values = torch.cat(parts).cpu().split([len(own) for own in heard])
        for n, values_WTD, sound_CS in zip(there, values, sounds, strict=True):
            pooled = pool(values_WTD, family.advance_s, self.config.tokens_per_s)
            found[n] = window_tokens(pooled, family.advance_s, sound_CS.shape[1] / family.rate_hz)
        return found

    def _encode(self, sound_WCS: Tensor, there_WS: Tensor) -> Tensor:
        sound_WCS = sound_WCS.to(self.device)
        if self.family.encode_masked is None:
            return self.family.encode(self.model, sound_WCS)
        return self.family.encode_masked(self.model, sound_WCS, there_WS.to(self.device))


def windows(sound_CS: Tensor, family: SoundFamily) -> Tensor:
    """Cut into windows (W, C, S) that follow one another; the last is filled with silence."""
    size = round(family.window_s * family.rate_hz)
    advance = round(family.advance_s * family.rate_hz)
    count = -(-sound_CS.shape[1] // advance)
    missing = (count - 1) * advance + size - sound_CS.shape[1]
    padded = nn.functional.pad(sound_CS, (0, max(0, missing)))
    return padded.unfold(1, size, advance).transpose(0, 1)[:count]


def pool(values_WTD: Tensor, window_s: float, tokens_per_s: float) -> Tensor:
    """Average neighbouring tokens down to at most about `tokens_per_s`."""
    wanted = max(1, round(window_s * tokens_per_s))
    if values_WTD.shape[1] <= wanted:
        return values_WTD
    return nn.functional.adaptive_avg_pool1d(values_WTD.transpose(1, 2), wanted).transpose(1, 2)


def window_tokens(values_WTD: Tensor, window_s: float, seconds: float) -> Tokens:
    """Windows as one list of tokens with absolute times, cut at the end of the sound."""
    n_windows, n_tokens, width = values_WTD.shape
    step = window_s / n_tokens
    times = (torch.arange(n_windows * n_tokens) + 0.5) * step
    # Counted in double precision: at 4.8 s, float32 would keep a token that starts there.
    keep = torch.arange(n_windows * n_tokens, dtype=torch.float64) * step < seconds - EPSILON_S
    values = values_WTD.reshape(-1, width)[keep]
    places = torch.zeros(len(values), 2)
    return Tokens(values_ND=values, times_N=times[keep], places_N2=places, length_s=step)
