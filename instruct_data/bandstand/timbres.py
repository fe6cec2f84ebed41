"""What the instruments and the narrator sound like: one note, or one syllable, at a time.

Every instrument is one row of `TIMBRES`, and one synthesiser plays all rows: a sum
of partials, each with its own level, onset and decay, through fixed formants, plus
noise for breath, bow, reed or stick. Nothing here is fast; notes are made once and kept.

Shapes: S = samples, K = partials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Ratios of the modes of an ideal membrane (zeros of Bessel functions) and of a
# xylophone bar, whose second mode is tuned to the twelfth.
_MEMBRANE = (1.0, 1.594, 2.136, 2.296, 2.653, 2.918, 3.156, 3.5, 3.6, 4.06)
_BAR = (1.0, 3.0, 6.16, 9.9)
# Octaves and fifths blur the notes of a chord least.
_PENTATONIC = (0, 2, 4, 7, 9)


@dataclass(frozen=True, kw_only=True)
class Timbre:
    """How one instrument makes a note. Levels in dB are relative to the fundamental."""

    low: int
    """Lowest pitch, as a MIDI number."""
    high: int
    """Highest pitch."""
    seconds: float
    """Longest note."""
    tilt: float
    """Fall of the partials, dB per octave."""
    partials: int = 28
    even: float = 0.0
    """Level of the even partials; a closed pipe has almost none."""
    ratios: tuple[float, ...] | None = None
    """Frequencies of the modes over the first; None is a harmonic series."""
    stretch: float = 0.0
    """Inharmonicity of a stiff string: partial k lies at k·sqrt(1 + stretch·k²)."""
    pluck: float = 0.0
    """Where the string is plucked, as a part of its length; 0 does not shape the spectrum."""
    formants: tuple[tuple[float, float, float], ...] = ()
    """Resonances of the body: Hz, dB, width in octaves."""
    attack: float = 0.004
    """Rise time, s."""
    late: float = 0.0
    """How much later a partial comes in for each octave above the first, s: brass brightens."""
    decay: float | None = None
    """Time constant of the fundamental, s; None sustains for as long as it is blown or bowed."""
    damping: float = 0.0
    """How much faster each higher partial decays."""
    vibrato: tuple[float, float] = (0.0, 0.0)
    """Hz, cents."""
    tremolo: tuple[float, float] = (0.0, 0.0)
    """Hz, depth from 0 to 1."""
    bend: tuple[float, float] = (0.0, 0.0)
    """Cents away from the pitch at the attack, and the time constant of the return, s."""
    breath: tuple[float, float, float] = (-120.0, 1000.0, 1.0)
    """Noise that follows the envelope: dB, Hz, width in octaves."""
    click: tuple[float, float, float] = (-120.0, 1000.0, 0.01)
    """Noise at the attack: dB, Hz, time constant in s."""
    chord: tuple[float, ...] = (0.0,)
    """Pitches that sound together, in semitones above the note."""
    drone: tuple[float, ...] = ()
    """Pitches that sound under every note, as MIDI numbers."""
    steps: tuple[int, ...] = _PENTATONIC
    """Scale of the bank's notes, semitones within the octave."""

    @property
    def sustains(self) -> bool:
        return self.decay is None


TIMBRES: dict[str, Timbre] = {
    "accordion": Timbre(
        low=57, high=74, seconds=1.2, tilt=-4, even=-2, partials=20, attack=0.03,
        chord=(0, 0.12, 4, 4.1, 7), tremolo=(5.5, 0.15), breath=(-44, 3000, 1.5),
        formants=((1400, 7, 0.8), (2800, 5, 0.6))),
    "acoustic_guitar": Timbre(
        low=40, high=66, seconds=1.2, tilt=-6, pluck=0.19, stretch=4e-5, decay=0.55, damping=0.16,
        formants=((105, 8, 0.4), (210, 6, 0.4), (3200, 9, 0.7)), click=(-9, 3200, 0.008)),
    "bagpipe": Timbre(
        low=67, high=81, seconds=1.2, tilt=-1, attack=0.012, drone=(45.0, 57.05, 57.0),
        formants=((1100, 6, 0.5), (2400, 6, 0.6)), breath=(-48, 4000, 1.0),
        steps=(0, 2, 4, 5, 7, 9)),
    "banjo": Timbre(
        low=55, high=76, seconds=0.5, tilt=-4, pluck=0.08, stretch=8e-5, decay=0.11, damping=0.03,
        formants=((800, 12, 0.5), (2200, 5, 0.5)), click=(-1, 450, 0.018)),
    "bassoon": Timbre(
        low=36, high=58, seconds=1.2, tilt=-7, attack=0.035, late=0.006,
        formants=((470, 17, 0.45), (1200, 8, 0.4)), vibrato=(4.8, 8), breath=(-42, 1500, 1.5)),
    "cello": Timbre(
        low=38, high=60, seconds=1.2, tilt=-5, attack=0.07, late=0.015, vibrato=(5.4, 20),
        formants=((230, 6, 0.4), (650, 4, 0.5), (2000, 6, 0.5)), breath=(-34, 1800, 2.0)),
    "clarinet": Timbre(
        low=52, high=79, seconds=1.2, tilt=-7, even=-30, attack=0.03, late=0.004,
        formants=((1700, 6, 0.6),), breath=(-46, 2500, 1.5)),
    "congas": Timbre(
        low=52, high=63, seconds=0.45, tilt=-10, ratios=_MEMBRANE, decay=0.13, damping=0.8,
        attack=0.002, bend=(70, 0.025), click=(-13, 1100, 0.008), steps=(0, 5)),
    "drum": Timbre(
        low=38, high=52, seconds=0.35, tilt=-5, ratios=_MEMBRANE, decay=0.07, damping=0.25,
        attack=0.001, bend=(350, 0.03), click=(7, 4200, 0.055), steps=(0, 4, 7)),
    "electric_bass": Timbre(
        low=28, high=46, seconds=1.2, tilt=-9, pluck=0.16, decay=0.7, damping=0.12, partials=20,
        attack=0.006, formants=((180, 4, 0.8),), click=(-28, 900, 0.006)),
    "erhu": Timbre(
        low=62, high=82, seconds=1.2, tilt=-5, attack=0.06, vibrato=(6.2, 48), bend=(-120, 0.05),
        formants=((900, 11, 0.35), (1700, -8, 0.3), (3100, 9, 0.4)), breath=(-36, 3500, 1.0)),
    "flute": Timbre(
        low=70, high=91, seconds=1.2, tilt=-15, partials=6, attack=0.05, vibrato=(5.0, 12),
        tremolo=(5.0, 0.14), breath=(-24, 2600, 1.6), click=(-22, 2200, 0.03)),
    "guzheng": Timbre(
        low=47, high=72, seconds=1.2, tilt=-3.5, pluck=0.11, stretch=2e-5, decay=0.5, damping=0.05,
        bend=(-180, 0.10), vibrato=(5.8, 30), formants=((480, 5, 0.5), (1800, 5, 0.7)),
        click=(-20, 3200, 0.004)),
    "piano": Timbre(
        low=45, high=81, seconds=1.2, tilt=-8, stretch=4e-4, pluck=0.125, decay=0.6, damping=0.12,
        attack=0.003, click=(-12, 400, 0.015), chord=(0, 7, 12), partials=18),
    "pipa": Timbre(
        low=57, high=79, seconds=0.7, tilt=0, pluck=0.06, stretch=1.5e-4, decay=0.32, damping=0.08,
        attack=0.001, tremolo=(15, 0.4), formants=((700, -6, 0.6), (1700, 4, 0.4), (4200, 9, 0.5)),
        click=(-3, 5000, 0.003)),
    "saxophone": Timbre(
        low=49, high=73, seconds=1.2, tilt=-4, attack=0.03, late=0.008, vibrato=(5.2, 22),
        bend=(-60, 0.03), formants=((750, 7, 0.6), (1250, 8, 0.5), (3500, -6, 0.8)),
        breath=(-27, 2200, 1.8)),
    "suona": Timbre(
        low=70, high=85, seconds=1.2, tilt=2, attack=0.01, vibrato=(5.5, 24), bend=(-90, 0.04),
        formants=((2700, 12, 0.4), (4300, 8, 0.4)), breath=(-34, 4500, 1.0)),
    "trumpet": Timbre(
        low=58, high=78, seconds=1.2, tilt=-2.5, attack=0.02, late=0.03, vibrato=(5.0, 8),
        formants=((1300, 8, 0.8), (5000, -12, 0.8)), breath=(-46, 2500, 1.0)),
    "tuba": Timbre(
        low=29, high=48, seconds=1.2, tilt=-9, attack=0.05, late=0.025, partials=16,
        formants=((240, 8, 0.7),), breath=(-40, 600, 1.5)),
    "ukulele": Timbre(
        low=60, high=77, seconds=0.6, tilt=-9, pluck=0.3, decay=0.2, damping=0.3,
        formants=((380, 6, 0.6),), click=(-18, 900, 0.008), chord=(0, 7)),
    "violin": Timbre(
        low=57, high=82, seconds=1.2, tilt=-4.5, attack=0.055, late=0.01, vibrato=(5.8, 28),
        formants=((480, 5, 0.3), (1200, -5, 0.4), (2700, 8, 0.6)), breath=(-31, 4500, 1.5)),
    "xylophone": Timbre(
        low=74, high=96, seconds=0.4, tilt=-3, ratios=_BAR, decay=0.09, damping=0.5,
        attack=0.001, click=(2, 2500, 0.006)),
}  # fmt: skip
"""Each instrument in its own family and register."""


def synthesise_bank(
    instrument: str, bank: int, *, notes: int, rate_hz: int
) -> list[npt.NDArray[np.float32]]:
    """Make the notes (S,) of one player's instrument, from low to high.

    `bank` seeds the pitches and small differences of spectrum and envelope: two banks
    are two instruments of a kind, played in two registers.
    """
    base = TIMBRES[instrument]
    seed = [list(TIMBRES).index(instrument), bank]
    rng = np.random.default_rng(seed)
    vary = {
        "tilt": rng.uniform(-1.2, 1.2),
        "shift": 2 ** rng.uniform(-0.07, 0.07),
        "decay": 2 ** rng.uniform(-0.35, 0.35),
        "attack": 2 ** rng.uniform(-0.4, 0.4),
        "vibrato": 2 ** rng.uniform(-0.3, 0.3),
    }
    pitches = _scale(base, rng, notes)
    return [
        _note(base, float(pitch), vary, rate_hz, np.random.default_rng([*seed, i]))
        for i, pitch in enumerate(pitches)
    ]


def _scale(timbre: Timbre, rng: np.random.Generator, notes: int) -> Array:
    """Neighbouring notes of a scale within the register."""
    root = int(rng.integers(12))
    ladder = [p for p in range(timbre.low, timbre.high + 1) if (p - root) % 12 in timbre.steps]
    if len(ladder) < 2:
        ladder = [timbre.low, timbre.low + timbre.steps[-1]]
    first = int(rng.integers(max(len(ladder) - notes, 0) + 1))
    tuning = rng.uniform(-0.3, 0.3)
    return np.asarray(ladder[first : first + notes], float) + tuning


def _note(
    timbre: Timbre, pitch: float, vary: dict[str, float], rate: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    t = np.arange(round(timbre.seconds * rate)) / rate
    rise = timbre.attack * vary["attack"]
    hold = 1 - np.exp(-t / rise * 2.5)
    tone = np.zeros_like(t)
    for interval in timbre.chord:
        tone += _partials(timbre, pitch + interval, t, vary, rate, rng)
    for drone in timbre.drone:
        tone += 0.5 * _partials(timbre, drone + pitch % 1, t, vary, rate, rng)
    depth = timbre.tremolo[1] * (1 - np.exp(-t / 0.15))  # the attack stays the loudest
    tone *= 1 - depth * (0.5 - 0.5 * np.cos(2 * np.pi * timbre.tremolo[0] * t))
    tone *= hold / max(float(np.sqrt(np.mean(tone[: rate // 5] ** 2))), 1e-9)
    tone += hold * _noise(rng, t, rate, timbre.breath)
    strike = _noise(rng, t, rate, (timbre.click[0], timbre.click[1], 1.3))
    tone += strike * np.exp(-t / timbre.click[2]) * (1 - np.exp(-t / 0.0005))
    tone *= np.clip((t[-1] - t) / (0.15 * t[-1]), 0, 1)
    return tone.astype(np.float32)


def _partials(
    timbre: Timbre,
    pitch: float,
    t: Array,
    vary: dict[str, float],
    rate: int,
    rng: np.random.Generator,
) -> Array:
    """The pitched part of a note (S,): all partials below the band's edge."""
    f0 = 440.0 * 2 ** ((pitch - 69) / 12)
    k = np.arange(1, timbre.partials + 1, dtype=float)
    ratios = np.asarray(timbre.ratios) if timbre.ratios else k * np.sqrt(1 + timbre.stretch * k**2)
    ratios = ratios[ratios * f0 < 0.46 * rate]
    k = k[: len(ratios)]
    gain_db = timbre.tilt * np.log2(ratios) + vary["tilt"] * np.log2(ratios)
    gain_db += np.where(k % 2 == 0, timbre.even, 0.0) + rng.normal(0, 1.0, len(k))
    for hz, db, octaves in timbre.formants:
        gain_db += db * np.exp(-((np.log2(ratios * f0 / (hz * vary["shift"])) / octaves) ** 2))
    gains = 10 ** (gain_db / 20)
    if timbre.pluck:
        gains *= 0.08 + np.abs(np.sin(np.pi * k * timbre.pluck))
    cycles = _cycles(timbre, f0, t, vary, rate, rng)
    tone_S, t_S = np.zeros(len(t), np.float32), t.astype(np.float32)
    start = rng.uniform(0, 1, len(k))
    for number, ratio, gain, phase in zip(k, ratios, gains, start, strict=True):
        angle = cycles * ratio + phase
        angle -= np.rint(angle)  # single precision holds one cycle well, thousands badly
        wave = np.sin(np.float32(2 * np.pi) * angle.astype(np.float32))
        wave *= _envelope(timbre, float(number), t_S, vary)
        wave *= np.float32(gain)
        tone_S += wave
    return tone_S.astype(np.float64)


def _cycles(
    timbre: Timbre, f0: float, t: Array, vary: dict[str, float], rate: int, rng: np.random.Generator
) -> Array:
    """Phase of the fundamental in cycles (S,), with vibrato and bend."""
    speed, cents = timbre.vibrato
    swell = 1 - np.exp(-t / 0.12)  # the finger starts to rock after the attack
    phase = 2 * np.pi * (speed * vary["vibrato"] * t + rng.uniform(0, 1))
    detune = cents * vary["vibrato"] * swell * np.sin(phase)
    if timbre.bend[0]:
        detune = detune + timbre.bend[0] * rng.uniform(0.5, 1.2) * np.exp(-t / timbre.bend[1])
    return np.asarray(np.cumsum(f0 * 2 ** (detune / 1200)) / rate)


def _envelope(
    timbre: Timbre, number: float, t_S: npt.NDArray[np.float32], vary: dict[str, float]
) -> npt.NDArray[np.float32]:
    """How one partial grows and fades (S,)."""
    if timbre.decay is not None:
        faster = (1 + timbre.damping * (number - 1)) / (timbre.decay * vary["decay"])
        return np.asarray(np.exp(t_S * np.float32(-faster)))
    if not timbre.late or number == 1:
        return np.ones_like(t_S)
    return np.asarray(1 - np.exp(t_S * np.float32(-1 / (timbre.late * np.log2(number)))))


def _noise(
    rng: np.random.Generator, t: Array, rate: int, shape: tuple[float, float, float]
) -> Array:
    """Noise of a given level in dB, centre in Hz and width in octaves (S,)."""
    level_db, centre, octaves = shape
    if level_db <= -100:
        return np.zeros_like(t)
    spectrum = np.fft.rfft(rng.normal(size=len(t)))
    hz = np.maximum(np.fft.rfftfreq(len(t), 1 / rate), 1.0)
    noise = np.fft.irfft(spectrum * np.exp(-((np.log2(hz / centre) / octaves) ** 2)), len(t))
    return np.asarray(noise * 10 ** (level_db / 20) / np.sqrt(np.mean(noise**2)))


# F1, F2, F3 in Hz of open, front, back and middle vowels of an adult man.
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480),
           (570, 840, 2410), (640, 1190, 2390), (490, 1350, 1690), (400, 2000, 2550))  # fmt: skip


def synthesise_syllables(
    voice: int, *, syllables: int, rate_hz: int
) -> list[npt.NDArray[np.float32]]:
    """Make the syllables (S,) of one narrator, from high to low pitch, as a sentence falls."""
    rng = np.random.default_rng([len(TIMBRES), voice])
    pitch = rng.uniform(95, 230)
    tract = 1.0 + 0.17 * (pitch - 95) / 135  # a higher voice has a shorter tract
    fall = np.linspace(1.18, 0.82, syllables)
    return [
        _syllable(np.random.default_rng([len(TIMBRES), voice, i]), pitch * drop, tract, rate_hz)
        for i, drop in enumerate(fall)
    ]


def _syllable(
    rng: np.random.Generator, pitch: float, tract: float, rate: int
) -> npt.NDArray[np.float32]:
    """One consonant and one vowel that glides into another."""
    t = np.arange(round(rng.uniform(0.16, 0.24) * rate)) / rate
    place = t / t[-1]
    first, second = rng.choice(len(_VOWELS), 2, replace=False)
    glide = 1 / (1 + np.exp(-(place - rng.uniform(0.1, 0.5)) * 14))
    f0 = pitch * (1 + rng.uniform(-0.08, 0.12) * np.sin(np.pi * place))
    cycles = np.cumsum(f0) / rate
    vowel = np.zeros_like(t)
    for k in range(1, int(min(0.46 * rate, 5000) / pitch)):
        gain = np.zeros_like(t)
        for i, (width, level) in enumerate(((70, 1.0), (100, 0.6), (160, 0.35))):
            centre = tract * (_VOWELS[first][i] * (1 - glide) + _VOWELS[second][i] * glide)
            gain += level / (1 + ((k * f0 - centre) / width) ** 2)
        vowel += gain / k**0.5 * np.sin(2 * np.pi * k * cycles)
    vowel *= np.minimum(np.clip(t / 0.03, 0, 1), np.clip((t[-1] - t) / 0.05, 0, 1))
    vowel /= np.sqrt(np.mean(vowel**2))
    if rng.random() < 0.35:  # a voiced consonant starts in the vowel itself
        return vowel.astype(np.float32)
    hiss_t = np.arange(round(rng.uniform(0.03, 0.09) * rate)) / rate
    hiss = _noise(rng, hiss_t, rate, (rng.uniform(-16, -7), rng.uniform(2500, 5500), 0.6))
    hiss *= np.hanning(len(hiss)) ** 0.5
    return np.concatenate([hiss, vowel]).astype(np.float32)
