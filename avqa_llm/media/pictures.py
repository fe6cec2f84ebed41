"""Decoding pictures: in order, each converted only if it is wanted.

Shapes: T frames, H height, W width, C colour channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from avqa_llm.errors import MediaError
from avqa_llm.media.container import Media, check_size
from avqa_llm.media.limits import Deadline, MediaLimits
from avqa_llm.media.sampling import EPSILON_S

CHANGE_WIDTH, CHANGE_HEIGHT = 48, 32
"""Size of the grey pictures whose difference is called change."""
SMALL_PIXELS = 640 * 480
"""Up to this size one thread decodes as fast as several, for less."""


@dataclass
class Tally:
    """What went wrong while decoding, for the notes."""

    bad_packets: int = 0
    damaged_frames: int = 0
    frames: int = 0
    last_s: float = 0.0
    """Clip time of the last frame that was decoded."""
    reached_end: bool = False
    resized: bool = False


@dataclass(frozen=True)
class Room:
    """How large kept frames may be."""

    path: str
    max_side: int | None
    max_bytes: int

    def check(self, frames: int, width: int, height: int) -> None:
        """Raise :class:`MediaError` if so many kept frames of this size would not fit."""
        need = frames * width * height * 3
        if need > self.max_bytes:
            raise MediaError(
                f"{self.path}: {frames} frames of {width}x{height} need {need:,} bytes, the "
                f"limit is {self.max_bytes:,}; give a smaller max_side, ask for fewer frames, "
                "or raise MediaLimits(max_picture_bytes=...)"
            )


def decoded_pictures(
    media: Media,
    limits: MediaLimits,
    deadline: Deadline,
    tally: Tally,
    only: Collection[float] | None = None,
) -> Iterator[tuple[float, Any]]:
    """Yield ``(clip time, av.VideoFrame)`` in presentation order from where the file stands.

    With ``only`` nothing but the keyframes of these clip times reaches the decoder. Packets
    that cannot be decoded are counted and left out; an unreadable rest ends the picture.
    """
    stream = media.picture
    stream.thread_type = "AUTO"
    if stream.codec_context.width * stream.codec_context.height <= SMALL_PIXELS:
        stream.codec_context.thread_count = 1
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    for packet in packets(media, [stream], deadline):
        if only is not None and packet.size and not _is_wanted_key(media, packet, only):
            continue
        for frame in decode(packet, tally, deadline):
            stamp = frame.pts if frame.pts is not None else frame.dts
            time_s = tally.frames / rate if stamp is None else media.seconds(stream, stamp)
            tally.frames += 1
            tally.last_s = time_s
            tally.damaged_frames += frame.is_corrupt
            check_size(media.path, frame.width, frame.height, limits)
            yield time_s, frame
    tally.reached_end = True


def _is_wanted_key(media: Media, packet: Any, only: Collection[float]) -> bool:
    is_key = packet.is_keyframe and packet.pts is not None
    return is_key and media.seconds(media.picture, packet.pts) in only


def packets(media: Media, streams: list[Any], deadline: Deadline) -> Iterator[Any]:
    """Yield packets until the end or the first unreadable place, minding the deadline."""
    import av

    demuxer = media.container.demux(streams)
    while True:
        deadline.check()
        try:
            packet = next(demuxer, None)
        except (av.FFmpegError, ValueError):
            return
        if packet is None:
            return
        yield packet


def decode(packet: Any, tally: Tally, deadline: Deadline) -> list[Any]:
    """Decode one packet to frames; a packet that cannot be decoded is counted."""
    import av

    deadline.check()
    try:
        return list(packet.decode())
    except av.EOFError:
        return []
    except (av.FFmpegError, ValueError):
        tally.bad_packets += 1
        return []


def collect(
    pictures: Iterator[tuple[float, Any]],
    targets_s: np.ndarray,
    late_s: float,
    room: Room,
    tally: Tally,
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames_THWC and true times (T,) for sorted, distinct ``targets_s``.

    Where the frame of a target cannot be decoded, the one before it stands in (the next
    one at the start). Targets more than ``late_s`` after the last good frame get none.
    """
    keeper = _Keeper(len(targets_s), room, tally)
    before: tuple[float, Any] | None = None
    for now in pictures:
        while keeper.count < len(targets_s) and targets_s[keeper.count] < now[0] - EPSILON_S:
            keeper.keep(*(before or now))
        if keeper.count < len(targets_s) and targets_s[keeper.count] <= now[0] + EPSILON_S:
            keeper.keep(*now)
        if keeper.count == len(targets_s):
            break
        before = now
    while before and keeper.count < len(targets_s):
        if targets_s[keeper.count] > before[0] + late_s + EPSILON_S:
            break
        keeper.keep(*before)
    return keeper.result()


class _Keeper:
    """Memory for the wanted frames, taken when the first one shows its size."""

    def __init__(self, wanted: int, room: Room, tally: Tally) -> None:
        from av.video.reformatter import VideoReformatter

        self.count = 0
        self._reformatter = VideoReformatter()
        self._wanted, self._room, self._tally = wanted, room, tally
        self._frames_THWC = np.zeros((0, 0, 0, 3), np.uint8)
        self._times_s = np.zeros(wanted)

    def keep(self, time_s: float, frame: Any) -> None:
        if self.count and time_s == self._times_s[self.count - 1]:
            picture_HWC = self._frames_THWC[self.count - 1]
        else:
            picture_HWC = upright_rgb(frame, self._room.max_side, self._reformatter)
        if not self.count:
            height, width = picture_HWC.shape[:2]
            self._room.check(self._wanted, width, height)
            self._frames_THWC = np.empty((self._wanted, *picture_HWC.shape), np.uint8)
        elif picture_HWC.shape != self._frames_THWC.shape[1:]:
            import cv2

            height, width = self._frames_THWC.shape[1:3]
            picture_HWC = cv2.resize(picture_HWC, (width, height), interpolation=cv2.INTER_AREA)
            self._tally.resized = True
        self._frames_THWC[self.count] = picture_HWC
        self._times_s[self.count] = time_s
        self.count += 1

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self._frames_THWC[: self.count], self._times_s[: self.count]


def scaled_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Return (width, height) with the longest side at most ``max_side``, aspect kept."""
    longest = max(width, height)
    if max_side is None or longest <= max_side:
        return width, height
    return max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest))


def upright_rgb(frame: Any, max_side: int | None, reformatter: Any) -> np.ndarray:
    """Return an ``av.VideoFrame`` as uint8 RGB (H, W, 3), scaled and turned upright.

    A reformatter (``av.video.reformatter.VideoReformatter``) that is used again keeps its tables
    and threads; ``frame.reformat`` makes them anew for each frame, a millisecond each.
    """
    width, height = scaled_size(frame.width, frame.height, max_side)
    rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation="AREA")
    # Copied by the caller into its own array: the plane behind this view is reused.
    return np.rot90(rgb.to_ndarray(), round(frame.rotation / 90) % 4)


def picture_changes(
    pictures: Iterator[tuple[float, Any]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the times (N,) of all frames and how much each differs from the one before."""
    times: list[float] = []
    changes: list[float] = []
    before: np.ndarray | None = None
    for time_s, frame in pictures:
        small = frame.reformat(
            width=CHANGE_WIDTH, height=CHANGE_HEIGHT, format="gray", interpolation="AREA"
        )
        grey = small.to_ndarray().astype(np.int16)
        changes.append(0.0 if before is None else float(np.abs(grey - before).mean()))
        times.append(time_s)
        before = grey
    order = np.argsort(times, kind="stable")
    return np.asarray(times)[order], np.asarray(changes)[order]
