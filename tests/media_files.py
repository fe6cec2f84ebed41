"""Makes media files for tests, so that none is kept in the repository.

Every frame shows its own number as eight black or white columns (binary, lowest bit left), so
that a test can tell which frame it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from avqa_llm.media import Clip

CLOCK = Fraction(1, 1000)
"""Presentation times are written in milliseconds."""
BITS = 8


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A video track of numbered frames."""

    times_s: tuple[float, ...]
    codec: str = "libx264"
    size: tuple[int, int] = (64, 48)
    pix_fmt: str = "yuv420p"
    keyframe_every: int = 25
    rotation: int = 0
    options: tuple[tuple[str, str], ...] = (("preset", "ultrafast"), ("crf", "18"))


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound track: a sine of 440 Hz in every channel."""

    seconds: float
    start_s: float = 0.0
    codec: str = "aac"
    rate_hz: int = 16000
    layout: str = "mono"
    volume: float = 0.5
    gap_s: float = 0.0
    """Silence that is left out of the stream halfway: only the times tell of it."""


def at_rate(fps: float, seconds: float, start_s: float = 0.0) -> tuple[float, ...]:
    """Presentation times of a constant frame rate."""
    return tuple(start_s + k / fps for k in range(round(fps * seconds)))


def numbered_frame(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return an RGB picture (H, W, 3) that shows ``number``."""
    width, height = size
    bits = (number >> (np.arange(width) * BITS // width)) & 1
    return np.broadcast_to(bits[None, :, None] * 235, (height, width, 3)).astype(np.uint8)


def number_of(frame_HWC: np.ndarray) -> int:
    """Read the number back from an upright frame of any size."""
    width = frame_HWC.shape[1]
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    return int(((frame_HWC[:, centres].mean(axis=(0, 2)) > 118) << np.arange(BITS)).sum())


def numbers(clip: Clip) -> list[int]:
    """Read the numbers of all frames of a clip."""
    return [number_of(frame) for frame in clip.frames_THWC]


def said(clip: Clip, text: str) -> bool:
    """Whether a note of the clip has this text."""
    return any(text in note for note in clip.notes)


def sine(sound: Sound) -> np.ndarray:
    """Return float32 (channels, samples)."""
    count = round(sound.seconds * sound.rate_hz)
    wave = sound.volume * np.sin(2 * np.pi * 440 * np.arange(count) / sound.rate_hz)
    channels = len(av.AudioLayout(sound.layout).channels)
    return np.repeat(wave[None].astype(np.float32), channels, axis=0)


def make_media(
    path: Path,
    picture: Picture | None = None,
    sound: Sound | None = None,
    *,
    mux: dict[str, str] | None = None,
) -> Path:
    """Write a file whose container follows from the name of ``path``."""
    with av.open(str(path), "w", options=mux or {}) as out:
        packets: list[tuple[float, Any]] = []
        streams = [
            (_add_picture(out, picture), _picture_frames(picture)) if picture else None,
            (_add_sound(out, sound), None) if sound else None,
        ]
        out.start_encoding()
        if picture and streams[0]:
            packets += _encode(streams[0][0], streams[0][1])
        if sound and streams[1]:
            packets += _encode(streams[1][0], _sound_frames(sound, streams[1][0]))
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            out.mux(packet)
    return path


def _add_picture(out: Any, picture: Picture) -> Any:
    stream = out.add_stream(picture.codec, rate=25, options=dict(picture.options))
    stream.width, stream.height = picture.size
    stream.pix_fmt = picture.pix_fmt
    stream.codec_context.time_base = CLOCK
    stream.gop_size = picture.keyframe_every
    if picture.rotation:
        stream.set_display_rotation(picture.rotation)
    return stream


def _add_sound(out: Any, sound: Sound) -> Any:
    return out.add_stream(sound.codec, rate=sound.rate_hz, layout=sound.layout)


def _picture_frames(picture: Picture) -> Any:
    for number, time_s in enumerate(picture.times_s):
        frame = av.VideoFrame.from_ndarray(numbered_frame(number, picture.size))
        frame = frame.reformat(format=picture.pix_fmt)
        frame.pts, frame.time_base = round(time_s / CLOCK), CLOCK
        yield frame


def _sound_frames(sound: Sound, stream: Any) -> Any:
    context = stream.codec_context
    resampler = av.AudioResampler(context.format, sound.layout, sound.rate_hz, 1024)
    whole = av.AudioFrame.from_ndarray(sine(sound), format="fltp", layout=sound.layout)
    whole.sample_rate, whole.time_base = sound.rate_hz, Fraction(1, sound.rate_hz)
    whole.pts = round(sound.start_s * sound.rate_hz)
    for frame in [*resampler.resample(whole), *resampler.resample(None)]:
        if frame.time >= sound.start_s + sound.seconds / 2:
            frame.pts += round(sound.gap_s / frame.time_base)
        yield frame


def _encode(stream: Any, frames: Any) -> list[tuple[float, Any]]:
    packets = [packet for frame in frames for packet in stream.encode(frame)]
    packets += stream.encode(None)
    return [(float((packet.dts or 0) * packet.time_base), packet) for packet in packets]
