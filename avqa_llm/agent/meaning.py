"""What a question asks for, told from its words; None where the rules are not sure.

A rule fires on what it knows (instruments, sides, orders, a word for loudness, rhythm or length)
and on nothing else, so wordings may be free. Whatever has too little or too much of it is left to
the model: a question that is misread is answered wrongly with an air of proof.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from avqa_llm.agent.comparing import compared
from avqa_llm.agent.wording import Words, words_of

POLAR = frozenset("is are was were does do did has have can could would will".split())
_ASKS_WHICH = ("which", "what", "name", "identify", "who", "whose", "what's")
_ASKS_WHERE = re.compile(
    r"\b(?:where|where's|whereabouts|sides?|positions?|locations?|located|places?|placed|spot|"
    r"direction|situated|(?:which|what) part)\b"
)
_NEGATIVE = re.compile(r"\b(?:not|never|no|none|nothing|without|neither|except|unless|\w+n't)\b")
_STOPS = re.compile(r"\b(?:stop|stops|stopped|stopping|ends?|ended|ending|finish\w*|cease\w*)\b")
_TOGETHER = re.compile(
    r"\b(?:same time|same moment|while|simultaneous\w*|together|along|alongside|accompan\w*|"
    r"concurrent\w*|during|in parallel|at once|overlap\w*|unison|combination|duet|company|"
    r"shares?|coincid\w*|in step|at the time|when|with|as)\b"
)
_WHEN = re.compile(
    r"^when(?:'s| is| does| did| do| can| will| was)\b|\bat (?:what|which) (?:time|moment|second)\b"
)
_ALWAYS = re.compile(
    r"\b(?:always|continuously|constantly|non ?stop|all the time|(?:whole|entire|full) time|"
    r"all along|all the way through|from (?:the )?(?:start|beginning|first \w+) to (?:the )?"
    r"(?:end|finish|last \w+)|throughout|without a pause|at all times)\b"
)
_HEARD = re.compile(
    r"\b(?:sound\w*|hear\w*|audible|play\w*|audio|soundtrack|listen\w*|rings? out|take part|"
    r"perform(?:s|ing)?|music|join in|by ear|ears)\b"
)
_SEEN = re.compile(
    r"\b(?:see|seen|shown?|shows|visible|appear\w*|on ?screen|picture\w*|displayed|visually|"
    r"depicted|featured|in view|spot|look\w*)\b"
)
_KINDS = re.compile(
    r"\b(?:types?|kinds?|sorts?|different|distinct|varieties|variety|categor\w+|classes|species)\b"
)
_MANY = re.compile(r"\b(?:how many|number of|count|how much|quantity of|total of)\b")


@dataclass(frozen=True, kw_only=True)
class Thing:
    """`the violin`, `the instrument on the left` or `the violin on the left`."""

    name: str | None = None
    side: str | None = None

    def __str__(self) -> str:
        name = (self.name or "instrument").replace("_", " ")
        return f"the {name}" if self.side is None else f"the {name} ({self.side})"


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """A question that a rule can answer. `KINDS` of `avqa_llm.agent.lookup` has the rules."""

    kind: str
    one: Thing = Thing()
    """What is asked about."""
    other: Thing = Thing()
    """What it is compared with."""
    quantity: str = ""
    """`loudness`, `rhythm` or `length`."""
    more: bool = True
    """False: less is asked for, as in quieter, slower, shorter."""
    order: int = 0
    """1 for first .. 5 for fifth, -1 for last."""
    side: str = ""


def meaning_of(question: str) -> Meaning | None:
    """Read a question; None where it is none of those that rules know, or may be several."""
    words = words_of(question)
    counts = words.find(_MANY)
    if not words.tokens or (words.find(_NEGATIVE) and not counts) or words.outer:
        return None
    if counts:
        return _counting(words)
    return _comparison(words) or _extreme(words) or _about_time(words)


def is_polar(words: Words) -> bool:
    """Whether it wants a yes or a no: no which, what or where asks for something else."""
    return words.tokens[0] in POLAR - {"can", "could", "would", "will", "do"} or not (
        words.has(*_ASKS_WHICH) or words.has("where", "where's", "when", "how")
    )


def _wants_which(words: Words) -> bool:
    return words.has(*_ASKS_WHICH) and not is_polar(words)


def _names(words: Words) -> list[str]:
    return list(dict.fromkeys(name for _, name in words.instruments))


def _sides(words: Words) -> list[str]:
    return list(dict.fromkeys(side for _, side in words.sides))


# -- more, most --------------------------------------------------------------------------------


def _comparison(words: Words) -> Meaning | None:
    found = compared(words)
    if found is None:
        return None
    things = [Thing(name=name, side=side) for name, side in (found.one, found.other)]
    which = _wants_which(words) and words.has("or")
    if _wants_which(words) and not which:
        return None
    return Meaning(
        kind="compare_which" if which else "compare",
        one=things[0],
        other=things[1],
        quantity=found.quantity,
        more=found.more,
    )


_MOST = {"loudest": True, "noisiest": True, "quietest": False, "softest": False, "lowest": False}


def _extreme(words: Words) -> Meaning | None:
    """`Where is the loudest instrument?`; "lowest" means softest here, as in MUSIC-AVQA."""
    cues = {more for word, more in _MOST.items() if words.has(word)}
    if len(cues) != 1 or words.instruments or words.orders:
        return None
    if words.says("lowest pitch", "lowest note", "lowest in pitch", "lowest tone"):
        return None
    choices = len(_sides(words)) == 3
    if choices or (words.find(_ASKS_WHERE) and not words.sides):
        kind = "extreme_where"
    elif _wants_which(words) and not words.sides:
        kind = "extreme_which"
    else:
        return None
    return Meaning(kind=kind, quantity="loudness", more=cues.pop())


# -- time --------------------------------------------------------------------------------------


def _about_time(words: Words) -> Meaning | None:
    if len(words.orders) == 1:
        return _ordered(words, words.orders[0])
    names = _names(words)
    if words.orders or words.sides or not names:
        return None
    if len(names) == 2:
        return _two(words, names)
    return _one(words, Thing(name=names[0])) if len(names) == 1 else None


def _ordered(words: Words, order: int) -> Meaning | None:
    names, sides, which = _names(words), _sides(words), _wants_which(words)
    if words.has("before", "after") or words.find(_STOPS):
        return None
    choices = len(sides) == 3 or (len(sides) == 2 and words.has("or"))
    if not names and (not sides or choices):
        if words.find(_ASKS_WHERE) or choices:
            return Meaning(kind="order_where", order=order)
        return Meaning(kind="order_which", order=order) if which or _bare(words) else None
    if not names and len(sides) == 1:
        if which or (_bare(words) and words.says(f"{sides[0]} of")):
            return Meaning(kind="order_beside", order=order, side=sides[0])
        return Meaning(kind="order_is", order=order, one=Thing(side=sides[0]))
    if len(names) == 1 and (not sides or choices):
        if is_polar(words) and not choices and not words.find(_ASKS_WHERE):
            return Meaning(kind="order_is", order=order, one=Thing(name=names[0]))
        return Meaning(kind="order_of_kind", order=order, one=Thing(name=names[0]))
    if len(names) == 2 and not sides and which and abs(order) == 1:
        one, other = (Thing(name=name) for name in names)
        return Meaning(kind="order_choice", order=order, one=one, other=other)
    return None


def _bare(words: Words) -> bool:
    """Such as `Tell me the first instrument to come in.`"""
    return words.tokens[0] not in POLAR and not words.has("whether", "if")


def _before_or_after(words: Words) -> str:
    before = words.has("before") or words.says("prior to", "earlier than", "ahead of")
    after = words.has("after") or words.says("later than")
    return "" if before == after else "before" if before else "after"


def _two(words: Words, names: list[str]) -> Meaning | None:
    """`Does the violin come in before the flute?`"""
    word = _before_or_after(words)
    if not word or not is_polar(words) or words.find(_STOPS) or words.tokens[0] not in POLAR:
        return None
    one, other = (Thing(name=name) for name in names)
    return Meaning(kind="starts_before", one=one, other=other, more=word == "before")


def _one(words: Words, thing: Thing) -> Meaning | None:
    which = _wants_which(words)
    if words.says("how long", "how many seconds"):
        return Meaning(kind="how_long", one=thing)
    if words.find(_WHEN):
        return Meaning(kind="when_stops" if words.find(_STOPS) else "when_starts", one=thing)
    if word := _before_or_after(words):
        return Meaning(kind=word, one=thing) if which and not words.find(_STOPS) else None
    if which and not words.find(_STOPS) and words.find(_TOGETHER):
        return Meaning(kind="together", one=thing)
    if is_polar(words) and words.find(_ALWAYS) and words.find(_HEARD):
        return Meaning(kind="always", one=thing)
    return None


# -- how many ----------------------------------------------------------------------------------


def _counting(words: Words) -> Meaning | None:
    """What is heard; what is only seen is left to the model."""
    names, kinds = _names(words), words.find(_KINDS)
    if words.sides or words.orders or not words.find(_HEARD) or words.find(_SEEN):
        return None
    if words.find(_NEGATIVE):
        return None
    if not names:
        return Meaning(kind="count_kinds" if kinds else "count_heard")
    if len(names) == 1 and not kinds:
        return Meaning(kind="count_of", one=Thing(name=names[0]))
    return None
