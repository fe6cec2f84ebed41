"""What a page shows of a clip: pictures of the sound that lie where the sound is, and frames."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from app import seen
from app.seen import Shown, shown, spectrogram, waveform
from avqa_llm.media import read_clip
from avqa_llm.media.clip import Clip

SAMPLES = Path(__file__).resolve().parent.parent / "app" / "samples"
RATE = 16_000


def clip_of(sound_CS: np.ndarray, seconds: float, rate: int = RATE) -> Clip:
    """A clip with this sound and no picture."""
    return Clip(
        path="made",
        sha256="0" * 64,
        duration_s=seconds,
        frames_THWC=np.zeros((0, 0, 0, 3), np.uint8),
        frame_times_s=np.zeros(0),
        sound_CS=sound_CS.astype(np.float32),
        sound_rate_hz=rate,
        sound_span_s=(0.0, sound_CS.shape[1] / rate if rate else 0.0),
        picture_span_s=(0.0, 0.0),
    )


def tone(hz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def decoded(url: str) -> np.ndarray:
    head, data = url.split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


@pytest.fixture(scope="module")
def trio() -> Clip:
    return read_clip(SAMPLES / "trio.mp4")


def test_a_clip_is_shown_whole_and_small(trio: Clip) -> None:
    made = shown(trio, "trio.mp4")
    assert made.has_sound and made.has_picture and not made.is_silent and made.channels == 2
    assert decoded(made.waveform).shape == (seen.WAVE_ROWS, seen.COLUMNS, 4)
    assert decoded(made.spectrogram).shape == (seen.TONE_ROWS, seen.COLUMNS, 4)
    times = [time for time, _ in made.thumbs]
    assert len(times) == seen.THUMBS and times == sorted(times)
    assert np.allclose(np.diff(times), trio.duration_s / seen.THUMBS, atol=0.3)
    for _, url in made.thumbs:
        assert max(decoded(url).shape[:2]) <= seen.THUMB_SIDE
    assert made.aspect == pytest.approx(16 / 9, rel=0.02)
    assert len(made.waveform) + len(made.spectrogram) < 150_000
    assert sum(len(url) for _, url in made.thumbs) < 150_000
    assert made.facts is not None and made.facts.channels == 2


def test_size_does_not_grow_with_the_clip() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, (2, 200 * 8000))
    made = shown(clip_of(noise, 200.0, 8000), "long")
    assert decoded(made.spectrogram).shape == (seen.TONE_ROWS, seen.COLUMNS, 4)
    assert len(made.waveform) + len(made.spectrogram) < 150_000


def test_the_waveform_lies_where_the_sound_is() -> None:
    left, right = np.zeros(4 * RATE), np.zeros(4 * RATE)
    left[1 * RATE : 2 * RATE] = 0.5
    right[3 * RATE :] = 0.25
    ink = waveform(clip_of(np.stack([left, right]), 4.0))
    half, second = seen.WAVE_ROWS // 2, seen.COLUMNS // 4
    up, down = ink[:half].sum(0), ink[half:].sum(0)
    assert up[second : 2 * second].mean() == pytest.approx(half, rel=0.05)
    assert down[3 * second :].mean() == pytest.approx(half / 2, rel=0.08)
    assert up[2 * second + 1 :].max() < 2 and down[: 3 * second - 1].max() < 2


@pytest.mark.parametrize("hz", [110.0, 440.0, 3000.0])
def test_a_tone_is_one_line_at_its_height(hz: float) -> None:
    ink = spectrogram(clip_of(tone(hz, 3.0)[None], 3.0))
    row = int(ink[:, seen.COLUMNS // 2].argmax())
    part = (seen.TONE_ROWS - 1 - row + 0.5) / seen.TONE_ROWS
    found = seen.LEAST_HZ * (RATE / 2 / seen.LEAST_HZ) ** part
    assert found == pytest.approx(hz, rel=0.13)  # two rows of 96 over seven octaves


def test_sound_shorter_than_the_clip_ends_where_it_ends() -> None:
    clip = clip_of(tone(500, 2.0)[None], 8.0)
    ink, quarter = spectrogram(clip), seen.COLUMNS // 4
    assert ink[:, 5 : quarter - 5].max(0).min() > 0.8
    assert ink[:, quarter + 10 :].max() == 0.0
    assert waveform(clip)[:, quarter + 1 :].sum(0).max() <= 2


def test_what_a_clip_lacks_stays_empty(trio: Clip) -> None:
    mute = shown(trio.muted(), "mute")
    assert (mute.has_sound, mute.waveform, mute.spectrogram, mute.channels) == (False, "", "", 0)
    assert mute.thumbs and mute.facts is not None and not mute.facts.channels
    blank = shown(trio.blanked(), "blank")
    assert blank.thumbs == () and blank.aspect == 0.0 and blank.waveform
    nothing = shown(trio.muted().blanked(), "nothing")
    assert nothing == dataclasses.replace(
        nothing, has_sound=False, has_picture=False, waveform="", spectrogram="", thumbs=()
    )


def test_odd_clips_are_shown_too() -> None:
    silent = shown(clip_of(np.zeros((1, RATE)), 1.0), "silent")
    assert silent.is_silent and decoded(silent.spectrogram)[..., 3].max() == 0
    surround = np.stack([tone(200 * (n + 1), 1.0) for n in range(6)])
    for sound_CS in (np.full((1, 1), 0.5), np.full((1, 700), 0.5), surround):
        made: Shown = shown(clip_of(sound_CS, sound_CS.shape[1] / RATE), "odd")
        assert decoded(made.waveform).shape == (seen.WAVE_ROWS, seen.COLUMNS, 4)
    still = dataclasses.replace(
        clip_of(np.zeros((0, 0)), 0.0, 0),
        frames_THWC=np.full((1, 500, 20, 3), 200, np.uint8),
        frame_times_s=np.zeros(1),
    )
    ((time, url),) = shown(still, "photo").thumbs
    assert time == 0.0 and decoded(url).shape == (seen.THUMB_SIDE, 7, 3)
