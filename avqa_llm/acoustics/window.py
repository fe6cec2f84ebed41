"""The part of a clip that is measured: when, which side, and what counts as silence in it.

Shapes: C channels, S samples, N blocks of 10 ms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from avqa_llm.acoustics.kinds import QUANTITIES, SIDES, Span
from avqa_llm.acoustics.loudness import weighted_powers
from avqa_llm.acoustics.onsets import flux_db
from avqa_llm.acoustics.pitch import pitch_track
from avqa_llm.acoustics.power import BLOCKS_HZ, block_powers, power
from avqa_llm.acoustics.spectrum import Spectra, spectra_of
from avqa_llm.acoustics.stereo import SIDED
from avqa_llm.errors import AcousticsError
from avqa_llm.media.clip import Clip
from avqa_llm.media.sound import mix

FLOOR = 1e-6
"""-60 dBFS as power: what lies below is silent whatever the rest of the clip does."""
BELOW_PEAK = 1e-4
"""-40 dB as power: what lies so far below the loudest 100 ms of the clip is silent in it."""
SHORTEST_SILENCE_S = 0.2
"""A shorter pause belongs to the sound around it, as the breath between two notes."""
EDGE_S = 0.5
"""An end that lies so little behind the clip's is taken for the clip's: people round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Sound of one side from `start_s` to `end_s` of a clip; what is costly is computed once."""

    sound_CS: np.ndarray
    """float32; S is short or 0 where the track ends before the window."""
    rate_hz: int
    start_s: float
    end_s: float
    side: str
    channels: int
    """Of the clip, before a side was taken."""
    sounding_N: np.ndarray
    """bool, for each block of 10 ms from `start_s` on, whether it sounds."""

    @property
    def seconds(self) -> float:
        """Length of the window, also where no track is."""
        return self.end_s - self.start_s

    @cached_property
    def mono_S(self) -> np.ndarray:
        """The channels' mean, or the loudest where they would cancel each other."""
        mean_S = self.sound_CS.mean(axis=0)
        powers = [power(channel_S) for channel_S in self.sound_CS]
        if power(mean_S) < 0.05 * max(powers):
            return self.sound_CS[int(np.argmax(powers))]
        return mean_S

    @cached_property
    def spectra(self) -> Spectra:
        """Of its mono sound, every 10 ms."""
        return spectra_of(self.mono_S, self.rate_hz)

    @cached_property
    def flux_T(self) -> np.ndarray:
        """Rise of its spectrum in dB, every 10 ms."""
        return flux_db(self.spectra)

    @cached_property
    def pitches(self) -> tuple[np.ndarray, np.ndarray]:
        """Times from `start_s` on in seconds, and pitch in Hz there, NaN where none is clear."""
        return pitch_track(self.mono_S, self.rate_hz)

    @cached_property
    def heard_N(self) -> np.ndarray:
        """K-weighted power in steps of 0.1 s."""
        return weighted_powers(self.sound_CS, self.rate_hz)

    @property
    def active(self) -> tuple[Span, ...]:
        """Where it sounds, on the clip's clock."""
        return tuple(self._span(start, end) for start, end in runs(self.sounding_N))

    @property
    def silent(self) -> tuple[Span, ...]:
        """Where it does not for 0.2 s or more, the part without a track too."""
        quiet_N = np.ones(math.ceil(self.seconds * BLOCKS_HZ - 1e-6), bool)
        n = min(len(quiet_N), len(self.sounding_N))
        quiet_N[:n] = ~self.sounding_N[:n]
        spans = [self._span(start, end) for start, end in runs(quiet_N)]
        least_s = min(SHORTEST_SILENCE_S, self.seconds) - 1e-6
        return tuple(span for span in spans if span.seconds >= least_s)

    def _span(self, start: int, end: int) -> Span:
        at = self.start_s
        return Span(at + start / BLOCKS_HZ, min(at + end / BLOCKS_HZ, self.end_s))


def window_of(
    clip: Clip, start_s: float | None = None, end_s: float | None = None, side: str = "both"
) -> Window:
    """The sound of a side between two times; silence is judged by the loudest of the whole clip.

    Raises:
        AcousticsError: an unknown side, or times outside of the clip.
    """
    if side not in SIDES:
        raise AcousticsError(f"the side {side!r} is unknown; use one of {', '.join(SIDES)}")
    start, end = edges(clip, start_s, end_s)
    rate = clip.sound_rate_hz
    whole_CS = _side(clip.sound_CS, side)
    part = slice(round(start * rate), round(end * rate))
    sounding_N = np.zeros(0, bool)
    if clip.has_sound:
        least = _threshold(block_powers(clip.sound_CS, rate))
        sounding_N = _bridged(block_powers(whole_CS[:, part], rate) >= least)
    return Window(
        sound_CS=whole_CS[:, part],
        rate_hz=rate,
        start_s=start,
        end_s=end,
        side=side,
        channels=len(clip.sound_CS),
        sounding_N=sounding_N,
    )


def edges(clip: Clip, start_s: float | None, end_s: float | None) -> tuple[float, float]:
    """Start and end of a window; None means that of the clip.

    Raises:
        AcousticsError: times that are no times, in the wrong order, or outside of the clip.
    """
    if start_s is None and end_s is None:
        return 0.0, clip.duration_s  # also of a still image, which has no length
    start = 0.0 if start_s is None else start_s
    end = clip.duration_s if end_s is None else end_s
    if not 0 <= start < end <= clip.duration_s + EDGE_S or start >= clip.duration_s:
        raise AcousticsError(
            f"{clip.path}: the window from {start:g} s to {end:g} s does not lie in the clip; "
            f"give a start before an end, both between 0 and {clip.duration_s:g} s"
        )
    return start, min(end, clip.duration_s)


def check_quantity(quantity: str) -> None:
    """Raise AcousticsError unless the quantity is one that is measured."""
    if quantity not in QUANTITIES:
        raise AcousticsError(
            f"the quantity {quantity!r} is not measured; use one of {', '.join(QUANTITIES)}"
        )


def runs(is_N: np.ndarray) -> list[tuple[int, int]]:
    """First and one past last index of each run of true values."""
    change = np.flatnonzero(np.diff(is_N.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in change.reshape(-1, 2)]


def _side(sound_CS: np.ndarray, side: str) -> np.ndarray:
    if side == "both" or len(sound_CS) not in SIDED:
        return sound_CS
    index = SIDES.index(side) - 1
    return mix(sound_CS, 2)[index : index + 1]


def _threshold(power_N: np.ndarray) -> float:
    """The power from which on a block sounds."""
    width = min(10, len(power_N))
    loudest = float(np.convolve(power_N, np.full(width, 1 / width), "valid").max())
    return max(FLOOR, BELOW_PEAK * loudest)


def _bridged(sounding_N: np.ndarray) -> np.ndarray:
    """The same with pauses filled that are too short for silence."""
    sounding_N = sounding_N.copy()
    for start, end in runs(~sounding_N):
        inside = start > 0 and end < len(sounding_N)
        if inside and end - start < SHORTEST_SILENCE_S * BLOCKS_HZ:
            sounding_N[start:end] = True
    return sounding_N
