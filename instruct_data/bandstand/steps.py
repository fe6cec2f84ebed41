"""Steps: what one looks up in the event record on the way to an answer.

A small model learns what it can copy: steps take up words of the record in the record's own order,
and what is to be compared or put in order is written down before it is chosen from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from instruct_data.bandstand.record import start_word
from instruct_data.bandstand.scene import Player, Scene

ORDER = ("first", "second", "third", "fourth", "fifth")
Word = Callable[[Player], str]


def copied(players: Iterable[Player], *words: Word) -> str:
    """Steps: events as the record begins them, name and side first, then what is wanted of each.

    A small model that looks things up copies on from what it has just written; steps that
    skip the side are learned many times more slowly.
    """
    return " ".join(" ".join([p.instrument, p.side, *(word(p) for word in words)]) for p in players)


def presence_words(scene: Scene, instrument: str, *, by_ear: bool) -> str:
    mine = [p for p in scene.players if p.instrument == instrument]
    words = (start_or_silent,) if by_ear else ()
    return copied(mine, *words) if mine else f"{instrument} none"


def start_or_silent(player: Player) -> str:
    return start_word(player) if player.audible else "silent"


def listed(scene: Scene, *words: Word) -> str:
    """Steps: everybody who is heard, as the record has them. What is to be put in order, or to be
    the most of something, is written down first; without that it is hardly ever learned."""
    return copied(scene.heard, *words)


def found(player: Player, word: Word) -> str:
    """Steps: a value and whose it is. The value comes first: to find the least or greatest of
    what is listed, then who has it, is two easy steps; to name its owner at once is a hard one."""
    return f"{word(player)} {copied((player,))}"


def in_order(players: Sequence[Player]) -> str:
    """Steps: players in the order in which they start, each with its number."""
    return " ".join(
        f"{word} {found(player, start_word)}" for word, player in zip(ORDER, players, strict=False)
    )
