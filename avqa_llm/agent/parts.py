"""Questions joined by "and": split into parts that can be answered one after the other."""

from __future__ import annotations

import re

from avqa_llm.agent.wording import words_of

MOST_PARTS = 4
_STARTS = (
    "is|are|was|were|does|do|did|has|have|can|which|what|where|when|how|who|whose|why|at what|"
    "on which|in which"
)
_JOINT = re.compile(rf",?\s+(?:and|then|and then|and also)\s+(?=(?:{_STARTS})\b)|\?\s+(?=\S)", re.I)
_PRONOUN = re.compile(r"\b(?:it|its|this instrument|that instrument)\b", re.I)
_ALSO = re.compile(r"\b(?:too|as well|both)\b\W*$", re.I)
"""Of "is A audible, and is B audible too?": one question, about both."""
_EMPTY_IT = re.compile(
    r"\bit (?:the case|true|correct|right)\b|\bwhat (?:kind )?\w* ?is it\b", re.I
)


def parts_of(question: str) -> list[str]:
    """The questions in a question, in order, "it" replaced by the instrument named last.

    "Does the violin play while the piano rests and is silent?" stays whole: what follows "and"
    has to begin like a question of its own, and to name something, or refer to it.
    """
    pieces = [piece.strip(" ,?") for piece in _JOINT.split(question.strip()) if piece.strip(" ,?")]
    short = any(len(piece.split()) < 3 for piece in pieces)
    if not 1 < len(pieces) <= MOST_PARTS or short or _ALSO.search(question):
        return [question]
    parts, named = [], ""
    for piece in pieces:
        mentions = [name for _, name in words_of(piece).instruments]
        if named and _PRONOUN.search(piece) and not _EMPTY_IT.search(piece):
            piece = _PRONOUN.sub(lambda match, name=named: _instead(match[0], name), piece, count=1)
        parts.append(f"{piece[0].upper()}{piece[1:]}?")
        if mentions and len(set(mentions)) == 1:
            named = mentions[0].replace("_", " ")
    return parts


def _instead(pronoun: str, name: str) -> str:
    return f"the {name}'s" if pronoun.lower() == "its" else f"the {name}"
