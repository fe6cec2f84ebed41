"""The event record: a scene as one short line of text, the caption that alignment teaches.

    indoor ; no voice ; violin left s0 e14 n14 l3 r2 ; flute right silent ; drum off s4 e20 n16 l1 r0

Players stand left to right, off-screen sounds last. `s`, `e` and `n` are start, end and
length in half seconds, `l` the loudness step (0 soft .. 4 loud), `r` the rhythm step
(0 slow .. 4 fast).
"""

from __future__ import annotations

import numpy as np

from instruct_data.bandstand.scene import LEVELS_DB, RATES_HZ, Player, Scene

TICKS_PER_S = 2


def start_word(player: Player) -> str:
    """`s7`: it starts 3.5 s into the clip."""
    return f"s{ticks(player.start_s)}"


def end_word(player: Player) -> str:
    """`e14`: it stops 7 s into the clip."""
    return f"e{ticks(player.end_s)}"


def length_word(player: Player) -> str:
    """`n7`: it plays for 3.5 s. Difference of the two rounded times, so that it follows from them."""
    return f"n{ticks(player.end_s) - ticks(player.start_s)}"


def level_word(player: Player) -> str:
    """`l0` (soft) .. `l4` (loud): the nearest step of the level grid."""
    return f"l{_nearest(LEVELS_DB, player.level_db)}"


def rate_word(player: Player) -> str:
    """`r0` (slow) .. `r4` (fast): the nearest step of the rhythm grid, on a log scale."""
    return f"r{_nearest(np.log(RATES_HZ), np.log(player.rate_hz))}"


def ticks(seconds: float | None) -> int:
    """Half seconds, rounded half up."""
    assert seconds is not None, "a silent player has no times"
    return int(seconds * TICKS_PER_S + 0.5)


def event_record(scene: Scene) -> str:
    """The whole clip as one line."""
    parts = [scene.place, "voice" if scene.voiceover else "no voice"]
    for player in scene.players:
        words = [player.instrument, player.side]
        if player.audible:
            words += [start_word(player), end_word(player), length_word(player)]
            words += [level_word(player), rate_word(player)]
        else:
            words.append("silent")
        parts.append(" ".join(words))
    return " ; ".join(parts)


def _nearest(grid: object, value: float | None) -> int:
    assert value is not None, "a silent player has no loudness and no rhythm"
    return int(np.argmin(np.abs(np.asarray(grid) - value)))
