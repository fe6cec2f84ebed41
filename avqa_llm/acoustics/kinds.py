"""What is measured, and what a measurement says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

QUANTITIES = {
    "loudness": "loudness as people hear it, K-weighted, in LUFS (gated for a whole clip)",
    "level": "RMS level in dBFS; a sine of full scale has -3.01",
    "onsets": "notes or strokes that begin, a second",
    "tempo": "fastest steady pulse in beats per minute, between 40 and 240",
    "pitch": "median of the fundamental frequency in Hz, between 40 and 2000, of one clear voice",
    "pitch_range": "from low to high pitch in semitones (5th to 95th percentile)",
    "brightness": "centroid of the power spectrum in Hz",
    "balance": "energy of the sides, from -1 (left) to +1 (right)",
    "activity": "share of the time that sounds, from 0 to 1",
    "silence": "seconds of silence",
}
"""Name of each quantity and what it is, with its unit."""
UNITS = {
    "loudness": "LUFS",
    "level": "dBFS",
    "onsets": "per second",
    "tempo": "beats per minute",
    "pitch": "Hz",
    "pitch_range": "semitones",
    "brightness": "Hz",
    "balance": "from -1 (left) to +1 (right)",
    "activity": "of the time",
    "silence": "s",
}
SIDES = ("both", "left", "right")


@dataclass(frozen=True)
class Span:
    """From when to when, in seconds on the clip's clock."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Measurement:
    """One quantity in one window of a clip."""

    quantity: str
    """One of `QUANTITIES`."""
    value: float | None
    """None where it cannot be told; `note` says why."""
    unit: str
    tolerance: float | None
    """How far off it may be, in the same unit, by tests on sounds that are known; None with the
    value."""
    start_s: float
    end_s: float
    side: str
    """One of `SIDES`."""
    note: str = ""
    """Why there is no value, or what to know about it; may be empty."""

    def text(self) -> str:
        """The value with its unit, or why there is none."""
        if self.value is None:
            return f"cannot tell: {self.note}"
        digits = 0 if abs(self.value) >= 100 else 1 if abs(self.value) >= 10 else 2
        return f"{self.value:.{digits}f} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`."""
        return asdict(self)
