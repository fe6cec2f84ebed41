"""Reads what a model wrote down about a clip, where it is written as `tiny` writes it.

    outdoor ; no voice ; violin left s3 e12 n9 l2 r4 ; drum middle silent

Times are half seconds of the model's clock, loudness and rhythm steps from 0 to 4. Nothing is
guessed: a part that is not of this kind is kept in `strange`, as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TICKS_PER_S = 2
LOUDNESS = ("soft", "rather soft", "medium", "rather loud", "loud")
RHYTHM = ("slow", "rather slow", "medium", "rather fast", "fast")
SIDES = {"left": "left", "middle": "middle", "right": "right", "off": "off screen"}
PLACES = ("indoor", "outdoor")
VOICES = {"voice": True, "no voice": False}
LONGEST = 4000
"""Characters of a record that are read."""
CODE = re.compile(r"([senlr])(\d{1,4})")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Somebody or something that the model wrote down."""

    name: str
    side: str
    """One of `SIDES`, or empty."""
    silent: bool
    """Whether it is said to be seen and not heard."""
    start_s: float | None = None
    """Seconds of the clip; None where nothing is written."""
    end_s: float | None = None
    loudness: int | None = None
    """Step of `LOUDNESS`."""
    rhythm: int | None = None
    """Step of `RHYTHM`."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A record that was understood, at least in part."""

    place: str
    """One of `PLACES`, or empty."""
    voice: bool | None
    """Whether somebody speaks; None where nothing is written."""
    events: tuple[Event, ...]
    strange: tuple[str, ...]
    """Parts that are none of this."""


def read_record(record: str, pace: float = 1.0) -> Written | None:
    """Understand a record; None where no part of it is of the kind.

    `pace`: seconds of the clip in one of the model's (`Answer.pace`).
    """
    parts = [" ".join(part.split()) for part in record[:LONGEST].split(";")]
    place, voice, events, strange = "", None, [], []
    for part in parts:
        if part in PLACES:
            place = part
        elif part in VOICES:
            voice = VOICES[part]
        elif event := _event(part, pace):
            events.append(event)
        elif part:
            strange.append(part)
    coded = any(event.silent or event.start_s is not None for event in events)
    if not (place or voice is not None or coded):  # "the man left" is a sentence, not a player
        return None
    return Written(place=place, voice=voice, events=tuple(events), strange=tuple(strange))


def _event(part: str, pace: float) -> Event | None:
    words = part.split()
    codes = {found[1]: int(found[2]) for word in words if (found := CODE.fullmatch(word))}
    plain = [word for word in words if not CODE.fullmatch(word)]
    silent = plain[-1:] == ["silent"]
    plain = plain[:-1] if silent else plain
    side = plain.pop() if plain and plain[-1] in SIDES else ""
    times = [codes[letter] / TICKS_PER_S * pace if letter in codes else None for letter in "se"]
    start, end = times
    in_order = start is None or end is None or start <= end
    if not plain or not in_order or not (side or silent or codes):
        return None
    return Event(
        name=" ".join(plain),
        side=side,
        silent=silent,
        start_s=start,
        end_s=end,
        loudness=_step(codes, "l", LOUDNESS),
        rhythm=_step(codes, "r", RHYTHM),
    )


def _step(codes: dict[str, int], letter: str, words: tuple[str, ...]) -> int | None:
    step = codes.get(letter)
    return step if step is not None and step < len(words) else None
