"""Random models of real classes, small enough to be made at test time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from avqa_llm.media import Clip

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE |= {"intermediate_size": 48}
TEXT = SIZE | {"vocab_size": 40, "max_position_embeddings": 16}
PICTURE_KINDS = ("vit", "clip", "siglip", "siglip2", "dinov2", "dinov2_with_registers")
PICTURE_KINDS += ("dinov3_vit",)
SOUND_KINDS = ("vit", "audio-spectrogram-transformer", "clap", "whisper", "pe_audio")


def picture_model(kind: str, **shape: Any) -> Any:
    """A whole checkpoint, text tower included where the kind has one; patches of 8 pixels."""
    import transformers as t

    torch.manual_seed(0)
    vision = SIZE | {"image_size": 32, "patch_size": 8, "num_channels": 3} | shape
    if kind == "clip":
        ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        return t.CLIPModel(
            t.CLIPConfig(text_config=TEXT | ends, vision_config=vision, projection_dim=16)
        )
    if kind == "siglip":
        ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        return t.SiglipModel(t.SiglipConfig(text_config=TEXT | ends, vision_config=vision))
    if kind == "siglip2":
        ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        vision = {k: v for k, v in vision.items() if k != "image_size"} | {"num_patches": 16}
        return t.Siglip2Model(t.Siglip2Config(text_config=TEXT | ends, vision_config=vision))
    if kind == "dinov3_vit":
        return t.DINOv3ViTModel(t.DINOv3ViTConfig(num_register_tokens=4, **vision))
    if kind == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**vision))
    if kind == "dinov2_with_registers":
        return t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(num_register_tokens=4, **vision)
        )
    return t.ViTModel(t.ViTConfig(**vision), add_pooling_layer=False)


def sound_model(kind: str, **shape: Any) -> Any:
    """A whole checkpoint with the real geometry of its windows and tokens."""
    import transformers as t

    torch.manual_seed(0)
    if kind == "audio-spectrogram-transformer":
        return t.ASTModel(t.ASTConfig(**(SIZE | shape)))
    if kind == "clap":
        audio = {"patch_embeds_hidden_size": 4, "hidden_size": 32, "depths": [1, 1, 1, 1]}
        audio |= {"num_attention_heads": [1, 1, 1, 1]} | shape
        text = TEXT | {"max_position_embeddings": 20, "pad_token_id": 1}
        return t.ClapModel(t.ClapConfig(text_config=text, audio_config=audio, projection_dim=16))
    if kind == "whisper":
        sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in LAYERS}
        sizes |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_model": 32}
        ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
        ends |= {"decoder_start_token_id": 0}
        return t.WhisperModel(t.WhisperConfig(vocab_size=40, **(sizes | ends | shape)))
    if kind == "pe_audio":
        ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
        ends |= {"cls_token_id": 0, "sep_token_id": 0}
        codec = {"encoder_hidden_size": 2, "codebook_dim": 8}
        codec |= {"downsampling_ratios": [2, 8, 10, 12]}  # 40 ms, as the real one
        audio = SIZE | {"head_dim": 16, "dac_config": codec} | shape
        model = t.PeAudioModel(t.PeAudioConfig(text_config=TEXT | ends, audio_config=audio))
        return _audible(model)
    spectrogram = {"image_size": (64, 1000), "patch_size": (64, 10), "num_channels": 2}
    return t.ViTModel(t.ViTConfig(**(SIZE | spectrogram | shape)), add_pooling_layer=False)


LAYERS = ("layers", "attention_heads")


def _audible(model: Any) -> Any:
    """With larger weights in its codec, whose own would let nothing through at this width."""
    for module in model.audio_encoder.embedder.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return model


def saved(model: Any, folder: Path) -> Path:
    """The checkpoint as the hub would give it."""
    model.save_pretrained(folder)
    return folder


def make_clip(
    seconds: float = 4.0, *, sound_CS: np.ndarray | None = None, still: bool = False
) -> Clip:
    """Noise for eyes and ears at 16 kHz; two frames a second, 0.2 s apart as pairs."""
    rng = np.random.default_rng(0)
    moments = max(1, int(seconds))
    frames = rng.integers(0, 255, (moments, 2, 32, 32, 3), dtype=np.uint8)
    if still:
        frames[:, 1] = frames[:, 0]
    times = np.arange(moments)[:, None] + np.array([0.5, 0.7])
    if sound_CS is None:
        sound_CS = rng.normal(0, 0.01, (2, round(seconds * 16000))).astype(np.float32)
    return Clip(
        path="noise",
        sha256="0" * 64,
        duration_s=seconds,
        frames_THWC=frames.reshape(-1, 32, 32, 3),
        frame_times_s=times.reshape(-1),
        sound_CS=sound_CS,
        sound_rate_hz=16000,
        sound_span_s=(0.0, seconds),
        picture_span_s=(0.0, seconds),
    )
