"""Clips after a change: each function takes a clip and gives another one, with a note that says so.

What is drawn at random is seeded by the clip, so that a change gives the same bytes always.

Shapes: T frames, H height, W width, C channels, S samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from avqa_llm.media import Clip
from avqa_llm.media.changes import mirrored as mirrored
from avqa_llm.media.changes import time_reversed as time_reversed
from avqa_llm.media.clip import peak

NO_SOUND, NO_PICTURE = "the clip has no sound", "the clip has no picture"
SILENT = "the clip's sound is silent"
TOO_SHORT = "the clip is shorter than the shift"
NOT_IN_TIME = "the other clip has no picture in this time"
_AAC_DELAY = 1024  # samples that the encoder puts before the first one
_AAC_RATES = frozenset(
    (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
)


class LeftOut(Exception):
    """Why a question is not asked after a change: a phrase that many questions share."""


# -- taken away, or another clip's -----------------------------------------------------------


def muted(clip: Clip) -> Clip:
    """The clip without its sound. Raises LeftOut."""
    _need_sound(clip)
    return clip.muted()


def blanked(clip: Clip) -> Clip:
    """The clip without its picture. Raises LeftOut."""
    _need_picture(clip)
    return clip.blanked()


def emptied(clip: Clip) -> Clip:
    """The clip without sound and picture; its length stays."""
    return clip.muted().blanked()


def with_sound_of(clip: Clip, other: Clip) -> Clip:
    """The clip's picture with another clip's sound, cut where the clip ends. Raises LeftOut."""
    _need_sound(clip)
    _need_picture(clip)
    _need_sound(other)
    sound_CS = other.sound_CS[:, : round(clip.duration_s * other.sound_rate_hz)].copy()
    end_s = min(other.sound_span_s[1], clip.duration_s)
    return replace(
        clip,
        sound_CS=sound_CS,
        sound_rate_hz=other.sound_rate_hz,
        sound_span_s=(min(other.sound_span_s[0], end_s), end_s),
        duration_s=max(clip.picture_span_s[1], end_s),
        notes=(*clip.notes, f"the sound is that of {other.path}"),
    )


def with_picture_of(clip: Clip, other: Clip) -> Clip:
    """The clip's sound with another clip's picture, cut where the clip ends. Raises LeftOut."""
    _need_sound(clip)
    _need_picture(clip)
    _need_picture(other)
    kept = other.frame_times_s <= clip.duration_s
    if not kept.any():
        raise LeftOut(NOT_IN_TIME)
    end_s = min(other.picture_span_s[1], clip.duration_s)
    return replace(
        clip,
        frames_THWC=other.frames_THWC[kept],
        frame_times_s=other.frame_times_s[kept],
        picture_span_s=(min(other.picture_span_s[0], end_s), end_s),
        duration_s=max(clip.sound_span_s[1], end_s),
        notes=(*clip.notes, f"the picture is that of {other.path}"),
    )


# -- time and space --------------------------------------------------------------------------


def shifted(clip: Clip, seconds: float) -> Clip:
    """The sound later by so many seconds (earlier where negative), the picture as it was.

    What falls out is cut, gaps are silence, and the track keeps its samples' number. Raises
    LeftOut.
    """
    _need_sound(clip)
    _need_picture(clip)
    by = round(seconds * clip.sound_rate_hz)
    start_s, end_s = (edge + seconds for edge in clip.sound_span_s)
    if abs(by) >= clip.sound_CS.shape[1] or end_s <= 0 or start_s >= clip.duration_s:
        raise LeftOut(TOO_SHORT)
    sound_CS = np.zeros_like(clip.sound_CS)
    if by >= 0:
        sound_CS[:, by:] = clip.sound_CS[:, : sound_CS.shape[1] - by]
    else:
        sound_CS[:, :by] = clip.sound_CS[:, -by:]
    way = "later" if seconds > 0 else "earlier"
    return replace(
        clip,
        sound_CS=sound_CS,
        sound_span_s=(max(0.0, start_s), min(clip.sound_span_s[1], end_s)),
        notes=(*clip.notes, f"the sound was moved {abs(seconds):g} s {way}"),
    )


# -- quality ---------------------------------------------------------------------------------


def noisy(clip: Clip, snr_db: float) -> Clip:
    """White noise so many dB below the track's RMS; a mix that would clip is turned down whole.

    The noise is the same at every level. Raises LeftOut.
    """
    _need_sound(clip)
    if clip.is_silent:
        raise LeftOut(SILENT)
    sound_CS = clip.sound_CS
    rms = float(np.sqrt(np.mean(np.square(sound_CS, dtype=np.float64))))
    noise_CS = _seeded(clip, "noise").standard_normal(sound_CS.shape, np.float32)
    noise_CS *= np.float32(rms * 10 ** (-snr_db / 20))
    noise_CS += sound_CS
    loudest = peak(noise_CS)
    if loudest > 1:
        noise_CS /= np.float32(loudest)
    note = f"white noise was added at {snr_db:g} dB signal to noise"
    return replace(clip, sound_CS=noise_CS, notes=(*clip.notes, note))


def frames_dropped(clip: Clip, part: float) -> Clip:
    """That part of the frames dropped at random; the frame before stands still instead.

    The first frame stays, as do number and times. Raises LeftOut.
    """
    _need_picture(clip)
    count = len(clip.frames_THWC)
    shown = np.arange(count)
    if count > 1:
        gone = min(round(part * count), count - 1)
        shown[1 + _seeded(clip, "frames").permutation(count - 1)[:gone]] = 0
    held = np.maximum.accumulate(shown)
    note = f"{int((shown == 0).sum()) - 1} of {count} frames were dropped"
    return replace(clip, frames_THWC=clip.frames_THWC[held], notes=(*clip.notes, note))


def lower_resolution(clip: Clip, factor: int) -> Clip:
    """Frames scaled down by a factor and up again to their size. Raises LeftOut."""
    import cv2

    _need_picture(clip)
    height, width = clip.frames_THWC.shape[1:3]
    small = (max(1, width // factor), max(1, height // factor))
    frames_THWC = np.empty_like(clip.frames_THWC)
    for frame, place in zip(clip.frames_THWC, frames_THWC, strict=True):
        coarse = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
        cv2.resize(coarse, (width, height), dst=place, interpolation=cv2.INTER_LINEAR)
    note = f"the picture was made {factor} times smaller and large again"
    return replace(clip, frames_THWC=frames_THWC, notes=(*clip.notes, note))


def compressed(clip: Clip, quality: int, bit_rate: int) -> Clip:
    """Frames through JPEG at a quality (1..100), sound through AAC at a bit rate (bits/s)."""
    changes: dict[str, Any] = {}
    notes = list(clip.notes)
    if clip.has_picture:
        changes["frames_THWC"] = _through_jpeg(clip.frames_THWC, quality)
        notes.append(f"the frames went through JPEG at quality {quality}")
    if clip.has_sound:
        changes["sound_CS"] = _through_aac(clip.sound_CS, clip.sound_rate_hz, bit_rate)
        notes.append(f"the sound went through AAC at {bit_rate // 1000} kb/s")
    return replace(clip, notes=tuple(notes), **changes)


def _through_jpeg(frames_THWC: np.ndarray, quality: int) -> np.ndarray:
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    pressed_THWC = np.empty_like(frames_THWC)
    for frame, place in zip(frames_THWC, pressed_THWC, strict=True):
        # JPEG weighs the colours differently, so it has to know which one is red.
        data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), flags)[1]
        back = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        cv2.cvtColor(back, cv2.COLOR_BGR2RGB, dst=place)
    return pressed_THWC


def _through_aac(sound_CS: np.ndarray, rate_hz: int, bit_rate: int) -> np.ndarray:
    """Return (C, S) of the same length and rate, without a shift in time."""
    from avqa_llm.media.sound import resample

    if rate_hz not in _AAC_RATES:
        there_CS = resample(sound_CS, rate_hz, 44100)
        back_CS = resample(_through_aac(there_CS, 44100, bit_rate), 44100, rate_hz)
        return np.ascontiguousarray(back_CS[:, : sound_CS.shape[1]])
    if len(sound_CS) > 2:  # each channel on its own: nobody has to know how they are ordered
        share = bit_rate // len(sound_CS)
        return np.concatenate([_through_aac(one_CS[None], rate_hz, share) for one_CS in sound_CS])
    return _aac(sound_CS, rate_hz, bit_rate)


def _aac(sound_CS: np.ndarray, rate_hz: int, bit_rate: int) -> np.ndarray:
    import av

    layout = "mono" if len(sound_CS) == 1 else "stereo"
    encoder: Any = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate_hz, layout, "fltp"
    # The default search for the best bits takes twice as long.
    encoder.bit_rate, encoder.options = bit_rate, {"aac_coder": "fast"}
    encoder.open()
    packets = []
    for start in range(0, sound_CS.shape[1], encoder.frame_size):
        block_CS = np.ascontiguousarray(sound_CS[:, start : start + encoder.frame_size])
        frame = av.AudioFrame.from_ndarray(block_CS, "fltp", layout)
        frame.sample_rate, frame.pts = rate_hz, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder: Any = av.CodecContext.create("aac", "r")
    decoder.extradata = encoder.extradata
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    back_CS = np.concatenate([frame.to_ndarray() for frame in decoded], axis=1)
    back_CS = back_CS[:, _AAC_DELAY : _AAC_DELAY + sound_CS.shape[1]]
    missing = sound_CS.shape[1] - back_CS.shape[1]
    return np.pad(back_CS, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(back_CS)


# -- parts -----------------------------------------------------------------------------------


def _need_sound(clip: Clip) -> None:
    if not clip.has_sound:
        raise LeftOut(NO_SOUND)


def _need_picture(clip: Clip) -> None:
    if not clip.has_picture:
        raise LeftOut(NO_PICTURE)


def _seeded(clip: Clip, purpose: str) -> np.random.Generator:
    key = hashlib.sha256(f"{clip.sha256} {purpose}".encode()).digest()
    return np.random.default_rng(list(key[:8]))
