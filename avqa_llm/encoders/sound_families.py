"""How each kind of audio model wants its sound, and where its tokens lie in time.

Every entry of `SOUND_FAMILIES` takes the model's configuration and the content of the
checkpoint's preprocessor_config.json (empty if it has none).

Legend: W windows, C channels, S samples, T tokens of a window, F frequency rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avqa_llm.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class SoundFamily:
    """What one model needs."""

    rate_hz: int
    channels: int
    window_s: float
    """What the model hears at once."""
    advance_s: float
    """From one window to the next; the tokens of a window are T equal steps of it."""
    width: int
    """Features of a token."""
    encode: Callable[[Any, Tensor], Tensor]
    """Model and windows (W, C, S) to tokens (W, T, D) in the order of time."""
    encode_masked: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    """The same, given also which samples are there (W, S): for models that leave out the silence
    after the end of a sound. The others were trained to hear it."""


# -- our own small spectrogram transformer ---------------------------------------------------

RATE_HZ, HOP, N_FFT, N_MELS, WINDOW_S = 16000, 160, 512, 64, 10.0


def log_mel(sound_WCS: Tensor) -> Tensor:
    """Log-mel spectrogram (W, C, mel, frame), 10 ms a frame, absolute level kept; about -1..1."""
    flat = sound_WCS.flatten(0, 1)
    window = torch.hann_window(N_FFT, device=flat.device)
    spectrum = torch.stft(flat, N_FFT, HOP, window=window, center=True, return_complex=True)
    power = spectrum.abs().square()[..., :-1] / window.square().sum()
    mel = torch.einsum("fm,bft->bmt", _mel_filters().to(flat.device), power)
    level = torch.log10(mel.clamp(min=1e-9))
    return ((level + 5) / 4).unflatten(0, sound_WCS.shape[:2])


@lru_cache(maxsize=1)
def _mel_filters() -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=N_FFT // 2 + 1,
        num_mel_filters=N_MELS,
        min_frequency=40.0,
        max_frequency=RATE_HZ / 2,
        sampling_rate=RATE_HZ,
        norm=None,
        mel_scale="slaney",
    )
    return torch.from_numpy(np.asarray(filters)).float()


def _encode_spectrogram(model: Any, sound_WCS: Tensor) -> Tensor:
    """A `ViTModel` over stereo spectrograms; its first token is a summary and is left out."""
    return model(pixel_values=log_mel(sound_WCS)).last_hidden_state[:, 1:]


def _vit(config: Any, preparation: dict[str, Any]) -> SoundFamily:
    shape = (config.num_channels, *config.image_size) if config.num_channels == 2 else None
    wanted = (2, N_MELS, round(WINDOW_S * RATE_HZ) // HOP)
    if shape != wanted:
        raise CheckpointError(
            f"a ViT over {config.num_channels} channels of {config.image_size} does not fit; a "
            f"sound encoder of this kind sees 2 channels of {wanted[1:]} (mel bands, frames)"
        )
    return SoundFamily(
        rate_hz=RATE_HZ,
        channels=2,
        window_s=WINDOW_S,
        advance_s=WINDOW_S,
        width=config.hidden_size,
        encode=_encode_spectrogram,
    )


# -- Audio Spectrogram Transformer (Gong et al. 2021) ------------------------------------------

FRAME_S = 0.01
"""Frame shift of the Kaldi filter bank that AST is trained with."""


def _ast(config: Any, preparation: dict[str, Any]) -> SoundFamily:
    """16 kHz mono, 10.24 s; patches overlap, so a window advances by its whole tokens only."""
    from transformers import ASTFeatureExtractor

    shape = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
    extractor = ASTFeatureExtractor(**(preparation | shape))
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    steps = (config.max_length - config.patch_size) // config.time_stride + 1

    def encode(model: Any, sound_WCS: Tensor) -> Tensor:
        features = _extract(extractor, sound_WCS)["input_values"].to(model.device, model.dtype)
        # Class and distillation token come first, then one row of steps after another.
        hidden_WND = model(input_values=features).last_hidden_state[:, 2:]
        return hidden_WND.unflatten(1, (rows, steps)).mean(1)

    return SoundFamily(
        rate_hz=extractor.sampling_rate,
        channels=1,
        window_s=config.max_length * FRAME_S,
        advance_s=min(steps * config.time_stride, config.max_length) * FRAME_S,
        width=config.hidden_size,
        encode=encode,
    )


# -- CLAP (Wu et al. 2023): a Swin transformer over a folded spectrogram -----------------------


def _clap(config: Any, preparation: dict[str, Any]) -> SoundFamily:
    """48 kHz mono, 10 s."""
    from transformers import ClapFeatureExtractor

    truncation = "fusion" if config.enable_fusion else "rand_trunc"
    shape = {"feature_size": config.num_mel_bins, "truncation": truncation}
    extractor = ClapFeatureExtractor(**(preparation | shape))

    def encode(model: Any, sound_WCS: Tensor) -> Tensor:
        features = _extract(extractor, sound_WCS)["input_features"].to(model.device, model.dtype)
        # The extractor calls one random window "longer" than it is: none is.
        longer = torch.zeros(len(features), 1, dtype=torch.bool, device=model.device)
        out = model(input_features=features, is_longer=longer)
        # The model has unfolded its grid to (W, D, F, T) with T in order.
        return out.last_hidden_state.mean(2).transpose(1, 2)

    return SoundFamily(
        rate_hz=extractor.sampling_rate,
        channels=1,
        window_s=float(extractor.max_length_s),
        advance_s=float(extractor.max_length_s),
        width=config.patch_embeds_hidden_size * 2 ** (len(config.depths) - 1),
        encode=encode,
    )


# -- the encoder of Whisper (Radford et al. 2022) ----------------------------------------------


def _whisper(config: Any, preparation: dict[str, Any]) -> SoundFamily:
    """16 kHz mono, 30 s in 1500 tokens."""
    from transformers import WhisperFeatureExtractor

    chunk_s = config.max_source_positions * 2 * HOP // RATE_HZ
    shape = {"feature_size": config.num_mel_bins, "chunk_length": chunk_s}
    extractor = WhisperFeatureExtractor(**(preparation | shape))

    def encode(model: Any, sound_WCS: Tensor) -> Tensor:
        features = _extract(extractor, sound_WCS)["input_features"].to(model.device, model.dtype)
        return model(features).last_hidden_state

    return SoundFamily(
        rate_hz=extractor.sampling_rate,
        channels=1,
        window_s=float(chunk_s),
        advance_s=float(chunk_s),
        width=config.d_model,
        encode=encode,
    )


# -- the audio tower of PE-AV (Vyas et al. 2025): a codec's encoder, then a transformer -----------


PE_WINDOW_S = 10.0
"""It has none of its own: it takes any length, in memory that grows with its square."""


def _pe_audio(config: Any, preparation: dict[str, Any]) -> SoundFamily:
    """48 kHz mono, 25 tokens a second; the raw wave goes in as it is."""
    rate = int(preparation.get("sampling_rate", 48000))
    hop = int(config.dac_config.hop_length)
    window = round(PE_WINDOW_S * rate / hop) * hop  # whole tokens, so that windows fit together

    def encode_masked(model: Any, sound_WCS: Tensor, there_WS: Tensor) -> Tensor:
        # A token is there if any sample of it is; the model looks at the first one only.
        tokens = there_WS.unflatten(1, (-1, hop)).any(2)
        mask_WS = tokens.repeat_interleave(hop, dim=1)
        out = model(input_values=sound_WCS.to(model.dtype), padding_mask=mask_WS)
        return out.last_hidden_state

    def encode(model: Any, sound_WCS: Tensor) -> Tensor:
        return encode_masked(model, sound_WCS, torch.ones_like(sound_WCS[:, 0], dtype=torch.bool))

    return SoundFamily(
        rate_hz=rate,
        channels=1,
        window_s=window / rate,
        advance_s=window / rate,
        width=config.hidden_size,
        encode=encode,
        encode_masked=encode_masked,
    )


def _extract(extractor: Any, sound_WCS: Tensor) -> Any:
    waves = list(sound_WCS[:, 0].cpu().numpy())
    return extractor(waves, sampling_rate=extractor.sampling_rate, return_tensors="pt")


SOUND_FAMILIES: dict[str, Callable[[Any, dict[str, Any]], SoundFamily]] = {
    "vit": _vit,
    "audio-spectrogram-transformer": _ast,
    "clap_audio_model": _clap,
    "whisper": _whisper,
    "pe_audio_encoder": _pe_audio,
}
