"""What a media file says about itself, without reading it whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avqa_llm.media.container import Media, check_file, open_media
from avqa_llm.media.limits import Deadline, MediaLimits
from avqa_llm.media.pictures import Tally, decoded_pictures


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One stream as its header describes it; headers can lie."""

    kind: str
    """video, audio, subtitle, data or attachment."""
    codec: str
    start_s: float | None
    duration_s: float | None
    width: int = 0
    height: int = 0
    """As coded, before the rotation."""
    rotation: int = 0
    """Degrees counter-clockwise that turn the picture upright: 0, 90, 180 or 270."""
    fps: float = 0.0
    frames: int = 0
    """Claimed number of frames, 0 where the header has none."""
    rate_hz: int = 0
    channels: int = 0
    is_cover_art: bool = False


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """The container and its streams."""

    path: str
    container: str
    duration_s: float | None
    streams: tuple[StreamInfo, ...]
    picture: StreamInfo | None
    """The stream that ``read_clip`` takes frames from."""
    sound: StreamInfo | None


def probe(path: str | Path, limits: MediaLimits = MediaLimits()) -> MediaInfo:
    """Read the headers and one picture; raises :class:`avqa_llm.errors.MediaError`."""
    name = check_file(path, limits)
    deadline = Deadline(limits, name)
    with open_media(name, limits, deadline) as media:
        container = media.container
        infos = {
            stream.index: _describe(media, stream, limits, deadline) for stream in container.streams
        }
        return MediaInfo(
            path=name,
            container=container.format.name,
            duration_s=None if container.duration is None else container.duration / 1e6,
            streams=tuple(infos.values()),
            picture=infos[media.picture.index] if media.picture else None,
            sound=infos[media.sound.index] if media.sound else None,
        )


def _describe(media: Media, stream: Any, limits: MediaLimits, deadline: Deadline) -> StreamInfo:
    import av

    codec = stream.codec_context
    facts: dict[str, Any] = {}
    if codec is not None and stream.type == "video":
        facts = {
            "width": codec.width,
            "height": codec.height,
            "fps": float(stream.average_rate or 0),
            "frames": stream.frames,
            "is_cover_art": bool(stream.disposition & av.stream.Disposition.attached_pic),
        }
        if stream is media.picture:
            pictures = decoded_pictures(media, limits, deadline, Tally())
            facts["rotation"] = next((frame.rotation % 360 for _, frame in pictures), 0)
    elif codec is not None and stream.type == "audio":
        facts = {"rate_hz": codec.sample_rate, "channels": codec.channels}
    return StreamInfo(
        kind=stream.type,
        codec=codec.name if codec is not None else "unknown",
        start_s=_seconds(stream, stream.start_time),
        duration_s=_seconds(stream, stream.duration),
        **facts,
    )


def _seconds(stream: Any, stamp: int | None) -> float | None:
    return None if stamp is None or not stream.time_base else float(stamp * stream.time_base)
