"""What a page shows of a clip: its sound as pictures, a few frames, and what was measured.

Made once per clip; an answer about it adds only marks on top. The pictures carry no text and no
axis: those stand in the page around them, so that they scale and can be read aloud.

Shapes: T frames, H height, W width, C channels, S samples, N columns of a picture, F frequencies,
R rows of the spectrogram.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import rfft

from avqa_llm.acoustics import Facts, facts_of
from avqa_llm.media.clip import Clip

COLUMNS = 640
"""Width of both pictures of the sound, however long the clip is."""
WAVE_ROWS = 96
TONE_ROWS = 96
LEAST_HZ, MOST_HZ = 60.0, 16_000.0
WINDOW_S = 0.08
"""Of the spectrogram: 12 Hz apart, fine enough for the lowest notes that matter."""
FLOOR_DB = 66.0
"""What lies so far under the loudest place of the spectrogram is not drawn."""
SHADES = 24
"""Of the ink: few, so that the pictures pack well."""
THUMBS = 10
THUMB_SIDE = 176
INK_RGB = (20, 74, 116)
"""One dark ink on nothing. The page turns it light on dark ground."""
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page needs to show of a clip, in plain types."""

    name: str
    duration_s: float
    has_sound: bool
    is_silent: bool
    has_picture: bool
    channels: int
    """Of the sound; 0 without."""
    aspect: float
    """Width of a frame by its height; 0.0 without picture."""
    waveform: str = ""
    """PNG as a data URL; from 0 s to `duration_s`. Of stereo sound the left channel is above the
    line and the right one below it. Empty without sound."""
    spectrogram: str = ""
    """PNG as a data URL; the same width, and from `low_hz` to `high_hz` by octaves."""
    low_hz: float = 0.0
    high_hz: float = 0.0
    thumbs: tuple[tuple[float, str], ...] = ()
    """Time and JPEG (a data URL) of frames spread evenly; empty without picture."""
    facts: Facts | None = None
    """What was measured from the sound; None where nothing was."""


def shown(clip: Clip, name: str) -> Shown:
    """Draw a clip. Any clip will do: what it lacks stays empty."""
    high_hz = min(MOST_HZ, clip.sound_rate_hz / 2)
    return Shown(
        name=name,
        duration_s=clip.duration_s,
        has_sound=clip.has_sound,
        is_silent=clip.is_silent,
        has_picture=clip.has_picture,
        channels=len(clip.sound_CS) if clip.has_sound else 0,
        aspect=clip.frames_THWC.shape[2] / clip.frames_THWC.shape[1] if clip.has_picture else 0.0,
        waveform=_inked(waveform(clip)) if clip.has_sound else "",
        spectrogram=_inked(spectrogram(clip)) if clip.has_sound else "",
        low_hz=min(LEAST_HZ, high_hz) if clip.has_sound else 0.0,
        high_hz=high_hz if clip.has_sound else 0.0,
        thumbs=_thumbs(clip),
        facts=facts_of(clip),
    )


# -- the sound ---------------------------------------------------------------------------------


def waveform(clip: Clip) -> npt.NDArray[np.float32]:
    """Ink (0..1) of the waveform, (rows, N): the peaks of each column's stretch of time.

    The scale is that of the clip's own loudest moment, so that soft clips can be read too; a
    silent one stays a line.
    """
    sides_2N = np.stack([_peaks(clip, clip.sound_CS[0]), _peaks(clip, clip.sound_CS[-1])])
    if len(clip.sound_CS) > 2:  # more than two channels: no sides, one shape
        sides_2N[:] = np.max([_peaks(clip, sound_S) for sound_S in clip.sound_CS], axis=0)
    loudest = sides_2N.max()
    heights_2N = sides_2N / loudest if loudest > 0 and not clip.is_silent else 0.0 * sides_2N
    half = WAVE_ROWS // 2
    steps = (np.arange(half) + 0.5)[:, None]
    up, down = (np.clip(side * (half - 1) - steps + 1.5, 0.0, 1.0) for side in heights_2N)
    return np.concatenate([up[::-1], down]).astype(np.float32)


def _peaks(clip: Clip, sound_S: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    edges = np.linspace(0, max(1.0, clip.duration_s * clip.sound_rate_hz), COLUMNS + 1)
    starts = edges[:-1].astype(int)
    there = starts < len(sound_S)
    peaks_N = np.zeros(COLUMNS, np.float32)
    whole_S = np.abs(sound_S[: int(edges[-1]) + 1])
    peaks_N[there] = np.maximum.reduceat(whole_S, starts[there])
    return peaks_N


def spectrogram(clip: Clip) -> npt.NDArray[np.float32]:
    """Ink (0..1) of the spectrogram, (R, N): high notes on top, all channels together.

    A column is the power of one Hann window at the middle of its stretch of time. Rows lie evenly
    by octaves; each weighs the frequencies around its own in a triangle.
    """
    rate, sound_S = clip.sound_rate_hz, clip.sound_CS.mean(axis=0)
    size = 2 ** round(np.log2(WINDOW_S * rate))
    middles = (np.arange(COLUMNS) + 0.5) / COLUMNS * clip.duration_s * rate
    padded_S = np.pad(sound_S, (size, size))
    starts = np.clip(middles + size / 2, 0, len(padded_S) - size).astype(int)
    windows_NF = padded_S[starts[:, None] + np.arange(size)] * np.hanning(size).astype(np.float32)
    power_NF = np.abs(rfft(windows_NF, axis=1)) ** 2
    power_RN = _octaves(size, rate) @ power_NF.T
    level_RN = 10 * np.log10(power_RN + 1e-12)
    if clip.is_silent:
        return np.zeros_like(level_RN, np.float32)
    ink_RN = (level_RN - level_RN.max() + FLOOR_DB) / FLOOR_DB
    return np.clip(ink_RN, 0.0, 1.0)[::-1].astype(np.float32)


def _octaves(size: int, rate_hz: int) -> npt.NDArray[np.float64]:
    """Weights (R, F) that take linear frequencies to rows even by octaves, low ones first."""
    has_hz = np.arange(size // 2 + 1) * rate_hz / size
    high = min(MOST_HZ, rate_hz / 2)
    edges = np.geomspace(min(LEAST_HZ, high / 2), high, TONE_ROWS + 2)
    rows = []
    for low, middle, top in zip(edges, edges[1:], edges[2:], strict=False):
        width = max(top - low, 2 * rate_hz / size) / 2  # never between two frequencies
        triangle = np.clip(1 - np.abs(has_hz - middle) / width, 0.0, None)
        rows.append(triangle / max(triangle.sum(), 1e-9))
    return np.array(rows)


def _inked(ink: npt.NDArray[np.float32]) -> str:
    """Ink on transparent ground as a PNG."""
    shades = np.round(ink * (SHADES - 1)) / (SHADES - 1)
    picture = np.empty((*ink.shape, 4), np.uint8)
    picture[..., :3] = INK_RGB[::-1]
    picture[..., 3] = np.round(shades * 255)
    return _as_url(picture, "png", [cv2.IMWRITE_PNG_COMPRESSION, 5])


# -- the picture -------------------------------------------------------------------------------


def _thumbs(clip: Clip) -> tuple[tuple[float, str], ...]:
    if not clip.has_picture:
        return ()
    wanted = (np.arange(THUMBS) + 0.5) / THUMBS * clip.duration_s
    nearest = {int(np.abs(clip.frame_times_s - time).argmin()) for time in wanted}
    return tuple(
        (round(float(clip.frame_times_s[index]), 3), _thumb(clip.frames_THWC[index]))
        for index in sorted(nearest)
    )


def _thumb(frame_HWC: Picture) -> str:
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, THUMB_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
    return _as_url(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), "jpeg", [cv2.IMWRITE_JPEG_QUALITY, 82])


def _as_url(picture: npt.NDArray[Any], kind: str, options: list[int]) -> str:
    done, data = cv2.imencode(f".{kind}", picture, options)
    assert done, f"no {kind} of an array {picture.shape}"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
