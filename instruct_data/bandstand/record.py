"""The event record: a scene as one short line of text, the caption that alignment teaches.

    indoor ; no voice ; violin left s0 e14 n14 l3 r2 ; flute right silent ; drum off s4 e9 n5 l1 r0

Players stand left to right, off-screen sounds last. `s`, `e` and `n` are start, end and
length in half seconds, `l` the loudness step (0 soft .. 4 loud), `r` the rhythm step
(0 slow .. 4 fast).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from instruct_data.bandstand.scene import LEVELS_DB, RATES_HZ, Player, Scene

TICKS_PER_S = 2


def start_word(player: Player) -> str:
    """`s7`: it starts 3.5 s into the clip."""
    return f"s{ticks(player.start_s)}"


def end_word(player: Player) -> str:
    """`e14`: it stops 7 s into the clip."""
    return f"e{ticks(player.end_s)}"


def length_word(player: Player) -> str:
    """`n7`: it plays for 3.5 s. The difference of the rounded times, to agree with them."""
    return f"n{ticks(player.end_s) - ticks(player.start_s)}"


def level_word(player: Player) -> str:
    """`l0` (soft) .. `l4` (loud): the nearest step of the level grid."""
    assert player.level_db is not None, "a silent player has no loudness"
    return f"l{_nearest(np.array(LEVELS_DB), player.level_db)}"


def rate_word(player: Player) -> str:
    """`r0` (slow) .. `r4` (fast): the nearest step of the rhythm grid, on a log scale."""
    assert player.rate_hz is not None, "a silent player has no rhythm"
    return f"r{_nearest(np.log(RATES_HZ), np.log(player.rate_hz))}"


def ticks(seconds: float | None) -> int:
    """Half seconds, rounded half up."""
    assert seconds is not None, "a silent player has no times"
    return int(seconds * TICKS_PER_S + 0.5)


def event_record(scene: Scene) -> str:
    """The whole clip as one line."""
    parts = [scene.place, _voice(scene)]
    for player in scene.players:
        what = _playing(player) if player.audible else "silent"
        parts.append(f"{player.instrument} {player.side} {what}")
    return " ; ".join(parts)


def record_without_sound(scene: Scene) -> str:
    """What a deaf person could write: the place, and who stands where."""
    return " ; ".join([scene.place, *(f"{p.instrument} {p.side}" for p in scene.seen)])


def record_without_picture(scene: Scene) -> str:
    """What a blind person could write: sounds in the order in which they start, left ones first."""
    heard = sorted(scene.heard, key=lambda p: (ticks(p.start_s), p.pan))
    return " ; ".join([_voice(scene), *(f"{p.instrument} {_playing(p)}" for p in heard)])


def _voice(scene: Scene) -> str:
    return "voice" if scene.voiceover else "no voice"


def _playing(player: Player) -> str:
    words = (start_word, end_word, length_word, level_word, rate_word)
    return " ".join(word(player) for word in words)


def _nearest(grid: npt.NDArray[np.float64], value: float) -> int:
    return int(np.argmin(np.abs(grid - value)))
