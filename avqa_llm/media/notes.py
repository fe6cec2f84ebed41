"""What a clip says about itself in sentences: for answers, logs and reports."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import numpy as np

from avqa_llm.media.clip import SILENCE_PEAK, peak
from avqa_llm.media.container import Media
from avqa_llm.media.pictures import Tally
from avqa_llm.media.scan import Scan

TS_PACKETS = (188, 192, 204)
"""Packet sizes of transport streams; a whole file is a multiple of one."""
MAX_RIFF = 0xFFFF_0000
SPAN_SLACK_S = 0.25
"""Streams that start or end this near to each other do so together."""
MISSING_SLACK_S = 0.5
"""A header that promises this much more than there is was rounded, not cut."""
EXACT_FORMATS = ("mov,", "matroska,", "avi", "flv", "wav", "asf")
"""Containers whose header states the length; of others it is an estimate of ffmpeg."""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def describe_streams(media: Media) -> Iterator[str]:
    """Notes on which streams there are."""
    kinds = [stream.type for stream in media.container.streams]
    if media.is_still:
        yield "still image"
    if media.picture is None:
        yield "no picture (cover art is not one)" if "video" in kinds else "no picture"
    if media.sound is None:
        undecodable = "audio" in kinds
        yield "the sound track has an unknown codec" if undecodable else "no sound track"
    for kind, used in (("video", media.picture), ("audio", media.sound)):
        usable = [s for s in media.container.streams if s.type == kind]
        if used is not None and kind == "audio" and len(usable) > 1:
            yield f"{len(usable)} sound tracks, number {usable.index(used) + 1} is used"


def describe_sound(media: Media, found: Scan, sound_CS: np.ndarray) -> Iterator[str]:
    """Notes on silence, gaps and damage of the sound."""
    if media.sound is None:
        return
    if not sound_CS.size:
        yield f"the sound track ({media.sound.codec_context.name}) could not be decoded"
        return
    loudest = peak(sound_CS)
    if loudest < SILENCE_PEAK:
        level = f"{20 * math.log10(loudest):.0f} dBFS" if loudest else "all samples are zero"
        yield f"the sound is silent (peak below -60 dBFS: {level})"
    if found.sound.gap_s:
        yield f"the sound has gaps of {found.sound.gap_s:.2f} s in all, filled with silence"
    if found.sound.foreign_frames:
        yield f"{_count(found.sound.foreign_frames, 'sound frame')} of another format left out"
    if found.tally.bad_packets:
        yield f"{_count(found.tally.bad_packets, 'sound packet')} skipped: cannot be decoded"


def describe_spans(picture: tuple[float, float], sound: tuple[float, float]) -> Iterator[str]:
    """Notes on where picture and sound do not cover each other."""
    for edge, verb in ((0, "starts"), (1, "ends")):
        late_s = picture[edge] - sound[edge]
        if abs(late_s) > SPAN_SLACK_S:
            first, second = ("sound", "picture") if late_s > 0 else ("picture", "sound")
            yield f"the {first} {verb} {abs(late_s):.1f} s before the {second}"


def describe_damage(
    media: Media, found: Scan, tally: Tally, span_s: tuple[float, float]
) -> Iterator[str]:
    """Notes on pictures that a header promised or a decoder refused."""
    if media.picture is None:
        return
    have = found.picture_packets
    if tally.reached_end and tally.bad_packets:
        have = min(have, tally.frames)
    if media.picture.frames > have and not media.is_still:
        yield f"the container claims {media.picture.frames} frames, {have} could be decoded"
    if found.corrupt_packets:
        yield f"{_count(found.corrupt_packets, 'packet')} marked as damaged"
    if tally.bad_packets:
        yield f"{_count(tally.bad_packets, 'picture packet')} skipped: cannot be decoded"
    if tally.damaged_frames:
        yield f"{_count(tally.damaged_frames, 'decoded picture')} damaged"
    if tally.resized:
        yield "the picture changes its size; frames were scaled to the first one's"


def describe_cut(media: Media, end_s: float) -> Iterator[str]:
    """A note if the header promises clearly more than there is."""
    promised = promised_s(media)
    if promised is not None and promised - end_s > max(MISSING_SLACK_S, 0.02 * promised):
        yield f"the file is truncated: decoded {end_s:.1f} of {promised:.1f} s"
    elif _ends_short(media):
        yield f"the file is truncated: decoded {end_s:.1f} s, its end is missing"


def _ends_short(media: Media) -> bool:
    """Whether the bytes stop early in the formats that show it otherwise than by a length."""
    kind, size = media.container.format.name, os.path.getsize(media.path)
    if kind == "mpegts":
        return all(size % packet for packet in TS_PACKETS)
    if kind in ("wav", "avi"):
        with open(media.path, "rb") as file:
            head = file.read(8)
        stated = int.from_bytes(head[4:], "little") + 8
        # Recorders that stream write the largest number for a length they do not know yet.
        return head[:4] == b"RIFF" and size < stated <= MAX_RIFF
    return False


def promised_s(media: Media) -> float | None:
    """End of the clip by the header, or None where the header does not state it."""
    if media.is_still or not media.container.format.name.startswith(EXACT_FORMATS):
        return None
    streams = [stream for stream in (media.picture, media.sound) if stream is not None]
    ends = [
        float((stream.start_time + stream.duration) * stream.time_base) - media.origin_s
        for stream in streams
        if stream.duration is not None and stream.start_time is not None
    ]
    if len(ends) == len(streams):
        return max(ends, default=None)
    is_whole = len(streams) == len(media.container.streams)
    duration = media.container.duration
    return duration / 1e6 if is_whole and duration is not None else None
