"""Probes change clips as they say, and nothing else: measured on real arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from avqa_llm.media import Clip
from eval.benchmarks.base import Question
from eval.probes import PROBES, Changed, Chunk, media
from eval.probes.media import LeftOut
from eval.probes.truth import mirrored_scene
from instruct_data.bandstand.picture import render_frames
from instruct_data.bandstand.scene import Scene, sample_scene
from instruct_data.bandstand.sound import render_sound

RATE_HZ = 16000
TYPES = ("Audio Counting", "Visual Location", "Audio-Visual Temporal", "Kitchen Noise")


def rendered(scene: Scene, *, rate_hz: int = RATE_HZ) -> Clip:
    """The clip of a scene, as `read_clip` would give it."""
    times = np.array([second + gap for second in range(10) for gap in (0.5, 0.7)])
    return Clip(
        path=f"{scene.video_id}.mp4",
        sha256=scene.video_id,
        duration_s=scene.seconds,
        frames_THWC=render_frames(scene, times),
        frame_times_s=times,
        sound_CS=render_sound(scene, rate_hz=rate_hz),
        sound_rate_hz=rate_hz,
        sound_span_s=(0.0, scene.seconds),
        picture_span_s=(0.0, scene.seconds),
        notes=("as it is",),
    )


@pytest.fixture(scope="module")
def clips() -> tuple[Clip, ...]:
    return tuple(rendered(sample_scene(4, index)) for index in range(3))


@pytest.fixture
def clip(clips: tuple[Clip, ...]) -> Clip:
    return clips[0]


def late(clip: Clip) -> Clip:
    """Sound that starts at 0.5 s and stops at 9.25 s, under a picture from 0.25 s on."""
    sound_CS = clip.sound_CS[:, : round(9.25 * clip.sound_rate_hz)].copy()
    sound_CS[:, : clip.sound_rate_hz // 2] = 0
    spans = {"sound_span_s": (0.5, 9.25), "picture_span_s": (0.25, 10.0)}
    return replace(clip, sound_CS=sound_CS, **spans)


def questions(first: int) -> tuple[Question, ...]:
    return tuple(
        Question(
            number=first + n,
            video_id=f"v{first}",
            question_id=n,
            type=kind,
            question="What do you hear and see",
            gold="two",
        )
        for n, kind in enumerate(TYPES)
    )


def chunk_of(*clips: Clip) -> Chunk:
    asked = tuple(questions(1 + 10 * n) for n in range(len(clips)))
    return Chunk(clips=clips, questions=asked, scenes=(None,) * len(clips))


def same(one: Clip, other: Clip, *, but: tuple[str, ...] = ("notes",)) -> None:
    for name in {field.name for field in dataclasses.fields(Clip)} - set(but):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, float | tuple) or name == "frame_times_s":
            assert np.allclose(mine, theirs, atol=1e-9), name
        else:
            assert np.array_equal(mine, theirs), name


# -- every probe -----------------------------------------------------------------------------


def digest(changed: Changed) -> list[object]:
    arrays = [(c.frames_THWC, c.frame_times_s, c.sound_CS) for c in changed.clips]
    return [changed.cases, changed.left_out, [a.tobytes() for row in arrays for a in row]]


@pytest.mark.parametrize("name", PROBES)
def test_every_question_is_asked_or_counted_and_no_clip_is_touched(
    clips: tuple[Clip, ...], name: str
) -> None:
    silent = replace(clips[0], sound_CS=np.zeros_like(clips[0].sound_CS), sha256="silent")
    chunk = chunk_of(*clips, clips[0].muted(), clips[1].blanked(), silent)
    before = [(c.frames_THWC.copy(), c.sound_CS.copy(), c.notes) for c in chunk.clips]
    changed = PROBES[name].change(chunk)
    rows = [case.row for case in changed.cases]
    asked = {question.number for row in chunk.questions for question in row}
    assert len(set(rows)) == len(rows) and set(rows) <= asked
    assert len(rows) + sum(changed.left_out.values()) == len(asked)
    assert {case.clip for case in changed.cases} == set(range(len(changed.clips)))
    for clip, (frames, sound, notes) in zip(chunk.clips, before, strict=True):
        assert np.array_equal(clip.frames_THWC, frames) and np.array_equal(clip.sound_CS, sound)
        assert clip.notes == notes
    assert digest(PROBES[name].change(chunk)) == digest(changed)


@pytest.mark.parametrize("name", [name for name in PROBES if name not in ("mirror", "swap")])
def test_the_clip_that_is_asked_about_is_the_question_s_own_and_says_what_was_done(
    clips: tuple[Clip, ...], name: str
) -> None:
    chunk = chunk_of(*clips)
    changed = PROBES[name].change(chunk)
    assert changed.cases
    for case in changed.cases:
        clip, own = changed.clips[case.clip], chunk.clips[case.row // 10]
        assert clip.path == own.path and clip.notes[: len(own.notes)] == own.notes
        assert len(clip.notes) > len(own.notes)
        length = clip.sound_CS.shape[1] / max(clip.sound_rate_hz, 1)
        assert len(clip.frames_THWC) == len(clip.frame_times_s)
        assert clip.sound_span_s[1] <= clip.duration_s and length <= clip.duration_s
        assert clip.sound_CS.dtype == np.float32 and clip.frames_THWC.dtype == np.uint8
        assert abs(clip.sound_CS).max(initial=0.0) <= 1.2


def test_the_probes_have_names_families_and_a_sentence() -> None:
    families = {"sound", "picture", "time", "space", "words", "quality"}
    assert {probe.family for probe in PROBES.values()} == families
    for name, probe in PROBES.items():
        assert name == probe.name and probe.about.endswith(".") and probe.about[0].isupper()


# -- taken away, or another clip's -----------------------------------------------------------


def test_what_is_taken_away_is_gone(clips: tuple[Clip, ...]) -> None:
    chunk = chunk_of(*clips)
    for name, has_sound, has_picture in (
        ("mute", False, True),
        ("blank", True, False),
        ("question-only", False, False),
    ):
        for clip in PROBES[name].change(chunk).clips:
            assert (clip.has_sound, clip.has_picture) == (has_sound, has_picture)
    changed = PROBES["missing-modality"].change(chunk)
    assert len(changed.clips) == 6 and len(changed.cases) == 6
    for case in changed.cases:
        clip, by_ear = changed.clips[case.clip], case.row % 10 == 1
        assert (clip.has_sound, clip.has_picture) == (by_ear, not by_ear)
        assert case.expected == "two"
    assert sum(changed.left_out.values()) == 6


def test_sound_and_picture_of_the_next_clip(clips: tuple[Clip, ...]) -> None:
    chunk = chunk_of(*clips)
    for n, clip in enumerate(PROBES["sound-swapped"].change(chunk).clips):
        assert np.array_equal(clip.sound_CS, clips[(n + 1) % 3].sound_CS)
        assert np.array_equal(clip.frames_THWC, clips[n].frames_THWC)
    for n, clip in enumerate(PROBES["picture-swapped"].change(chunk).clips):
        assert np.array_equal(clip.sound_CS, clips[n].sound_CS)
        assert np.array_equal(clip.frames_THWC, clips[(n + 1) % 3].frames_THWC)


def test_the_other_clip_has_what_is_wanted_and_is_another_one(clips: tuple[Clip, ...]) -> None:
    a, b, c = clips
    again = replace(a, path="the same file, mirrored")
    (first, *_) = PROBES["sound-swapped"].change(chunk_of(a, again, b.muted(), c)).clips
    assert np.array_equal(first.sound_CS, c.sound_CS)
    alone = PROBES["sound-swapped"].change(chunk_of(a, again))
    assert not alone.cases and list(alone.left_out.values()) == [8]


def test_a_longer_sound_and_picture_are_cut_where_the_clip_ends(clips: tuple[Clip, ...]) -> None:
    short = replace(
        clips[0],
        duration_s=4.0,
        sound_CS=clips[0].sound_CS[:, : 4 * RATE_HZ],
        sound_span_s=(0.0, 4.0),
        frames_THWC=clips[0].frames_THWC[:8],
        frame_times_s=clips[0].frame_times_s[:8],
        picture_span_s=(0.0, 4.0),
    )
    heard = media.with_sound_of(short, clips[1])
    assert heard.sound_CS.shape == (2, 4 * RATE_HZ) and heard.sound_span_s == (0.0, 4.0)
    seen = media.with_picture_of(short, clips[1])
    assert len(seen.frames_THWC) == 8 and seen.picture_span_s == (0.0, 4.0)
    assert heard.duration_s == seen.duration_s == 4.0
    longer = media.with_sound_of(clips[1], short)
    assert longer.duration_s == 10.0 and longer.sound_span_s == (0.0, 4.0)


# -- time and space --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1, -1, 3, -3])
def test_a_shift_is_exact_to_the_sample(clip: Clip, seconds: int) -> None:
    after, by = media.shifted(clip, seconds), abs(seconds) * RATE_HZ
    assert after.sound_CS.shape == clip.sound_CS.shape
    early, late_ = (clip.sound_CS, after.sound_CS)[:: 1 if seconds > 0 else -1]
    assert np.array_equal(late_[:, by:], early[:, :-by])
    gap = after.sound_CS[:, :by] if seconds > 0 else after.sound_CS[:, -by:]
    assert not gap.any()
    assert after.sound_span_s == ((seconds, 10.0) if seconds > 0 else (0.0, 10.0 + seconds))
    same(after, clip, but=("notes", "sound_CS", "sound_span_s"))


def test_spans_follow_a_shift(clip: Clip) -> None:
    assert media.shifted(late(clip), 1).sound_span_s == (1.5, 9.25)
    assert media.shifted(late(clip), -1).sound_span_s == (0.0, 8.25)
    assert media.shifted(late(clip), -0.25).sound_span_s == (0.25, 9.0)
    short = replace(clip, sound_CS=clip.sound_CS[:, :RATE_HZ], sound_span_s=(0.0, 1.0))
    with pytest.raises(LeftOut, match="shorter"):
        media.shifted(short, -3)


def test_backwards_is_mirrored_in_time_and_twice_is_nothing(clip: Clip) -> None:
    for given in (clip, late(clip), clip.muted(), clip.blanked()):
        once = media.time_reversed(given)
        assert np.all(np.diff(once.frame_times_s) >= 0)
        same(media.time_reversed(once), given)
    once = media.time_reversed(late(clip))
    assert once.sound_span_s == (0.75, 9.5) and once.picture_span_s == (0.0, 9.75)
    assert once.sound_CS.shape[1] == 9.5 * RATE_HZ and not once.sound_CS[:, : RATE_HZ // 2].any()
    # The sample at t is now at duration - t.
    at = 3 * RATE_HZ
    assert np.array_equal(once.sound_CS[:, 10 * RATE_HZ - 1 - at], late(clip).sound_CS[:, at])
    assert np.array_equal(once.frames_THWC[0], clip.frames_THWC[-1])
    assert once.frame_times_s[0] == pytest.approx(10 - clip.frame_times_s[-1])


def test_mirrored_twice_is_nothing(clip: Clip) -> None:
    once = media.mirrored(clip)
    assert np.array_equal(once.frames_THWC[:, :, 0], clip.frames_THWC[:, :, -1])
    assert np.array_equal(once.sound_CS[0], clip.sound_CS[1])
    same(media.mirrored(once), clip)
    mono = replace(clip, sound_CS=clip.sound_CS[:1])
    assert np.array_equal(media.mirrored(mono).sound_CS, mono.sound_CS)
    surround = replace(clip, sound_CS=np.arange(6, dtype=np.float32)[:, None] * np.ones((6, 9)))
    assert media.mirrored(surround).sound_CS[:, 0].tolist() == [1, 0, 2, 3, 5, 4]


def test_a_mirrored_clip_looks_and_sounds_like_the_mirrored_scene() -> None:
    """The scene's truth and the clip go the same way: left in the one is left in the other."""
    compared = 0
    for index in range(40):
        scene = replace(sample_scene(8, index), noise_db=-90.0)
        heard = [p for p in scene.heard if abs(p.pan) > 0.3]
        if len(scene.heard) != 1 or not heard or scene.voiceover:
            continue
        clip, turned = media.mirrored(rendered(scene)), rendered(mirrored_scene(scene))
        energy, wanted = (np.sqrt(np.mean(c.sound_CS**2, axis=1)) for c in (clip, turned))
        # The level differs a little: who plays which notes hangs on the order of the players.
        assert energy[0] / energy[1] == pytest.approx(wanted[0] / wanted[1], rel=1e-3)
        assert (energy[0] > energy[1]) == (heard[0].pan > 0)
        compared += 1
        if compared == 2:
            return
    raise AssertionError("no scenes with one sound from the side")


# -- quality ---------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [20, 10, 0])
def test_noise_has_the_level_it_says(clip: Clip, snr_db: int) -> None:
    quiet = replace(clip, sound_CS=clip.sound_CS * np.float32(0.2))
    noisy = media.noisy(quiet, snr_db)
    noise = noisy.sound_CS - quiet.sound_CS
    measured = 10 * np.log10(np.mean(quiet.sound_CS**2) / np.mean(noise**2))
    assert abs(measured - snr_db) < 0.5
    spectrum = np.abs(np.fft.rfft(noise[0])) ** 2
    low, high = np.array_split(spectrum, 2)
    assert 0.9 < low.mean() / high.mean() < 1.1


def test_noise_that_would_clip_is_turned_down_with_the_sound(clip: Clip) -> None:
    loud = replace(clip, sound_CS=clip.sound_CS / abs(clip.sound_CS).max())
    noisy = media.noisy(loud, 0).sound_CS
    assert abs(noisy).max() <= 1.0
    gain = float((noisy * loud.sound_CS).sum() / (loud.sound_CS**2).sum())
    noise = noisy - gain * loud.sound_CS
    assert abs(10 * np.log10(np.mean((gain * loud.sound_CS) ** 2) / np.mean(noise**2))) < 0.5
    with pytest.raises(LeftOut, match="silent"):
        media.noisy(replace(clip, sound_CS=np.zeros_like(clip.sound_CS)), 10)


@pytest.mark.parametrize(("part", "gone"), [(0.5, 10), (0.9, 18)])
def test_dropped_frames_are_held(clip: Clip, part: float, gone: int) -> None:
    numbered = np.zeros_like(clip.frames_THWC)
    numbered += np.arange(20, dtype=np.uint8)[:, None, None, None]
    after = media.frames_dropped(replace(clip, frames_THWC=numbered), part)
    shown = after.frames_THWC[:, 0, 0, 0].tolist()
    assert shown[0] == 0 and shown == sorted(shown) and len(set(shown)) == 20 - gone
    assert all(number <= place for place, number in enumerate(shown))
    assert f"{gone} of 20" in after.notes[-1]
    same(after, clip, but=("notes", "frames_THWC"))
    still = replace(clip, frames_THWC=clip.frames_THWC[:1], frame_times_s=np.zeros(1))
    assert np.array_equal(media.frames_dropped(still, 0.9).frames_THWC, still.frames_THWC)


def fine_detail(frames_THWC: np.ndarray) -> float:
    return float(np.abs(np.diff(frames_THWC.astype(float), axis=2)).mean())


def test_resolution_and_jpeg_take_detail_away(clip: Clip) -> None:
    sharp = fine_detail(clip.frames_THWC)
    half, quarter = (media.lower_resolution(clip, factor) for factor in (2, 4))
    assert sharp > fine_detail(half.frames_THWC) > fine_detail(quarter.frames_THWC)
    fine, coarse = (media.compressed(clip.muted(), q, 48000) for q in (30, 10))
    error = [
        np.abs(c.frames_THWC.astype(int) - clip.frames_THWC).mean()
        for c in (media.compressed(clip.muted(), 100, 48000), fine, coarse)
    ]
    assert error[0] < error[1] < error[2] < 20
    red = replace(clip, frames_THWC=np.full((1, 16, 16, 3), (250, 20, 10), np.uint8))
    assert np.allclose(
        media.compressed(red.muted(), 90, 1).frames_THWC[0, 8, 8], (250, 20, 10), atol=6
    )


@pytest.mark.parametrize(
    ("rate_hz", "channels", "samples"),
    [(44100, 2, 44100), (44100, 1, 30001), (16000, 2, 16500), (20000, 2, 20011), (48000, 6, 9000)],
)
def test_aac_keeps_length_rate_and_time(rate_hz: int, channels: int, samples: int) -> None:
    rng = np.random.default_rng(3)
    time_S = np.arange(samples) / rate_hz
    beats = (np.sin(2 * np.pi * 3 * time_S) > 0) * np.sin(2 * np.pi * 440 * time_S)
    sound_CS = (0.3 * beats + 0.01 * rng.normal(size=(channels, samples))).astype(np.float32)
    clip = replace(
        rendered_silence(), sound_CS=sound_CS, sound_rate_hz=rate_hz, sound_span_s=(0.0, 1.0)
    )
    after = media.compressed(clip, 30, 48000)
    assert after.sound_CS.shape == sound_CS.shape and after.sound_rate_hz == rate_hz
    assert after.sound_CS.dtype == np.float32 and not np.array_equal(after.sound_CS, sound_CS)
    lags = np.arange(-40, 41)
    alike = [float(np.sum(sound_CS[0] * np.roll(after.sound_CS[0], -lag))) for lag in lags]
    assert abs(lags[int(np.argmax(alike))]) <= 1
    assert np.corrcoef(sound_CS[0], after.sound_CS[0])[0, 1] > 0.95


def test_fewer_bits_lose_more_sound(clip: Clip) -> None:
    error = [
        float(np.mean((media.compressed(clip.blanked(), 30, bits).sound_CS - clip.sound_CS) ** 2))
        for bits in (96000, 48000, 24000)
    ]
    assert error[0] < error[1] < error[2]


def rendered_silence() -> Clip:
    return Clip(
        path="a.wav",
        sha256="a",
        duration_s=1.0,
        frames_THWC=np.zeros((0, 0, 0, 3), np.uint8),
        frame_times_s=np.zeros(0),
        sound_CS=np.zeros((1, 8), np.float32),
        sound_rate_hz=8,
        sound_span_s=(0.0, 1.0),
        picture_span_s=(0.0, 0.0),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda clip: media.noisy(clip, 10),
        lambda clip: media.shifted(clip, 1),
        lambda clip: media.muted(clip),
        lambda clip: media.with_sound_of(clip, clip),
    ],
)
def test_a_clip_without_sound_is_left_out_by_name(clip: Clip, change: object) -> None:
    with pytest.raises(LeftOut, match="no sound"):
        change(clip.muted())  # type: ignore[operator]
