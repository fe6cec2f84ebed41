"""Which two are compared in a question, in what, and which of them is asked about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from avqa_llm.agent.wording import Words

Named = tuple[str | None, str | None]
"""Instrument and side; at least one of them."""

_STRONG = {
    "loudness": re.compile(
        r"\b(?:loud\w*|volumes?|nois\w+|decibels?|quieter|softer|fainter|overpower\w*|"
        r"drown\w*|intensity)\b"
    ),
    "rhythm": re.compile(
        r"\b(?:(?:un)?rhythm\w*|tempo|pulse|groov\w+|faster|slower|pace|livelier|lively)\b"
    ),
    "length": re.compile(
        r"\b(?:longer|shorter|durations?|outlasts?|playing time|length of time|amount of time|"
        r"more seconds|more time|in length)\b"
    ),
}
_WEAK = {
    "loudness": re.compile(
        r"\b(?:stronger|more audible|more sound|dominat\w+|dominant|levels?|more forceful\w*|"
        r"bigger sound|more strongly|weaker|more powerful\w*)\b"
    ),
    "rhythm": re.compile(r"\b(?:beats?|more driving|more closely|notes|animated)\b"),
    "length": re.compile(
        r"\b(?:share|more of the|greater part|time|extended|prolonged|lasting|persist\w*)\b"
    ),
}
_LESS = re.compile(
    r"\b(?:quieter|softer|fainter|weaker|slower|shorter|less|fewer|lower|below|under|briefer)\b"
)
_EQUAL = re.compile(r"\b(?:as \w+ as|equal\w*|same|similar\w*|identical\w*|how much)\b")
_REFERENCE = re.compile(
    r"\b(?:than|compar(?:ed|ison|ing) (?:to|with)|in comparison|relative to|versus|vs|"
    r"set against|next to|beside|against|put beside|alongside|over|with respect to)\b"
)
_PASSIVE = re.compile(r"\b(?!played|produced|made|given|emitted|shown|taken)\w+(?:ed|en|one) by\b")
_CLAUSE = frozenset(",;:.?")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """`one` is asked about, `other` is what it is compared with."""

    one: Named
    other: Named
    quantity: str
    more: bool


def compared(words: Words) -> Compared | None:
    """The comparison that a question makes; None where it makes none, or an unclear one."""
    quantity = _quantity(words)
    mentions = _mentions(words)
    things = list(dict.fromkeys(thing for _, thing in mentions))
    if quantity is None or len(things) != 2 or words.find(_EQUAL) or words.find(_PASSIVE):
        return None
    asked = _asked(words, mentions, things)
    if asked is None:
        return None
    other = things[1 - things.index(asked)]
    return Compared(one=asked, other=other, quantity=quantity, more=not words.find(_LESS))


def _quantity(words: Words) -> str | None:
    """What is compared: the only one that strong words name, else the only one of weak words."""
    for cues in (_STRONG, _WEAK):
        found = [name for name, cue in cues.items() if words.find(cue)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _mentions(words: Words) -> list[tuple[int, Named]]:
    """(place, thing) of what is named, in order; nothing where it cannot be told apart."""
    names, sides = words.instruments, words.sides
    if not sides:
        return [(at, (name, None)) for at, name in names]
    if not names:
        return [(at, (None, side)) for at, side in sides]
    return _paired(sorted([(at, name, True) for at, name in names] + [(*s, False) for s in sides]))


def _paired(marks: list[tuple[int, str, bool]]) -> list[tuple[int, Named]]:
    """Instruments with the sides that stand beside them, always before or always behind.

    One that is named again without its side is the one of that name.
    """
    found: list[tuple[int, Named]] = []
    queue = list(marks)
    while queue:
        at, text, is_name = queue.pop(0)
        if queue and queue[0][2] != is_name:
            _, mate, _ = queue.pop(0)
            found.append((at, (text, mate) if is_name else (mate, text)))
            continue
        same = {thing for _, thing in found if thing[0 if is_name else 1] == text}
        if len(same) != 1:
            return []
        found.append((at, same.pop()))
    return found


def _asked(words: Words, mentions: list[tuple[int, Named]], things: list[Named]) -> Named | None:
    """Which of two is asked about."""
    references = {thing for at, thing in mentions if _is_reference(words, at, mentions)}
    if len(references) == 1:
        return things[1 - things.index(references.pop())]
    if references:
        return None
    if len(mentions) > 2:  # "Of A and B, is A louder?"
        return mentions[2][1] if _is_list(words, mentions) else None
    return mentions[0][1]


def _is_reference(words: Words, at: int, mentions: list[tuple[int, Named]]) -> bool:
    """Whether "than" or the like stands between the mention before, or its clause, and it."""
    before = max((place for place, _ in mentions if place < at), default=-1)
    start = at
    while start - 1 > before and words.tokens[start - 1] not in _CLAUSE:
        start -= 1
    return _REFERENCE.search(" ".join(words.tokens[start:at])) is not None


def _is_list(words: Words, mentions: list[tuple[int, Named]]) -> bool:
    between = words.tokens[mentions[0][0] : mentions[1][0]]
    return ("and" in between or "or" in between) and mentions[0][1] != mentions[1][1]
