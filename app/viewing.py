"""How clips look on the page: drawn once, kept for a while, whoever shows them."""

from __future__ import annotations

import asyncio
import html
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.clips import Media
from app.seen import Shown, shown
from avqa_llm.errors import MediaError
from avqa_llm.media import Clip, MediaLimits, Uniform, read_clip
from avqa_llm.media.changes import Cut, changed
from avqa_llm.serving.kept import Flights, Kept

FRAMES, SIDE = 40, 256
"""Read of a clip for the page: enough that a short part of it has some."""
MOST_KEPT, KEPT_BYTES = 128, 2**27
PLAYER = "player"
"""Element id around the `video` that evidence moves."""
AUDIO = {".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac"}


class Looks:
    """Draws clips. Belongs to one event loop."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._kept: Kept[Shown] = Kept(most=MOST_KEPT, most_bytes=KEPT_BYTES)
        self._flights: Flights[Shown] = Flights()

    async def of(self, media: Media, cut: Cut = Cut()) -> Shown:
        """What there is to see of a clip, or of what a cut leaves of it. Raises MediaError."""
        key = (media.sha256, media.name, cut)
        if (known := self._kept.get(key)) is None:
            known = await self._flights.once(key, partial(self._drawn, media, cut))
            self._kept.put(key, known, len(repr(known)))
        return known

    async def _drawn(self, media: Media, cut: Cut) -> Shown:
        draw = partial(self._draw, media, cut)
        return await asyncio.get_running_loop().run_in_executor(self._pool, draw)

    def _draw(self, media: Media, cut: Cut) -> Shown:
        return shown(look(media, cut, self._limits), media.name)


def look(media: Media, cut: Cut, limits: MediaLimits) -> Clip:
    """A clip with frames for people. Raises MediaError, which names the file as they know it."""
    try:
        whole = read_clip(media.path, sampling=Uniform(frames=FRAMES), max_side=SIDE, limits=limits)
        return changed(whole, cut)
    except MediaError as error:
        raise MediaError(str(error).replace(str(media.path), media.name)) from error


def player(media: Media | None, cut: Cut = Cut()) -> str:
    """What plays a clip, as it was asked about: muted, covered, mirrored."""
    if media is None:
        return (
            '<div class="av-empty"><p>No clip yet. Drop a video into the conversation, record one,'
            " or take a sample.</p></div>"
        )
    name = html.escape(media.name, quote=True)
    path = html.escape(str(media.path), quote=True)
    classes = ["av-player"]
    classes += ["av-mirrored"] if cut.mirrored else []
    classes += ["av-covered"] if not cut.picture else []
    classes += ["av-audio"] if media.path.suffix.lower() in AUDIO else []
    muted = "" if cut.sound else " muted"
    start = f"#t={cut.start_s or 0.001:g}"  # a time makes browsers show that moment's frame
    return (
        f'<figure class="{" ".join(classes)}"><video controls playsinline preload="metadata"{muted}'
        f' src="gradio_api/file={path}{start}" aria-label="Player: {name}"></video>'
        f"<figcaption>{name}</figcaption></figure>"
    )
