"""The first pass over a file: every packet is seen, the sound is decoded, pictures are not.

It gives the true time of every frame before one is decoded, so that sampling does not rely
on what a header claims. Shapes: N pictures in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from avqa_llm.errors import MediaError
from avqa_llm.media.container import Media
from avqa_llm.media.limits import Deadline, MediaLimits
from avqa_llm.media.pictures import Tally, decode, packets
from avqa_llm.media.sound import SoundTrack


@dataclass(frozen=True)
class PictureTable:
    """Every picture of a file in presentation order, times on the clip clock."""

    times_s: np.ndarray
    """float64 (N,)"""
    is_key: np.ndarray
    """bool (N,)"""
    end_s: float
    """Where the last picture stops being shown."""

    @property
    def span_s(self) -> tuple[float, float]:
        """Start and end; (0.0, 0.0) without pictures."""
        return (float(self.times_s[0]), self.end_s) if len(self.times_s) else (0.0, 0.0)

    @property
    def frame_s(self) -> float:
        """How long the last picture is shown."""
        return self.end_s - float(self.times_s[-1]) if len(self.times_s) else 0.0

    @property
    def shown_s(self) -> np.ndarray:
        """How long each picture is shown (N,)."""
        return np.diff(self.times_s, append=self.end_s)


@dataclass
class Scan:
    """What the first pass found."""

    table: PictureTable
    """Empty where the packets carry no presentation times."""
    picture_packets: int = 0
    sound: SoundTrack = field(default_factory=SoundTrack)
    tally: Tally = field(default_factory=Tally)
    corrupt_packets: int = 0


def scan(media: Media, limits: MediaLimits, deadline: Deadline) -> Scan:
    """Demux the whole file once; :class:`MediaError` if it is longer than the limit."""
    stamps: list[tuple[float, float, bool]] = []
    found = Scan(make_table([], [], [], 0.0))
    has_all_stamps = True
    streams = [stream for stream in (media.picture, media.sound) if stream is not None]
    if not streams:  # PyAV takes "no streams" for "all of them"
        kinds = ", ".join(stream.type for stream in media.container.streams) or "nothing"
        raise MediaError(f"{media.path}: no stream can be decoded to picture or sound ({kinds})")
    for packet in packets(media, streams, deadline):
        found.corrupt_packets += packet.is_corrupt
        if packet.stream is media.sound:
            for frame in decode(packet, found.tally, deadline):
                time_s = None if frame.pts is None else frame.time - media.origin_s
                check_length(media.path, time_s or found.sound.end_s, limits)
                found.sound.add(frame, time_s)
                check_sound(media.path, found.sound, limits)
        elif packet.size:
            found.picture_packets += 1
            if packet.pts is None:
                has_all_stamps = False
            elif not packet.is_discard:
                time_s = media.seconds(packet.stream, packet.pts)
                check_length(media.path, time_s, limits)
                shown_s = 0.0 if media.is_still else float(packet.duration * packet.time_base)
                stamps.append((time_s, shown_s, packet.is_keyframe))
    if has_all_stamps and stamps:
        times_s, shown, is_key = (list(column) for column in zip(*stamps, strict=True))
        found.table = make_table(times_s, shown, is_key, one_frame_s(media))
    return found


def one_frame_s(media: Media) -> float:
    """How long one picture is shown by the header's rate; 0 for a still image."""
    rate = media.picture.average_rate if media.picture is not None else None
    return 0.0 if media.is_still or not rate else float(1 / rate)


def make_table(
    times_s: list[float], shown_s: list[float], is_key: list[bool], usual_s: float
) -> PictureTable:
    """Sort pictures by time; the last one lasts as its packet says, else as is usual here."""
    order = np.argsort(np.asarray(times_s, float), kind="stable")
    times = np.asarray(times_s, float)[order]
    if not len(times):
        return PictureTable(times, np.zeros(0, bool), 0.0)
    steps = np.diff(times)
    usual_s = float(np.median(steps)) if len(steps) else usual_s
    last_s = shown_s[order[-1]]
    return PictureTable(
        times, np.asarray(is_key, bool)[order], float(times[-1]) + (last_s or usual_s)
    )


def check_length(path: str, seconds: float, limits: MediaLimits) -> None:
    """Raise :class:`MediaError` for a clip that is longer than ``max_seconds``."""
    if seconds > limits.max_seconds:
        raise MediaError(
            f"{path}: lasts {seconds:.1f} s or more, the limit is {limits.max_seconds:g} s; "
            "cut the part that matters, or raise MediaLimits(max_seconds=...)"
        )


def check_sound(path: str, sound: SoundTrack, limits: MediaLimits) -> None:
    """Raise :class:`MediaError` for a sound that takes more than ``max_sound_bytes``."""
    if sound.bytes > limits.max_sound_bytes:
        raise MediaError(
            f"{path}: the sound ({sound.channels} channels at {sound.rate_hz:,} Hz) takes more "
            f"than {limits.max_sound_bytes:,} bytes when decoded; mix or resample it, or raise "
            "MediaLimits(max_sound_bytes=...)"
        )
