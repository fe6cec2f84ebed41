"""The sound of a scene: notes are made once per bank and then placed by slicing and adding.

Level convention: the *level* of a sound is its greatest momentary loudness after
ITU-R BS.1770-4, that is -0.691 dB plus the K-weighted power, summed over channels, in the
loudest 400 ms. A 997 Hz sine of amplitude 1 in one channel measures -3.01 dB. Panning
is constant-power, so that a player measures the same wherever it stands.

Shapes: C = channels (2: left, right), S = samples.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin, tan

import numpy as np
import numpy.typing as npt
from scipy.signal import sosfilt

from instruct_data.bandstand.scene import BANKS, N_BANKS, Player, Scene, Voiceover
from instruct_data.bandstand.timbres import TIMBRES, synthesise_bank, synthesise_syllables

Sound = npt.NDArray[np.float32]
Notes = tuple[npt.NDArray[np.int16], ...]

TRAIN_TIMES = 4
N_VOICES = 64
"""Different narrators."""
_NOTES = 8
_SYLLABLES = 20
_NOISE_S = 16
_END_FADE_S = 0.04
_DAMP_S = 0.12
_PEAK = 0.98
_HOP_S = 0.01
_WINDOW_HOPS = 40


def bank_index(timbre: int) -> int:
    """Which note bank of its instrument a player with this seed uses.

    A bank is one instrument of its kind: its pitches, spectrum and envelope. Splits that draw
    their seeds from different banks (`scene.BANKS`) have no note in common. There are
    `TRAIN_TIMES` as many to train on: with few, an encoder learns these by heart.
    """
    bank = timbre % N_BANKS
    if bank in range(*BANKS["train"]):
        bank += timbre // N_BANKS % TRAIN_TIMES * N_BANKS
    return bank


def render_sound(scene: Scene, *, rate_hz: int = 16000) -> Sound:
    """Render the stereo sound (2, S) of a scene, S = round(seconds · rate), within [-1, 1].

    The same scene and rate give the same bytes. A mix that would clip is turned down as a
    whole: levels relative to each other hold always, absolute levels only where nothing clips.
    Sound outside the clip's length is cut.
    """
    length = round(scene.seconds * rate_hz)
    mix_CS = _background(scene, length, rate_hz)
    for number, player in enumerate(scene.players):
        if player.audible:
            rng = np.random.default_rng([scene.seed, scene.index, number, player.timbre])
            track, at = _play(player, rng, rate_hz)
            _add(mix_CS, track, at, player.pan)
    if scene.voiceover is not None:
        rng = np.random.default_rng([scene.seed, scene.index, scene.voiceover.voice])
        track, at = _speak(scene.voiceover, rng, rate_hz)
        _add(mix_CS, track, at, 0.0)
    peak = max(float(mix_CS.max()), -float(mix_CS.min()))
    if peak > _PEAK:
        mix_CS *= np.float32(_PEAK / peak)
    return mix_CS


def k_weighted_level_db(sound_CS: Sound, rate_hz: int) -> float:
    """Greatest momentary loudness of a sound (C, S) or (S,): see the convention above.

    Windows of 400 ms start every 10 ms; a shorter sound is one window. Silence is -inf.
    """
    weighted = sosfilt(_k_weighting(rate_hz), np.atleast_2d(sound_CS), axis=-1)
    hop = round(_HOP_S * rate_hz)
    hops = weighted.shape[-1] // hop
    if hops < _WINDOW_HOPS:
        power = float(np.mean(weighted**2, axis=-1).sum())
    else:
        blocks = weighted[:, : hops * hop].reshape(len(weighted), hops, hop)
        energy = np.concatenate([[0.0], np.cumsum(np.einsum("chs,chs->h", blocks, blocks))])
        power = float((energy[_WINDOW_HOPS:] - energy[:-_WINDOW_HOPS]).max()) / (_WINDOW_HOPS * hop)
    return -0.691 + 10 * float(np.log10(power)) if power > 0 else float("-inf")


@lru_cache(maxsize=8)
def _k_weighting(rate_hz: int) -> npt.NDArray[np.float64]:
    """The two second-order sections of the K-weighting at any sampling rate.

    BS.1770 gives coefficients for 48 kHz only; the analogue prototypes behind them are a
    shelf of +4 dB at 1682 Hz and a high-pass at 38 Hz, here through the bilinear transform.
    """
    k = tan(pi * 1681.974450955533 / rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [
        *((high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0),
        *((high - band * k / q + k * k) / a0, 1.0),
        *(2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0),
    ]
    k, q = tan(pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    a0 = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
    return np.array([shelf, high_pass])


@lru_cache(maxsize=TRAIN_TIMES * N_BANKS * len(TIMBRES))
def _bank(instrument: str, bank: int, rate_hz: int) -> Notes:
    """Equally loud notes of one bank: a quarter of a megabyte at 16 kHz, so all that there are to
    train on take one gigabyte of each process."""
    return _pack(synthesise_bank(instrument, bank, notes=_NOTES, rate_hz=rate_hz), rate_hz)


@lru_cache(maxsize=N_VOICES)
def _voice(voice: int, rate_hz: int) -> Notes:
    return _pack(synthesise_syllables(voice, syllables=_SYLLABLES, rate_hz=rate_hz), rate_hz)


def _pack(notes: list[Sound], rate_hz: int) -> Notes:
    """Make notes equally loud; 16-bit integers, because thousands of notes stay in memory."""
    even = [note * 10 ** (-k_weighted_level_db(note, rate_hz) / 20) for note in notes]
    peak = max(float(np.abs(note).max()) for note in even)
    return tuple((note * (32000 / peak)).astype(np.int16) for note in even)


def _play(player: Player, rng: np.random.Generator, rate_hz: int) -> tuple[Sound, int]:
    """The track (S,) of one player at its level, and the sample at which it starts."""
    assert player.start_s is not None and player.rate_hz is not None and player.level_db is not None
    notes = _bank(player.instrument, bank_index(player.timbre), rate_hz)
    sustains = TIMBRES[player.instrument].sustains
    track = np.zeros(round((player.length_s + _END_FADE_S) * rate_hz), np.float32)
    onsets = _onsets(player.length_s, player.rate_hz, rng)
    walk = _walk(len(notes), len(onsets), rng)
    velocity = 10 ** (rng.uniform(-1.0, 1.0, len(onsets)) / 20)
    for i, onset in enumerate(onsets):
        gap = (onsets[i + 1] if i + 1 < len(onsets) else onset + 1 / player.rate_hz) - onset
        note = notes[walk[i]]
        if sustains:
            held = _held(note, max(0.85 * gap, gap - 0.08), 0.025, rate_hz)
        else:  # the hand that plays the next note damps this one
            held = _held(note, gap + _DAMP_S, _DAMP_S, rate_hz)
        held *= np.float32(velocity[i])
        at = round(onset * rate_hz)
        part = track[at : at + len(held)]
        part += held[: len(part)]
    return _finish(track, player.level_db, rate_hz), round(player.start_s * rate_hz)


def _held(note: npt.NDArray[np.int16], length_s: float, release_s: float, rate_hz: int) -> Sound:
    """A note (S,) that is let go so as to be silent after `length_s`."""
    end = round(length_s * rate_hz)
    held = note[:end].astype(np.float32)
    if end <= len(note):
        release = _fade_out(min(round(release_s * rate_hz), end))
        held[end - len(release) :] *= release
    return held


@lru_cache(maxsize=256)
def _fade_out(samples: int) -> Sound:
    return np.linspace(1, 0, samples, dtype=np.float32)


def _onsets(length_s: float, per_s: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Onset times from the first note on, in seconds; the first is at 0 exactly."""
    count = max(1, int(np.ceil((length_s - 0.06) * per_s)))
    onsets = (np.arange(count) + rng.uniform(-0.05, 0.05, count)) / per_s
    onsets[0] = 0.0
    return onsets


def _walk(notes: int, count: int, rng: np.random.Generator) -> list[int]:
    """Which note comes when: mostly to a neighbour, never the same twice in a row."""
    steps = rng.choice((-2, -1, -1, 1, 1, 2), count).tolist()
    place, walk = int(rng.integers(notes)), []
    for step in steps:
        walk.append(place)
        if not 0 <= place + step < notes:
            step = -step
        place = min(max(place + step, 0), notes - 1)
    return walk


def _speak(voiceover: Voiceover, rng: np.random.Generator, rate_hz: int) -> tuple[Sound, int]:
    """The track (S,) of the narrator: phrases of falling pitch with pauses between them."""
    syllables = _voice(voiceover.voice % N_VOICES, rate_hz)
    length_s = voiceover.end_s - voiceover.start_s
    track = np.zeros(round((length_s + _END_FADE_S) * rate_hz), np.float32)
    per_s, onset = rng.uniform(3.6, 4.8), 0.0
    while onset < length_s - 0.15:
        words = int(rng.integers(4, 11))
        for word in range(words):
            pick = int(word / words * (len(syllables) - 3)) + int(rng.integers(3))
            at = round(onset * rate_hz)
            part = track[at : at + len(syllables[pick])]
            part += np.float32(rng.uniform(0.6, 1.0)) * syllables[pick][: len(part)]
            onset += rng.uniform(0.8, 1.25) / per_s
        onset += rng.uniform(0.25, 0.55)
    return _finish(track, voiceover.level_db, rate_hz), round(voiceover.start_s * rate_hz)


def _finish(track: Sound, level_db: float, rate_hz: int) -> Sound:
    """Fade a track (S,) out over its last 40 ms and bring it to its level."""
    fade = _fade_out(min(round(_END_FADE_S * rate_hz), len(track)))
    track[len(track) - len(fade) :] *= fade
    track *= np.float32(10 ** ((level_db - k_weighted_level_db(track, rate_hz)) / 20))
    return track


def _add(mix_CS: Sound, track: Sound, at: int, pan: float) -> None:
    """Mix a track (S,) in at a sample, at a place from -1 (left) to 1 (right)."""
    track = track[: mix_CS.shape[1] - at]
    angle = (pan + 1) * pi / 4
    for channel, gain in zip(mix_CS, (cos(angle), sin(angle)), strict=True):
        channel[at : at + len(track)] += np.float32(gain) * track


def _background(scene: Scene, length: int, rate_hz: int) -> Sound:
    """Background noise (2, S) of the place, at the scene's level."""
    loop = _noise_loop(scene.place, scene.index % 4, rate_hz)
    rng = np.random.default_rng([scene.seed, scene.index])
    gain = np.float32(10 ** (scene.noise_db / 20) / 2**0.5)
    noise_CS = np.empty((2, length), np.float32)
    for channel, shift in zip(noise_CS, rng.integers(len(loop), size=2), strict=True):
        done = 0
        while done < length:
            part = loop[shift : shift + length - done]
            np.multiply(part, gain, out=channel[done : done + len(part)])
            done, shift = done + len(part), 0
    return noise_CS


@lru_cache(maxsize=16)
def _noise_loop(place: str, variant: int, rate_hz: int) -> Sound:
    """Noise (S,) that loops without a seam, mean level 0 dB: a room's hum, or wind in gusts."""
    rng = np.random.default_rng([variant, len(place)])
    length = _NOISE_S * rate_hz
    hz = np.maximum(np.fft.rfftfreq(length, 1 / rate_hz), 1.0)
    spectrum = np.fft.rfft(rng.normal(size=length))
    t = np.arange(length) / rate_hz
    corner = rng.uniform(250, 450) if place == "indoor" else rng.uniform(350, 700)
    slope = 1.0 if place == "indoor" else 2.0
    noise = np.fft.irfft(spectrum / (1 + (hz / corner) ** slope), length)
    noise /= np.sqrt(np.mean(noise**2))
    if place == "indoor":
        for harmonic, gain in ((1, 0.9), (2, 0.6), (3, 0.25)):
            noise += gain * np.sin(2 * np.pi * 50 * harmonic * t + rng.uniform(0, 6))
    else:
        cycles = rng.integers(1, 7, 3)[:, None] * t / _NOISE_S + rng.uniform(0, 1, (3, 1))
        noise *= 1 + 0.25 * np.sin(2 * np.pi * cycles).sum(axis=0)
    weighted = sosfilt(_k_weighting(rate_hz), noise)
    level = np.sqrt(np.mean(weighted**2) * 10**-0.0691)
    return np.asarray(noise / level, np.float32)
