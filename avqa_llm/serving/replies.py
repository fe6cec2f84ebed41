"""An answer in OpenAI's words: whole, or as chunks of a stream."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from avqa_llm.answer import Answer
from avqa_llm.serving.contract import Delta, Done, Started, Token
from avqa_llm.serving.schema import (
    ChatReply,
    ChatRequest,
    Choice,
    Logprobs,
    Said,
    TokenLogprob,
    Usage,
)

_WHOLE = "The answer was chosen as a whole: its log-probability is that of the whole."
END = b"data: [DONE]\n\n"


@dataclass(kw_only=True)
class Reply:
    """What is known of an answer so far, and how it is told."""

    body: ChatRequest
    warnings: tuple[str, ...]
    """The gateway's own."""
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    started: Started | None = None
    sent: str = ""
    tokens: list[Token] = field(default_factory=list)

    def begin(self, started: Started) -> None:
        """The prompt stands."""
        self.started = started

    def add(self, delta: Delta) -> None:
        """The answer goes on."""
        self.sent += delta.text
        self.tokens += delta.tokens

    # -- whole -----------------------------------------------------------------------------

    def whole(self, done: Done) -> ChatReply:
        """The reply of a request that does not stream."""
        return ChatReply(
            id=self.id,
            created=self.created,
            model=self.body.model,
            choices=[
                Choice(
                    message=Said(content=done.answer.answer),
                    logprobs=self._logprobs(self.tokens, done.answer),
                    finish_reason=done.finish_reason,
                )
            ],
            usage=self._usage(done),
            avqa=self._about(done.answer),
        )

    # -- in chunks -------------------------------------------------------------------------

    def first(self) -> bytes:
        """The first chunk: what reached the model, and what a reader has to know."""
        assert self.started is not None
        consumed = self.started.consumed
        about = {
            "consumed": None if consumed is None else asdict(consumed),
            "warnings": _once(self.warnings, self.started.warnings),
        }
        return self._chunk({"role": "assistant", "content": ""}, avqa=about)

    def more(self, delta: Delta) -> bytes:
        """A chunk with a piece of the answer."""
        logprobs = self._logprobs(delta.tokens, None) if delta.tokens else None
        return self._chunk(
            {"content": delta.text}, logprobs=logprobs.model_dump() if logprobs else None
        )

    def last(self, done: Done) -> Iterator[bytes]:
        """The chunks that end a stream: the rest of the answer, what it rests on, the usage."""
        text = done.answer.answer
        rest = text[len(self.sent) :] if text.startswith(self.sent) else ""
        if rest:
            yield self._chunk({"content": rest})
        whole = None if self.tokens else self._logprobs((), done.answer)
        yield self._chunk(
            {},
            finish=done.finish_reason,
            logprobs=whole.model_dump() if whole else None,
            avqa=self._about(done.answer),
        )
        if self._wants_usage:
            yield self._event(choices=[], usage=self._usage(done).model_dump())
        yield END

    @property
    def _wants_usage(self) -> bool:
        options = self.body.stream_options
        return bool(options and options.include_usage)

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **more: Any,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        if self._wants_usage:
            more["usage"] = None
        return self._event(choices=[choice], **more)

    def _event(self, **more: Any) -> bytes:
        return event(
            {
                "id": self.id,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": self.body.model,
                **more,
            }
        )

    # -- parts -----------------------------------------------------------------------------

    def _usage(self, done: Done) -> Usage:
        asked = self.started.prompt_tokens if self.started else 0
        consumed = done.answer.consumed
        details = None if consumed is None else {"audio_tokens": consumed.sound_tokens}
        return Usage(
            prompt_tokens=asked,
            completion_tokens=done.completion_tokens,
            total_tokens=asked + done.completion_tokens,
            prompt_tokens_details=details,
        )

    def _about(self, answer: Answer) -> dict[str, Any]:
        found = answer.to_json()
        found.pop("signs")
        found["timings"] = found.pop("timing_s")
        whole = (_WHOLE,) if self.body.logprobs and not self.tokens else ()
        early = self.started.warnings if self.started else ()
        found["warnings"] = _once(self.warnings, early, answer.warnings, whole)
        return finite(found)

    def _logprobs(self, tokens: Sequence[Token], answer: Answer | None) -> Logprobs | None:
        if not self.body.logprobs:
            return None
        most = self.body.top_logprobs or 0
        if tokens or answer is None or answer.probability is None:
            return Logprobs(content=[_token(t.text, t.logprob, t.top, most) for t in tokens])
        others = [(other.label, _log(other.probability)) for other in answer.alternatives]
        own = (answer.answer, _log(answer.probability))
        return Logprobs(content=[_token(*own, [own, *others], most)])


def event(value: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(finite(value), separators=(",", ":")).encode() + b"\n\n"


def finite(value: Any) -> Any:
    """The same without numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def _token(text: str, logprob: float, top: Iterable[tuple[str, float]], most: int) -> TokenLogprob:
    return TokenLogprob(
        token=text,
        logprob=_bounded(logprob),
        bytes=list(text.encode("utf-8", "replace")),
        top_logprobs=[
            {
                "token": other,
                "logprob": _bounded(chance),
                "bytes": list(other.encode("utf-8", "replace")),
            }
            for other, chance in list(top)[:most]
        ],
    )


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -9999.0


def _bounded(logprob: float) -> float:
    """OpenAI's own word for what cannot be is -9999."""
    return max(logprob, -9999.0) if not math.isnan(logprob) else -9999.0


def _once(*groups: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for group in groups for text in group))
