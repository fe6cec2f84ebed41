"""Opening a file so that nothing but its own bytes is read.

ffmpeg understands names such as ``concat:a|b`` and ``http://...``, and playlists that name
other files. Here a file is opened by Python, ffmpeg sees only its bytes, every demuxer
that opens further files is left out, and every protocol is shut.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from avqa_llm.errors import MediaError
from avqa_llm.media.limits import Deadline, MediaLimits

STILL_FORMATS = "png_pipe jpeg_pipe bmp_pipe webp_pipe tiff_pipe".split()
FORMATS = [
    *"mov,mp4,m4a,3gp,3g2,mj2 matroska,webm avi mpegts mpeg mpegvideo flv asf ogg wav w64".split(),
    *"mp3 flac aac aiff au caf amr ac3 eac3 ape wv tta dts gif apng webp h264 hevc av1".split(),
    *"m4v ivf obu mjpeg dv rm nut mxf".split(),
    *STILL_FORMATS,
]
"""Demuxers that read one file and nothing else. Not here on purpose: hls, concat, dash, sdp,
image2 (number patterns) and devices."""

PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"[playlist]", b"v=0")
PROTOCOL_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.,-]+:")  # two letters: C:\ is a drive


@dataclass(frozen=True)
class Media:
    """An open container with the two streams that count."""

    path: str
    container: Any
    picture: Any
    """``av.VideoStream`` or None; cover art is not a picture."""
    sound: Any
    """``av.AudioStream`` or None."""
    origin_s: float
    """Where clip time 0 lies in the container's own time."""

    def seconds(self, stream: Any, pts: int) -> float:
        """Turn a presentation stamp of ``stream`` into clip time."""
        return float(pts * stream.time_base) - self.origin_s

    @property
    def is_still(self) -> bool:
        """Whether the container is an image format of one picture."""
        return self.container.format.name in STILL_FORMATS


class _WatchedFile:
    """A file for ffmpeg that stops reading at the deadline, inside any demuxer."""

    def __init__(self, file: BinaryIO, deadline: Deadline) -> None:
        self._file, self._deadline, self.name = file, deadline, ""

    def read(self, size: int) -> bytes:
        self._deadline.check()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._deadline.check()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def check_file(path: str | Path, limits: MediaLimits) -> str:
    """Return the path as text; :class:`MediaError` unless it is a local file within limits."""
    name = os.fspath(path)
    try:
        facts = os.stat(name)
    except (OSError, ValueError) as error:
        if PROTOCOL_NAME.match(name):
            raise MediaError(
                f"{name}: only local files are read, never a URL or an ffmpeg protocol; "
                "download it first and give the path"
            ) from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise MediaError(f"{name}: cannot be opened ({reason}); check the path") from None
    if stat.S_ISDIR(facts.st_mode):
        raise MediaError(f"{name}: is a directory; give one media file")
    if not stat.S_ISREG(facts.st_mode):
        raise MediaError(f"{name}: is not a regular file (a pipe or a device); save it first")
    if facts.st_size == 0:
        raise MediaError(f"{name}: is empty (0 bytes); copy or download it again")
    if facts.st_size > limits.max_bytes:
        raise MediaError(
            f"{name}: has {facts.st_size:,} bytes, the limit is {limits.max_bytes:,}; "
            "cut or re-encode it, or raise MediaLimits(max_bytes=...)"
        )
    return name


@contextmanager
def open_media(path: str, limits: MediaLimits, deadline: Deadline) -> Iterator[Media]:
    """Open a checked path; closes container and file on leaving.

    Raises :class:`MediaError` for playlists, for what is no media file, and for pictures
    over ``max_pixels``.
    """
    import av

    try:
        file = open(path, "rb")
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened ({error.strerror})") from None
    with file:
        _refuse_playlist(path, file)
        try:
            container = av.open(
                _WatchedFile(file, deadline),
                metadata_errors="replace",
                buffer_size=1 << 18,
                # Image decoders run while the file is opened: the limit must hold there too.
                options={"max_pixels": str(limits.max_pixels)},
                container_options={
                    "format_whitelist": ",".join(FORMATS),
                    "protocol_whitelist": "none",
                },
            )
        except (av.FFmpegError, ValueError, UnicodeError) as error:
            raise MediaError(f"{path}: {_why_unreadable(path, error)}") from error
        with container:
            media = _choose_streams(path, container)
            _check_pixels(path, media.picture, limits)
            yield media


def _refuse_playlist(path: str, file: BinaryIO) -> None:
    start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")
    file.seek(0)
    if start.startswith(PLAYLIST_STARTS):
        raise MediaError(
            f"{path}: is a playlist or a description of other files, which are never opened "
            "from here; give the media file itself"
        )


def _why_unreadable(path: str, error: Exception) -> str:
    with open(path, "rb") as file:
        head, size = file.read(4096), os.fstat(file.fileno()).st_size
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return (
            f"is an MP4/MOV file whose index ('moov') is missing or damaged; it has {size:,} "
            "bytes and was probably cut short: copy or download it again"
        )
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "is a text file, not a media file"
    return f"is not a media file that can be read, or its head is damaged ({error})"


def _choose_streams(path: str, container: Any) -> Media:
    import av

    def first(kind: str) -> Any:
        usable = [
            stream
            for stream in container.streams
            if stream.type == kind
            and stream.codec_context is not None
            and not stream.disposition & av.stream.Disposition.attached_pic
        ]
        preferred = [s for s in usable if s.disposition & av.stream.Disposition.default]
        return (preferred or usable or [None])[0]

    picture, sound = first("video"), first("audio")
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (picture, sound)
        if stream is not None and stream.start_time is not None and stream.time_base
    ]
    return Media(path, container, picture, sound, min(starts, default=0.0))


def _check_pixels(path: str, picture: Any, limits: MediaLimits) -> None:
    if picture is not None:
        check_size(path, picture.codec_context.width, picture.codec_context.height, limits)


def check_size(path: str, width: int, height: int, limits: MediaLimits) -> None:
    """Raise :class:`MediaError` for a coded picture over ``max_pixels``."""
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{path}: the picture has {width}x{height} = {width * height:,} pixels, the limit "
            f"is {limits.max_pixels:,}; scale the file down, or raise "
            "MediaLimits(max_pixels=...) and give max_side"
        )
