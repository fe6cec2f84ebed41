"""Which of a question's choices a text gives: multiple choice, as AVQA (Yang et al. 2022) asks."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from functools import lru_cache

from avqa_llm.labels import COUNT_LABELS, NO_ANSWER


def to_choice(text: str, choices: tuple[str, ...]) -> str:
    """Return the one choice that a text gives, or `no_answer`.

    A text gives a choice by being it, by its letter ("B", "(b)", "answer: B.", "B. a dog"), or by
    naming it, and no other, as whole words. A letter and another choice's words contradict each
    other; "not a dog" and "maybe a dog" commit to nothing.
    """
    same = {choice for choice in choices if _bare(choice) == _bare(text)}
    if len(same) == 1:
        return same.pop()
    spoken = _spoken(choices)
    letter, rest = _letter(text, choices)
    found, around = _named(_plain(rest), spoken)
    if letter is not None:
        found.add(letter)
    if len(found) != 1 or _UNSURE.search(around) or (letter is None and _DENIED.search(around)):
        return NO_ANSWER
    return found.pop()


def _bare(text: str) -> str:
    return text.strip().casefold()


def _letter(text: str, choices: tuple[str, ...]) -> tuple[str | None, str]:
    """The choice whose letter a text starts with, and the rest; (None, text) without one.

    "A dog" starts with an article: a letter stands alone, or a mark follows it.
    """
    match = _LETTER.match(text.strip("\t\n\r *\"'`"))
    place = ord(match[1].lower()) - ord("a") if match else len(choices)
    return (choices[place], match[2]) if match and place < len(choices) else (None, text)


def _named(words: str, spoken: dict[str, tuple[str, ...]]) -> tuple[set[str], str]:
    """The choices that occur as whole words, and the words around them.

    A choice inside a longer one ("dog" in "dog barking") is not named by it; two that overlap
    otherwise both are.
    """
    found: set[str] = set()
    covered = bytearray(len(words))
    for phrase in sorted(spoken, key=len, reverse=True):
        spans = [match.span() for match in re.finditer(rf"\b{re.escape(phrase)}\b", words)]
        if any(not all(covered[start:end]) for start, end in spans):
            found.update(spoken[phrase])
        for start, end in spans:
            covered[start:end] = b"\1" * (end - start)
    around = (" " if covered[place] else letter for place, letter in enumerate(words))
    return found, "".join(around)


@lru_cache(maxsize=4096)
def _spoken(choices: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The choices by their words; one of marks alone can be given by its letter only."""
    by_words: defaultdict[str, list[str]] = defaultdict(list)
    for choice in choices:
        by_words[_plain(choice)].append(choice)
    return {words: tuple(alike) for words, alike in by_words.items() if words}


def _plain(text: str) -> str:
    """Lower-case words with single spaces; no articles, small numbers as words."""
    text = unicodedata.normalize("NFKC", text).lower().replace("_", " ").replace("\u2019", "'")
    text = re.sub(r"n't\b", " not", text.replace("cannot", "can not")).replace("'", "")
    words = re.sub(r"\W+", " ", text).split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in ("a", "an", "the"))


_NUMBERS = {str(number): label for number, label in enumerate(COUNT_LABELS[:11])}
_LETTER = re.compile(
    r"(?:the )?(?:(?:final|correct|best|right|my) )*(?:(?:answer|option|choice)(?: is)?\b[\s:]*)*"
    r"[(\[]?([a-z])(?:[)\]][.:]?|[.:](?=\s|$)|$)(.*)",
    re.IGNORECASE | re.DOTALL,
)
_UNSURE = re.compile(
    r"\b(?:maybe|perhaps|possibly|might|may|could be|unsure|unclear|unknown|uncertain|unable|sorry|"
    r"no idea|not (?:know|tell|say|sure|clear|certain|determine|possible))\b"
)
_DENIED = re.compile(
    r"\b(?:no|not|never|neither|nor|without|none|nothing|other than|except|excluding|"
    r"anything but)\b"
)
