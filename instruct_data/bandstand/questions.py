"""The 33 templates of MUSIC-AVQA, answered from the truth of a scene.

Every template has one function here. It yields a `Candidate` for each way to fill the
slots that has exactly one answer which a careful person could not dispute: loudness
apart by `LOUDER_DB`, starts by `APART_S`, lengths by `LONGER_S`, rhythms by `FASTER`,
and places that only one player takes. Where a player is drowned by all the others, only
questions about the picture and the narrator are asked.

Readings of the templates that MUSIC-AVQA leaves open:
- "lowest" instrument: the softest (the slot of *loudest*);
- "first/last sounding": first/last to start; *last* is asked only where it also stops last;
- "did not sound from beginning to end": asked only where every instrument on the picture
  either sounds for the whole clip or never, so that both readings agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from instruct_data.bandstand.record import (
    end_word,
    length_word,
    level_word,
    rate_word,
    start_word,
)
from instruct_data.bandstand.scene import INSTRUMENTS, Player, Scene, Voiceover
from instruct_data.bandstand.steps import (
    ORDER,
    Word,
    copied,
    found,
    in_order,
    listed,
    presence_words,
    start_or_silent,
)

LOUDER_DB = 4.0
FASTER = 1.4
LONGER_S = 2.0
APART_S = 1.2
TOGETHER_S = 0.1
MASKED_DB, MASKED_SHARE, MASKED_STEP_S = 13.0, 0.9, 0.1
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Compare = Callable[[Player, Player], "bool | None"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One well-posed question about a scene."""

    slots: tuple[str, ...]
    answer: str
    steps: str
    """What one looks up in the event record on the way to the answer; may be empty."""
    about: tuple[int, ...]
    """Players that the answer rests on, as indices into `scene.players`: the evidence."""


def candidates(scene: Scene, *, by_ear: bool = True) -> dict[str, list[Candidate]]:
    """All well-posed questions, by template. Templates without one are left out.

    `by_ear` False: of a clip whose truth is read, not heard, so that nobody in it is drowned.
    """
    masked = by_ear and any(is_masked(player, scene) for player in scene.heard)
    askers = {t: ask for t, ask in ASKERS.items() if not masked or ask in _BY_EYE}
    asked = {template: list(ask(scene)) for template, ask in askers.items()}
    return {template: rows for template, rows in asked.items() if rows}


def is_masked(player: Player, scene: Scene) -> bool:
    """Whether all other sounds together are far louder nearly all the time that this one plays."""
    assert player.start_s is not None and player.level_db is not None, "it does not play"
    others: list[Player | Voiceover] = [p for p in scene.heard if p is not player]
    sounds = others + ([scene.voiceover] if scene.voiceover else [])
    power_T = np.zeros(max(1, round(player.length_s / MASKED_STEP_S)))
    times_T = player.start_s + (np.arange(len(power_T)) + 0.5) * MASKED_STEP_S
    for sound in sounds:
        assert sound.start_s is not None and sound.end_s is not None and sound.level_db is not None
        on_T = (times_T >= sound.start_s) & (times_T < sound.end_s)
        power_T += on_T * 10 ** (sound.level_db / 10)
    limit = 10 ** ((player.level_db + MASKED_DB) / 10)
    return bool(np.mean(power_T >= limit) >= MASKED_SHARE)


def _make(
    scene: Scene, slots: Sequence[str], answer: str, steps: str, about: Sequence[Player]
) -> Candidate:
    indices = tuple(i for i, p in enumerate(scene.players) if any(p is q for q in about))
    return Candidate(slots=tuple(slots), answer=answer, steps=steps, about=indices)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _only(players: Sequence[Player], instrument: str) -> Player | None:
    """The one player of an instrument, or None if there is none or more than one."""
    mine = [p for p in players if p.instrument == instrument]
    return mine[0] if len(mine) == 1 else None


def _alone_at(scene: Scene, side: str) -> Player | None:
    """The one player that stands at a side, or None."""
    there = [p for p in scene.seen if p.side == side]
    return there[0] if len(there) == 1 else None


def _singles(players: Sequence[Player]) -> list[Player]:
    return [p for p in players if _only(players, p.instrument) is p]


def _absent(scene: Scene, n: int = 3) -> list[str]:
    """A few instruments that the scene lacks, varied by its seed."""
    there = {p.instrument for p in scene.players}
    shift = (scene.look + scene.index) % len(INSTRUMENTS)
    rotated = INSTRUMENTS[shift:] + INSTRUMENTS[:shift]
    return [k for k in rotated if k not in there][:n]


def _names(players: Sequence[Player]) -> list[str]:
    """Different instruments in order of appearance."""
    return list(dict.fromkeys(p.instrument for p in players))


def _starts_apart(players: Sequence[Player]) -> list[Player]:
    """Players by start if all starts are clearly apart, else nothing."""
    order = sorted(players, key=lambda p: p.start_s or 0.0)
    for one, other in zip(order, order[1:], strict=False):
        if (other.start_s or 0.0) - (one.start_s or 0.0) < APART_S:
            return []
    return order


def _first_last(scene: Scene) -> Iterator[tuple[str, Player]]:
    """(`first`, player) and (`last`, player) where nobody else starts near it and it is seen."""
    order = sorted(scene.heard, key=lambda p: p.start_s or 0.0)
    if len(order) < 2:
        return
    starts = [p.start_s or 0.0 for p in order]
    if starts[1] - starts[0] >= APART_S and order[0].visible:
        yield "first", order[0]
    last = order[-1]
    stops_last = all((last.end_s or 0.0) >= (p.end_s or 0.0) for p in order)
    if starts[-1] - starts[-2] >= APART_S and last.visible and stops_last:
        yield "last", last


# -- comparisons ---------------------------------------------------------------------------


def _louder(one: Player, other: Player) -> bool | None:
    gap = (one.level_db or 0.0) - (other.level_db or 0.0)
    return None if abs(gap) < LOUDER_DB else gap > 0


def _faster(one: Player, other: Player) -> bool | None:
    ratio = (one.rate_hz or 1.0) / (other.rate_hz or 1.0)
    return None if 1 / FASTER < ratio < FASTER else ratio > 1


def _longer(one: Player, other: Player) -> bool | None:
    gap = one.length_s - other.length_s
    return None if abs(gap) < LONGER_S else gap > 0


def _compare_objects(compare: Compare, word: Word) -> Callable[[Scene], Iterator[Candidate]]:
    def ask(scene: Scene) -> Iterator[Candidate]:
        for one, other in permutations(_singles(scene.heard), 2):
            truth = compare(one, other)
            if truth is not None:
                steps = copied((one, other), word)
                slots = (one.instrument, other.instrument)
                yield _make(scene, slots, _yes(truth), steps, (one, other))

    return ask


def _compare_placed(compare: Compare, word: Word) -> Callable[[Scene], Iterator[Candidate]]:
    """`the <Object> on the <LR>`: the only player of that instrument at that side."""

    def ask(scene: Scene) -> Iterator[Candidate]:
        kinds_at = [(p.instrument, p.side) for p in scene.seen]
        placed = [
            p for p in scene.seen if p.audible and kinds_at.count((p.instrument, p.side)) == 1
        ]
        for one, other in permutations(placed, 2):
            truth = compare(one, other)
            if truth is None or one.side == other.side:
                continue
            steps = copied((one, other), word)
            slots = (one.instrument, one.side, other.instrument, other.side)
            yield _make(scene, slots, _yes(truth), steps, (one, other))

    return ask


def _compare_sides(compare: Compare, word: Word) -> Callable[[Scene], Iterator[Candidate]]:
    def ask(scene: Scene) -> Iterator[Candidate]:
        for side, opposite in permutations(("left", "middle", "right"), 2):
            one, other = _alone_at(scene, side), _alone_at(scene, opposite)
            if one is None or other is None or not (one.audible and other.audible):
                continue
            truth = compare(one, other)
            if truth is not None:
                steps = " ".join(f"{p.side} {p.instrument} {word(p)}" for p in (one, other))
                yield _make(scene, (side, opposite), _yes(truth), steps, (one, other))

    return ask


# -- is there, are there -------------------------------------------------------------------


def _presence(*, by_ear: bool) -> Callable[[Scene], Iterator[Candidate]]:
    def ask(scene: Scene) -> Iterator[Candidate]:
        for kind in _names(scene.players) + _absent(scene):
            mine = [p for p in scene.players if p.instrument == kind]
            steps = presence_words(scene, kind, by_ear=by_ear)
            yield _make(scene, (kind,), _yes(_there(mine, by_ear=by_ear)), steps, mine)

    return ask


def _both_present(*, by_ear: bool) -> Callable[[Scene], Iterator[Candidate]]:
    def ask(scene: Scene) -> Iterator[Candidate]:
        for pair in permutations(_names(scene.players) + _absent(scene, 1), 2):
            players = [[p for p in scene.players if p.instrument == kind] for kind in pair]
            truth = all(_there(mine, by_ear=by_ear) for mine in players)
            steps = " ".join(presence_words(scene, kind, by_ear=by_ear) for kind in pair)
            yield _make(scene, pair, _yes(truth), steps, [*players[0], *players[1]])

    return ask


def _there(players: Sequence[Player], *, by_ear: bool) -> bool:
    return any(p.audible if by_ear else p.visible for p in players)


def _always_playing(scene: Scene) -> Iterator[Candidate]:
    for player in _singles(scene.seen):
        if not player.audible:
            continue
        missing = scene.seconds - player.length_s
        if missing == 0 or missing >= LONGER_S:
            steps = copied((player,), start_word, end_word)
            yield _make(scene, (player.instrument,), _yes(missing == 0), steps, (player,))


def _voiceover(scene: Scene) -> Iterator[Candidate]:
    yield _make(scene, (), _yes(scene.voiceover is not None), "", ())


def _sound_from_picture(scene: Scene) -> Iterator[Candidate]:
    on_picture = {p.visible for p in scene.heard}
    if len(on_picture) == 1 and scene.voiceover is None:
        steps = copied(scene.heard)
        yield _make(scene, (), _yes(on_picture == {True}), steps, scene.heard)


# -- counting ------------------------------------------------------------------------------


def _count_heard(scene: Scene) -> Iterator[Candidate]:
    steps = " ".join(p.instrument for p in scene.heard)
    yield _make(scene, (), NUMBERS[len(scene.heard)], steps, scene.heard)


def _count_sounding(scene: Scene) -> Iterator[Candidate]:
    if all(p.visible for p in scene.heard):
        yield from _count_heard(scene)


def _count_sounding_types(scene: Scene) -> Iterator[Candidate]:
    if all(p.visible for p in scene.heard):
        names = _names(scene.heard)
        yield _make(scene, (), NUMBERS[len(names)], " ".join(names), scene.heard)


def _count_seen_types(scene: Scene) -> Iterator[Candidate]:
    names = _names(scene.seen)
    steps = " ".join([copied(scene.seen), *names])
    yield _make(scene, (), NUMBERS[len(names)], steps, scene.seen)


def _count_seen(scene: Scene) -> Iterator[Candidate]:
    for kind in _names(scene.players) + _absent(scene, 1):
        mine = [p for p in scene.seen if p.instrument == kind]
        steps = presence_words(scene, kind, by_ear=False)
        yield _make(scene, (kind,), NUMBERS[len(mine)], steps, mine)


def _count_sounding_object(scene: Scene) -> Iterator[Candidate]:
    for kind in _names(scene.seen):
        mine = [p for p in scene.heard if p.instrument == kind]
        steps = presence_words(scene, kind, by_ear=True)
        yield _make(scene, (kind,), NUMBERS[len(mine)], steps, mine)


def _count_silent(scene: Scene) -> Iterator[Candidate]:
    if any(p.audible and p.length_s < scene.seconds for p in scene.seen):
        return
    silent = [p for p in scene.seen if not p.audible]
    steps = " ".join([copied(scene.seen, start_or_silent), *(p.instrument for p in silent)])
    yield _make(scene, (), NUMBERS[len(silent)], steps, silent)


# -- where, which, what --------------------------------------------------------------------


def _beside(scene: Scene) -> Iterator[Candidate]:
    """`What is the instrument on the <LR> of <Object>?`: exactly one stands on that side of it."""
    for player in _singles(scene.seen):
        at = scene.seen.index(player)
        for side, others in (("left", scene.seen[:at]), ("right", scene.seen[at + 1 :])):
            if len(others) == 1:
                other = others[0]
                steps = copied((player, other))
                slots = (side, player.instrument)
                yield _make(scene, slots, other.instrument, steps, (player, other))


def _outermost(scene: Scene) -> Iterator[Candidate]:
    if len(scene.seen) >= 2:
        for word, player in (("leftest", scene.seen[0]), ("rightest", scene.seen[-1])):
            yield _make(scene, (word,), player.instrument, "", (player,))


def _what_is_it(scene: Scene) -> Iterator[Candidate]:
    names = _names(scene.seen)
    if len(names) == 1:
        yield _make(scene, (), names[0], "", scene.seen)


def _place(scene: Scene) -> Iterator[Candidate]:
    yield _make(scene, (), scene.place, "", ())


def _loudest_where(scene: Scene) -> Iterator[Candidate]:
    order = sorted(scene.heard, key=lambda p: p.level_db or 0.0)
    if len(order) < 2 or not all(p.visible for p in order):
        return
    for word, player, rival in (("loudest", order[-1], order[-2]), ("lowest", order[0], order[1])):
        if _louder(player, rival) is not None:
            steps = f"{listed(scene, level_word)} {found(player, level_word)}"
            yield _make(scene, (word,), player.side, steps, (player,))


def _same_time(scene: Scene) -> Iterator[Candidate]:
    for player in _singles(scene.heard):
        overlaps = [(_overlap_s(player, p), p) for p in scene.heard if p is not player]
        together = [p for seconds, p in overlaps if seconds >= LONGER_S]
        clear = all(seconds >= LONGER_S or seconds == 0 for seconds, _ in overlaps)
        if len(together) == 1 and clear:
            other = together[0]
            spans = listed(scene, start_word, end_word)
            steps = f"{spans} {copied((player, other), start_word, end_word)}"
            yield _make(scene, (player.instrument,), other.instrument, steps, (player, other))


def _overlap_s(one: Player, other: Player) -> float:
    assert one.end_s is not None and other.end_s is not None
    return max(0.0, min(one.end_s, other.end_s) - max(one.start_s or 0.0, other.start_s or 0.0))


def _first_from_side(scene: Scene) -> Iterator[Candidate]:
    for word, player in _first_last(scene):
        for side in ("left", "middle", "right"):
            if _alone_at(scene, side) is not None:
                steps = f"{listed(scene, start_word)} {found(player, start_word)}"
                slots = (word, side)
                yield _make(scene, slots, _yes(player.side == side), steps, (player,))


def _beside_first(scene: Scene) -> Iterator[Candidate]:
    for word, player in _first_last(scene):
        at = scene.seen.index(player)
        for side, others in (("left", scene.seen[:at]), ("right", scene.seen[at + 1 :])):
            if len(others) == 1:
                steps = f"{listed(scene, start_word)} {found(player, start_word)}"
                about = (player, others[0])
                yield _make(scene, (side, word), others[0].instrument, steps, about)


# -- time ----------------------------------------------------------------------------------


def _comes_in(scene: Scene) -> Iterator[Candidate]:
    order = _starts_apart(scene.heard)
    if len(order) < 2:
        return
    for n, (word, player) in enumerate(zip(ORDER, order, strict=False), start=1):
        steps = f"{listed(scene, start_word)} {in_order(order[:n])}"
        yield _make(scene, (word,), player.instrument, steps, order[:n])


def _first_where(scene: Scene) -> Iterator[Candidate]:
    for word, player in _first_last(scene):
        steps = f"{listed(scene, start_word)} {found(player, start_word)}"
        yield _make(scene, (word,), player.side, steps, (player,))


def _which_of_a_kind(scene: Scene) -> Iterator[Candidate]:
    for kind in _names(scene.seen):
        mine = [p for p in scene.heard if p.instrument == kind and p.visible]
        silent = [p for p in scene.seen if p.instrument == kind and not p.audible]
        if len(mine) < 2 or silent:
            continue
        starts = [p.start_s or 0.0 for p in mine]
        steps = copied(mine, start_word)
        if max(starts) - min(starts) <= TOGETHER_S:
            for word in ("first", "last"):
                yield _make(scene, (kind, word), "simultaneously", steps, mine)
        elif (order := _starts_apart(mine)) and len({p.side for p in mine}) == len(mine):
            yield _make(scene, (kind, "first"), order[0].side, steps, mine)
            if all((order[-1].end_s or 0.0) >= (p.end_s or 0.0) for p in order):
                yield _make(scene, (kind, "last"), order[-1].side, steps, mine)


def _before_after(scene: Scene) -> Iterator[Candidate]:
    order = _starts_apart(scene.heard)
    singles = _singles(scene.heard)
    for at, player in enumerate(order):
        if not any(player is p for p in singles):
            continue
        for word, others in (("before", order[:at]), ("after", order[at + 1 :])):
            if len(others) == 1:
                other = others[0]
                steps = f"{listed(scene, start_word)} {in_order(order)}"
                slots = (word, player.instrument)
                yield _make(scene, slots, other.instrument, steps, (player, other))


ASKERS: dict[str, Callable[[Scene], Iterator[Candidate]]] = {
    # Audio
    "Is the <Object> louder than the <Object>?": _compare_objects(_louder, level_word),
    "Is the <Object> more rhythmic than the <Object>?": _compare_objects(_faster, rate_word),
    "Is the <Object> playing longer than the <Object>?": _compare_objects(_longer, length_word),
    "Are there <Object> and <Object> sound?": _both_present(by_ear=True),
    "How many musical instruments were heard throughout the video?": _count_heard,
    "Is there a <Object> sound?": _presence(by_ear=True),
    # Visual
    "Are there <Object> and <Object> instruments in the video?": _both_present(by_ear=False),
    "How many <Object> are in the entire video?": _count_seen,
    "How many types of musical instruments appeared in the entire video?": _count_seen_types,
    "Is there a <Object> in the entire video?": _presence(by_ear=False),
    "What is the instrument on the <LR> of <Object>?": _beside,
    "What kind of instrument is the <LRer> instrument?": _outermost,
    "What kind of musical instrument is it?": _what_is_it,
    "Where is the performance?": _place,
    # Audio-visual
    "Is the <Object> on the <LR> louder than the <Object> on the <LR>?": _compare_placed(
        _louder, level_word
    ),
    "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?": _compare_placed(
        _faster, rate_word
    ),
    "Is the instrument on the <LR> louder than the instrument on the <LR>?": _compare_sides(
        _louder, level_word
    ),
    "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?": _compare_sides(
        _faster, rate_word
    ),
    "How many instruments are sounding in the video?": _count_sounding,
    "How many instruments in the video did not sound from beginning to end?": _count_silent,
    "How many sounding <Object> in the video？": _count_sounding_object,
    "How many types of musical instruments sound in the video?": _count_sounding_types,
    "Is the <Object> in the video always playing?": _always_playing,
    "Is there a voiceover?": _voiceover,
    "Is this sound from the instrument in the video?": _sound_from_picture,
    "Is the <FL> sound coming from the <LR> instrument?": _first_from_side,
    "What is the <LR> instrument of the <FL> sounding instrument?": _beside_first,
    "Where is the <LL> instrument?": _loudest_where,
    "Which is the musical instrument that sounds at the same time as the <Object>?": _same_time,
    "What is the <TH> instrument that comes in?": _comes_in,
    "Where is the <FL> sounding instrument?": _first_where,
    "Which <Object> makes the sound <FL>?": _which_of_a_kind,
    "Which instrument makes sounds <BA> the <Object>?": _before_after,
}

_BY_EYE = {ASKERS[t] for t in ASKERS if "entire video" in t or "instruments in the video?" in t}
_BY_EYE |= {_beside, _outermost, _what_is_it, _place, _voiceover}
