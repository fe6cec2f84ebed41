"""The answer to an understood question, looked up in a parsed event record.

One function a kind of question. Each gives what it found with the players that it rests on, or
raises `Unclear` with the reason: two that are equal, a thing that is not there or there twice, a
record that does not say. Nothing is guessed; what is unclear is measured or asked instead.

Readings as in MUSIC-AVQA: "first" and "last" are first and last to start; who is last must also be
heard last; what sounds from off-screen counts for the ear and not for the eye.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from avqa_llm.agent.events import Event, Events
from avqa_llm.agent.meaning import Meaning, Thing
from avqa_llm.labels import COUNT_LABELS


class Unclear(Exception):
    """The record does not decide. `about`: the players between whom it does not."""

    def __init__(self, why: str, *about: Event) -> None:
        super().__init__(why)
        self.about = about


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a look-up gave."""

    text: str
    """One of the labels, or a time in words."""
    about: tuple[Event, ...]
    """The players that it rests on."""
    why: str
    """The values that decided, for a person."""


def look_up(meaning: Meaning, events: Events) -> Found:
    """Answer an understood question. Raises Unclear."""
    if not events.knows_sound:
        raise Unclear("the record does not say of everything when it sounds")
    return KINDS[meaning.kind](meaning, events)


# -- who is meant --------------------------------------------------------------------------------


def the(thing: Thing, events: Events) -> Event:
    """The one player that is meant, sounding or not. Raises Unclear where there is not one."""
    fit = [p for p in events.players if thing.name in (None, p.name)]
    fit = [p for p in fit if p.side == thing.side] if thing.side else fit
    if len(fit) > 1 and thing.side is None:
        fit = [p for p in fit if p.plays] or fit
    if not fit:
        raise Unclear(f"{thing} is not in the record")
    if len(fit) > 1:
        raise Unclear(f"{_count(len(fit))} in the record fit {thing}", *fit)
    return fit[0]


def sounding(thing: Thing, events: Events) -> Event:
    """Likewise, one that plays."""
    found = the(thing, events)
    if not found.plays:
        raise Unclear(f"{thing} is silent in the record", found)
    return found


def place_of(player: Event) -> str:
    """Its side. Raises Unclear for a sound from off-screen."""
    if not player.seen or player.side is None:
        raise Unclear(f"the {_said(player)} is not on the picture", player)
    return player.side


def span_of(player: Event) -> tuple[float, float]:
    """When it plays. Raises Unclear where the record does not say."""
    if player.span is None:
        raise Unclear(f"when the {_said(player)} plays is not said", player)
    return player.span


def value_of(player: Event, quantity: str) -> float:
    """Of what is compared. Raises Unclear where the record does not say."""
    if quantity == "length":
        start, end = span_of(player)
        return end - start
    step = player.loudness if quantity == "loudness" else player.rhythm
    if step is None:
        raise Unclear(f"the record gives no {quantity} of the {_said(player)}", player)
    return float(step)


# -- comparisons -----------------------------------------------------------------------------------


def _compare(meaning: Meaning, events: Events) -> Found:
    one, other = sounding(meaning.one, events), sounding(meaning.other, events)
    first = _more_of(one, other, meaning.quantity)
    return _found(_yes((first is one) == meaning.more), (one, other), _values(meaning, one, other))


def _compare_which(meaning: Meaning, events: Events) -> Found:
    one, other = sounding(meaning.one, events), sounding(meaning.other, events)
    first = _more_of(one, other, meaning.quantity)
    chosen = first if meaning.more else (other if first is one else one)
    both_named = meaning.one.name and meaning.other.name and one.name != other.name
    label = chosen.name if both_named else place_of(chosen)
    return _found(label, (one, other), _values(meaning, one, other))


def _more_of(one: Event, other: Event, quantity: str) -> Event:
    if one is other:
        raise Unclear("both are one player in the record", one)
    mine, its = value_of(one, quantity), value_of(other, quantity)
    if mine == its:
        raise Unclear(f"the record has both at the same {quantity}", one, other)
    return one if mine > its else other


def _extreme(meaning: Meaning, events: Events) -> Event:
    if len(events.heard) < 2:
        raise Unclear("there is nothing to choose from", *events.heard)
    values = [value_of(player, meaning.quantity) for player in events.heard]
    best = (max if meaning.more else min)(values)
    top = [p for p, value in zip(events.heard, values, strict=True) if value == best]
    return _only(top, f"{_count(len(top))} share the most extreme {meaning.quantity}")


def _extreme_where(meaning: Meaning, events: Events) -> Found:
    top = _extreme(meaning, events)
    return _found(place_of(top), (top,), _values(meaning, *events.heard))


def _extreme_which(meaning: Meaning, events: Events) -> Found:
    top = _extreme(meaning, events)
    return _found(top.name, (top,), _values(meaning, *events.heard))


# -- order -----------------------------------------------------------------------------------------


def start_of(player: Event) -> float:
    """When it starts."""
    return span_of(player)[0]


def ordered(players: Iterable[Event], order: int) -> Event:
    """The player that starts first (1) .. fifth (5), or last (-1). Raises Unclear."""
    line = sorted(players, key=start_of)
    at = order - 1 if order > 0 else len(line) - 1
    if not 0 <= at < len(line) or len(line) < 2:
        raise Unclear(f"{_count(len(line))} start, which leaves nothing to choose from", *line)
    mine = [p for p in line if start_of(p) == start_of(line[at])]
    if len(mine) > 1:
        raise Unclear("the record has them start at the same time", *mine)
    if order < 0 and any(span_of(p)[1] > span_of(mine[0])[1] for p in line):
        raise Unclear("the last to start is not the last to be heard", *line)
    return mine[0]


def _order_which(meaning: Meaning, events: Events) -> Found:
    # "The last instrument to come in" is about coming in alone.
    order = len(events.heard) if meaning.order < 0 else meaning.order
    one = ordered(events.heard, order)
    return _found(one.name, (one,), _starts(events.heard))


def _order_where(meaning: Meaning, events: Events) -> Found:
    one = ordered(events.heard, meaning.order)
    return _found(place_of(one), (one,), _starts(events.heard))


def _order_is(meaning: Meaning, events: Events) -> Found:
    one, asked = ordered(events.heard, meaning.order), the(meaning.one, events)
    return _found(_yes(one is asked), (one, asked), _starts(events.heard))


def _order_beside(meaning: Meaning, events: Events) -> Found:
    one = ordered(events.heard, meaning.order)
    place_of(one)
    if not events.knows_picture:
        raise Unclear("the record does not say where everybody stands", one)
    at = next(n for n, p in enumerate(events.seen) if p is one)
    there = events.seen[:at] if meaning.side == "left" else events.seen[at + 1 :]
    if meaning.side == "middle":
        raise Unclear("the middle of an instrument is no place", one)
    beside = _only(there, f"{_count(len(there))} stand {meaning.side} of the {_said(one)}")
    return _found(beside.name, (one, beside), _starts(events.heard))


def _order_of_kind(meaning: Meaning, events: Events) -> Found:
    mine = [p for p in events.heard if p.name == meaning.one.name and p.seen]
    if len(mine) > 1 and len({start_of(p) for p in mine}) == 1:
        return _found("simultaneously", tuple(mine), _starts(mine))
    one = ordered(mine, meaning.order)
    side = place_of(one)
    if sum(p.side == side for p in mine) > 1:
        raise Unclear(f"more than one of them stand {side}", *mine)
    return _found(side, (one,), _starts(mine))


def _order_choice(meaning: Meaning, events: Events) -> Found:
    both = (sounding(meaning.one, events), sounding(meaning.other, events))
    if start_of(both[0]) == start_of(both[1]):
        raise Unclear("the record has both start at the same time", *both)
    one = (min if meaning.order == 1 else max)(both, key=start_of)
    return _found(one.name, both, _starts(both))


def _around(meaning: Meaning, events: Events) -> Found:
    one = sounding(meaning.one, events)
    others = [p for p in events.heard if p is not one]
    if same := [p for p in others if start_of(p) == start_of(one)]:
        raise Unclear("the record has them start at the same time", one, *same)
    before = meaning.kind == "before"
    fit = [p for p in others if (start_of(p) < start_of(one)) == before]
    other = _only(fit, f"{_count(len(fit))} start {meaning.kind} the {_said(one)}")
    return _found(other.name, (one, other), _starts(events.heard))


def _starts_before(meaning: Meaning, events: Events) -> Found:
    one, other = sounding(meaning.one, events), sounding(meaning.other, events)
    if start_of(one) == start_of(other):
        raise Unclear("the record has both start at the same time", one, other)
    truth = (start_of(one) < start_of(other)) == meaning.more
    return _found(_yes(truth), (one, other), _starts((one, other)))


def _together(meaning: Meaning, events: Events) -> Found:
    one = sounding(meaning.one, events)
    start, end = span_of(one)
    others = [p for p in events.heard if p is not one]
    shared = [min(end, span_of(p)[1]) - max(start, span_of(p)[0]) for p in others]
    fit = [p for p, seconds in zip(others, shared, strict=True) if seconds > events.tick_s]
    if any(0 < seconds <= events.tick_s for seconds in shared):
        raise Unclear("some overlap by no more than the record is fine", one, *others)
    other = _only(fit, f"{_count(len(fit))} sound at the same time as the {_said(one)}")
    return _found(other.name, (one, other), _times((one, other)))


# -- how long, and how many ------------------------------------------------------------------------


def _always(meaning: Meaning, events: Events) -> Found:
    one = the(meaning.one, events)
    if not one.plays:
        return _found("no", (one,), f"the {_said(one)} is silent")
    start, end = span_of(one)
    missing = start + events.seconds - end
    whole = missing < events.tick_s / 2  # a file is some ms longer than its last half second
    if not whole and missing < 2 * events.tick_s:
        raise Unclear("what is missing to the whole is no more than the record is fine", one)
    return _found(_yes(whole), (one,), _times((one,)))


def _when_starts(meaning: Meaning, events: Events) -> Found:
    one = sounding(meaning.one, events)
    return _found(f"at {start_of(one):.1f} s", (one,), _times((one,)))


def _when_stops(meaning: Meaning, events: Events) -> Found:
    one = sounding(meaning.one, events)
    return _found(f"at {span_of(one)[1]:.1f} s", (one,), _times((one,)))


def _how_long(meaning: Meaning, events: Events) -> Found:
    one = sounding(meaning.one, events)
    return _found(f"{value_of(one, 'length'):.1f} s", (one,), _times((one,)))


def _count_heard(meaning: Meaning, events: Events) -> Found:
    return _counted(len(events.heard), events.heard)


def _count_kinds(meaning: Meaning, events: Events) -> Found:
    return _counted(len({p.name for p in events.heard}), events.heard)


def _count_of(meaning: Meaning, events: Events) -> Found:
    mine = [p for p in events.heard if p.name == meaning.one.name]
    return _counted(len(mine), mine)


def _counted(count: int, players: Sequence[Event]) -> Found:
    names = ", ".join(_said(p) for p in players) or "nothing"
    return _found(COUNT_LABELS[min(count, 11)], tuple(players), f"heard: {names}")


KINDS: dict[str, Callable[[Meaning, Events], Found]] = {
    "compare": _compare,
    "compare_which": _compare_which,
    "extreme_where": _extreme_where,
    "extreme_which": _extreme_which,
    "order_which": _order_which,
    "order_where": _order_where,
    "order_is": _order_is,
    "order_beside": _order_beside,
    "order_of_kind": _order_of_kind,
    "order_choice": _order_choice,
    "before": _around,
    "after": _around,
    "starts_before": _starts_before,
    "together": _together,
    "always": _always,
    "when_starts": _when_starts,
    "when_stops": _when_stops,
    "how_long": _how_long,
    "count_heard": _count_heard,
    "count_kinds": _count_kinds,
    "count_of": _count_of,
}
"""What answers each kind of question."""
TIMES = frozenset(("when_starts", "when_stops", "how_long"))
"""Kinds whose answers are times, which none of the closed answers is."""


# -- words -----------------------------------------------------------------------------------------


def _found(text: str, about: Sequence[Event], why: str) -> Found:
    return Found(text=text, about=tuple(dict.fromkeys(about)), why=why)


def _only(players: Sequence[Event], why: str) -> Event:
    if len(players) != 1:
        raise Unclear(why, *players)
    return players[0]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _count(number: int) -> str:
    return COUNT_LABELS[min(number, 11)]


def _said(player: Event) -> str:
    return player.name.replace("_", " ")


def _values(meaning: Meaning, *players: Event) -> str:
    values = (f"{_said(p)} {value_of(p, meaning.quantity):g}" for p in players)
    unit = "s" if meaning.quantity == "length" else "of 4"
    return f"{meaning.quantity}: {', '.join(f'{value} {unit}' for value in values)}"


def _starts(players: Iterable[Event]) -> str:
    line = sorted(players, key=start_of)
    return "starts: " + ", ".join(f"{_said(p)} {start_of(p):.1f} s" for p in line)


def _times(players: Iterable[Event]) -> str:
    spans = ((p, *span_of(p)) for p in players)
    return "plays: " + ", ".join(f"{_said(p)} {start:.1f}-{end:.1f} s" for p, start, end in spans)
