"""The event record that a model writes about a clip, parsed: who stands where, who plays when.

    indoor ; no voice ; violin left s0 e14 n14 l3 r2 ; flute right silent ; drum off s4 e9 n5 l1 r0

Players stand left to right, sounds from off-screen come last. `s` and `e` are start and end in
half seconds of the model's clock, `l` the loudness step (0 soft .. 4 loud), `r` the rhythm step
(0 slow .. 4 fast). The record is a model's belief: what it does not say is None here, and a part
that is no event is kept as it was read, not repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from avqa_llm.labels import INSTRUMENT_LABELS

TICKS_PER_S = 2
SIDES = ("left", "middle", "right")
_PLACES = ("indoor", "outdoor")
_NAMES = "|".join(label.replace("_", "[ _]") for label in INSTRUMENT_LABELS)
_PLAYER = re.compile(rf"(?P<name>{_NAMES})(?: (?P<side>left|middle|right|off))?(?P<rest>(?: \S+)*)")
_VALUE = re.compile(r"([senlr])(\d{1,3})")
_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Event:
    """One player, as the model believes it to be."""

    name: str
    """One of the instrument labels, such as `acoustic_guitar`."""
    side: str | None
    """`left`, `middle`, `right`, `off` (heard, not seen); None where the record does not say."""
    plays: bool | None
    """None: whether it plays is not said, as in a record without sound."""
    start_s: float | None = None
    end_s: float | None = None
    """On the clip's own clock."""
    loudness: int | None = None
    rhythm: int | None = None
    """Steps from 0 to 4."""

    @property
    def seen(self) -> bool:
        """Whether it is on the picture."""
        return self.side in SIDES

    @property
    def span(self) -> tuple[float, float] | None:
        """When it plays, where both ends are known."""
        if self.start_s is None or self.end_s is None:
            return None
        return self.start_s, self.end_s


@dataclass(frozen=True, kw_only=True)
class Events:
    """A parsed record."""

    players: tuple[Event, ...]
    """In the order of the record: from left to right, sounds from off-screen last."""
    seconds: float
    """Length of the clip."""
    tick_s: float
    """How fine the times are: half a second of the model's clock."""
    place: str | None = None
    voice: bool | None = None
    """Whether somebody speaks; None: not said."""
    unread: tuple[str, ...] = ()
    """Parts of the record that are no events."""

    @property
    def heard(self) -> tuple[Event, ...]:
        """Who plays."""
        return tuple(p for p in self.players if p.plays)

    @property
    def seen(self) -> tuple[Event, ...]:
        """Who is on the picture."""
        return tuple(p for p in self.players if p.seen)

    @property
    def knows_sound(self) -> bool:
        """Whether of every player it is said if it plays, and when."""
        said = all(p.plays is False or (p.plays and p.span) for p in self.players)
        return bool(self.players) and not self.unread and said

    @property
    def knows_picture(self) -> bool:
        """Whether of every player it is said where it stands."""
        return bool(self.players) and not self.unread and all(p.side for p in self.players)

    def named(self, name: str) -> tuple[Event, ...]:
        """All players of one instrument."""
        return tuple(p for p in self.players if p.name == name)


def parse(record: str, *, seconds: float, pace: float = 1.0) -> Events:
    """Read a record.

    Args:
        record: as in `Answer.record`; may be empty.
        seconds: length of the clip. An end beyond it is the clip's end.
        pace: `Answer.pace`: seconds of the clip in one of the model's.
    """
    tick_s = pace / TICKS_PER_S
    players, unread = [], []
    place: str | None = None
    voice: bool | None = None
    for part in (" ".join(part.split()) for part in record.split(";")):
        if part in _PLACES:
            place = part
        elif part in ("voice", "no voice"):
            voice = part == "voice"
        elif (player := _player(part, seconds, tick_s)) is not None:
            players.append(player)
        elif part:
            unread.append(part)
    return Events(
        players=tuple(players),
        seconds=seconds,
        tick_s=tick_s,
        place=place,
        voice=voice,
        unread=tuple(unread),
    )


def _player(part: str, seconds: float, tick_s: float) -> Event | None:
    """A part of the record as a player; None where it is not one."""
    match = _PLAYER.fullmatch(part)
    if match is None:
        return None
    name = match["name"].replace(" ", "_")
    words = match["rest"].split()
    if words == ["silent"]:
        return Event(name=name, side=match["side"], plays=False)
    values = {m[1]: int(m[2]) for m in map(_VALUE.fullmatch, words) if m}
    if len(values) != len(words) or max(values.get("l", 0), values.get("r", 0)) > _STEPS:
        return None
    start, end = _time(values.get("s"), seconds, tick_s), _time(values.get("e"), seconds, tick_s)
    if start is not None and end is not None and end <= start:
        return None
    return Event(
        name=name,
        side=match["side"],
        plays=True if values else None,
        start_s=start,
        end_s=end,
        loudness=values.get("l"),
        rhythm=values.get("r"),
    )


def _time(ticks: int | None, seconds: float, tick_s: float) -> float | None:
    return None if ticks is None else min(round(ticks * tick_s, 3), seconds)
