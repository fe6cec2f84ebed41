"""What happens in a Bandstand clip: who stands where, who plays when, how loud and how fast.

A `Scene` is the exact truth. The sound, the picture, the questions and the event
record are all computed from it, so none of them can contradict another.

Margins keep every question beyond dispute: players' levels lie on a grid of
4.5 dB, their onset rates on a grid of a factor 1.6, and where starts differ they
differ by at least `ONSET_GAP_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

INSTRUMENTS = (
    "accordion",
    "acoustic_guitar",
    "bagpipe",
    "banjo",
    "bassoon",
    "cello",
    "clarinet",
    "congas",
    "drum",
    "electric_bass",
    "erhu",
    "flute",
    "guzheng",
    "piano",
    "pipa",
    "saxophone",
    "suona",
    "trumpet",
    "tuba",
    "ukulele",
    "violin",
    "xylophone",
)
"""The 22 instruments of MUSIC-AVQA, in the order of its label list."""

PLACES = ("indoor", "outdoor")
LEVELS_DB = (-34.0, -29.5, -25.0, -20.5, -16.0)
"""K-weighted level of a player while it plays, dB re full scale: the grid of all players."""
RATES_HZ = (1.0, 1.7, 2.8, 4.5, 7.0)
"""Onsets per second: the grid of all players, which drift from it by up to 4 %."""
ONSET_GAP_S = 1.3
MIN_PLAY_S = 2.0
N_BANKS = 64
BANKS = {"train": (0, 48), "val": (48, 56), "test": (56, 64)}
"""Note banks of each split: `Player.timbre % N_BANKS` is the bank that its notes come from."""

# Centres of the players on the picture, by how many are on it.
STANDS = {
    2: (0.27, 0.73),
    3: (0.20, 0.50, 0.80),
    4: (0.13, 0.37, 0.63, 0.87),
    5: (0.10, 0.30, 0.50, 0.70, 0.90),
}


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """How likely it is that many things happen at once."""

    sizes: tuple[float, ...]
    """Chances of one to five players on the picture."""
    same: float
    """Chance of several players of one instrument."""
    off_screen: float
    most_beside_off: int
    """Players on the picture up to which a sound may come from off-screen."""
    noise_db: tuple[float, float]


PLAIN = Crowd(
    sizes=(0.2, 0.32, 0.3, 0.1, 0.08),
    same=0.3,
    off_screen=0.25,
    most_beside_off=3,
    noise_db=(-62.0, -48.0),
)
CROWDED = Crowd(
    sizes=(0.0, 0.05, 0.1, 0.2, 0.65),
    same=0.6,
    off_screen=0.5,
    most_beside_off=5,
    noise_db=(-48.0, -38.0),
)


@dataclass(frozen=True, kw_only=True)
class Player:
    """One instrument. `x` is None for a sound from off-screen, `start_s` for a silent player."""

    instrument: str
    x: float | None
    """Centre on the picture: 0 is the left edge, 1 the right edge."""
    pan: float
    """Place in the stereo image: -1 is left, 1 is right."""
    start_s: float | None = None
    end_s: float | None = None
    level_db: float | None = None
    rate_hz: float | None = None
    moves_s: tuple[float, float] | None = None
    """When it is seen to move: while it plays; some silent players mime."""
    look: int = 0
    """Seed of the drawing's colours, size and details."""
    timbre: int = 0
    """Seed of the notes: pitches, spectrum, envelope."""

    @property
    def visible(self) -> bool:
        return self.x is not None

    @property
    def audible(self) -> bool:
        return self.start_s is not None

    @property
    def length_s(self) -> float:
        """How long it plays, in seconds; 0 for a silent player."""
        return 0.0 if self.start_s is None or self.end_s is None else self.end_s - self.start_s

    @property
    def side(self) -> str:
        """`left`, `middle` or `right` on the picture, or `off` for an off-screen sound."""
        if self.x is None:
            return "off"
        return "left" if self.x < 0.42 else "right" if self.x > 0.58 else "middle"


@dataclass(frozen=True, kw_only=True)
class Voiceover:
    """A narrator who is heard and never seen."""

    start_s: float
    end_s: float
    level_db: float
    voice: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A whole clip. `players` are ordered left to right, off-screen sounds last."""

    video_id: str
    split: str
    seed: int
    index: int
    seconds: float
    players: tuple[Player, ...]
    place: str
    voiceover: Voiceover | None
    noise_db: float
    """Level of the background noise, dB re full scale."""
    shake: float
    """Camera shake, as a part of the picture's height."""
    clutter: int
    """How many things without sound stand around."""
    look: int

    @property
    def seen(self) -> tuple[Player, ...]:
        return tuple(p for p in self.players if p.visible)

    @property
    def heard(self) -> tuple[Player, ...]:
        return tuple(p for p in self.players if p.audible)

    def to_json(self) -> dict[str, Any]:
        """The row of `truth.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Scene:
        players = []
        for player in row["players"]:
            moves = player.get("moves_s")
            players.append(Player(**{**player, "moves_s": tuple(moves) if moves else None}))
        voice = row["voiceover"]
        return cls(
            **{**row, "players": tuple(players), "voiceover": Voiceover(**voice) if voice else None}
        )


def sample_scene(
    seed: int, index: int = 0, *, split: str = "train", seconds: float = 10.0, hard: bool = False
) -> Scene:
    """Draw clip number `index` of the set with this seed; the same on every machine.

    Splits are disjoint by construction: they seed different generators and draw their
    notes from different banks (`BANKS`). A `hard` scene is crowded and noisy: mostly five players,
    often several of one instrument, often a sound from off-screen, and loud noise (`CROWDED`).

    Raises:
        ValueError: a split that does not exist or a length outside 6 to 600 seconds.
    """
    if split not in BANKS:
        raise ValueError(f"split {split!r} does not exist: choose one of {', '.join(BANKS)}")
    if not 6.0 <= seconds <= 600.0:
        raise ValueError(f"a scene of {seconds} s is outside 6 to 600 s")
    entropy = [list(BANKS).index(split), seed, index, round(seconds * 10)] + [1] * hard
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    return Scene(
        video_id=f"{split}{seed}{'h' * hard}_{index:06d}",
        split=split,
        seed=seed,
        index=index,
        seconds=seconds,
        players=_players(rng, CROWDED if hard else PLAIN, split, seconds),
        place=PLACES[int(rng.integers(2))],
        voiceover=_voiceover(rng, seconds),
        noise_db=round(float(rng.uniform(*(CROWDED if hard else PLAIN).noise_db)), 1),
        shake=round(float(rng.choice([0.0, 0.004, 0.012])), 3),
        clutter=int(rng.integers(0, 5)),
        look=int(rng.integers(2**31)),
    )


def _players(
    rng: np.random.Generator, crowd: Crowd, split: str, seconds: float
) -> tuple[Player, ...]:
    kinds, stands, sounding = _cast(rng, crowd)
    spans = _timing(rng, [k for k, s in zip(kinds, sounding, strict=True) if s], seconds)
    levels = _grid(rng, LEVELS_DB, len(spans), jitter=0.2)
    rates = _grid(rng, RATES_HZ, len(spans), jitter=0.0)
    drifts = rng.uniform(-0.04, 0.04, len(spans))
    voices = iter(zip(spans, levels, rates, drifts, strict=True))
    players = []
    for kind, x, plays in zip(kinds, stands, sounding, strict=True):
        player = _silent_player(rng, kind, x, split)
        if plays:
            (start, end), level, rate, drift = next(voices)
            player = replace(
                player,
                start_s=start,
                end_s=end,
                level_db=round(level, 2),
                rate_hz=round(float(rate * (1 + drift)), 3),
                moves_s=(start, end) if player.visible else None,
            )
        else:
            player = replace(player, moves_s=_mime(rng, seconds))
        players.append(player)
    return tuple(players)


def _silent_player(rng: np.random.Generator, kind: str, x: float | None, split: str) -> Player:
    pan = rng.uniform(-0.9, 0.9) if x is None else np.clip((x - 0.5) * 2.0, -0.9, 0.9)
    return Player(
        instrument=kind,
        x=None if x is None else round(x, 3),
        pan=round(float(pan), 3),
        look=int(rng.integers(2**31)),
        timbre=int(rng.integers(2**24)) * N_BANKS + int(rng.integers(*BANKS[split])),
    )


def _cast(
    rng: np.random.Generator, crowd: Crowd
) -> tuple[list[str], list[float | None], list[bool]]:
    """Who is there, where it stands (None: off-screen) and whether it plays."""
    n = int(rng.choice([1, 2, 3, 4, 5], p=crowd.sizes))
    if n == 1:
        centres = [float(rng.choice([0.22, 0.5, 0.78], p=[0.3, 0.4, 0.3]))]
    else:
        centres = list(STANDS[n])
    stands: list[float | None] = [c + float(rng.uniform(-0.025, 0.025)) for c in centres]
    kinds = [str(k) for k in rng.choice(INSTRUMENTS, n, replace=False)]
    if n >= 2 and rng.random() < crowd.same:  # several players of one instrument
        same = rng.choice(n, size=2 if n < 4 or rng.random() < 0.6 else 3, replace=False)
        for i in same:
            kinds[i] = kinds[same[0]]
    sounding = [bool(b) for b in rng.random(n) < 0.78]
    if n <= crowd.most_beside_off and rng.random() < crowd.off_screen:
        # Sounds from off-screen, of instruments that are not on the picture.
        if n <= 3 and rng.random() < 0.5:
            sounding = [False] * n
        extra = [k for k in INSTRUMENTS if k not in kinds]
        for kind in rng.choice(extra, int(rng.integers(1, 3)) if n <= 3 else 1, replace=False):
            kinds.append(str(kind))
            stands.append(None)
            sounding.append(True)
    if not any(sounding):
        sounding[int(rng.integers(n))] = True
    return kinds, stands, sounding


def _timing(
    rng: np.random.Generator, kinds: Sequence[str], seconds: float
) -> list[tuple[float, float]]:
    """Start and end of each sounding player, in seconds."""
    n = len(kinds)
    style = rng.choice(["all", "staggered", "turns", "together"], p=[0.3, 0.42, 0.14, 0.14])
    if style == "all":
        return [(0.0, seconds)] * n
    if style == "turns" and n >= 2:
        return _turns(rng, n, seconds)
    starts = _spread(rng, n, seconds - MIN_PLAY_S - 0.5)
    if style == "together" and n >= 2:  # two start at once, by preference two of one instrument
        pairs = [(i, j) for i in range(n) for j in range(i) if kinds[i] == kinds[j]]
        i, j = pairs[0] if pairs else (0, 1)
        starts[i] = starts[j]
    spans = []
    for start in starts:
        to_end = rng.random() < 0.4 or start + MIN_PLAY_S + 0.3 > seconds
        end = seconds if to_end else float(rng.uniform(start + MIN_PLAY_S, seconds))
        spans.append((round(start, 2), round(end, 2)))
    return spans


def _spread(rng: np.random.Generator, n: int, latest: float) -> list[float]:
    """`n` starts in random order, at least `ONSET_GAP_S` apart; often one of them at zero."""
    gap = min(ONSET_GAP_S, latest / max(n - 1, 1))
    free = np.sort(rng.uniform(0, max(latest - gap * (n - 1), 0.0), n))
    if rng.random() < 0.5:
        free -= free[0]
    starts = [round(float(f + i * gap), 2) for i, f in enumerate(free)]
    rng.shuffle(starts)
    return starts


def _turns(rng: np.random.Generator, n: int, seconds: float) -> list[tuple[float, float]]:
    """Two groups, one after the other with a rest between them."""
    cut = float(rng.uniform(0.35, 0.65)) * seconds
    first = rng.permutation(n) < max(1, int(rng.integers(1, n)))
    halves = ((0.0, cut - 0.4), (cut + 0.4, seconds))
    spans = [halves[0] if f else halves[1] for f in first]
    return [(round(start, 2), round(end, 2)) for start, end in spans]


def _grid(rng: np.random.Generator, grid: Sequence[float], n: int, *, jitter: float) -> list[float]:
    """`n` values of a grid, mostly all different."""
    distinct = n <= len(grid) and rng.random() < 0.8
    picks = rng.choice(len(grid), n, replace=not distinct)
    return [grid[int(i)] + float(rng.uniform(-jitter, jitter)) for i in picks]


def _mime(rng: np.random.Generator, seconds: float) -> tuple[float, float] | None:
    if rng.random() < 0.5:
        return None
    start = float(rng.uniform(0, seconds / 2))
    return round(start, 2), round(float(rng.uniform(start + MIN_PLAY_S, seconds)), 2)


def _voiceover(rng: np.random.Generator, seconds: float) -> Voiceover | None:
    if rng.random() < 0.6:
        return None
    start = float(rng.uniform(0, seconds - 4.0))
    end = float(rng.uniform(start + 3.0, seconds))
    level = float(rng.uniform(-24, -17))
    return Voiceover(
        start_s=round(start, 2),
        end_s=round(end, 2),
        level_db=round(level, 1),
        voice=int(rng.integers(2**31)),
    )
