"""The sound of a scene must be what the scene says: when, how loud, how fast, where, by whom."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from instruct_data.bandstand.scene import BANKS, INSTRUMENTS, Player, Scene, Voiceover, sample_scene
from instruct_data.bandstand.sound import Sound, bank_index, k_weighted_level_db, render_sound

RATE = 16000


def solo(
    instrument: str,
    *,
    span: tuple[float, float] = (0.5, 3.5),
    level_db: float = -20.5,
    per_s: float = 2.8,
    pan: float = 0.0,
    timbre: int = 3,
    noise_db: float = -90.0,
    voiceover: Voiceover | None = None,
) -> Scene:
    """One player (or, with an empty name, nobody) in a quiet room for 4 s."""
    player = Player(
        instrument=instrument, x=0.5, pan=pan, start_s=span[0], end_s=span[1],
        level_db=level_db, rate_hz=per_s, timbre=timbre,
    )  # fmt: skip
    return Scene(
        video_id="solo", split="train", seed=1, index=timbre, seconds=4.0,
        players=(player,) if instrument else (), place="indoor", voiceover=voiceover,
        noise_db=noise_db, shake=0.0, clutter=0, look=0,
    )  # fmt: skip


def energy_onsets(sound_CS: Sound, rate_hz: int = RATE) -> npt.NDArray[np.float64]:
    """Times of sudden rises of the energy in 8 ms frames."""
    hop = round(0.008 * rate_hz)
    mono = sound_CS.mean(axis=0)
    power = (mono[: len(mono) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)
    level = 10 * np.log10(power + 1e-3 * power.max())
    rise = level[2:] - level[:-2]
    peaks = (rise[1:-1] > 4.0) & (rise[1:-1] >= rise[:-2]) & (rise[1:-1] > rise[2:])
    times = (np.flatnonzero(peaks) + 2) * 0.008
    keep = np.diff(times, prepend=-1.0) > 0.06
    return times[keep]


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_a_scene_always_sounds_the_same(rate_hz: int) -> None:
    scene = sample_scene(5, seconds=6.0)
    first = render_sound(scene, rate_hz=rate_hz)
    again = render_sound(Scene.from_json(scene.to_json()), rate_hz=rate_hz)
    assert first.tobytes() == again.tobytes()
    assert first.shape == (2, 6 * rate_hz) and first.dtype == np.float32
    assert np.isfinite(first).all() and 0.001 < np.abs(first).max() <= 1.0


def test_a_sine_measures_what_bs1770_says() -> None:
    sine = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)
    silent = np.zeros_like(sine)
    assert k_weighted_level_db(np.stack([sine, silent]), 48000) == pytest.approx(-3.01, abs=0.01)
    assert k_weighted_level_db(np.stack([sine, sine]), 48000) == pytest.approx(0.0, abs=0.01)
    assert k_weighted_level_db(silent, 48000) == float("-inf")


@pytest.mark.parametrize("rate_hz", [22050, 44100])
def test_the_weighting_hardly_depends_on_the_sampling_rate(rate_hz: int) -> None:
    for hz in (30, 60, 400, 1500, 4000):
        level = [
            k_weighted_level_db(np.sin(2 * np.pi * hz * np.arange(r) / r).astype(np.float32), r)
            for r in (48000, rate_hz)
        ]
        assert level[0] == pytest.approx(level[1], abs=0.25), hz


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_a_player_is_as_loud_as_the_scene_says(instrument: str) -> None:
    for level_db, pan, per_s in ((-16.0, 0.0, 7.0), (-20.5, 0.8, 1.0), (-34.0, -0.6, 2.8)):
        scene = solo(instrument, level_db=level_db, pan=pan, per_s=per_s)
        measured = k_weighted_level_db(render_sound(scene), RATE)
        assert measured == pytest.approx(level_db, abs=0.5)


@pytest.mark.parametrize("instrument", ["drum", "congas", "banjo", "pipa", "xylophone"])
@pytest.mark.parametrize("per_s", [1.0, 2.8, 7.0])
def test_struck_notes_come_at_the_rate(instrument: str, per_s: float) -> None:
    onsets = energy_onsets(render_sound(solo(instrument, per_s=per_s)))
    assert len(onsets) == pytest.approx(3.0 * per_s, rel=0.1)
    assert onsets[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("instrument", ["flute", "trumpet", "cello", "bagpipe", "accordion"])
@pytest.mark.parametrize("per_s", [1.0, 7.0])
def test_held_notes_are_audibly_apart(instrument: str, per_s: float) -> None:
    onsets = energy_onsets(render_sound(solo(instrument, per_s=per_s)))
    assert len(onsets) == pytest.approx(3.0 * per_s, rel=0.1)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_nothing_sounds_before_the_start_or_after_the_end(instrument: str) -> None:
    sound = render_sound(solo(instrument, span=(1.0, 3.0), timbre=9))
    loud = float(np.abs(sound).max())
    assert np.abs(sound[:, : round(0.98 * RATE)]).max() < 1e-3 * loud
    assert np.abs(sound[:, round(3.06 * RATE) :]).max() < 1e-3 * loud
    assert np.abs(sound[:, RATE : round(1.1 * RATE)]).max() > 0.1 * loud
    assert np.abs(sound[:, round(2.5 * RATE) : 3 * RATE]).max() > 0.1 * loud


@pytest.mark.parametrize("pan", [-0.9, -0.3, 0.3, 0.9])
def test_a_player_is_heard_where_it_stands(pan: float) -> None:
    left, right = (render_sound(solo("piano", pan=pan)) ** 2).sum(axis=1)
    assert np.sign(right - left) == np.sign(pan)
    assert abs(10 * np.log10(right / left)) > 2.0


def test_a_narrator_is_central_and_on_time() -> None:
    voice = Voiceover(start_s=1.0, end_s=3.0, level_db=-20.0, voice=4)
    sound = render_sound(solo("", voiceover=voice))
    assert k_weighted_level_db(sound, RATE) == pytest.approx(-20.0, abs=0.5)
    left, right = (sound**2).sum(axis=1)
    assert left == pytest.approx(right, rel=0.01)
    outside = np.concatenate(
        [sound[:, : round(0.98 * RATE)], sound[:, round(3.06 * RATE) :]], axis=1
    )
    assert np.abs(outside).max() < 1e-3 * np.abs(sound).max()


def test_a_mix_that_would_clip_is_turned_down_as_a_whole() -> None:
    loud, quiet = (solo("drum", level_db=level).players[0] for level in (0.0, -20.0))
    scene = solo("drum")
    both = Scene(
        **{**vars(scene), "players": (_at(loud, 0.0, 1.5, -1.0), _at(quiet, 2.0, 3.5, 1.0))}
    )
    sound = render_sound(both)
    assert np.abs(sound).max() == pytest.approx(0.98, abs=0.001)
    levels = [k_weighted_level_db(channel, RATE) for channel in sound]
    assert levels[0] < -1.0
    assert levels[0] - levels[1] == pytest.approx(20.0, abs=0.5)


def _at(player: Player, start_s: float, end_s: float, pan: float) -> Player:
    return Player(**{**vars(player), "start_s": start_s, "end_s": end_s, "pan": pan})


@pytest.mark.parametrize("place", ["indoor", "outdoor"])
def test_the_background_is_as_loud_as_the_scene_says(place: str) -> None:
    scene = Scene(**{**vars(solo("", noise_db=-40.0)), "place": place, "seconds": 40.0})
    sound = render_sound(scene)
    parts = [k_weighted_level_db(sound[:, i : i + 6400], RATE) for i in range(0, 640000, 6400)]
    mean = 10 * np.log10(np.mean(10 ** (np.array(parts) / 10)))
    assert mean == pytest.approx(-40.0, abs=1.0)


def test_splits_have_no_bank_in_common() -> None:
    banks = {
        split: {
            bank_index(p.timbre) for i in range(60) for p in sample_scene(0, i, split=split).players
        }
        for split in BANKS
    }
    assert not banks["train"] & (banks["val"] | banks["test"])


def _features(scene: Scene) -> npt.NDArray[np.float64]:
    """Mean and spread over time of the log-mel spectrum, and how fast it changes."""
    size, hop, bands = 512, 240, 40
    mono = render_sound(scene).mean(axis=0)
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop] * np.hanning(size)
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(size, 1 / RATE) / 700)
    centres = np.linspace(80, mel[-1], bands + 2)[1:-1]
    bank = np.maximum(0, 1 - np.abs(mel - centres[:, None]) / (centres[1] - centres[0]))
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ bank.T
    logs = np.log(power + 1e-4 * power.mean())
    steps = np.diff(logs, axis=0)
    return np.concatenate([logs.mean(0), logs.std(0), np.abs(steps).mean(0), steps.std(0)])


def _many(banks: range) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    scenes = [
        solo(name, timbre=bank, per_s=(1.7, 2.8, 4.5)[bank % 3], noise_db=-60.0)
        for name in INSTRUMENTS
        for bank in banks
    ]
    labels = np.repeat(np.arange(len(INSTRUMENTS)), len(banks))
    return np.stack([_features(scene) for scene in scenes]), labels


def test_instruments_can_be_told_apart_on_banks_never_heard() -> None:
    """A linear discriminant that has heard five banks of each names the player of another."""
    known_NF, label_N = _many(range(5))
    fresh_NF, truth_N = _many(range(*BANKS["test"])[:1])
    means_KF = np.stack([known_NF[label_N == k].mean(axis=0) for k in range(len(INSTRUMENTS))])
    within = (known_NF - means_KF[label_N]).T @ (known_NF - means_KF[label_N]) / len(known_NF)
    axes = np.linalg.inv(within + 0.3 * np.diag(np.diag(within))) @ means_KF.T
    scores = fresh_NF @ axes - 0.5 * np.einsum("kf,fk->k", means_KF, axes)
    assert (scores.argmax(axis=1) == truth_N).mean() >= 0.9
