"""A clip as parts of a chat message: the picture and the sound, each on its own.

They are never one file: whether a server that is given a video also hears it is up to its
settings, and cannot be seen from outside. Shapes: T frames, H height, W width, C colours,
S samples, N shown frames.
"""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from avqa_llm.media.clip import Clip
from avqa_llm.media.sampling import nearest

Part = dict[str, Any]

PICTURES = ("video", "images")
"""One `video_url`, or an `image_url` for each frame after a text with its time."""
SOUNDS = ("input_audio", "audio_url")
"""The part of OpenAI's protocol, or vLLM's for data URLs."""
RATE_HZ = 16_000
"""Mono at this rate is what the sound encoders of omni models are made for."""
QUALITY = {"crf": "18", "preset": "fast", "bf": "0"}
"""Of x264: no visible loss. Without B-frames, so that every reader sees the frames in order."""
JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is sent of a clip. What the clip does not have is not there."""

    picture: tuple[Part, ...] = ()
    sound: tuple[Part, ...] = ()

    def content(self, *, without: str = "") -> list[Part]:
        """All parts, the picture first; `without` leaves out `picture` or `sound`.

        Times of frames stay where their frames are left out: the prompts then differ in the
        frames alone.
        """
        picture = self.picture
        if without == "picture":
            picture = tuple(part for part in picture if part["type"] == "text")
        return [*picture, *(() if without == "sound" else self.sound)]

    @property
    def sent(self) -> tuple[str, ...]:
        """Which of `sound` and `picture` there are."""
        return tuple(name for name in ("sound", "picture") if getattr(self, name))

    @property
    def key(self) -> str:
        """SHA-256 of everything that is sent."""
        return hashlib.sha256(repr(self.content()).encode()).hexdigest()


def encode(clip: Clip, *, picture: str = "video", sound: str = "input_audio") -> Parts:
    """Encode the frames and the sound of a clip. The names are those of PICTURES and SOUNDS."""
    return Parts(
        picture=tuple(_picture(clip, picture)) if clip.has_picture else (),
        sound=(_sound(clip, sound),) if clip.has_sound else (),
    )


def _picture(clip: Clip, how: str) -> Iterator[Part]:
    end_s = max(clip.picture_span_s[1], float(clip.frame_times_s[-1]))
    if how == "video" and len(clip.frames_THWC) > 1 and end_s > 0:
        data = to_mp4(clip.frames_THWC, clip.frame_times_s, end_s)
        yield {"type": "video_url", "video_url": {"url": _data_url("video/mp4", data)}}
        return
    for frame, time_s in zip(clip.frames_THWC, clip.frame_times_s, strict=True):
        yield {"type": "text", "text": f"The picture at {time_s:.1f} s:"}
        url = _data_url("image/jpeg", to_jpeg(frame))
        yield {"type": "image_url", "image_url": {"url": url}}


def _sound(clip: Clip, how: str) -> Part:
    data = to_wav(clip.sound_at(RATE_HZ, 1)[0], RATE_HZ)
    if how == "audio_url":
        return {"type": "audio_url", "audio_url": {"url": _data_url("audio/wav", data)}}
    encoded = base64.b64encode(data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def to_wav(sound_S: np.ndarray, rate_hz: int) -> bytes:
    """Sound in -1..1 as 16-bit mono; what is louder is cut off."""
    samples_S = np.round(np.clip(sound_S, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples_S.tobytes())
    return buffer.getvalue()


def to_jpeg(frame_HWC: np.ndarray) -> bytes:
    """One RGB frame."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", frame_HWC[:, :, ::-1], options)
    if not done:
        raise RuntimeError(f"a frame of shape {frame_HWC.shape} was not encoded as JPEG")
    return bytes(data.tobytes())


def to_mp4(frames_THWC: np.ndarray, times_s: np.ndarray, end_s: float) -> bytes:
    """Frames as a soundless H.264 file that lasts from 0 to `end_s`.

    Its frame rate is constant, since many readers take the number of a frame for its time.
    """
    import av

    shown_N = _shown(times_s, end_s)
    rate = Fraction(len(shown_N) / end_s).limit_denominator(1000)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=rate, options=QUALITY)
        frames_THWC = _even(frames_THWC)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for number, index in enumerate(shown_N):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames_THWC[index]), "rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def _shown(times_s: np.ndarray, end_s: float) -> np.ndarray:
    """Which frame is shown in each of N equal spans (N,).

    Frames from the centres of equal spans stay as they are. Others are repeated, up to four
    times as many, so that each is shown near its time.
    """
    for spans in (len(times_s), 2 * len(times_s), 4 * len(times_s)):
        centres_N = (np.arange(spans) + 0.5) * end_s / spans
        shown_N = nearest(times_s, centres_N)
        if len(np.unique(shown_N)) == len(times_s):
            break
    return shown_N


def _even(frames_THWC: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where there is an odd number of them: H.264 takes pairs."""
    height, width = frames_THWC.shape[1:3]
    odd = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    return np.pad(frames_THWC, odd, mode="edge") if height % 2 or width % 2 else frames_THWC
