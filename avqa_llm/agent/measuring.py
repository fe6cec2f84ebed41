"""What decides where a record does not: the sound, measured where one instrument plays alone.

Sound is measured of everything at once, so a loudness or a rate of onsets is an instrument's own
only while nobody else plays. When that is, the record says; a voice that speaks at times that the
record does not give spoils it, so then nothing is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from avqa_llm.agent.bench import Bench, Finding
from avqa_llm.agent.events import Event, Events
from avqa_llm.agent.lookup import Found, Unclear, sounding
from avqa_llm.agent.meaning import Meaning

EDGE_S = 0.25
"""So far from the start and the end of anything a window stays: the record's times are halves."""
SHORTEST_S = 1.0
LOUDER_LU = 2.0
FASTER = 1.25
"""Differences that are smaller decide nothing."""
_MEASURES = {"loudness": "loudness", "rhythm": "onsets"}


def measured(meaning: Meaning, bench: Bench) -> tuple[Found, tuple[Finding, ...]]:
    """Decide a comparison by measurements. Raises Unclear with the reason where it cannot be."""
    quantity = _MEASURES.get(meaning.quantity)
    if meaning.kind != "compare" or quantity is None:
        raise Unclear("no measurement decides it")
    events = bench.events
    if events.voice is not False:
        raise Unclear("somebody may be speaking, so no instrument is measured alone")
    one, other = sounding(meaning.one, events), sounding(meaning.other, events)
    findings = []
    for player in (one, other):
        window = alone(player, events)
        if window is None:
            raise Unclear(f"the {player.name.replace('_', ' ')} never plays alone")
        findings.append(bench.measure(quantity, *window))
    first = _more(meaning.quantity, [finding.data["value"] for finding in findings])
    label = "yes" if (first == 0) == meaning.more else "no"
    why = f"measured alone: {'; '.join(finding.text for finding in findings)}"
    return Found(text=label, about=(one, other), why=why), tuple(findings)


def _more(quantity: str, values: Sequence[float | None]) -> int:
    """Which of two values is clearly more, 0 or 1. Raises Unclear."""
    one, other = values
    if one is None or other is None:
        raise Unclear("there is nothing to measure")
    apart = abs(one - other) >= LOUDER_LU
    if quantity == "rhythm":
        apart = max(one, other) >= FASTER * min(one, other) and max(one, other) > 0
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
