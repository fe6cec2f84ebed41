"""Clips of requests: decoded by threads, encoded in batches, once for all who ask.

What a file gives is found by its content: a file that came twice is decoded once while it is
remembered, and encoded once while its features are in memory or on disk. Versions without sound
or without picture are made of the same features.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from avqa_llm.encoders import Tokens
from avqa_llm.engine import Engine
from avqa_llm.errors import MediaError
from avqa_llm.folders import sha256_of
from avqa_llm.media import Clip, MediaLimits
from avqa_llm.media.changes import Cut
from avqa_llm.model import ClipTokens, World
from avqa_llm.serving.contract import Attached
from avqa_llm.serving.counters import Counts
from avqa_llm.serving.kept import Flights, Kept
from avqa_llm.serving.scheduler import Lane, LaneSettings
from avqa_llm.session import warnings_about

T = TypeVar("T")
ENCODED_AT_ONCE = 16
"""Clips in one batch of the encoders."""
MOST_DECODED = 24
"""Clips whose frames and sound are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What there is in a clip, once its frames and its sound are gone."""

    has_sound: bool
    is_silent: bool
    has_picture: bool


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A clip after the encoders, with what its answers have to say about it."""

    sha256: str
    """Of the file."""
    tokens: ClipTokens
    presence: Presence
    notes: tuple[str, ...]
    times_s: dict[str, float]
    """Seconds of decoding and encoding."""

    def without(self, *, sound: bool, picture: bool) -> Prepared:
        """As if the clip had been muted or blanked; False leaves a modality as it is."""
        found, notes = self.tokens, [*self.notes]
        if sound:
            found = replace(found, sound=_none(found.sound))
            notes.append("the sound was taken away on purpose")
        if picture:
            found = replace(found, picture=_none(found.picture))
            notes.append("the picture was taken away on purpose")
        here = self.presence
        presence = Presence(
            has_sound=here.has_sound and not sound,
            is_silent=here.is_silent and not sound,
            has_picture=here.has_picture and not picture,
        )
        return replace(self, tokens=found, presence=presence, notes=tuple(notes))

    def warnings(self, world: World) -> tuple[str, ...]:
        """What has to be known about the clip, and what the file says about itself."""
        clip: Any = self.presence  # all that is asked of a clip
        about = warnings_about(clip, self.tokens, world)
        return (*about, *(f"About the file: {note}." for note in self.notes))

    @property
    def bytes(self) -> int:
        """What its features take of memory."""
        parts = (self.tokens.sound.values_ND, self.tokens.picture.values_ND)
        return sum(part.numel() * part.element_size() for part in parts) + 1024


class Encoders:
    """The encoders of one or several engines, with a lane of their own."""

    def __init__(self, key: str, engine: Engine, counts: Counts, gather_s: float) -> None:
        self.key, self.encoder, self._counts = key, engine.encoder, counts
        self.read: Callable[..., Clip] = engine.read
        settings = LaneSettings(name="encode", most_batch=ENCODED_AT_ONCE, gather_s=gather_s)
        self.lane = Lane(settings)

    def encode(self, clips: Sequence[Clip]) -> list[ClipTokens]:
        """One batch, in the lane's thread."""
        before = self.encoder.computed
        found = self.encoder.many(clips)
        new = self.encoder.computed - before
        for name, by in (
            ("feature_misses", new),
            ("feature_hits", len(clips) - new),
            ("clips_encoded", new),
            ("encode_batches", int(new > 0)),
        ):
            self._counts.add(name, by)
        return found


class Clips:
    """All clips of a service. Belongs to one event loop."""

    def __init__(
        self, *, counts: Counts, limits: MediaLimits, decoders: int, most: int, most_bytes: int
    ) -> None:
        self._counts, self._limits = counts, limits
        self._pool = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._room = asyncio.Semaphore(MOST_DECODED)
        self._hashes: Kept[str] = Kept(most=10_000, most_bytes=10_000)
        self._flights: Flights[Prepared] = Flights()
        self.kept: Kept[Prepared] = Kept(most=most, most_bytes=most_bytes)

    async def sha256(self, path: Path) -> str:
        """Of a file; computed anew when it has changed. Raises MediaError if it is gone."""
        try:
            status = path.stat()
            key = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
            if (known := self._hashes.get(key)) is None:
                known = await self._in_thread(partial(sha256_of, path))
                self._hashes.put(key, known, 1)
        except OSError as error:
            raise MediaError("the file is not there any more; send it again") from error
        return known

    async def prepared(
        self, encoders: Encoders, media: Attached, sha256: str, cut: Cut, *, within_s: float
    ) -> Prepared:
        """A clip, or what a cut leaves of it, after the encoders.

        Raises:
            MediaError: the file cannot be read, or has no sound although only that is wanted;
                or the cut lies beyond its end.
            RetryableError: it was not done in time.
        """
        key = (encoders.key, sha256, cut)
        found = self.kept.get(key)
        if found is None:
            make = partial(self._prepare, encoders, media.path, sha256, cut, within_s)
            found = await self._flights.once(key, make)
        if media.modality == "audio" and not found.presence.has_sound:
            raise MediaError(
                "there is no sound in the file that could be decoded, and only its sound was"
                f" asked about ({'; '.join(found.notes) or 'no sound track'})"
            )
        return found

    async def _prepare(
        self, encoders: Encoders, path: Path, sha256: str, cut: Cut, within_s: float
    ) -> Prepared:
        async with self._room:
            started = time.perf_counter()
            clip = await self._in_thread(partial(self._decode, encoders, path, cut))
            decoded = time.perf_counter()
            tokens = await encoders.lane.do(
                encoders.encode, clip, group="encode", fair=sha256, within_s=within_s
            )
        self._counts.add("clips_decoded")
        times = {"decode": decoded - started, "encode": time.perf_counter() - decoded}
        presence = Presence(
            has_sound=clip.has_sound, is_silent=clip.is_silent, has_picture=clip.has_picture
        )
        found = Prepared(
            sha256=sha256, tokens=tokens, presence=presence, notes=clip.notes, times_s=times
        )
        self.kept.put((encoders.key, sha256, cut), found, found.bytes)
        return found

    def _decode(self, encoders: Encoders, path: Path, cut: Cut) -> Clip:
        try:
            return encoders.read(path, limits=self._limits, cut=cut)
        except MediaError as error:  # where files lie here is nobody's business
            raise MediaError(str(error).replace(str(path), "the file")) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _none(tokens: Tokens) -> Tokens:
    return Tokens.none(tokens.values_ND.shape[1])
