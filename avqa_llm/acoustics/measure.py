"""``measure``: one quantity, in one window, on one side.

Each quantity is one function that takes a window with sound and gives its value with a note, or
None with the reason. Tolerances are what tests on sounds of known make hold.
"""

from __future__ import annotations

import numpy as np

from avqa_llm.acoustics import loudness as loud
from avqa_llm.acoustics.kinds import UNITS, Measurement
from avqa_llm.acoustics.onsets import SLOWEST_BPM, onset_times, pulse
from avqa_llm.acoustics.pitch import HOP_S
from avqa_llm.acoustics.power import BLOCKS_HZ
from avqa_llm.acoustics.spectrum import brightness_hz
from avqa_llm.acoustics.stereo import SIDED, balance
from avqa_llm.acoustics.window import Window, check_quantity, window_of
from avqa_llm.media.clip import Clip

Found = tuple[float | None, float | None, str]
"""Value, tolerance and note."""
LEAST_S = 0.1
"""The shortest window of which anything but activity and silence is said."""
SLOWEST_RATE_HZ = {
    "loudness": loud.SLOWEST_RATE_HZ,
    **dict.fromkeys(("onsets", "tempo", "pitch", "pitch_range", "brightness"), 4000),
}
"""What sound has to be sampled at for a quantity; any will do for the others."""
LEAST_TEMPO_S = 3.0
LEAST_CLEAR = 0.2
"""Share of the sounding time that has to have a clear pitch for the whole to have one."""
EDGE_S = 0.02
"""How far off the start or the end of a sound may be."""


def measure(
    clip: Clip,
    quantity: str,
    start_s: float | None = None,
    end_s: float | None = None,
    side: str = "both",
) -> Measurement:
    """Measure one quantity of a clip's sound.

    Args:
        clip: with or without sound.
        quantity: a name of `QUANTITIES`.
        start_s: where the window starts on the clip's clock; None: at the clip's start.
        end_s: where it ends; None: at the clip's end. An end up to 0.5 s behind it is taken
            for it.
        side: both, left or right.

    Raises:
        AcousticsError: an unknown quantity or side, or a window outside of the clip.
    """
    check_quantity(quantity)
    window = window_of(clip, start_s, end_s, side)
    is_whole = window.seconds >= clip.duration_s
    return measure_window(window, quantity, gate=is_whole)


def measure_window(window: Window, quantity: str, *, gate: bool = False) -> Measurement:
    """`measure` in a window that is there already. `gate`: loudness as of a whole programme."""
    value, tolerance, note = _found(window, quantity, gate)
    return Measurement(
        quantity=quantity,
        value=value,
        unit=UNITS[quantity],
        tolerance=None if value is None else tolerance,
        start_s=window.start_s,
        end_s=window.end_s,
        side=window.side,
        note=note,
    )


def _found(window: Window, quantity: str, gate: bool) -> Found:
    if not window.channels:
        return None, None, "the clip has no sound track"
    if window.side != "both" and window.channels not in SIDED:
        return None, None, f"the sound has {_channels(window)}, which have no sides"
    if quantity in ("activity", "silence"):
        return _activity(window) if quantity == "activity" else _silence(window)
    seconds = window.sound_CS.shape[1] / window.rate_hz
    if not seconds:
        return None, None, "the sound track ends before this window"
    if seconds < LEAST_S - 1e-6:
        return None, None, f"{seconds:.2f} s are too short, at least {LEAST_S:g} s are needed"
    slowest = SLOWEST_RATE_HZ.get(quantity, 0)
    if window.rate_hz < slowest:
        return None, None, f"sampled at {window.rate_hz} Hz, at least {slowest} Hz are needed"
    if quantity == "loudness":
        return _loudness(window, gate)
    return _MEASURES[quantity](window)


def _channels(window: Window) -> str:
    return "one channel" if window.channels == 1 else f"{window.channels} channels"


def _loudness(window: Window, gate: bool) -> Found:
    value = loud.gated(window.heard_N) if gate else loud.lufs(float(window.heard_N.mean()))
    return value, 0.1, "" if value is not None else "silence"


def _level(window: Window) -> Found:
    value = loud.level_db(window.sound_CS)
    return value, 0.05, "" if value is not None else "silence"


def _activity(window: Window) -> Found:
    sounding_s = sum(span.seconds for span in window.active)
    edges = 2 * len(window.active)
    return sounding_s / window.seconds, edges * EDGE_S / window.seconds, ""


def _silence(window: Window) -> Found:
    return sum(span.seconds for span in window.silent), 2 * len(window.silent) * EDGE_S, ""


def _onsets(window: Window) -> Found:
    count = len(onsets_in(window))
    # Of one voice, one in ten may be missed or too many, and one at the edge.
    note = f"{count} in all; where several sound at once, those that others hide are missed"
    return count / window.seconds, (1 + count / 10) / window.seconds, note


def onsets_in(window: Window) -> list[float]:
    """Times of onsets on the clip's clock, where the window sounds; none at too low a rate."""
    if not window.sounding_N.any() or window.rate_hz < SLOWEST_RATE_HZ["onsets"]:
        return []
    times = onset_times(window.flux_T, window.mono_S, window.rate_hz)
    near_N = np.convolve(window.sounding_N, np.ones(5), "same") > 0  # 20 ms before and after too
    block = np.minimum((times * BLOCKS_HZ).astype(int), len(near_N) - 1)
    return [float(t) for t in window.start_s + times[near_N[block]]]


def _tempo(window: Window) -> Found:
    seconds = len(window.sounding_N) / BLOCKS_HZ
    if not window.sounding_N.any():
        return None, None, "silence"
    if seconds < LEAST_TEMPO_S:
        return None, None, f"{seconds:.1f} s are too short, at least {LEAST_TEMPO_S:g} s are needed"
    found = pulse(window.flux_T)
    if found is None:
        return None, None, "no steady beat"
    value, strength = found
    half = f"; a person may tap half of it, {value / 2:.0f}" if value >= 2 * SLOWEST_BPM else ""
    return value, 0.02 * value, f"steadiness {strength:.2f} of 1{half}"


def _pitch(window: Window) -> Found:
    pitch_P, note = clear_pitches(window)
    if not len(pitch_P):
        return None, None, note
    value = float(np.median(pitch_P))
    return value, 0.01 * value, note


def _pitch_range(window: Window) -> Found:
    pitch_P, note = clear_pitches(window)
    if not len(pitch_P):
        return None, None, note
    low, high = np.percentile(pitch_P, (5, 95))
    return float(12 * np.log2(high / low)), 0.35, note


def clear_pitches(window: Window) -> tuple[np.ndarray, str]:
    """Pitches in Hz of all clear frames where it sounds, none if they are few; and a note."""
    if not window.sounding_N.any():
        return np.zeros(0), "silence"
    times_P, pitch_P = window.pitches
    block_P = np.minimum((times_P * BLOCKS_HZ).astype(int), len(window.sounding_N) - 1)
    pitch_P = pitch_P[window.sounding_N[block_P]]
    clear_P = pitch_P[~np.isnan(pitch_P)]
    share = len(clear_P) / max(1, len(pitch_P))
    if share < LEAST_CLEAR or len(clear_P) * HOP_S < LEAST_S:
        return np.zeros(0), f"no clear pitch (in {share:.0%} of the time that sounds)"
    note = f"clear in {share:.0%} of the time that sounds; a chord can read as a lower note"
    return clear_P, note


def _brightness(window: Window) -> Found:
    value = None
    if window.sounding_N.any():
        value = brightness_hz(window.spectra)
    return value, None if value is None else 0.01 * value, "" if value is not None else "silence"


def _balance(window: Window) -> Found:
    if window.channels not in SIDED:
        return None, None, f"the sound has {_channels(window)}, which have no sides"
    if window.side != "both":
        return None, None, "the balance is between both sides; ask for side both"
    value = balance(window.sound_CS) if window.sounding_N.any() else None
    return value, 0.01, "" if value is not None else "silence"


_MEASURES = {
    "level": _level,
    "onsets": _onsets,
    "tempo": _tempo,
    "pitch": _pitch,
    "pitch_range": _pitch_range,
    "brightness": _brightness,
    "balance": _balance,
}
