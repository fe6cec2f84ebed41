"""Events and times as evidence, and as short lines for a person and for a planning model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from avqa_llm.agent.events import Event, Events
from avqa_llm.agent.meaning import Thing
from avqa_llm.agent.wording import words_of
from avqa_llm.answer import Answer, Evidence
from avqa_llm.errors import AgentError

MOST_SPANS = 12
THIRDS = {"left": (0.0, 0.42), "middle": (0.42, 0.58), "right": (0.58, 1.0)}
"""What the sides of a record mean on the picture, as parts of its width."""

Spans = Sequence[tuple[float, float]]


def evidence_of(players: Sequence[Event]) -> tuple[Evidence, ...]:
    """Where events of a record are: their seconds of sound, and their side of the picture."""
    found = []
    for player in players:
        weight = round(1 / len(players), 4)
        if player.span is not None:
            start, end = player.span
            found.append(_evidence("sound", start, end, None, weight))
            if player.seen and player.side:
                left, right = THIRDS[player.side]
                found.append(_evidence("picture", start, end, (left, 0.0, right, 1.0), weight))
    return tuple(found)


def heard_at(spans: Spans) -> tuple[Evidence, ...]:
    """Seconds of sound as evidence, all of one weight."""
    weight = round(1 / max(1, len(spans)), 4)
    return tuple(_evidence("sound", start, end, None, weight) for start, end in spans)


def _evidence(
    modality: str,
    start: float,
    end: float,
    region: tuple[float, float, float, float] | None,
    weight: float,
) -> Evidence:
    return Evidence(
        modality=modality,
        start_s=round(start, 2),
        end_s=round(end, 2),
        region=region,
        weight=weight,
    )


def shifted(answer: Answer, start_s: float) -> Answer:
    """An answer about a part, its evidence on the clock of the whole."""
    moved = tuple(
        replace(e, start_s=round(e.start_s + start_s, 2), end_s=round(e.end_s + start_s, 2))
        for e in answer.evidence
    )
    return replace(answer, evidence=moved)


def listed(spans: Spans) -> str:
    """`0.0-3.5 s, 4.0-10.0 s`."""
    said = [f"{a:.1f}-{b:.1f} s" if b > a else f"{a:.2f} s" for a, b in spans[:MOST_SPANS]]
    more = len(spans) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")


def line(player: Event) -> str:
    """An event as a person would say it."""
    name = player.name.replace("_", " ")
    side = {None: "", "off": " off-screen"}.get(player.side, f" on the {player.side}")
    if side.endswith("middle"):
        side = " in the middle"
    if player.plays is None:
        return f"{name}{side}"
    if not player.plays:
        return f"{name}{side}, silent"
    parts = [f"{player.span[0]:.1f}-{player.span[1]:.1f} s"] if player.span else ["plays"]
    parts += [] if player.loudness is None else [f"loudness {player.loudness} of 4"]
    parts += [] if player.rhythm is None else [f"rhythm {player.rhythm} of 4"]
    return f"{name}{side}, {', '.join(parts)}"


def told(events: Events) -> str:
    """A whole record."""
    voice = {None: [], True: ["somebody speaks"], False: ["nobody speaks"]}[events.voice]
    place = [] if events.place is None else [events.place]
    unread = [f"unreadable: {part}" for part in events.unread]
    return "; ".join([*place, *voice, *(line(player) for player in events.players), *unread])


def thing_of(text: str) -> Thing:
    """`violin`, `left` or `the violin on the left`. Raises AgentError for anything else."""
    words = words_of(text)
    names = {name for _, name in words.instruments}
    sides = {side for _, side in words.sides}
    if len(names) > 1 or len(sides) > 1 or not (names or sides):
        raise AgentError(f"{text!r} is no single thing: give an instrument, a side or both")
    return Thing(name=names.pop() if names else None, side=sides.pop() if sides else None)


def extreme_second(
    values: Sequence[float | None],
    which: Callable[[Iterable[tuple[float, int]]], tuple[float, int]],
) -> list[tuple[float, float]]:
    """The second with the largest or smallest value; none where there are no values."""
    there = [(value, second) for second, value in enumerate(values) if value is not None]
    if not there:
        return []
    _, second = which(there)
    return [(float(second), float(second + 1))]
