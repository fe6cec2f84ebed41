"""Miniature models and clips for the tests of the model: real classes, random weights.

Legend: T frames, C channels, S samples, L tokens, E width of the language model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avqa_llm.bridge import BridgeConfig, ClipKeys
from avqa_llm.encoders import PictureConfig, PictureEncoder, SoundConfig, SoundEncoder, Tokens
from avqa_llm.labels import LABELS
from avqa_llm.media import Clip
from avqa_llm.model import AVQAModel, ClipTokens, LoraSettings, ModelConfig
from avqa_llm.prompt import CLUE, PICTURE, SOUND, Prompt, spoken
from avqa_llm.tokenizer import train_tokenizer
from tests.miniatures import picture_model, sound_model

HIDDEN = 32
QUESTIONS = ("How many violins sound?", "Is the piano louder than the drum?", "Where is the tuba?")
TEXTS = (
    *QUESTIONS,
    *(spoken(label) for label in LABELS),
    "Sound: Picture: Events: Clues: Question: Answer: piano l2 s3 e9; drum r1 s0 e4 :",
)
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}</s>"
    "{% else %}<|bot|>{{ m['content'] }}</s>{% endif %}{% endfor %}"
)
"""A chat template like most: marks of the turns are special tokens, EOS ends each turn."""
FAMILIES = {
    "llama-vit-vit": ("llama", "vit", "vit"),
    "qwen2-siglip-ast": ("qwen2", "siglip", "audio-spectrogram-transformer"),
}
"""Two of each: language model, picture, sound."""
FAMILY_SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": HIDDEN // 4},
    "gemma3_text": {"head_dim": HIDDEN // 4, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "mistral": {"sliding_window": None},
}
"""What else a language model of this kind is told, to be this small."""
LORA = LoraSettings(rank=4, alpha=8)
BRIDGE = BridgeConfig(width=32, heads=2, clue_layers=2, clues=3)


@lru_cache(maxsize=2)
def small_tokenizer(*, chat: bool = False) -> Any:
    tokenizer = train_tokenizer(TEXTS, vocab_size=700, whole=[w for t in TEXTS for w in t.split()])
    if chat:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def small_llm(
    family: str, *, seed: int = 0, vocab_size: int | None = None, hidden: int = HIDDEN
) -> Any:
    """A causal language model with weights large enough that its logits differ clearly."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = small_tokenizer()
    extra = FAMILY_SHAPES.get(family, {})
    config = CONFIG_MAPPING[family](
        vocab_size=vocab_size or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=family == "llama",
        attn_implementation="eager",
        **extra,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def small_picture(family: str) -> tuple[PictureConfig, Any]:
    """A vision model: `vit` reads frame pairs as six channels, the others one after another."""
    if family == "vit":
        shape: dict[str, Any] = {"image_size": (24, 48), "num_channels": 6}
        config = PictureConfig(source="picture", motion="stack", grid=(2, 4))
        return config, picture_model("vit", initializer_range=0.2, **shape)
    config = PictureConfig(source="picture", motion="difference", grid=(2, 2))
    return config, picture_model(family).vision_model


def small_sound(family: str) -> tuple[SoundConfig, Any]:
    """An audio model; its windows have their real length."""
    return SoundConfig(source="sound", tokens_per_s=4.0), sound_model(family)


def small_config(picture: PictureConfig, sound: SoundConfig) -> ModelConfig:
    return ModelConfig(picture=picture, sound=sound, bridge=BRIDGE, llm="llm", lora=LORA)


def write_parts(folder: Path, name: str) -> ModelConfig:
    """Write the frozen parts of a model as directories that `AVQAModel.fresh` finds."""
    llm_family, picture_family, sound_family = FAMILIES[name]
    picture_config, picture = small_picture(picture_family)
    sound_config, sound = small_sound(sound_family)
    llm = small_llm(llm_family)
    for part, model in (("picture", picture), ("sound", sound), ("llm", llm)):
        model.save_pretrained(folder / part)
    small_tokenizer().save_pretrained(folder / "llm")
    return small_config(picture_config, sound_config)


def small_model(name: str = "llama-vit-vit", *, chat: bool = False) -> AVQAModel:
    """A whole model in memory, in which LoRA already does something."""
    from peft import LoraConfig, get_peft_model

    llm_family, picture_family, sound_family = FAMILIES[name]
    picture_config, picture = small_picture(picture_family)
    sound_config, sound = small_sound(sound_family)
    tokenizer = small_tokenizer(chat=chat)
    base = small_llm(llm_family, vocab_size=len(tokenizer)).requires_grad_(False)
    lora = LoraConfig(
        r=LORA.rank, lora_alpha=LORA.alpha, target_modules=list(LORA.targets), task_type="CAUSAL_LM"
    )
    torch.manual_seed(3)
    model = AVQAModel(
        small_config(picture_config, sound_config),
        picture=PictureEncoder(picture_config, picture),
        sound=SoundEncoder(sound_config, sound),
        llm=get_peft_model(base, lora),
        tokenizer=tokenizer,
    )
    stir(model)
    return model.eval()


def stir(model: AVQAModel) -> None:
    """Move the new weights away from their start, where LoRA changes nothing."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        for parameter in model.bridge.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def small_clip(seed: int, seconds: int = 3, *, pairs: bool = True) -> Clip:
    """Noise with a slow change, frames at the times that the picture encoders ask for."""
    rng = np.random.default_rng(seed)
    starts = np.arange(seconds) + 0.4
    times = np.stack([starts, starts + 0.2], 1).ravel() if pairs else starts
    frames = rng.integers(0, 256, (len(times), 24, 48, 3), dtype=np.uint8)
    loudness = np.repeat(rng.uniform(0.02, 0.5, seconds * 4), 4000)
    sound = (rng.standard_normal((2, seconds * 16000)) * loudness).astype(np.float32)
    return Clip(
        path="clip.mp4",
        sha256=f"{seed:064x}",
        duration_s=float(seconds),
        frames_THWC=frames,
        frame_times_s=times,
        sound_CS=sound.clip(-1, 1),
        sound_rate_hz=16000,
        sound_span_s=(0.0, float(seconds)),
        picture_span_s=(0.0, float(seconds)),
    )


def backwards(tokens: ClipTokens) -> ClipTokens:
    """The clip with its moments in the opposite order; what is in a moment stays as it is."""

    def turned(one: Tokens) -> Tokens:
        moments = torch.unique(one.times_N)
        parts = [one.values_ND[one.times_N == time] for time in moments.flip(0)]
        return replace(one, values_ND=torch.cat(parts))

    return replace(tokens, sound=turned(tokens.sound), picture=turned(tokens.picture))


def ask_keys(model: AVQAModel, keys: ClipKeys, questions: list[str]) -> tuple[Tensor, Tensor]:
    """Clues (B, 2 C, E) of questions, and which of them exist."""
    soft, exists, _ = model.clues(keys, [model.prompt.text(q) for q in questions])
    return soft, exists


def last_logits(model: AVQAModel, clip: ClipTokens, question: str) -> Tensor:
    """Logits (V,) of the first word of an answer, by one plain pass over the whole prompt."""
    keys = model.keys([clip])
    soft, exists = ask_keys(model, keys, [question])
    ids = prompt_ids(model.prompt, keys, exists[0], question)
    counted = {
        SOUND: (keys.sound_BQE, keys.sound_there_BQ),
        PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
        CLUE: (soft, exists),
    }
    embeds = model.place(torch.tensor([ids]), counted)
    return model.llm(inputs_embeds=embeds).logits[0, -1].float()


def prompt_ids(prompt: Prompt, keys: ClipKeys, exists_C: Tensor, question: str) -> list[int]:
    """A clip without a record, and a question about it."""
    counts = int(keys.sound_there_BQ[0].sum()), int(keys.picture_there_BQ[0].sum())
    return prompt.clip(*counts) + prompt.question(question, int(exists_C.sum()))
