"""A service over an omni model of the hub, which hears and sees by itself in a stock vLLM.

The gateway's side decodes and sends picture and sound as separate parts, for whether a server that
is given a video hears it cannot be seen from outside. That a part was sent proves nothing either
(https://github.com/vllm-project/vllm/issues/47788): each clip is first counted with both parts,
without its sound and without its picture, and what its prompt does not grow by was not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from avqa_llm.answer import Answer, Consumed
from avqa_llm.errors import AVQAError, CheckpointError, MediaError
from avqa_llm.folders import sha256_of
from avqa_llm.labels import LABELS, to_label
from avqa_llm.media import Clip, MediaLimits, Uniform, read_clip
from avqa_llm.media.changes import Cut, changed
from avqa_llm.media.parts import Parts, encode
from avqa_llm.prompt import spoken
from avqa_llm.serving.contract import (
    Ask,
    Attached,
    Delta,
    Done,
    Event,
    ModelInfo,
    RetryableError,
    Started,
    Token,
    UnknownModelError,
)
from avqa_llm.serving.counters import Counts
from avqa_llm.serving.kept import Flights, Kept
from avqa_llm.serving.service import ServiceSettings, no_clip

T = TypeVar("T")
FRAMES, MAX_SIDE = 16, 448
"""Of a clip, from the centres of as many equal spans; pixels of a frame's longer side."""
DENSER = 4
"""How many times as many are read where only a part of the clip is wanted."""
FEWEST_TOKENS = 8
"""A part that adds fewer was not consumed: a chat template may leave marks where it drops one."""
OPEN_TOKENS, CLOSED_TOKENS = 256, 32


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A clip as it is sent, and by how many tokens each part makes the prompt longer."""

    parts: Parts
    consumed: Consumed
    warnings: tuple[str, ...]
    seconds: float
    """Of decoding and counting."""

    @property
    def bytes(self) -> int:
        """What it takes of memory."""
        return len(repr(self.parts.content()))


class OmniService:
    """Implements `avqa_llm.serving.contract.Service` with one model and no adapters."""

    def __init__(
        self,
        client: Any,
        *,
        name: str,
        process: Any = None,
        settings: ServiceSettings | None = None,
    ) -> None:
        """Take a server over, that runs.

        Args:
            client: a `VLLMClient` of the server.
            name: of the model, here and there.
            process: the `VLLMProcess` behind it, which is stopped in the end; None: not ours.
            settings: the bounds; of readings, they bound clips that are ready to be sent.
        """
        settings = settings or ServiceSettings()
        self._client, self._process, self.settings = client, process, settings
        about = {"modalities": ["sound", "picture"], "open_ended": True, "native": True}
        self._info = ModelInfo(name=name, created=int(time.time()), about=about)
        self._counts = Counts()
        self._pool = ThreadPoolExecutor(settings.most_in_flight, thread_name_prefix="omni")
        self._decoders = asyncio.Semaphore(settings.decoders)
        self._kept: Kept[Counted] = Kept(
            most=settings.most_readings, most_bytes=settings.reading_bytes
        )
        self._flights: Flights[Counted] = Flights()
        self._in_flight, self._is_closing = 0, False

    # -- what is served ------------------------------------------------------------------------

    def models(self) -> Sequence[ModelInfo]:
        """The one model."""
        return [self._info]

    async def add_adapter(self, name: str, folder: Path) -> ModelInfo:
        """Refuse. Raises CheckpointError."""
        raise CheckpointError(
            f"{self._info.name} is an omni model served natively, which takes no adapters of ours;"
            " serve the model directory that they were trained for"
        )

    async def remove_adapter(self, name: str) -> None:
        """There is none. Raises UnknownModelError."""
        raise UnknownModelError(f"no adapter named {name!r} is served")

    def health(self) -> dict[str, Any]:
        """As `AVQAService.health`."""
        state, why = self._state()
        names = [self._info.name]
        here = {"engine": "vllm (native)", "models": names, "in_flight": self._in_flight}
        return {"status": state, "why": why, **here}

    def _state(self) -> tuple[str, str]:
        if self._is_closing:
            return "degraded", "the service is shutting down"
        state = "ok" if self._process is None else self._process.state
        kind = {"ok": "ok", "starting": "starting"}.get(state, "degraded")
        return kind, "" if kind == "ok" else f"vLLM is {state}: {self._process.why}"

    def counters(self) -> dict[str, float]:
        """Figures by the names of `avqa_llm.serving.counters`."""
        return self._counts.all(
            engine_restarts=0 if self._process is None else self._process.restarts,
            readings_evicted=self._kept.evicted,
            in_flight_now=self._in_flight,
            readings_now=len(self._kept),
            reading_bytes_now=self._kept.bytes,
            models_now=1,
        )

    async def close(self) -> None:
        """Take no more questions; stop the server if it is ours."""
        self._is_closing = True
        ends = time.monotonic() + 60
        while self._in_flight and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        stop = self._client.close if self._process is None else self._process.stop
        await asyncio.to_thread(stop)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- answers -----------------------------------------------------------------------------

    async def answer(self, ask: Ask) -> AsyncIterator[Event]:
        """One `Started`, any number of `Delta`, one `Done`; see `Service`."""
        if ask.model != self._info.name:
            raise UnknownModelError(f"model {ask.model!r} is not served; {self._info.name} is")
        state, why = self._state()
        if state != "ok":
            raise RetryableError(f"{why}; ask again later", after_s=5)
        if self._in_flight >= self.settings.most_in_flight:
            self._counts.add("answers_refused")
            raise RetryableError("too many questions are being answered; ask again later")
        self._in_flight += 1
        try:
            with self._counts.outcome():
                async with contextlib.aclosing(self._events(ask)) as events:
                    async for event in events:
                        yield event
        finally:
            self._in_flight -= 1

    async def prepare(self, ask: Ask) -> None:
        """Decode and count the clip of a question that will come; see `Service`."""
        if ask.model != self._info.name:
            raise UnknownModelError(f"model {ask.model!r} is not served; {self._info.name} is")
        await self._counted(ask)

    async def _events(self, ask: Ask) -> AsyncGenerator[Event, None]:
        if not ask.media:
            for event in no_clip():
                yield event
            return
        clip = await self._counted(ask)
        self._counts.add("sound_tokens", clip.consumed.sound_tokens)
        self._counts.add("picture_tokens", clip.consumed.picture_tokens)
        self._counts.add("answers_without_sound", int(not clip.consumed.sound))
        body = self._body(clip.parts.content(), ask)
        listener = _Listener(ask)
        started = time.perf_counter()
        async for row in self._streamed(body):
            if not listener.prompt_tokens and listener.heard_usage(row):
                self._counts.add("prompt_tokens", listener.prompt_tokens)
                yield Started(
                    consumed=clip.consumed,
                    prompt_tokens=listener.prompt_tokens,
                    warnings=clip.warnings,
                )
            if (delta := listener.heard(row)) is not None:
                yield delta
        self._counts.add("completion_tokens", listener.tokens)
        yield listener.done(clip, time.perf_counter() - started)

    def _body(self, content: Sequence[dict[str, Any]], ask: Ask) -> dict[str, Any]:
        """A request: the clip first, then what was said, so that the prefix stays the same."""
        first: list[dict[str, Any]] = [*content]
        messages: list[dict[str, Any]] = []
        for turn in ask.history:
            messages.append({"role": "user", "content": [*first, _text(turn.question)]})
            messages.append({"role": "assistant", "content": turn.answer})
            first = []
        messages.append({"role": "user", "content": [*first, _text(ask.question)]})
        body: dict[str, Any] = {
            "model": self._info.name,
            "messages": messages,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": ask.logprobs,
            "max_tokens": CLOSED_TOKENS,
        }
        if ask.open_ended:
            body["max_tokens"] = ask.most_tokens or OPEN_TOKENS
        else:
            choices = list(ask.choices) or [spoken(label) for label in LABELS]
            body["structured_outputs"] = {"choice": choices}
        return body

    # -- what is heard -------------------------------------------------------------------------

    async def _counted(self, ask: Ask) -> Counted:
        media = ask.media[-1]
        sha256 = await self._in_thread(partial(_hash, media.path))
        gone = (ask.mute, ask.blank or media.modality == "audio")
        key = (sha256, ask.cut, *gone)
        if (known := self._kept.get(key)) is not None:
            self._counts.add("reading_hits")
            return known
        self._counts.add("reading_joins" if key in self._flights else "reading_misses")
        return await self._flights.once(key, partial(self._count, media, ask.cut, gone, key))

    async def _count(self, media: Attached, cut: Cut, gone: tuple[bool, bool], key: Any) -> Counted:
        started = time.perf_counter()
        async with self._decoders:
            parts, notes = await self._in_thread(partial(self._decoded, media.path, cut, gone))
        self._counts.add("clips_decoded")
        if not parts.sent:
            raise MediaError(
                "of what was asked about, nothing could be decoded"
                f" ({'; '.join(notes) or 'there is neither sound nor picture'})"
            )
        asked = [parts.content(), *(parts.content(without=name) for name in parts.sent)]
        sizes = await asyncio.gather(
            *(self._in_thread(partial(self._size, content)) for content in asked)
        )
        grown = {
            name: max(0, sizes[0] - rest) for name, rest in zip(parts.sent, sizes[1:], strict=True)
        }
        found = Counted(
            parts=parts,
            consumed=consumed_of(grown),
            warnings=(*dropped(parts, grown), *(f"About the file: {note}." for note in notes)),
            seconds=time.perf_counter() - started,
        )
        self._kept.put(key, found, found.bytes)
        return found

    def _decoded(
        self, path: Path, cut: Cut, gone: tuple[bool, bool]
    ) -> tuple[Parts, tuple[str, ...]]:
        clip = sent_clip(path, cut, limits=self.settings.limits)
        clip = clip.muted() if gone[0] else clip
        clip = clip.blanked() if gone[1] else clip
        return encode(clip), clip.notes

    def _size(self, content: Sequence[dict[str, Any]]) -> int:
        """Tokens of a prompt with so much of a clip."""
        message = {"role": "user", "content": [*content, _text("What is this?")]}
        row = self._client.chat(
            {"model": self._info.name, "messages": [message], "temperature": 0, "max_tokens": 1}
        )
        count = (row.get("usage") or {}).get("prompt_tokens")
        if not isinstance(count, int):
            raise AVQAError("vLLM does not count the tokens of prompts: hearing cannot be proved")
        return count

    # -- threads -------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _streamed(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Rows of a stream, which ends when this is closed."""
        loop, rows, stop = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()
        usage = {"include_usage": True, "continuous_usage_stats": True}
        wanted = body | {"stream": True, "stream_options": usage}

        def pump() -> None:
            try:
                for row in self._client.chat_stream(wanted):
                    if stop.is_set():
                        return
                    loop.call_soon_threadsafe(rows.put_nowait, row)
                end: Any = None
            except BaseException as error:  # raised where the rows are awaited
                end = error
            loop.call_soon_threadsafe(rows.put_nowait, end)

        self._pool.submit(pump)
        try:
            while True:
                row = await asyncio.wait_for(rows.get(), self.settings.deadline_s)
                if row is None:
                    return
                if isinstance(row, BaseException):
                    raise row
                yield row
        except asyncio.TimeoutError as error:
            raise RetryableError("the model said nothing in time; ask again later") from error
        finally:
            stop.set()


class _Listener:
    """Makes an answer of the rows of a stream."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.prompt_tokens = self.tokens = 0
        self._texts: list[str] = []
        self._chances: list[float] = []
        self._finish = "stop"

    def heard_usage(self, row: dict[str, Any]) -> bool:
        """Whether a row tells how long the prompt is."""
        usage = row.get("usage") or {}
        self.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        return self.prompt_tokens > 0

    def heard(self, row: dict[str, Any]) -> Delta | None:
        """What a row adds to the answer."""
        self.tokens = int((row.get("usage") or {}).get("completion_tokens") or self.tokens)
        if not row.get("choices"):
            return None
        choice = row["choices"][0]
        self._finish = choice.get("finish_reason") or self._finish
        text = (choice.get("delta") or {}).get("content") or ""
        tokens = [_token(entry) for entry in (choice.get("logprobs") or {}).get("content") or ()]
        self._chances += [token.logprob for token in tokens]
        if not text:
            return None
        self._texts.append(text)
        return Delta(text=text, tokens=tuple(tokens) if self._ask.open_ended else ())

    def done(self, clip: Counted, seconds: float) -> Done:
        """The whole answer."""
        text = "".join(self._texts).strip()
        chance = math.exp(min(0.0, sum(self._chances))) if self._chances else None
        answer = Answer(
            answer=text,
            label=text if self._ask.choices else to_label(text),
            probability=None if chance is None else round(chance, 4),
            consumed=clip.consumed,
            warnings=clip.warnings,
            timing_s={"clip": round(clip.seconds, 4), "answer": round(seconds, 4)},
        )
        finish = "length" if self._finish == "length" else "stop"
        return Done(answer=answer, completion_tokens=self.tokens, finish_reason=finish)


def sent_clip(path: Path, cut: Cut, *, limits: MediaLimits) -> Clip:
    """A file, or what a cut leaves of it, with the frames that omni models are sent.

    Raises:
        MediaError: it cannot be read; names no path, for where files lie is nobody's business.
    """
    sampling = Uniform(frames=DENSER * FRAMES if cut.is_part else FRAMES)
    try:
        clip = changed(read_clip(path, sampling=sampling, max_side=MAX_SIDE, limits=limits), cut)
    except MediaError as error:
        raise MediaError(str(error).replace(str(path), "the file")) from error
    if len(clip.frames_THWC) <= FRAMES:
        return clip
    kept = np.linspace(0, len(clip.frames_THWC) - 1, FRAMES).round().astype(int)
    return replace(clip, frames_THWC=clip.frames_THWC[kept], frame_times_s=clip.frame_times_s[kept])


def consumed_of(grown: dict[str, int]) -> Consumed:
    """What entered a prompt, by what each part made it grow."""
    real = {name: grown.get(name, 0) for name in ("sound", "picture")}
    real = {name: count if count >= FEWEST_TOKENS else 0 for name, count in real.items()}
    return Consumed(
        sound=real["sound"] > 0,
        picture=real["picture"] > 0,
        sound_tokens=real["sound"],
        picture_tokens=real["picture"],
    )


def dropped(parts: Parts, grown: dict[str, int]) -> Iterator[str]:
    """What has to be known about what did not get through."""
    rest = {"sound": "picture", "picture": "sound"}
    for name, verb in (("sound", "heard"), ("picture", "seen")):
        if name not in parts.sent:
            yield f"There was no {name} to send: the answer rests on the {rest[name]} alone."
        elif grown[name] < FEWEST_TOKENS:
            yield f"The {name} was sent, but the model dropped it: nothing was {verb}."


def _token(entry: dict[str, Any]) -> Token:
    top = tuple(
        (str(one["token"]), float(one["logprob"])) for one in entry.get("top_logprobs") or ()
    )
    return Token(text=str(entry.get("token") or ""), logprob=float(entry["logprob"]), top=top)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise MediaError("the file is not there any more; send it again") from error
