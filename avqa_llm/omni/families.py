"""What the omni models differ in: their classes, their special words, how they count and order.

Sound and picture of a clip are one span of the prompt. Its tokens are put in the order of time,
in pieces (Qwen2.5-Omni, section 2.2: chunks of two seconds, the picture first) or token by token
(Qwen3-Omni). The model's `get_rope_index` expects exactly these orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from avqa_llm.errors import CheckpointError

MARKS = ("audio_open", "audio", "audio_close", "video_open", "video", "video_close")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of omni model."""

    model: str
    """Class of the thinker in transformers."""
    words: tuple[str, ...]
    """Special words in the order of `MARKS`."""
    sound_tokens: Callable[[int, Any], int]
    """Frames of the spectrogram and the thinker's configuration to tokens."""
    order: Callable[[np.ndarray, int, Any], np.ndarray]
    """Times (V,) of picture tokens in positions, number of sound tokens and the configuration to
    the order of all: bool (V + A,), True where a picture token stands."""
    pads_sound: bool
    """Whether the sound was followed by silence before its spectrogram was taken."""


def qwen2_5_sound_tokens(frames: int, config: Any) -> int:
    """A convolution of stride 2, then means of pairs; what is left over is dropped."""
    return ((frames - 1) // 2 + 1) // 2


def qwen3_sound_tokens(frames: int, config: Any) -> int:
    """Three convolutions of stride 2 over windows, each window by itself."""
    window = 2 * config.audio_config.n_window
    whole, rest = divmod(frames, window)

    def halved(n: int) -> int:
        return -(-n // 2)

    def of(n: int) -> int:
        return halved(halved(halved(n)))

    return whole * of(window) + of(rest)


def qwen2_5_order(picture_times_V: np.ndarray, sound: int, config: Any) -> np.ndarray:
    """Spans of two seconds in turn, the picture of each before its sound."""
    step = int(config.position_id_per_seconds * config.seconds_per_chunk)
    picture, heard = _spans(picture_times_V, step), _spans(np.arange(sound), step)
    order: list[bool] = []
    for n in range(max(len(picture), len(heard))):
        for spans, is_picture in ((picture, True), (heard, False)):
            order += [is_picture] * (spans[n] if n < len(spans) else 0)
    return np.array(order, dtype=bool)


def _spans(times: np.ndarray, step: int) -> list[int]:
    """Sizes of spans; each begins where a time passes the next multiple of `step`."""
    starts, limit = [0], step
    for n, time in enumerate(times):
        if time >= limit:
            starts.append(n)
            limit += step
    return [end - start for start, end in pairwise([*starts, len(times)])]


def qwen3_order(picture_times_V: np.ndarray, sound: int, config: Any) -> np.ndarray:
    """By time; at the same time the picture first."""
    times = np.concatenate([picture_times_V, np.arange(sound)])
    is_picture = np.arange(len(times)) < len(picture_times_V)
    ordered: np.ndarray = is_picture[np.argsort(times, kind="stable")]
    return ordered


_QWEN2_5 = Family(
    model="Qwen2_5OmniThinkerForConditionalGeneration",
    words=(
        *("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
        *("<|vision_bos|>", "<|VIDEO|>", "<|vision_eos|>"),
    ),
    sound_tokens=qwen2_5_sound_tokens,
    order=qwen2_5_order,
    pads_sound=True,
)
_QWEN3 = Family(
    model="Qwen3OmniMoeThinkerForConditionalGeneration",
    words=(
        *("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"),
        *("<|vision_start|>", "<|video_pad|>", "<|vision_end|>"),
    ),
    sound_tokens=qwen3_sound_tokens,
    order=qwen3_order,
    pads_sound=False,
)
FAMILIES: dict[str, Family] = {
    "qwen2_5_omni": _QWEN2_5,
    "qwen2_5_omni_thinker": _QWEN2_5,
    "qwen3_omni_moe": _QWEN3,
    "qwen3_omni_moe_thinker": _QWEN3,
}
"""By the `model_type` of a checkpoint: a whole model's, or its thinker's alone."""


def find_family(model_type: str, source: str) -> Family:
    """The family of a checkpoint.

    Raises:
        CheckpointError: it is none of them; names those that are known.
    """
    if model_type not in FAMILIES:
        raise CheckpointError(f"{source} is a {model_type!r}; omni bases are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def find_marks(family: Family, tokenizer: Any, config: Any) -> dict[str, int]:
    """Ids of the special words, by the names in `MARKS`.

    Raises:
        CheckpointError: the tokenizer lacks one, or it is not the one that the model knows.
    """
    known = tokenizer.get_vocab()
    if missing := [word for word in family.words if word not in known]:
        raise CheckpointError(f"the tokenizer lacks {missing[0]}: it belongs to another model")
    marks = dict(zip(MARKS, (known[word] for word in family.words), strict=True))
    wanted = {
        "audio": "audio_token_id",
        "video": "video_token_id",
        "audio_open": "audio_start_token_id",
        "video_open": "vision_start_token_id",
    }
    for name, key in wanted.items():
        if getattr(config, key, None) != marks[name]:
            raise CheckpointError(
                f"the tokenizer's {name} is {marks[name]}, the model's {key} is"
                f" {getattr(config, key, None)}: they do not belong together"
            )
    return marks
