"""Miniature omni bases: the real classes, random weights, as directories of the hub would be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avqa_llm.labels import LABELS
from avqa_llm.media import Clip
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.families import FAMILIES
from avqa_llm.omni.inputs import OmniClip
from avqa_llm.omni.model import OmniModel
from avqa_llm.omni.stage import question_pieces
from avqa_llm.training.packing import Piece
from avqa_llm.training.rows import Question
from tests.model_parts import small_clip

KINDS = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
WIDTH, BANDS = 32, 16
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PATCH = {"qwen2_5_omni_thinker": 14, "qwen3_omni_moe_thinker": 16}
SETTINGS = {
    "image_mean": MEAN,
    "image_std": STD,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "feature_size": BANDS,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 300,
}
END = "<|im_end|>"
ASKED = "How many instruments sound?"


def small_tokenizer(kind: str) -> Any:
    """Bytes with a few merges, and the special words of a family; no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", END, *FAMILIES[kind].words]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*LABELS, ASKED], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=END,
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:2] + special[3:],
    )


def small_thinker(kind: str, tokenizer: Any, *, seed: int = 0) -> Any:
    """A thinker with weights large enough that its logits differ clearly."""
    import transformers as t

    family = FAMILIES[kind]
    marks = tokenizer.convert_tokens_to_ids(list(family.words))
    ids = {"audio_start_token_id": marks[0], "vision_start_token_id": marks[3]}
    text, audio, vision = (_text(len(tokenizer), tokenizer), _audio(), _vision(PATCH[kind]))
    torch.manual_seed(seed)
    if kind == "qwen2_5_omni_thinker":
        config = t.Qwen2_5OmniThinkerConfig(
            text_config=text,
            audio_config={**audio, "n_window": 100},
            vision_config={**vision, "fullatt_block_indexes": [1], "window_size": 112},
            audio_token_index=marks[1],
            video_token_index=marks[4],
            image_token_index=len(tokenizer) - 1,
            initializer_range=0.2,
            **ids,
        )
        return t.Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    mixture = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    config = t.Qwen3OmniMoeThinkerConfig(
        text_config={**text, **mixture, "mlp_only_layers": [0], "head_dim": 8},
        audio_config={**audio, "n_window": 50, "n_window_infer": 400, "downsample_hidden_size": 8},
        vision_config={**vision, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        position_id_per_seconds=13,
        audio_token_id=marks[1],
        video_token_id=marks[4],
        image_token_id=len(tokenizer) - 1,
        initializer_range=0.2,
        **ids,
    )
    return t.Qwen3OmniMoeThinkerForConditionalGeneration(config).eval()


def _text(vocab: int, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
        },
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _audio() -> dict[str, Any]:
    layers = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    sizes = {"num_mel_bins": BANDS, "d_model": 16, "output_dim": WIDTH}
    return {**layers, **sizes, "initializer_range": 0.2}


def _vision(patch: int) -> dict[str, Any]:
    sizes = {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32}
    return {**sizes, "out_hidden_size": WIDTH, "patch_size": patch, "initializer_range": 0.2}


def write_base(kind: str, folder: Path) -> Path:
    """A thinker's directory, complete."""
    tokenizer = small_tokenizer(kind)
    small_thinker(kind, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_settings(kind, folder)
    return folder


def write_settings(kind: str, folder: Path) -> None:
    settings = {**SETTINGS, "patch_size": PATCH[kind]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def small_config(kind: str, base: Path | str = "base", **other: Any) -> dict[str, Any]:
    """Arguments of a configuration for clips of a few small frames."""
    unit = (2 * PATCH[kind]) ** 2
    sizes = {"max_pixels": 4 * unit, "min_pixels": unit, "max_frames": 8, "max_audio_s": 8.0}
    own = {"rank": 4, "alpha": 8, "fps": 2.0, "dtype": "float32"}
    return {"base": str(base), **own, **sizes, **other}


def small_model(base: Path, **other: Any) -> OmniModel:
    """A model with a fresh adapter that already does something."""
    kind = json.loads((base / "config.json").read_text())["model_type"]
    model = OmniModel.fresh(OmniConfig(**small_config(kind, base, **other)), base)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model.eval()


def clip_of(seed: int, seconds: int = 5, *, sound_of: int | None = None) -> Clip:
    """A frame at every half second; the sound may be another clip's."""
    made = small_clip(seed, seconds)
    times = np.arange(2 * seconds) / 2
    sound = small_clip(seed if sound_of is None else sound_of, seconds).sound_CS
    return replace(made, frame_times_s=times, sound_CS=sound)


def told_apart() -> list[Clip]:
    """Two clips of one picture: a tone and noise."""
    clip = clip_of(1, 1)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000, dtype=np.float32)
    return [clip, replace(clip, sound_CS=tone[None])]


def ask_pieces(model: OmniModel, *answers: str) -> list[Piece]:
    rows = [Question(question=f"{ASKED} {n}", steps="", answer=a) for n, a in enumerate(answers)]
    return question_pieces(model.chat, rows)


def plain_inputs(model: OmniModel, clip: OmniClip, more: list[int]) -> dict[str, Any]:
    """The arguments that transformers' own processor would give for one clip."""
    ids = torch.tensor([model.prefix(clip) + more])
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if clip.sound.mel_MF is not None:
        given["input_features"] = clip.sound.mel_MF[None]
        given["feature_attention_mask"] = torch.ones(1, clip.sound.mel_MF.shape[1]).long()
    if clip.picture.n:
        given["pixel_values_videos"] = clip.picture.patches_PD
        given["video_grid_thw"] = torch.tensor([clip.picture.grid])
        given["video_second_per_grid"] = torch.tensor([clip.picture.step_s])
    given["use_audio_in_video"] = bool(clip.sound.n and clip.picture.n)
    return given


def variants(model: OmniModel, seed: int = 1) -> list[OmniClip]:
    clip = clip_of(seed)
    return [model.prepare(one) for one in (clip, clip.muted(), clip.blanked())]
