"""What a chat completion says: the text, its probability, and what was counted of the prompt.

Servers agree on little: a field that is missing, or of another type, counts as not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KINDS = {"sound": ("audio",), "picture": ("video", "image")}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is read from one reply."""

    text: str
    probability: float | None
    """Of the text, the product over its tokens; None where the server does not say."""
    finish: str
    """Why the text ends: `stop`, `length`, ...; may be empty."""
    prompt_tokens: int | None
    told: Mapping[str, int]
    """Tokens of `sound` and `picture`, where the server counts them by themselves; else 0."""
    seconds: float = 0.0


def read_reply(raw: Mapping[str, Any]) -> Reply:
    """Read the body of a reply that has `choices`."""
    choices, usage = _field(raw.get("choices"), list), _field(raw.get("usage"), dict)
    choice = _field(choices[0] if choices else None, dict)
    message = _field(choice.get("message"), dict)
    text = message.get("content") or message.get("refusal") or ""
    if isinstance(text, list):
        text = "".join(str(_field(part, dict).get("text") or "") for part in text)
    return Reply(
        text=str(text),
        probability=_probability(choice, str(text).strip()),
        finish=str(choice.get("finish_reason") or ""),
        prompt_tokens=_count(usage.get("prompt_tokens")) or None,
        told=_told(_field(usage.get("prompt_tokens_details"), dict)),
    )


def _told(details: Mapping[str, Any]) -> dict[str, int]:
    """Tokens by modality.

    `audio_tokens` is OpenAI's; SGLang and vLLM at first had `video_tokens` and `image_tokens`
    beside it; vLLM since then has `multimodal_tokens: {"audio": ..., "video": ...}`.
    """
    nested = _field(details.get("multimodal_tokens"), dict)
    return {
        name: sum(
            _count(nested.get(kind)) or _count(details.get(f"{kind}_tokens")) for kind in kinds
        )
        for name, kinds in _KINDS.items()
    }


def _probability(choice: Mapping[str, Any], text: str) -> float | None:
    """Product over the tokens up to the end of the text; what ends the answer is not part of it.

    None where the tokens do not spell the text, or where thoughts come before it.
    """
    message = _field(choice.get("message"), dict)
    if not text or message.get("reasoning_content") or message.get("reasoning"):
        return None
    total, spelled = 0.0, ""
    for entry in _field(_field(choice.get("logprobs"), dict).get("content"), list):
        entry = _field(entry, dict)
        value = entry.get("logprob")
        if not isinstance(value, (int, float)) or math.isnan(value):
            return None
        total += value
        spelled += str(entry.get("token") or "")
        if text in spelled:
            return math.exp(min(total, 0.0))
    return None


def _field(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else kind()


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
