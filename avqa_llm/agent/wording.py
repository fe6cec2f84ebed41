"""A question as words that rules can work on: instruments, sides, orders, and the rest.

Nothing is understood here: names of several words become one token, other spellings become one
spelling, and what a question only says to be polite is left in, for the rules look for what they
know and let the model answer where they find too little or too much.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from avqa_llm.labels import INSTRUMENT_LABELS

MOST_WORDS = 120
"""A longer question is not tried: rules are for questions, not for stories."""
_ALIASES = {
    "sax": "saxophone",
    "violoncello": "cello",
    "conga": "congas",
    "conga drum": "congas",
    "conga drums": "congas",
    "bass guitar": "electric_bass",
    "electric bass guitar": "electric_bass",
    "electric bass": "electric_bass",
}
_SIDES = {
    **{"left": "left", "right": "right", "middle": "middle"},
    **{"centre": "middle", "center": "middle", "central": "middle"},
}
_OUTER = {
    **{"leftmost": "left", "leftest": "left", "rightmost": "right", "rightest": "right"},
}
_ORDERS = {
    **{"first": 1, "firstly": 1, "earliest": 1, "initially": 1, "initial": 1, "1st": 1},
    **{"second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "fifth": 5, "5th": 5},
    **{"last": -1, "lastly": -1, "final": -1, "finally": -1, "latest": -1},
}
# "Right" as in "is that right?" names no side, "second" as in "each second" no order, and "first
# of all" asks for nothing.
_NO_SIDE = re.compile(
    r"(?:, right(?= *\?*$)|\b(?:is|that's|am i|it) right\b(?= *\?*$)|\bright (?=from the|away|now|"
    r"through))"
)
_NO_ORDER = re.compile(
    r"\b(?:(?:each|every|a|per|one|single) seconds?|at (?:long )?last|first of all|"
    r"at first(?: glance| sight| hearing)|first[- ]hand|any second|to the last|till the last|"
    r"from (?:the )?first (?:\w+ )?(?:to|until|through|till) (?:the )?(?:\w+ )?last)\b"
)
_POLITE = re.compile(
    r"\b(?:as (?:far|best) as (?:you|we|one) can (?:hear|tell|see)|as (?:far as|regards)|"
    r"from what (?:you|we) (?:hear|see)|looking at who plays where|at any point)\b"
)
_TOKEN = re.compile(r"[a-z0-9_]+(?:'[a-z]+)?|[,;:?.!]")


@dataclass(frozen=True, kw_only=True)
class Words:
    """A question in tokens."""

    tokens: tuple[str, ...]
    """Lower case; an instrument is its label; marks that end a clause are tokens too."""

    @property
    def instruments(self) -> list[tuple[int, str]]:
        """(place, label) of each mention."""
        return [(n, word) for n, word in enumerate(self.tokens) if word in INSTRUMENT_LABELS]

    @property
    def sides(self) -> list[tuple[int, str]]:
        """(place, side) of each mention."""
        return [(n, _SIDES[word]) for n, word in enumerate(self.tokens) if word in _SIDES]

    @property
    def outer(self) -> list[str]:
        """`left` for leftmost, `right` for rightmost."""
        return [_OUTER[word] for word in self.tokens if word in _OUTER]

    @property
    def orders(self) -> list[int]:
        """1 for first .. 5 for fifth, -1 for last; each once."""
        return list(dict.fromkeys(_ORDERS[word] for word in self.tokens if word in _ORDERS))

    def has(self, *words: str) -> bool:
        """Whether one of the words is there."""
        return any(word in self.tokens for word in words)

    def says(self, *phrases: str) -> bool:
        """Whether one of the phrases is there, as whole words."""
        line = f" {' '.join(self.tokens)} "
        return any(f" {phrase} " in line for phrase in phrases)

    def find(self, pattern: re.Pattern[str]) -> bool:
        """Whether a pattern fits somewhere in the tokens, joined with spaces."""
        return pattern.search(" ".join(self.tokens)) is not None


def words_of(question: str) -> Words:
    """Split a question into tokens; one that is too long has none."""
    text = unicodedata.normalize("NFKC", question).lower().replace("\u2019", "'").strip()
    text = _NO_ORDER.sub(" ", _NO_SIDE.sub(" ", text))
    text = re.sub(r"[-_/]", " ", _POLITE.sub(" ", text))
    text = _NAME.sub(lambda match: _NAMES[match[0]], text)
    tokens = tuple(_TOKEN.findall(text))
    return Words(tokens=tokens if len(tokens) <= MOST_WORDS else ())


def _names() -> dict[str, str]:
    named = {label.replace("_", " "): label for label in INSTRUMENT_LABELS} | _ALIASES
    plural = {f"{name}s": label for name, label in named.items() if not name.endswith("s")}
    return named | plural


_NAMES = _names()
_NAME = re.compile(rf"\b(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})\b")
