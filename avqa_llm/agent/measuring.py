"""What decides where a record does not: the sound, measured where one instrument is by itself.

Sound is measured of everything at once, so a loudness or a rate of onsets is an instrument's own
only while nobody else plays, or, of onsets, where nobody else stands on its side. When and where
that is, the record says. A voice that speaks at times that the record does not give spoils the
first, and in the second the middle, where narrators are mixed to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avqa_llm.agent.bench import Bench, Finding
from avqa_llm.agent.events import Event, Events
from avqa_llm.agent.lookup import Found, Unclear, sounding, span_of, value_of
from avqa_llm.agent.meaning import Meaning

EDGE_S = 0.25
"""So far from the start and the end of anything a window stays: the record's times are halves."""
SHORTEST_S = 1.0
LOUDER_LU = 2.0
FASTER = 1.25
"""Differences that are smaller decide nothing."""
CLOSE_STEPS = 1
"""Rhythms that the record has no further apart are measured: it misses by one step often."""
_MEASURES = {"loudness": "loudness", "rhythm": "onsets"}
Way = Callable[[Event, str, Bench], Finding]


def is_close(meaning: Meaning, events: Events) -> bool:
    """Whether a measurement is to be preferred to what the record says. May raise Unclear."""
    if meaning.kind != "compare" or meaning.quantity != "rhythm":
        return False
    one, other = sounding(meaning.one, events), sounding(meaning.other, events)
    return abs(value_of(one, "rhythm") - value_of(other, "rhythm")) <= CLOSE_STEPS


def measured(meaning: Meaning, bench: Bench) -> tuple[Found, tuple[Finding, ...]]:
    """Decide a comparison by measurements. Raises Unclear with the reasons where it cannot be."""
    if meaning.kind != "compare" or meaning.quantity not in _MEASURES:
        raise Unclear("no measurement decides it")
    one, other = sounding(meaning.one, bench.events), sounding(meaning.other, bench.events)
    ways: dict[str, Way] = {"while nobody else plays": _alone}
    if meaning.quantity == "rhythm":
        ways["from their sides"] = _from_side
    reasons = []
    for name, way in ways.items():
        try:
            findings = tuple(way(p, _MEASURES[meaning.quantity], bench) for p in (one, other))
            first = _more(meaning.quantity, [finding.data["value"] for finding in findings])
        except Unclear as error:
            reasons.append(str(error))
            continue
        label = "yes" if (first == 0) == meaning.more else "no"
        why = f"measured {name}: {'; '.join(finding.text for finding in findings)}"
        return Found(text=label, about=(one, other), why=why), findings
    raise Unclear("; ".join(reasons))


def _alone(player: Event, quantity: str, bench: Bench) -> Finding:
    if bench.events.voice is not False:
        raise Unclear("somebody may be speaking, so no instrument is measured alone")
    window = alone(player, bench.events)
    if window is None:
        raise Unclear(f"the {player.name.replace('_', ' ')} never plays alone")
    return bench.measure(quantity, *window)


def _from_side(player: Event, quantity: str, bench: Bench) -> Finding:
    """Onsets from a player's side, while it plays."""
    events, name = bench.events, player.name.replace("_", " ")
    start, end = span_of(player)
    if not player.seen or player.side is None or any(p.side == "off" for p in events.heard):
        raise Unclear("from where on the picture something sounds cannot be told")
    if sum(p.side == player.side for p in events.heard) > 1:
        raise Unclear(f"the {name} is not the only one that sounds from its side")
    if player.side == "middle" and events.voice is not False:
        raise Unclear(f"somebody may be speaking, who would be heard where the {name} is")
    if len(bench.clip.sound_CS) != 2:
        raise Unclear("the sound is not stereo")
    return bench.measure_from(player.side, quantity, start, end)


def _more(quantity: str, values: Sequence[float | None]) -> int:
    """Which of two values is clearly more, 0 or 1. Raises Unclear."""
    one, other = values
    if one is None or other is None:
        raise Unclear("there is nothing to measure")
    apart = abs(one - other) >= LOUDER_LU
    if quantity == "rhythm":
        apart = max(one, other) >= FASTER * min(one, other) > 0
    if not apart:
        raise Unclear("what is measured differs too little")
    return 0 if one > other else 1


def alone(player: Event, events: Events) -> tuple[float, float] | None:
    """The longest time in which only this player plays, by the record; None: there is none."""
    if player.span is None:
        return None
    free = [(player.span[0] + EDGE_S, player.span[1] - EDGE_S)]
    for other in events.heard:
        if other is player:
            continue
        if other.span is None:
            return None
        start, end = other.span[0] - EDGE_S, other.span[1] + EDGE_S
        free = [
            part
            for left, right in free
            for part in ((left, min(right, start)), (max(left, end), right))
        ]
    long = [part for part in free if part[1] - part[0] >= SHORTEST_S]
    return max(long, key=lambda part: part[1] - part[0], default=None)
