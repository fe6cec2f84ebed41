"""The service: models, clips and questions of many requests, answered side by side.

    file ─decode (threads)─▶ clip ─encode (batches of clips)─▶ features
    features ─digest (batches of clips)─▶ reading ─ask (batches of questions)─▶ answer

Everything before the question is done once for all who ask about a file, and kept: features by
content on disk, readings in memory. Decoding and encoding have threads of their own, beside the
one (with vLLM: several) that generates.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Hashable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from avqa_llm.answer import Answer, Consumed
from avqa_llm.encoders.cache import FeatureCache
from avqa_llm.engine import OPEN_LIMIT, STEPS_LIMIT, Engine, Reading, reached
from avqa_llm.errors import AVQAError
from avqa_llm.media import MediaLimits
from avqa_llm.presets import find_model
from avqa_llm.serving.catalogue import Catalogue, Served, default_name
from avqa_llm.serving.clips import Clips, Prepared
from avqa_llm.serving.contract import (
    Ask,
    Delta,
    Done,
    Event,
    ModelInfo,
    RetryableError,
    Started,
)
from avqa_llm.serving.counters import Counts
from avqa_llm.serving.houses import House, LocalHouse
from avqa_llm.serving.kept import Flights, Kept
from avqa_llm.serving.rows import Answered, Row, answer_rows, bytes_of, prompt_tokens, taken_apart
from avqa_llm.serving.scheduler import Lane, LaneSettings
from avqa_llm.session import finished

T = TypeVar("T")
READ_AT_ONCE = 16
"""Clips that are read as one batch."""
NO_CLIP = "There is no video or sound to answer about: attach one to the question."
ENDS_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Bounds of a service."""

    most_in_flight: int = 256
    """Requests at once; more are told to come again."""
    deadline_s: float = 300.0
    """From a question to its answer."""
    gather_s: float = 0.005
    """How long an idle worker waits for more to put into a batch."""
    decoders: int = 2
    """Files that are decoded at once."""
    store: Path | None = None
    """Folder for features, which several processes may share; None: features in memory only."""
    feature_bytes: int = 2**30
    """Of features on disk."""
    most_readings: int = 256
    reading_bytes: int = 2**30
    """Of readings in memory; features of clips in memory may take a quarter of it more."""
    limits: MediaLimits = field(default_factory=MediaLimits)
    """Of media files."""

    def cache(self) -> FeatureCache | None:
        """Where features are kept on disk."""
        return None if self.store is None else FeatureCache(self.store, self.feature_bytes)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A clip that a model has read."""

    reading: Reading
    clip: Prepared


class AVQAService:
    """Implements `avqa_llm.serving.contract.Service`. Belongs to one event loop."""

    def __init__(
        self,
        house: House,
        model: str | Path,
        *,
        name: str | None = None,
        adapters: Mapping[str, Path] | None = None,
        settings: ServiceSettings = ServiceSettings(),
    ) -> None:
        """Load the base and the adapters; takes a while.

        Args:
            house: where the engines live; it is stopped with the service.
            model: the preset or the directory of the base.
            name: under which it is served; None: the preset's or the directory's.
            adapters: names and directories of adapters of the same base.
            settings: the bounds.

        Raises:
            CheckpointError: a directory cannot be served; says why.
        """
        self.settings, self._house, self._counts = settings, house, Counts()
        self._in_flight, self._is_closing = 0, False
        self._clips = Clips(
            counts=self._counts,
            limits=settings.limits,
            decoders=settings.decoders,
            most=settings.most_readings,
            most_bytes=settings.reading_bytes // 4,
        )
        self._readings: Kept[_Read] = Kept(
            most=settings.most_readings, most_bytes=settings.reading_bytes
        )
        self._flights: Flights[_Read] = Flights()
        self._lane = Lane(
            LaneSettings(
                name="generate",
                workers=house.workers,
                most_batch=house.most_batch,
                most_waiting=4 * settings.most_in_flight,
                gather_s=settings.gather_s,
            )
        )
        base = name or default_name(model)
        self.catalogue = Catalogue(house, base, find_model(model), self._counts, settings.gather_s)
        for own, place in (adapters or {}).items():
            self.catalogue.add(own, place)

    @classmethod
    def local(
        cls,
        model: str | Path = "tiny",
        *,
        name: str | None = None,
        adapters: Mapping[str, Path] | None = None,
        settings: ServiceSettings = ServiceSettings(),
    ) -> AVQAService:
        """Everything in this process; see the constructor."""
        house = LocalHouse(settings.cache())
        return cls(house, model, name=name, adapters=adapters, settings=settings)

    # -- models ----------------------------------------------------------------------------

    def models(self) -> Sequence[ModelInfo]:
        """What is served now, the base first."""
        return self.catalogue.models()

    async def add_adapter(self, name: str, folder: Path) -> ModelInfo:
        """Serve another adapter of the same base from now on; see `Service`."""
        served = await asyncio.to_thread(self.catalogue.add, name, Path(folder))
        self._counts.add("adapters_added")
        return served.info

    async def remove_adapter(self, name: str) -> None:
        """Serve an adapter no longer; see `Service`. Raises AVQAError for the base."""
        served = self.catalogue.take_out(name)
        await asyncio.shield(asyncio.ensure_future(self._leave(served)))

    async def _leave(self, served: Served) -> None:
        while served.in_flight:
            served.idle.clear()
            await served.idle.wait()
        self._readings.drop(lambda key: isinstance(key, tuple) and key[0] == served.uid)
        await asyncio.to_thread(self._house.unload, served.engine)
        self._counts.add("adapters_removed")

    # -- answers ---------------------------------------------------------------------------

    async def answer(self, ask: Ask) -> AsyncIterator[Event]:
        """One `Started`, any number of `Delta`, one `Done`; see `Service`."""
        served = self.catalogue.served(ask.model)
        self._admit()
        self._in_flight += 1
        served.in_flight += 1
        try:
            with self._counts.outcome():
                async with contextlib.aclosing(self._events(served, ask)) as events:
                    async for event in events:
                        yield event
        finally:
            self._in_flight -= 1
            served.left()

    async def prepare(self, ask: Ask) -> None:
        """Read the clip of a question that will come; see `Service`."""
        served = self.catalogue.served(ask.model)
        self._admit()
        served.in_flight += 1
        try:
            await self._read(served, ask, time.monotonic() + self.settings.deadline_s)
        finally:
            served.left()

    async def use(self, model: str, work: Callable[[Engine], T], *, fair: Hashable = None) -> T:
        """What `work` makes of a model's engine, in turn with all that is asked of the service.

        For work that asks the engine many things, each depending on the one before. Others wait
        meanwhile: it has to look by itself whether it is still wanted.

        Raises:
            UnknownModelError: no such model.
            RetryableError: the engine is away, or too much is waiting.
        """
        served = self.catalogue.served(model)
        self._admit()
        served.in_flight += 1
        try:
            return cast(
                T,
                await self._lane.do(
                    lambda jobs: [job(served.engine) for job in jobs],
                    work,
                    group=("use", served.uid),
                    fair=fair,
                    within_s=self.settings.deadline_s,
                    most=1,
                ),
            )
        finally:
            served.left()

    def _admit(self) -> None:
        """Raises RetryableError where there is no room, or nobody to answer."""
        state, why = self._house.state()
        if self._is_closing or state != "ok":
            text = "the service is shutting down" if self._is_closing else why
            raise RetryableError(f"{text}; ask again later", after_s=5)
        if self._in_flight >= self.settings.most_in_flight:
            self._counts.add("answers_refused")
            raise RetryableError(
                f"{self._in_flight} questions are being answered, the limit is"
                f" {self.settings.most_in_flight}; ask again later",
                after_s=self._lane.wait_s(),
            )

    async def _events(self, served: Served, ask: Ask) -> AsyncGenerator[Event, None]:
        if not ask.media:
            for event in no_clip():
                yield event
            return
        ends = time.monotonic() + self.settings.deadline_s
        read, is_new = await self._read(served, ask, ends)
        row = Row(
            reading=read.reading,
            question=ask.question,
            history=ask.history,
            choices=() if ask.open_ended else ask.choices,
            open_ended=ask.open_ended,
            most_tokens=ask.most_tokens,
            logprobs=ask.logprobs,
        )
        size = self._measured(served, row)
        warnings = read.clip.warnings(served.engine.model.config.world)
        if len({media.path for media in ask.media}) > 1:
            warnings += (f"Of {len(ask.media)} files, the last one was asked about.",)
        consumed = reached(read.reading, 0)
        self._count_consumed(consumed, size)
        yield Started(consumed=consumed, prompt_tokens=size, warnings=warnings)
        before = read.clip.times_s if is_new else {}
        async for event in self._generated(served, row, read.clip.sha256, ends):
            if isinstance(event, Done):
                self._counts.add("completion_tokens", event.completion_tokens)
                answer = event.answer
                if not is_new:  # what others have waited for
                    own = {"answer": answer.timing_s.get("answer", 0.0)}
                    answer = replace(answer, timing_s=own)
                event = replace(event, answer=finished(answer, warnings, before))
            yield event

    def _measured(self, served: Served, row: Row) -> int:
        """Length of the prompt. Raises AVQAError if it is more than the model takes."""
        size = prompt_tokens(served.engine, row)
        room = OPEN_LIMIT if row.open_ended else STEPS_LIMIT + 16
        if size + room > served.most_prompt:
            raise AVQAError(
                f"clip and conversation have {size} tokens, and the answer may take {room}:"
                f" {served.info.name} reads at most {served.most_prompt}; begin a new conversation"
                " or ask a shorter question"
            )
        return size

    def _count_consumed(self, consumed: Consumed, size: int) -> None:
        self._counts.add("prompt_tokens", size)
        self._counts.add("sound_tokens", consumed.sound_tokens)
        self._counts.add("picture_tokens", consumed.picture_tokens)
        self._counts.add("answers_without_sound", int(not consumed.sound))

    # -- clips ---------------------------------------------------------------------------------

    async def _read(self, served: Served, ask: Ask, ends: float) -> tuple[_Read, bool]:
        """The clip that is asked about as the model has read it, and whether that is new."""
        media = ask.media[-1]
        sha256 = await self._clips.sha256(media.path)
        gone = (ask.mute, ask.blank or media.modality == "audio")
        key = (served.uid, sha256, ask.cut, *gone, media.modality)
        if (known := self._readings.get(key)) is not None:
            self._counts.add("reading_hits")
            return known, False
        joins = key in self._flights
        self._counts.add("reading_joins" if joins else "reading_misses")
        make = partial(self._digest, served, ask, sha256, gone, key, ends)
        return await self._flights.once(key, make), True

    async def _digest(
        self,
        served: Served,
        ask: Ask,
        sha256: str,
        gone: tuple[bool, bool],
        key: tuple[Any, ...],
        ends: float,
    ) -> _Read:
        clip = await self._clips.prepared(
            served.encoders,
            ask.media[-1],
            sha256,
            ask.cut,
            within_s=max(0.0, ends - time.monotonic()),
        )
        clip = clip.without(sound=gone[0], picture=gone[1])
        reading = await self._lane.do(
            partial(_digested, served.engine, self._counts),
            clip.tokens,
            group=("digest", served.uid),
            fair=sha256,
            within_s=max(0.0, ends - time.monotonic()),
            most=READ_AT_ONCE,
        )
        found = _Read(reading=reading, clip=clip)
        self._readings.put(key, found, bytes_of(reading))
        return found

    # -- generation ----------------------------------------------------------------------------

    async def _generated(
        self, served: Served, row: Row, sha256: str, ends: float
    ) -> AsyncIterator[Delta | Done]:
        if row.open_ended and hasattr(served.engine, "astream"):
            async for event in self._streamed(served.engine, row, ends):
                yield event
            return
        within_s = max(0.0, ends - time.monotonic())
        ask = partial(
            self._lane.do,
            partial(_asked, served.engine, self._counts),
            group=("ask", served.uid, row.open_ended),
            fair=sha256,
            within_s=within_s,
        )
        if not row.open_ended:
            found: Answered = await ask(row)
            yield Delta(text=found.answer.answer)
            yield _done(found)
            return
        loop, said, gone = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def tell(event: Delta) -> None:
            loop.call_soon_threadsafe(said.put_nowait, event)

        task = asyncio.ensure_future(ask(replace(row, said=tell, gone=gone.is_set)))
        task.add_done_callback(said.put_nowait)
        try:
            while (event := await said.get()) is not task:
                yield event
            yield _done(task.result())
        finally:
            gone.set()
            task.cancel()

    async def _streamed(self, engine: Any, row: Row, ends: float) -> AsyncIterator[Delta | Done]:
        """By an engine that streams by itself."""
        events = engine.astream(
            row.reading,
            row.question,
            history=row.history,
            most_tokens=row.most_tokens,
            logprobs=row.logprobs,
            evidence=True,
        )
        async with contextlib.aclosing(events):
            while True:
                try:
                    left = max(0.0, ends - time.monotonic())
                    yield await asyncio.wait_for(anext(events), left)
                except StopAsyncIteration:
                    return
                except asyncio.TimeoutError as error:
                    raise self._lane.late(self.settings.deadline_s) from error

    # -- the whole -------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """`status` and why, with what is being done."""
        state, why = self._house.state()
        return {
            "status": "degraded" if self._is_closing else state,
            "why": "the service is shutting down" if self._is_closing else why,
            "engine": self._house.kind,
            "models": [info.name for info in self.models()],
            "in_flight": self._in_flight,
        }

    def counters(self) -> dict[str, float]:
        """Figures by the names of `avqa_llm.serving.counters`."""
        lanes = [self._lane, *(encoders.lane for encoders in self.catalogue.encoders())]
        return self._counts.all(
            readings_evicted=self._readings.evicted,
            engine_restarts=self._house.restarts,
            in_flight_now=self._in_flight,
            waiting_now=sum(lane.waiting for lane in lanes),
            readings_now=len(self._readings),
            reading_bytes_now=self._readings.bytes,
            models_now=len(self.models()),
        )

    async def close(self) -> None:
        """Take no more questions, wait for those in flight (a minute at most), stop all."""
        self._is_closing = True
        ends = time.monotonic() + ENDS_WITHIN_S
        while self._in_flight and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._house.stop)
        lanes = [self._lane, *(encoders.lane for encoders in self.catalogue.encoders())]
        for lane in lanes:
            await asyncio.to_thread(lane.close)
        await asyncio.to_thread(self._clips.close)


def _digested(engine: Engine, counts: Counts, clips: Sequence[Any]) -> list[Reading]:
    counts.add("digest_batches")
    return taken_apart(engine.digest(clips))


def _asked(engine: Engine, counts: Counts, rows: Sequence[Row]) -> list[Answered]:
    counts.add("ask_batches")
    counts.add("questions_batched", len(rows))
    return answer_rows(engine, rows)


def _done(found: Answered) -> Done:
    return Done(answer=found.answer, completion_tokens=found.tokens, finish_reason=found.finish)


def no_clip() -> list[Event]:
    """What is said to a question about nothing."""
    nothing = Consumed(sound=False, picture=False, sound_tokens=0, picture_tokens=0)
    answer = Answer(
        answer=NO_CLIP, label="no_answer", probability=None, consumed=nothing, warnings=(NO_CLIP,)
    )
    return [
        Started(consumed=nothing, prompt_tokens=0, warnings=(NO_CLIP,)),
        Delta(text=NO_CLIP),
        Done(answer=answer, completion_tokens=0),
    ]
