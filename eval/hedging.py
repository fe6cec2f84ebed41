"""How often free-text answers commit to nothing: what preference tuning (ADPO) is to lower.

Accuracy does not show it: an answer that hedges and one that is wrong both count as wrong.
`hedge(text)` says by which of four rules a text hedges:

- `refusal`: cannot tell, not sure, hard to say, nothing is audible;
- `undecided`: maybe, might, seems, it depends, as likely as, several answers are possible;
- `alternatives`: two labels of one kind as rivals, "the cello or the viola", "between two and six",
  and where one label is wanted, nothing but two of them: "yes/no";
- `vague`: a quantity, a place or a thing that could be any (a few, some kind of), or a sentence in
  which nothing is named that not every clip of musicians has: "There is music in this video."
  Only where one of the 42 labels is wanted: to "What are they doing?" it would be an answer.

A text that the canonical scorer takes for one of the 42 answers commits, right or wrong, and so
does one that names something else ("a harp"). An empty text is no answer, but not a hedge.

The rules are lexical and English. A dodge in other words is missed, so the share is rather too
low than too high. It says nothing of engines that choose among labels: they cannot hedge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from avqa_llm.labels import COUNT_LABELS, INSTRUMENT_LABELS, LABELS, NO_ANSWER, to_label
from eval.samples import Sample
from eval.statistics import Estimate, clustered_mean

REFUSAL, UNDECIDED, ALTERNATIVES, VAGUE = "refusal", "undecided", "alternatives", "vague"


@dataclass(frozen=True, kw_only=True)
class Hedging:
    """Answers that hedge."""

    share: Estimate
    """0..1 of all answers, with an interval clustered by video."""
    kinds: dict[str, int]
    """How many, by the rule that found them."""


def hedging(samples: Sequence[Sample]) -> Hedging:
    """Share of a run's answers that hedge. Raises ValueError without answers."""
    kinds = [hedge(sample.answer, closed=sample.gold in LABELS) for sample in samples]
    hedged_Q = np.array([kind is not None for kind in kinds], float)
    return Hedging(
        share=clustered_mean(hedged_Q, [sample.video_id for sample in samples]),
        kinds=dict(sorted(Counter(kind for kind in kinds if kind is not None).items())),
    )


@lru_cache(maxsize=1 << 16)
def hedge(text: str, *, closed: bool = True) -> str | None:
    """By which rule a text hedges, or None. `closed`: one of the 42 labels is wanted."""
    words = _words(text)
    if not words or to_label(text) != NO_ANSWER:
        return None
    if _REFUSAL.search(words):
        return REFUSAL
    if _UNDECIDED.search(words):
        return UNDECIDED
    if _alternatives(words) or (closed and _is_list(words)):
        return ALTERNATIVES
    if closed and (_is_vague(words) or _names_nothing(words)):
        return VAGUE
    return None


def _words(text: str) -> str:
    """Lower-case words with single spaces, ` , ` where a clause ends."""
    text = text.lower().replace("_", " ").replace("\u2019", "'")
    text = re.sub(r"n't\b", " not", text.replace("can't", "can not").replace("cannot", "can not"))
    text = re.sub(r"[^\w\s'-]+", " , ", text)
    return " ".join(text.split()).strip(" ,")


def _either(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(phrases)})\b")


_FEW = r"(?:\w+ ){0,2}"
_JUDGE = r"(?:tell|say|know|determine|decide|judge|identify|make out|distinguish|confirm|answer)"
_JUDGED = r"(?:told|said|known|determined|decided|judged|identified|made out|confirmed|answered)"
_MEDIA = r"(?:video|clip|recording|file|track|audio|footage|picture|sound)"
_REFUSAL = _either(
    rf"(?:not|never) {_FEW}(?:sure|certain|clear|obvious|possible|able)",
    rf"(?:can|could|do|did|does|would|am|are) not {_FEW}{_JUDGE}",
    rf"(?:hard|difficult|impossible|tricky|tough|unable) (?:for me )?to (?:\w+ )?{_JUDGE}",
    rf"can not (?:be|get) (?:\w+ )?{_JUDGED}",
    r"(?:unsure|uncertain|unclear|unknown|undecided|unable)",
    r"no (?:idea|clue|way (?:to|of))",
    r"(?:i|we) (?:can|could|do|did) not (?:\w+ )?(?:hear|see)",
    r"nothing (?:\w+ )?(?:audible|visible|to hear|to see|heard|seen)",
    rf"{_MEDIA} (?:has|have|had|contains?) no (?:sound|audio|picture|video)",
    r"without (?:any )?(?:sound|audio|(?:the )?picture)",
    rf"{_MEDIA} (?:\w+ ){{0,3}}(?:silent|mute|muted|missing|inaudible)",
    r"(?:does|do) not (?:show|settle|tell|say)(?: this| that| it)?",
    r"only be guessed|going by the (?:picture|sound)",
    r"neither confirm nor deny",
    r"would have to (?:go|look|listen|watch|see|hear)",
    r"(?:leaves?|left|remains?) (?:it |this |that )?open",
)
_UNDECIDED = _either(
    r"maybe|perhaps|possibly|probably|presumably|apparently|potentially|supposedly|likely",
    r"might|may|could (?:also |well |as well |just )*(?:be|have been)(?! (?:heard|seen))",
    r"seems?|seemingly|appears? to be|it looks|i(?: would|'d)? (?:guess|suppose|believe|think)",
    r"depend(?:s|ing)? on|matter of (?:opinion|taste)",
    r"(?:yes|no) (?:and|or) (?:yes|no)",
    r"(?:both|either|several|many) (?:answers?|replies|readings) (?:are|is|can|may|would)",
    r"in a way|in different ways|more or less|give or take|or rather|or else|unless",
    r"at (?:times|one moment)(?: \w+){1,8} at (?:other|another)",
    r"(?:some|others|different people|many people) would (?:say|agree|answer|call)",
    r"the opposite is|as well be|would fit|fits both|fair (?:answers?|reply)|close call",
)


def _named() -> dict[str, int]:
    """Words that name a label, with the number of its kind."""
    kinds: tuple[tuple[str, ...], ...] = (
        INSTRUMENT_LABELS,
        COUNT_LABELS,
        ("left", "middle", "right", "simultaneously"),
        ("indoor", "outdoor"),
        ("yes", "no"),
    )
    named = {label.replace("_", " "): n for n, kind in enumerate(kinds) for label in kind}
    named |= {f"{word}s": n for word, n in named.items() if n in (0, 3)}
    return named | {str(number): 1 for number in range(11)} | {"inside": 3, "outside": 3}


_NAMED = _named()
_LABEL = "|".join(sorted(_NAMED, key=len, reverse=True))
_COUNT = "|".join(word for word, kind in _NAMED.items() if kind == 1)
# At most eight words stand on either side of the "or".
_GAP = r"(?:[ ,]+[\w'-]+){0,8}?[ ,]+"
_RIVALS = re.compile(rf"\b({_LABEL})\b{_GAP}or{_GAP}({_LABEL})\b")
_RANGE = re.compile(rf"\b(?:between ({_COUNT}) and|(?:from )?({_COUNT}) to) ({_COUNT})\b")
_ABOUT = re.compile(
    rf"\b(?:at least|at most|about|around|roughly|nearly|almost|fewer than|less than|"
    rf"more than(?! ten\b)) (?:{_COUNT})\b"
)


def _alternatives(words: str) -> bool:
    found = _RIVALS.findall(words)
    found += [(low or lower, high) for low, lower, high in _RANGE.findall(words)]
    return any(one != other and _NAMED[one] == _NAMED[other] for one, other in found)


_LIST = re.compile(rf"(?:{_LABEL})(?: , (?:{_LABEL}))+")


def _is_list(words: str) -> bool:
    """Several labels of one kind, and no word besides."""
    names = words.split(" , ")
    kinds = {_NAMED[name] for name in names} if _LIST.fullmatch(words) else ()
    return len(set(names)) > 1 and len(kinds) == 1


_INDEFINITE = _either(
    r"a few|several|some (?:kind|sort|type) of|somewhere|something|somebody|various",
    r"quite (?:a (?:few|number|lot)|some|many)|a (?:handful|couple|number|lot)|some of|many",
    r"numerous|changes? in the course|varies",
)
_NAMES = re.compile(rf"\b(?:{_LABEL})\b")


def _is_vague(words: str) -> bool:
    """A rough count, or a short text whose only quantity, place or thing could be any."""
    if _ABOUT.search(words):
        return True
    short = len(words.split()) <= 8
    return short and bool(_INDEFINITE.search(words)) and not _NAMES.search(words)


# Words that say nothing by themselves, and things that every clip of musicians has.
_EMPTY = frozenset(
    "a an the this that these those it its there here they them their one ones i you we he she "
    "who what which where when how is are was were be been being am do does did has have had can "
    "will would should of in on at to for from with by as and or but so if than then also too "
    "very not no much more most other others another same such own all any each every both just "
    "only go goes going come comes happen happens happening appear appears show shows shown see "
    "seen hear heard look looks play plays played playing sound sounds sounding perform performs "
    "performing meet meets count counts start starts end ends use uses used film filmed record "
    "recorded answer answers question questions ask asked mean means meant common interesting "
    "nice good great musical next near close together apart time times part parts kind sort type "
    "thing things hand hands room audience light enough place places stage scene video videos "
    "clip clips picture pictures image frame recording performance performances concert piece "
    "song music musician musicians player players performer performers person people someone "
    "instrument instruments few several various many number numbers course somewhere something "
    "changes elsewhere around about during while throughout among over up down "
    "out off".split()
)


def _names_nothing(words: str) -> bool:
    """A sentence of three or more words, none of which tells one clip from another."""
    said = re.findall(r"[\w'-]+", words)
    return len(said) >= 3 and all(word in _EMPTY for word in said)
