"""A conversation of OpenAI's protocol becomes a question, its history and its media."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from avqa_llm.prompt import Turn
from avqa_llm.serving.contract import Ask
from avqa_llm.serving.refusals import Refusal
from avqa_llm.serving.schema import (
    AudioPart,
    ChatRequest,
    FilePart,
    InputAudioPart,
    Message,
    TextPart,
    VideoPart,
)
from avqa_llm.serving.settings import GatewaySettings

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "best_of": (1,),
    "audio": (),
}
"""Fields that would change what kind of answer is given, and values that ask for nothing."""
_HARMLESS = frozenset(
    "seed user store metadata service_tier safety_identifier prompt_cache_key presence_penalty "
    "frequency_penalty logit_bias parallel_tool_calls reasoning_effort verbosity".split()
)
"""Fields that a greedy answer does not depend on, or that clients send by habit."""


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A media file of a conversation, not yet fetched."""

    kind: str
    """`data` (base64), `file` (id of an upload) or `link`."""
    value: str
    modality: str
    where: str
    """For people: `messages.0.content.1`."""


@dataclass(frozen=True, kw_only=True)
class Talk:
    """A request that was understood."""

    ask: Ask
    """Without its media."""
    refs: tuple[Ref, ...]
    warnings: tuple[str, ...]


def understood(body: ChatRequest, settings: GatewaySettings) -> Talk:
    """What a request asks. Raises Refusal (400)."""
    _check_fields(body)
    warnings = _said_of(body, settings)
    _check_amount(body, settings)
    messages = [message for message in body.messages if message.role in ("user", "assistant")]
    if len(messages) < len(body.messages):
        warnings.append("System messages are not given to the model, which never learned from any.")
    if not messages or messages[-1].role != "user":
        raise _wrong("The last message must be the user's question.")
    history, question = _turns(messages, warnings)
    refs, fresh = _refs(body.messages)
    if len(refs) > settings.max_media:
        raise _wrong(
            f"The conversation has {len(refs)} media files, the limit is {settings.max_media}."
        )
    if fresh > 1:
        warnings.append("Several media files came with one message: the last one is asked about.")
    ask = replace(_options(body, settings), question=question, history=tuple(history))
    return Talk(ask=ask, refs=refs, warnings=tuple(warnings))


def _wrong(message: str, param: str = "messages") -> Refusal:
    return Refusal(400, message, code="invalid_request", param=param)


# -- fields ------------------------------------------------------------------------------------


def _check_fields(body: ChatRequest) -> None:
    extra = body.model_extra or {}
    for name, neutral in _NEUTRAL.items():
        if extra.get(name) is not None and extra[name] not in neutral:
            raise _wrong(f"{name} is not supported here: leave it away.", name)
    options = body.avqa
    offered = options.choices if options else None
    if offered and body.structured_outputs and offered != body.structured_outputs.choice:
        raise _wrong("avqa.choices and structured_outputs.choice differ: give one.", "avqa.choices")
    if options and options.open and (offered or body.structured_outputs):
        raise _wrong("An open answer has no choices: give avqa.open or choices.", "avqa.open")


def _said_of(body: ChatRequest, settings: GatewaySettings) -> list[str]:
    """Warnings about fields that are accepted and do less than they say."""
    said = []
    if body.temperature:
        said.append("Answers are greedy: temperature was not used.")
    if body.stop:
        said.append("stop is not supported: the answer ends where the model ends it.")
    wanted = body.max_completion_tokens or body.max_tokens
    if wanted is not None and wanted > settings.max_answer_tokens and _is_open(body):
        said.append(f"An answer has at most {settings.max_answer_tokens} tokens.")
    known = {*_NEUTRAL, *_HARMLESS}
    unknown = [name[:40] for name in body.model_extra or {} if name not in known]
    if unknown:
        names = ", ".join(_CONTROLS.sub(" ", name) for name in unknown[:10])
        said.append(f"Not used here: {names}.")
    return said


def _is_open(body: ChatRequest) -> bool:
    return body.avqa is not None and body.avqa.open


def _options(body: ChatRequest, settings: GatewaySettings) -> Ask:
    offered = (body.avqa and body.avqa.choices) or (
        body.structured_outputs and body.structured_outputs.choice
    )
    choices = tuple(dict.fromkeys(_clean(choice).strip() for choice in offered or ()))
    if "" in choices:
        raise _wrong("A choice is empty.", "avqa.choices")
    wanted = body.max_completion_tokens or body.max_tokens
    return Ask(
        model=body.model,
        question="",
        choices=choices,
        open_ended=_is_open(body),
        most_tokens=None if wanted is None else min(wanted, settings.max_answer_tokens),
        mute=body.avqa is not None and body.avqa.mute,
        blank=body.avqa is not None and body.avqa.blank,
        logprobs=max(1, body.top_logprobs or 0) if body.logprobs else 0,
    )


# -- messages ----------------------------------------------------------------------------------


def _check_amount(body: ChatRequest, settings: GatewaySettings) -> None:
    if len(body.messages) > settings.max_messages:
        raise _wrong(
            f"The conversation has {len(body.messages)} messages, the limit is "
            f"{settings.max_messages}: leave early ones away."
        )
    letters = sum(len(_words(message)) for message in body.messages)
    if letters > settings.max_text_chars:
        raise _wrong(
            f"The texts have {letters:,} characters, the limit is {settings.max_text_chars:,}."
        )


def _words(message: Message) -> str:
    if isinstance(message.content, str):
        return _clean(message.content)
    parts = message.content or []
    return "\n".join(_clean(part.text) for part in parts if isinstance(part, TextPart))


def _clean(text: str) -> str:
    """Without control characters, which could pass for marks of the prompt."""
    return _CONTROLS.sub(" ", text)


def _turns(messages: list[Message], warnings: list[str]) -> tuple[list[Turn], str]:
    """Earlier questions with their answers, and the question."""
    turns: list[Turn] = []
    asked: list[str] = []
    answered: list[str] = []
    for message in messages:
        words = _words(message).strip()
        if message.role == "user":
            if answered:
                turns.append(Turn(question="\n".join(asked), answer="\n".join(answered)))
                asked, answered = [], []
            asked += [words] if words else []
        else:
            answered.append(words)
    kept = [turn for turn in turns if turn.question and turn.answer]
    if len(kept) < len(turns):
        warnings.append("Earlier messages without a question or an answer were left out.")
    if not asked:
        raise _wrong("The last message has no text: ask something about the video.")
    return kept, "\n".join(asked)


def _refs(messages: list[Message]) -> tuple[tuple[Ref, ...], int]:
    """Media in their order, each once, and how many came with the last message that has any."""
    found: dict[tuple[str, str, str], Ref] = {}
    fresh = 0
    for number, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else []
        refs = [_ref(part, f"messages.{number}.content.{n}") for n, part in enumerate(parts)]
        media = [ref for ref in refs if ref is not None]
        if media and message.role != "user":
            raise _wrong(f"{media[0].where}: media come with messages of the user.")
        for ref in media:
            key = (ref.kind, ref.value, ref.modality)
            found.pop(key, None)  # named again: it moves to the end
            found[key] = ref
        fresh = len({(ref.kind, ref.value, ref.modality) for ref in media}) or fresh
    return tuple(found.values()), fresh


def _ref(part: Any, where: str) -> Ref | None:
    if isinstance(part, VideoPart):
        return _of_url(part.video_url.url, "video", where)
    if isinstance(part, AudioPart):
        return _of_url(part.audio_url.url, "audio", where)
    if isinstance(part, InputAudioPart):
        return Ref(kind="data", value=part.input_audio.data, modality="audio", where=where)
    if isinstance(part, FilePart):
        named = part.file.file_id if part.file else part.file_id
        if named is None:
            raise _wrong(f"{where}: a file part needs file.file_id.", where)
        return Ref(kind="file", value=named, modality="video", where=where)
    return None


def _of_url(url: str, modality: str, where: str) -> Ref:
    if url.startswith("file-"):
        return Ref(kind="file", value=url, modality=modality, where=where)
    if not url.startswith("data:"):
        if len(url) > 4096:
            raise _wrong(f"{where}: the link is longer than 4096 characters.", where)
        return Ref(kind="link", value=url, modality=modality, where=where)
    head, comma, payload = url.partition(",")
    if not comma or not head.endswith(";base64") or len(head) > 300:
        raise _wrong(f"{where}: a data: URL is data:TYPE;base64,DATA here.", where)
    return Ref(kind="data", value=payload, modality=modality, where=where)
