"""``facts_of``: an overview of a clip's sound, and how it reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from avqa_llm.acoustics import loudness as loud
from avqa_llm.acoustics.kinds import Measurement, Span
from avqa_llm.acoustics.measure import LEAST_S, SLOWEST_RATE_HZ, measure_window, onsets_in
from avqa_llm.acoustics.spectrum import FRAMES_HZ, brightness_hz
from avqa_llm.acoustics.stereo import balance
from avqa_llm.acoustics.window import Window, window_of
from avqa_llm.media.clip import Clip

PerSecond = tuple[float | None, ...]
"""A value for each second from the start on; None where there is none: silence, or no track."""
MOST_SPANS = 12
"""Spans that a text names at most."""


@dataclass(frozen=True)
class Facts:
    """What was measured of a clip's sound. Empty tuples where it has none."""

    seconds: float
    """Length of the clip or of the part, which may go on after its sound track."""
    rate_hz: int
    channels: int
    loudness_lufs: PerSecond
    level_db: PerSecond
    brightness_hz: PerSecond
    balance: PerSecond
    """Also None in sound whose channels have no sides, such as mono."""
    onsets_s: tuple[float, ...]
    tempo: Measurement
    pitch: Measurement
    pitch_range: Measurement
    active: tuple[Span, ...]
    silent: tuple[Span, ...]
    loudness: Measurement
    start_s: float = 0.0
    """Where the part starts that was measured; all times are on the clip's clock."""

    def text(self) -> str:
        """A short paragraph for a person or a prompt."""
        if not self.channels:
            return "Measured: the clip has no sound track, so nothing can be said about its sound."
        return " ".join(f"{sentence}." for sentence in self._sentences())

    def _sentences(self) -> list[str]:
        width = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        end = self.start_s + self.seconds
        part = f"{self.start_s:.1f}-{end:.1f} s"
        said = [f"Measured from the sound ({part}, {width}, {self.rate_hz} Hz)"]
        if not self.active:
            return [*said, "It is silent from start to end"]
        said += [f"It sounds at {_listed(self.active)}"]
        said += [f"It is silent at {_listed(self.silent)}" if self.silent else "It never is silent"]
        said += [f"Loudness: {self.loudness.text()}{self._extremes()}"]
        said += [f"Onsets of notes or strokes: {len(self.onsets_s)}"]
        said += [f"Steady pulse: {_noted(self.tempo)}", f"Clearest pitch: {_noted(self.pitch)}"]
        if self.pitch_range.value is not None:
            said += [f"Range of the pitch: {self.pitch_range.text()}"]
        return said + self._means()

    def _extremes(self) -> str:
        heard = [(value, at) for at, value in enumerate(self.loudness_lufs) if value is not None]
        if len(heard) < 2:
            return ""
        (low, quiet), (high, loudest) = min(heard), max(heard)
        return (
            f", loudest in the second from {self.start_s + loudest:g} s on ({high:.1f}), "
            f"quietest in that from {self.start_s + quiet:g} s on ({low:.1f})"
        )

    def _means(self) -> list[str]:
        said = []
        bright = [value for value in self.brightness_hz if value is not None]
        if bright:
            said.append(f"Brightness (centroid of the spectrum): {np.median(bright):.0f} Hz")
        sides = [value for value in self.balance if value is not None]
        if sides:
            mean = float(np.mean(sides))
            said.append(f"Balance from -1 (left) to +1 (right): {mean:+.2f}")
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`, with the text."""
        return {**asdict(self), "text": self.text()}


def facts_of(clip: Clip, start_s: float | None = None, end_s: float | None = None) -> Facts:
    """Measure a clip's sound, or a part of it; a clip without sound gives facts that say so.

    A minute of stereo at 48 kHz takes about a second on one core.

    Raises:
        AcousticsError: times outside of the clip.
    """
    window = window_of(clip, start_s, end_s)
    heard = bool(window.channels)
    return Facts(
        seconds=window.seconds,
        rate_hz=window.rate_hz,
        channels=window.channels,
        loudness_lufs=_loudness_each_second(window) if heard else (),
        level_db=_each_second(window, loud.level_db) if heard else (),
        brightness_hz=_brightness_each_second(window) if heard else (),
        balance=_each_second(window, balance) if heard else (),
        onsets_s=tuple(onsets_in(window)),
        tempo=measure_window(window, "tempo"),
        pitch=measure_window(window, "pitch"),
        pitch_range=measure_window(window, "pitch_range"),
        active=window.active if heard else (),
        silent=window.silent if heard else (),
        loudness=measure_window(window, "loudness", gate=window.seconds >= clip.duration_s),
        start_s=window.start_s,
    )


def _each_second(window: Window, value_of: Callable[[np.ndarray], float | None]) -> PerSecond:
    rate = window.rate_hz
    return tuple(
        value_of(window.sound_CS[:, second * rate : (second + 1) * rate])
        for second in range(_count(window))
    )


def _count(window: Window) -> int:
    """Seconds that have values; a rest of less than 0.1 s after the last one is left out."""
    return max(1, math.ceil(window.seconds - LEAST_S))


def _loudness_each_second(window: Window) -> PerSecond:
    """Not gated."""
    count = _count(window)
    if window.rate_hz < SLOWEST_RATE_HZ["loudness"]:
        return (None,) * count
    steps = round(1 / loud.HOP_S)
    parts = [window.heard_N[second * steps : (second + 1) * steps] for second in range(count)]
    return tuple(loud.lufs(float(part.mean())) if len(part) else None for part in parts)


def _brightness_each_second(window: Window) -> PerSecond:
    seconds = range(_count(window))
    if window.rate_hz < SLOWEST_RATE_HZ["brightness"]:
        return (None,) * len(seconds)
    sounds = [window.sounding_N[s * FRAMES_HZ : (s + 1) * FRAMES_HZ].any() for s in seconds]
    return tuple(
        brightness_hz(window.spectra, s * FRAMES_HZ, (s + 1) * FRAMES_HZ) if sounds[s] else None
        for s in seconds
    )


def _listed(spans: tuple[Span, ...]) -> str:
    named = ", ".join(f"{span.start_s:.1f}-{span.end_s:.1f} s" for span in spans[:MOST_SPANS])
    more = len(spans) - MOST_SPANS
    return f"{named} and {more} times more" if more > 0 else named


def _noted(found: Measurement) -> str:
    return (
        f"{found.text()} ({found.note})"
        if found.value is not None and found.note
        else (found.text())
    )
