"""Acoustic measures on sounds of known make: every unit, every reason for "cannot tell"."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import sosfreqz

from avqa_llm.acoustics import QUANTITIES, AcousticsError, Facts, Span, facts_of, measure
from avqa_llm.acoustics.loudness import k_weighting
from avqa_llm.media import Clip
from avqa_llm.media.changes import mirrored
from tests.sounds import clip_of, no_sound, noise, struck, tone

RATE = 48000
QUIET = 0.001
# Both filters of the K-weighting at 48 kHz, as tables 1 and 2 of BS.1770-4 print them.
PRINTED = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241]
        + [0.73248077421585],
        [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
    ]
)


def value_of(clip: Clip, quantity: str, *window: float, side: str = "both") -> float:
    """The value, which there must be."""
    found = measure(clip, quantity, *window, side=side)
    assert found.value is not None, found.note
    return found.value


def stereo(left: np.ndarray, right: np.ndarray, rate_hz: int = RATE) -> Clip:
    return clip_of(np.stack([left, right]), rate_hz)


# -- level and loudness ------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 96000])
def test_a_sine_of_full_scale_has_the_loudness_of_the_standard(rate: int) -> None:
    """BS.1770-4: 997 Hz at 0 dBFS in one channel reads -3.01 LKFS, in both therefore 0."""
    sine = tone(997, 3, peak=1.0, rate_hz=rate)
    assert value_of(clip_of(sine, rate), "loudness") == pytest.approx(-3.01, abs=0.05)
    assert value_of(stereo(sine, sine, rate), "loudness") == pytest.approx(0.0, abs=0.05)
    assert value_of(clip_of(sine, rate), "level") == pytest.approx(-3.01, abs=0.01)


def test_the_filters_are_those_that_the_standard_prints_for_48_khz() -> None:
    assert np.allclose(k_weighting(48000), PRINTED, atol=1e-6)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("hertz", [40, 100, 2000, 4000])
def test_loudness_weighs_frequencies_alike_at_every_rate(rate: int, hertz: float) -> None:
    sines = [clip_of(tone(f, 3, 0.5, rate), rate) for f in (hertz, 997)]
    _, gains = sosfreqz(PRINTED, [hertz, 997], fs=48000)
    less_db = 20 * np.log10(abs(gains[0] / gains[1]))
    found = value_of(sines[0], "loudness") - value_of(sines[1], "loudness")
    assert found == pytest.approx(less_db, abs=0.1)


def test_the_gate_leaves_out_what_is_far_below_the_rest() -> None:
    """As case 3 of EBU Tech 3341: -36, -23 and -36 LUFS together have -23, within 0.1."""
    loudness = [-36.0, -23.0, -36.0]
    sines = [tone(1000, s, 10 ** (db / 20)) for db, s in zip(loudness, (10, 60, 10), strict=True)]
    both = np.concatenate(sines)
    assert value_of(stereo(both, both), "loudness") == pytest.approx(-23.0, abs=0.1)


def test_the_gate_leaves_silence_out_of_the_whole_and_not_out_of_a_window() -> None:
    clip = clip_of(np.concatenate([tone(997, 2, 0.5), np.zeros(2 * RATE)]))
    sounding = value_of(clip_of(tone(997, 2, 0.5)), "loudness")
    assert value_of(clip, "loudness") == pytest.approx(sounding, abs=0.7)  # blocks at the edge
    window = value_of(clip, "loudness", 0.0, 3.9)
    assert window == pytest.approx(sounding + 10 * math.log10(2 / 3.9), abs=0.1)


@settings(max_examples=20, deadline=None)
@given(gain_db=st.floats(-30, 6), hertz=st.floats(100, 6000), rate=st.sampled_from([16000, 44100]))
def test_gain_moves_level_and_loudness_and_nothing_else(
    gain_db: float, hertz: float, rate: int
) -> None:
    sine = tone(hertz, 1, 0.3, rate)
    clip, louder = clip_of(sine, rate), clip_of(sine * 10 ** (gain_db / 20), rate)
    for quantity in ("level", "loudness"):
        moved = value_of(louder, quantity) - value_of(clip, quantity)
        assert moved == pytest.approx(gain_db, abs=0.01)
    for quantity in ("activity", "brightness"):
        assert value_of(louder, quantity) == pytest.approx(value_of(clip, quantity), rel=1e-3)


def test_each_side_is_measured_by_itself() -> None:
    clip = stereo(tone(440, 2, 0.4), tone(880, 2, 0.1))
    left, right = (value_of(clip, "level", side=side) for side in ("left", "right"))
    assert left - right == pytest.approx(20 * math.log10(4), abs=0.01)
    assert value_of(clip, "pitch", side="left") == pytest.approx(440, rel=0.005)
    assert value_of(clip, "pitch", side="right") == pytest.approx(880, rel=0.005)


# -- pitch and brightness ----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
@pytest.mark.parametrize("hertz", [45.0, 82.4, 220.0, 440.0, 880.0, 1500.0, 1900.0])
@pytest.mark.parametrize("harmonics", [1, 8])
def test_pitch_of_tones_is_within_half_a_percent(rate: int, hertz: float, harmonics: int) -> None:
    clip = clip_of(tone(hertz, 1, 0.3, rate, harmonics), rate)
    assert value_of(clip, "pitch") == pytest.approx(hertz, rel=0.005)
    assert value_of(clip, "pitch_range") < 0.1


def test_the_range_of_a_scale_is_counted_in_semitones() -> None:
    scale = np.concatenate([tone(220 * 2 ** (n / 12), 0.5, harmonics=4) for n in range(13)])
    assert value_of(clip_of(scale), "pitch_range") == pytest.approx(12, abs=0.35)


@pytest.mark.parametrize("hertz", [25.0, 2500.0, 6000.0])
def test_what_is_too_low_or_too_high_has_no_pitch(hertz: float) -> None:
    found = measure(clip_of(tone(hertz, 1, harmonics=1)), "pitch")
    assert found.value is None and "no clear pitch" in found.note


def test_a_voice_keeps_its_pitch_over_a_softer_one_and_in_noise() -> None:
    voice = tone(220, 2, 0.1, harmonics=6)
    for other in (tone(311.1, 2, 0.03, harmonics=6), noise(2, 0.03)):
        assert value_of(clip_of(voice + other), "pitch") == pytest.approx(220, rel=0.01)


def test_a_chord_says_that_it_can_read_as_a_lower_note() -> None:
    found = measure(clip_of(tone(220, 2, 0.1) + tone(330, 2, 0.1)), "pitch")
    assert found.value == pytest.approx(110, rel=0.01) and "chord" in found.note


def test_noise_has_no_pitch() -> None:
    found = measure(clip_of(noise()), "pitch")
    assert found.value is None and "no clear pitch" in found.note and found.tolerance is None


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("hertz", [200.0, 1000.0, 6000.0])
def test_brightness_of_a_sine_is_its_frequency(rate: int, hertz: float) -> None:
    found = value_of(clip_of(tone(hertz, 1, 0.3, rate), rate), "brightness")
    assert found == pytest.approx(hertz, rel=0.01)


def test_brightness_of_a_mixture_is_the_centre_of_its_power() -> None:
    clip = clip_of(tone(500, 1, 0.2) + tone(3500, 1, 0.1))
    assert value_of(clip, "brightness") == pytest.approx((4 * 500 + 3500) / 5, rel=0.01)
    assert value_of(clip_of(noise()), "brightness") == pytest.approx(RATE / 4, rel=0.02)


# -- onsets and tempo --------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("kind", ["click", "note"])
@pytest.mark.parametrize("bpm", [45, 90, 137, 200, 238])
def test_onsets_within_20_ms_and_tempo_within_2_percent(rate: int, kind: str, bpm: int) -> None:
    times = np.arange(0.3, 9.5, 60 / bpm)
    facts = facts_of(clip_of(struck(times, 10, kind, rate), rate))
    assert len(facts.onsets_s) == len(times)
    assert np.allclose(facts.onsets_s, times, atol=0.02)
    assert facts.tempo.value == pytest.approx(bpm, rel=0.02)


def test_onsets_are_counted_in_a_window() -> None:
    clip = clip_of(struck([0.5, 1.5, 2.0, 2.5, 3.5], 4))
    found = measure(clip, "onsets", 1.25, 2.75)
    assert found.value == pytest.approx(3 / 1.5) and found.unit == "per second"
    assert facts_of(clip, 1.25, 2.75).onsets_s == pytest.approx((1.5, 2.0, 2.5), abs=0.02)


def test_a_held_tone_with_vibrato_begins_once() -> None:
    t = np.arange(4 * RATE) / RATE
    bend = 2 * np.sin(2 * np.pi * 5.5 * t)
    held = sum(0.2 / k * np.sin(k * (2 * np.pi * 440 * t + bend)) for k in range(1, 7))
    assert len(facts_of(clip_of(held)).onsets_s) == 1


def test_strokes_at_random_have_no_tempo() -> None:
    rng = np.random.default_rng(3)
    clips = [clip_of(struck(rng.uniform(0.2, 9.5, 18), 10, "note", 16000), 16000) for _ in range(8)]
    assert sum(measure(clip, "tempo").value is None for clip in clips) >= 7


# -- silence and activity ----------------------------------------------------------------------


def test_silences_are_found_where_they_are() -> None:
    parts = [np.zeros(RATE), tone(440, 1.5), np.zeros(RATE // 2), tone(660, 1), np.zeros(RATE)]
    clip = clip_of(np.concatenate(parts))
    facts = facts_of(clip)
    edges = [(s.start_s, s.end_s) for s in facts.active]
    assert np.allclose(edges, [(1.0, 2.5), (3.0, 4.0)], atol=0.02)
    assert np.allclose(
        [(s.start_s, s.end_s) for s in facts.silent], [(0, 1), (2.5, 3), (4, 5)], atol=0.02
    )
    assert value_of(clip, "activity") == pytest.approx(0.5, abs=0.02)
    assert value_of(clip, "silence") == pytest.approx(2.5, abs=0.06)
    assert value_of(clip, "silence", 2.0, 3.5) == pytest.approx(0.5, abs=0.03)


def test_a_breath_is_no_silence() -> None:
    clip = clip_of(np.concatenate([tone(440, 1), np.zeros(RATE // 8), tone(440, 1)]))
    assert len(facts_of(clip).active) == 1 and value_of(clip, "silence") == 0


def test_a_soft_window_is_judged_by_the_loudest_of_the_clip() -> None:
    clip = clip_of(np.concatenate([tone(440, 2, 0.9), tone(440, 2, 0.9 * 10 ** (-50 / 20))]))
    assert value_of(clip, "activity", 2.2, 3.8) == 0
    assert value_of(clip_of(tone(440, 2, 0.9 * 10 ** (-50 / 20))), "activity") == 1


def test_where_the_track_ended_it_is_silent_and_nothing_else_is_said() -> None:
    clip = clip_of(tone(440, 2), seconds=5.0)
    assert value_of(clip, "silence") == pytest.approx(3.0, abs=0.02)
    assert value_of(clip, "silence", 3.0, 4.0) == 1.0
    found = measure(clip, "level", 3.0, 4.0)
    assert found.value is None and "track ends before" in found.note
    facts = facts_of(clip, 3.0, 5.0)
    assert facts.silent == (Span(3.0, 5.0),) and facts.level_db == (None, None)


# -- sides -------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90])
def test_balance_of_panned_noise(degrees: float) -> None:
    angle = math.radians(degrees)
    clip = stereo(math.cos(angle) * noise(), math.sin(angle) * noise())
    assert value_of(clip, "balance") == pytest.approx(-math.cos(2 * angle), abs=0.01)


@settings(max_examples=20, deadline=None)
@given(left=st.floats(0.01, 0.5), right=st.floats(0.01, 0.5))
def test_exchanged_sides_turn_the_balance_round(left: float, right: float) -> None:
    clip = stereo(left * noise(0.5, 1), right * noise(0.5, 1, seed=1))
    assert value_of(mirrored(clip), "balance") == pytest.approx(-value_of(clip, "balance"))


def test_sides_that_cancel_each_other_are_still_heard() -> None:
    clip = stereo(tone(440), -tone(440))
    assert value_of(clip, "pitch") == pytest.approx(440, rel=0.005)
    assert len(facts_of(clip).onsets_s) == 1


def test_surround_has_sides_and_its_low_channel_does_not_count_for_loudness() -> None:
    silent = np.zeros(2 * RATE)
    clip = clip_of(np.stack([tone(997), silent, silent, tone(60, peak=0.9), silent, silent]))
    front = clip_of(np.stack([tone(997), silent]))
    assert value_of(clip, "balance") == -1
    assert value_of(clip, "loudness") == pytest.approx(value_of(front, "loudness"), abs=0.01)


# -- cannot tell -------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_without_sound_nothing_is_said(quantity: str) -> None:
    found = measure(no_sound(), quantity)
    assert found.value is None and found.tolerance is None
    assert found.note == "the clip has no sound track"


@pytest.mark.parametrize(
    "quantity, value",
    [(name, {"activity": 0.0, "silence": 2.0, "onsets": 0.0}.get(name)) for name in QUANTITIES],
)
def test_of_silence_only_its_length_is_said(quantity: str, value: float | None) -> None:
    found = measure(clip_of(np.zeros((2, 2 * RATE))), quantity)
    assert found.value == value
    assert "silence" in found.note or value is not None


@pytest.mark.parametrize(
    "clip, quantity, window, side, why",
    [
        (clip_of(tone(440)), "balance", (), "both", "one channel"),
        (clip_of(tone(440)), "level", (), "left", "one channel"),
        (clip_of(tone(440)), "pitch", (1.0, 1.05), "both", "too short"),
        (clip_of(tone(440)), "tempo", (), "both", "too short"),
        (clip_of(tone(440, 8)), "tempo", (), "both", "no steady beat"),
        (clip_of(tone(440, 2, 0.3, 4000), 4000), "loudness", (), "both", "4000 Hz"),
        (stereo(tone(440), tone(440)), "balance", (), "left", "both sides"),
    ],
)
def test_cannot_tell_says_why(
    clip: Clip, quantity: str, window: tuple[float, ...], side: str, why: str
) -> None:
    found = measure(clip, quantity, *window, side=side)
    assert found.value is None and why in found.note and why in found.text()


@pytest.mark.parametrize(
    "ask, why",
    [
        (lambda clip: measure(clip, "colour"), "'colour'"),
        (lambda clip: measure(clip, "level", side="top"), "'top'"),
        (lambda clip: measure(clip, "level", -1.0, 1.0), "-1 s"),
        (lambda clip: measure(clip, "level", 1.0, 9.0), "9 s"),
        (lambda clip: measure(clip, "level", 1.5, 1.0), "1.5 s"),
        (lambda clip: measure(clip, "level", math.nan, 1.0), "nan"),
        (lambda clip: facts_of(clip, 7.0), "7 s"),
    ],
)
def test_a_wrong_question_is_one_sentence(ask: Callable[[Clip], object], why: str) -> None:
    with pytest.raises(AcousticsError, match=why) as caught:
        ask(clip_of(tone(440)))
    assert "\n" not in str(caught.value)


def test_an_end_that_was_rounded_up_is_the_clips() -> None:
    assert measure(clip_of(tone(440)), "level", 1.0, 2.4).end_s == 2.0


# -- facts -------------------------------------------------------------------------------------


def test_facts_tell_of_every_second() -> None:
    parts = [tone(440, 1, 0.4), tone(440, 1, 0.04), np.zeros(RATE)]
    facts = facts_of(stereo(np.concatenate(parts), QUIET * np.concatenate(parts)))
    assert len(facts.level_db) == len(facts.loudness_lufs) == len(facts.balance) == 3
    assert facts.level_db[0] - facts.level_db[1] == pytest.approx(20, abs=0.1)
    assert facts.loudness_lufs[0] - facts.loudness_lufs[1] == pytest.approx(20, abs=0.2)
    assert facts.loudness_lufs[2] is None and facts.brightness_hz[2] is None
    assert facts.brightness_hz[0] == pytest.approx(440, rel=0.02)
    assert facts.balance[0] == pytest.approx(-1, abs=0.01) and facts.balance[2] is None
    assert facts.active == (Span(0.0, 2.0),) and facts.silent == (Span(2.0, 3.0),)


def test_facts_read_as_a_paragraph_and_as_json() -> None:
    facts = facts_of(clip_of(struck(np.arange(0.5, 9.5, 0.5), 10)))
    text = facts.text()
    assert "120 beats per minute" in text and "mono" in text and "LUFS" in text
    assert f"Onsets of notes or strokes: {len(facts.onsets_s)}." in text
    row = json.loads(json.dumps(facts.to_json()))
    assert row["text"] == text and row["tempo"]["unit"] == "beats per minute"


def empty(facts: Facts) -> bool:
    lists = (facts.loudness_lufs, facts.level_db, facts.brightness_hz, facts.balance)
    return not any((*lists, facts.onsets_s, facts.active, facts.silent))


def test_facts_say_plainly_that_there_is_no_sound() -> None:
    facts = facts_of(no_sound(3.0))
    assert empty(facts) and facts.channels == 0 and facts.seconds == 3.0
    assert "no sound track" in facts.text() and facts.tempo.value is None
    assert "no sound track" in facts_of(no_sound(0.0)).text()  # a still image


def test_facts_of_silence_say_so() -> None:
    facts = facts_of(clip_of(np.zeros((2, 2 * RATE))))
    assert "silent from start to end" in facts.text()
    assert facts.silent == (Span(0.0, 2.0),) and not facts.active


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([1, 7, 50, 99, 100, 101, 500, 2000, 8000, 11025, 22050, 192000]),
    samples=st.integers(1, 6000),
    channels=st.integers(1, 8),
    peak=st.sampled_from([0.0, 1e-7, 0.01, 1.0, 30.0]),
    seed=st.integers(0, 5),
)
def test_whatever_a_file_holds_is_measured_or_refused_in_words(
    rate: int, samples: int, channels: int, peak: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    clip = clip_of(peak * rng.uniform(-1, 1, (channels, samples)), rate)
    facts = facts_of(clip)
    json.dumps(facts.to_json(), allow_nan=False)
    assert facts.text()
    for quantity in QUANTITIES:
        found = measure(clip, quantity)
        assert found.note if found.value is None else math.isfinite(found.value)
