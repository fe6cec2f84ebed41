"""Sounds whose make is known, as clips: what acoustic measures are tested on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from avqa_llm.media import Clip


def clip_of(sound: np.ndarray, rate_hz: int = 48000, seconds: float | None = None) -> Clip:
    """A clip of sound (S,) or (C, S) alone; `seconds`: it goes on after its sound track."""
    sound_CS = np.atleast_2d(sound).astype(np.float32)
    length = sound_CS.shape[1] / rate_hz
    return Clip(
        path="made.wav",
        sha256="",
        duration_s=length if seconds is None else seconds,
        frames_THWC=np.zeros((0, 0, 0, 3), np.uint8),
        frame_times_s=np.zeros(0),
        sound_CS=sound_CS,
        sound_rate_hz=rate_hz,
        sound_span_s=(0.0, length),
        picture_span_s=(0.0, 0.0),
    )


def no_sound(seconds: float = 2.0) -> Clip:
    """A clip without a sound track."""
    return clip_of(np.zeros((1, 1)), 48000, seconds).muted()


def tone(
    hertz: float, seconds: float = 2.0, peak: float = 0.3, rate_hz: int = 48000, harmonics: int = 1
) -> np.ndarray:
    """A sine (S,), or that many harmonics of it, each as strong as its number divides."""
    turn_S = 2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz
    inside = [k for k in range(1, harmonics + 1) if k * hertz < 0.45 * rate_hz]
    return peak * np.sum([np.sin(k * turn_S) / k for k in inside], axis=0)


def noise(
    seconds: float = 2.0, rms: float = 0.1, seed: int = 0, rate_hz: int = 48000
) -> np.ndarray:
    """White noise (S,)."""
    return rms * np.random.default_rng(seed).normal(size=round(seconds * rate_hz))


def struck(
    times_s: Iterable[float], seconds: float, kind: str = "click", rate_hz: int = 48000
) -> np.ndarray:
    """Clicks of 1 ms, or notes that fade out, (S,), over noise at -80 dBFS."""
    sound_S = noise(seconds, 1e-4, rate_hz=rate_hz)
    age_S = np.arange(round(0.4 * rate_hz)) / rate_hz
    note_S = 0.5 * np.exp(-12 * age_S) * np.sin(2 * np.pi * 523 * age_S)
    one_S = np.full(rate_hz // 1000, 0.5) if kind == "click" else note_S
    for time_s in times_s:
        part_S = sound_S[round(time_s * rate_hz) :][: len(one_S)]
        part_S += one_S[: len(part_S)]
    return sound_S
