"""Media of strangers: taken from where they come, and looked at before anything else sees them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from avqa_llm.errors import MediaError
from avqa_llm.media import MediaInfo, MediaLimits, probe
from avqa_llm.serving.contract import Attached
from avqa_llm.serving.conversation import Ref
from avqa_llm.serving.guards import Places
from avqa_llm.serving.links import Links
from avqa_llm.serving.refusals import Refusal, refusal_of
from avqa_llm.serving.settings import GatewaySettings
from avqa_llm.serving.uploads import Uploads

T = TypeVar("T")
_STREAMS = 32
_FLOAT_BYTES = 4
_THREADS = 16
_LINKS = 4


class Intake:
    """Where the media of requests come from."""

    def __init__(self, settings: GatewaySettings, uploads: Uploads, links: Links) -> None:
        self.settings, self.uploads, self._links = settings, uploads, links
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gateway")
        self._probes = Places(settings.max_probes, settings.max_waiting, "media files")
        self._fetches = Places(_LINKS, settings.max_waiting, "links")

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def aside(self, work: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run in a thread of the gateway's own, whatever others fill the usual ones with."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(work, *args, **named))

    async def attached(
        self, refs: tuple[Ref, ...], owner: str, scratch: Path
    ) -> tuple[tuple[Attached, ...], dict[str, str]]:
        """Files of a conversation, and what their paths are called before strangers.

        Raises Refusal: a file is not there, not allowed, or no medium within the limits.
        """
        found: list[Attached] = []
        names: dict[str, str] = {str(scratch): "the request"}
        for number, ref in enumerate(refs):
            path = scratch / f"{number}.media"
            names[str(path)] = f"the file of {ref.where}"
            if ref.kind == "file":
                upload, path = await self.aside(self.uploads.get, owner, ref.value)
                names[str(path)] = upload.id
            elif ref.kind == "link":
                await self._fetch(ref.value, path)
            else:
                await self.aside(_decode, ref, path, self.settings.media.max_bytes)
            if ref.kind != "file":  # an upload was looked at when it came
                await self.look(path, names[str(path)])
            found.append(Attached(path=path, modality=ref.modality))
        return tuple(found), dict(reversed(names.items()))

    async def look(self, path: Path, name: str) -> dict[str, Any]:
        """What a file says about itself, if it is a medium that could be answered about.

        Raises Refusal.
        """
        async with self._probes.place():
            try:
                return await self.aside(looked_at, path, self.settings.media)
            except MediaError as error:
                raise refusal_of(error, {str(path): name}) from None

    async def _fetch(self, url: str, path: Path) -> None:
        stop = threading.Event()
        async with self._fetches.place():
            try:
                await self.aside(self._links.fetch, url, path, stop=stop)
            finally:
                stop.set()  # nobody waits for it any more


def looked_at(path: Path, limits: MediaLimits) -> dict[str, Any]:
    """Container, seconds and streams of a media file, for people.

    Headers can lie: whoever reads the file holds it to the same limits once more.

    Raises:
        MediaError: no medium, or beyond a limit.
    """
    import av

    try:
        info = probe(path, limits)
    except (av.FFmpegError, ValueError, OverflowError, ArithmeticError) as error:
        raise MediaError(f"{path}: cannot be read ({error})") from error
    seen = info.picture is not None and info.picture.width * info.picture.height > 0
    if not seen and info.sound is None:  # a picture without a size is one beyond max_pixels
        raise MediaError(f"{path}: has neither a picture nor a sound that can be decoded")
    if len(info.streams) > _STREAMS:
        raise MediaError(f"{path}: has {len(info.streams)} streams, the limit is {_STREAMS}")
    seconds = _seconds(info)
    if seconds > limits.max_seconds:
        raise MediaError(
            f"{path}: lasts {seconds:.1f} s, the limit is {limits.max_seconds:g} s; "
            "cut the part that matters"
        )
    if info.sound is not None:
        heard = info.sound
        size = seconds * heard.rate_hz * heard.channels * _FLOAT_BYTES
        if size > limits.max_sound_bytes:
            raise MediaError(
                f"{path}: the sound ({heard.channels} channels at {heard.rate_hz:,} Hz) is more "
                f"than {limits.max_sound_bytes:,} bytes when decoded; mix or resample it"
            )
    about: dict[str, Any] = {"container": info.container, "seconds": round(seconds, 3)}
    if info.picture is not None:
        about["picture"] = f"{info.picture.codec} {info.picture.width}x{info.picture.height}"
    if info.sound is not None:
        about["sound"] = f"{info.sound.codec} {info.sound.rate_hz} Hz"
    return about


def _seconds(info: MediaInfo) -> float:
    claimed = [info.duration_s or 0.0, *(stream.duration_s or 0.0 for stream in info.streams)]
    return max(0.0, *claimed)


def _decode(ref: Ref, path: Path, most: int) -> None:
    """Write base64 out as a file. Raises Refusal."""
    if len(ref.value) // 4 * 3 > most + 3:
        raise Refusal(
            413, f"{ref.where}: has more than {most:,} bytes.", code="too_large", param="messages"
        )
    try:
        plain = base64.b64decode(ref.value.translate({10: None, 13: None}), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(
            400, f"{ref.where}: is no base64.", code="invalid_request", param="messages"
        ) from None
    path.write_bytes(plain)
