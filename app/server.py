"""A service over any model behind an OpenAI-compatible server: vLLM, SGLang, OpenAI itself.

The clip goes there as frames and sound, each as parts of their own. That they were sent does not
prove that the model took them, so nothing is said about what was heard and seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from avqa_llm.answer import Answer
from avqa_llm.errors import AVQAError, CheckpointError, MediaError
from avqa_llm.folders import sha256_of
from avqa_llm.labels import to_label
from avqa_llm.media import MediaLimits
from avqa_llm.media.parts import Parts, encode
from avqa_llm.serving.contract import (
    Ask,
    Delta,
    Done,
    Event,
    ModelInfo,
    RetryableError,
    Started,
    UnknownModelError,
)
from avqa_llm.serving.kept import Flights, Kept
from avqa_llm.serving.omni_service import sent_clip
from avqa_llm.serving.service import no_clip

MOST_TOKENS = 256
MOST_KEPT, KEPT_BYTES = 32, 2**28
UNKNOWN = "The server does not say what it took of the sound and of the picture."


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A clip as it is sent."""

    parts: Parts
    warnings: tuple[str, ...]


class ServerService:
    """Implements `avqa_llm.serving.contract.Service` with one model of a server."""

    def __init__(
        self, name: str, *, base_url: str, key_env: str, limits: MediaLimits, deadline_s: float
    ) -> None:
        """Describe a server; nothing is sent before the first question.

        Raises:
            AVQAError: the address is none, or the client is not installed.
        """
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise AVQAError(f"--base-url {base_url!r}: give an address such as http://HOST:8000/v1")
        try:
            import openai
        except ImportError as error:
            raise AVQAError(
                "models behind a server need the openai client: pip install 'openai>=2'"
            ) from error
        self.host = address.hostname
        self._limits = limits
        key = os.environ.get(key_env, "").strip() or "none"
        self._openai = openai
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key, timeout=deadline_s, max_retries=1
        )
        told = {"modalities": ["sound", "picture"], "open_ended": True, "native": True}
        self._info = ModelInfo(name=name, created=int(time.time()), about=told)
        self._kept: Kept[_Sent] = Kept(most=MOST_KEPT, most_bytes=KEPT_BYTES)
        self._flights: Flights[_Sent] = Flights()

    # -- what is served ------------------------------------------------------------------------

    def models(self) -> Sequence[ModelInfo]:
        """The one model."""
        return [self._info]

    async def add_adapter(self, name: str, folder: Path) -> ModelInfo:
        """Refuse. Raises CheckpointError."""
        raise CheckpointError(f"{self._info.name} is behind a server, which takes no adapters here")

    async def remove_adapter(self, name: str) -> None:
        """There is none. Raises UnknownModelError."""
        raise UnknownModelError(f"no adapter named {name!r} is served")

    def health(self) -> dict[str, Any]:
        """It is asked when somebody asks."""
        return {"status": "ok", "why": "", "engine": self.host, "models": [self._info.name]}

    def counters(self) -> dict[str, float]:
        """Nothing is counted here."""
        return {}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # -- answers -------------------------------------------------------------------------------

    async def prepare(self, ask: Ask) -> None:
        """Decode and pack the clip of a question that will come."""
        if ask.media:
            await self._sent(ask)

    async def answer(self, ask: Ask) -> AsyncIterator[Event]:
        """One `Started`, any number of `Delta`, one `Done`; see `Service`."""
        if ask.model != self._info.name:
            raise UnknownModelError(f"model {ask.model!r} is not served; {self._info.name} is")
        if not ask.media:
            for event in no_clip():
                yield event
            return
        sent = await self._sent(ask)
        async with contextlib.aclosing(self._talked(ask, sent)) as events:
            async for event in events:
                yield event

    async def _talked(self, ask: Ask, sent: _Sent) -> AsyncGenerator[Event, None]:
        started, said, finish = time.perf_counter(), [], "stop"
        yield Started(consumed=None, prompt_tokens=0, warnings=sent.warnings)
        try:
            stream = await self._client.chat.completions.create(**self._body(ask, sent.parts))
            async for chunk in stream:
                choice = chunk.choices[0] if chunk.choices else None
                if choice is None:
                    continue
                finish = choice.finish_reason or finish
                if text := choice.delta.content or "":
                    said.append(text)
                    yield Delta(text=text)
        except Exception as error:
            raise self._told(error) from error
        text, warnings = "".join(said).strip(), sent.warnings
        if finish == "length":
            warnings += (f"The answer was cut off after {MOST_TOKENS} tokens.",)
        answer = Answer(
            answer=text or "(the server said nothing)",
            label=to_label(text),
            probability=None,
            consumed=None,
            warnings=warnings,
            timing_s={"answer": round(time.perf_counter() - started, 4)},
        )
        yield Done(answer=answer, completion_tokens=len(said), finish_reason=finish)

    def _body(self, ask: Ask, parts: Parts) -> dict[str, Any]:
        """The clip first, then what was said, so that the prefix stays the same."""
        first: list[dict[str, Any]] = [*parts.content()]
        messages: list[dict[str, Any]] = []
        for turn in ask.history:
            messages.append({"role": "user", "content": [*first, _text(turn.question)]})
            messages.append({"role": "assistant", "content": turn.answer})
            first = []
        messages.append({"role": "user", "content": [*first, _text(ask.question)]})
        limit = min(ask.most_tokens or MOST_TOKENS, MOST_TOKENS)
        return {
            "model": self._info.name,
            "messages": messages,
            "stream": True,
            "max_completion_tokens": limit,
        }

    def _told(self, error: Exception) -> AVQAError:
        """What went wrong, in a sentence. Anything unknown is raised as it is."""
        if isinstance(error, self._openai.APIStatusError):
            said = " ".join(str(error.message).split())[:200]
            return AVQAError(
                f"the server at {self.host} refused the question ({error.status_code}): {said}"
            )
        away = (self._openai.APIConnectionError, asyncio.TimeoutError, TimeoutError)
        if isinstance(error, away):
            return RetryableError(
                f"the server at {self.host} did not answer; see whether it runs, and ask again"
            )
        raise error

    # -- clips ---------------------------------------------------------------------------------

    async def _sent(self, ask: Ask) -> _Sent:
        path = ask.media[-1].path
        try:
            sha256 = await asyncio.to_thread(sha256_of, path)
        except OSError as error:
            raise MediaError("the file is not there any more; send it again") from error
        key = (sha256, ask.cut, ask.mute, ask.blank)
        if (known := self._kept.get(key)) is not None:
            return known
        found = await self._flights.once(key, partial(asyncio.to_thread, self._packed, path, ask))
        self._kept.put(key, found, len(repr(found.parts.content())))
        return found

    def _packed(self, path: Path, ask: Ask) -> _Sent:
        clip = sent_clip(path, ask.cut, limits=self._limits)
        clip = clip.muted() if ask.mute and clip.has_sound else clip
        clip = clip.blanked() if ask.blank and clip.has_picture else clip
        parts = encode(clip, picture="images")
        if not parts.sent:
            raise MediaError("neither sound nor picture is left of the clip: ask about more of it")
        missing = [name for name in ("sound", "picture") if name not in parts.sent]
        warnings = [f"There was no {name} to send." for name in missing]
        notes = [f"About the file: {note}." for note in clip.notes]
        return _Sent(parts=parts, warnings=(UNKNOWN, *warnings, *notes))


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
