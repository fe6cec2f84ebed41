"""Label-safe augmentation: the clip or the question changes, and the answer stays right.

- `mirrored`: left and right are exchanged, in the clip and in what is said about it.
- `time_reversed`: the clip plays backwards.
- `swapped`: a comparison the other way round, "is A louder than B?" -> "is B louder than A?".

Whatever cannot be kept right from template, slots and label alone is refused: a wrong label
that looks right is worse than one record less. A question is made anew from its template or
its wording, never by exchanging words in a text. Done twice, each gives the record back; only
a text that none of the wordings or sentence patterns made is lost, for a new one is drawn.

The id stays, because the result is meant to replace the record.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from avqa_llm.errors import AVQAError
from instruct_data.records import Record, Turn
from instruct_data.sentences import ANSWERS, number_of, patterns, say, sentence, spoken
from instruct_data.templates import TEMPLATES, fill
from instruct_data.wordings import WORDINGS, ask, fill_wording

STRICT_SOURCES = frozenset({"bandstand"})
"""Sources whose "no" to a comparison means "less", because margins leave no equals. The
benchmark's "no" may also mean "just as loud", and then the swapped question is a "no" too."""

MIRROR = {
    "left": "right",
    "leftest": "rightest",
    "leftmost": "rightmost",
    "right": "left",
    "rightest": "leftest",
    "rightmost": "leftmost",
}
_SIDE_SLOTS = frozenset({"LR", "LRer"})
_ORDER_SLOTS = frozenset({"FL", "TH", "BA"})
_SIDE_WORDS = frozenset(MIRROR)
_ORDER_WORDS = frozenset(
    "first second third fourth fifth last before after then until earlier later next previous "
    "start starts started starting begin begins began beginning end ends ended ending opening "
    "closing initially finally enters entrance".split()
)
# How people write a label: as the benchmark has it, as words, as a sentence of one word.
_MANNERS: tuple[Callable[[str], str], ...] = (
    lambda label: label,
    spoken,
    lambda label: spoken(label).capitalize(),
    lambda label: f"{spoken(label)}.",
    lambda label: f"{spoken(label).capitalize()}.",
)
_VOICES: tuple[Callable[[str], str], ...] = (
    lambda value: value,
    lambda value: value.replace("_", " "),
    spoken,
)


class UnsafeAugmentation(AVQAError):
    """An augmentation after which the label might be wrong; names the turn and why."""


class _Refusal(Exception):
    """Why one turn cannot be kept right."""


def mirrored(record: Record) -> Record:
    """The record with left and right exchanged, in the clip and in every turn.

    All 33 templates are safe. Places between left and right, order and numbers stay.

    Raises:
        UnsafeAugmentation: a turn is open (it has no template or no label), or the sides that
            it speaks of are not in its slots.
    """
    turns = _each(record, "mirrored", _mirrored)
    clip = replace(record.clip, mirrored=not record.clip.mirrored)
    return _marked(replace(record, clip=clip, turns=turns), "mirrored")


def time_reversed(record: Record) -> Record:
    """The record of the clip played backwards; questions and answers stay.

    27 templates are safe: how loud, how fast, how long, how many, who, where, and who sounds
    together with whom is the same either way. The six about first, second, last, before and
    after are not. They ask in which order players *start*; backwards that is the order in which
    they *stop*, of which label and slots say nothing. Not even exchanging "first" and "last"
    would help: who starts last may stop together with all the others, and then nobody is first.

    Raises:
        UnsafeAugmentation: a turn is open, or about order.
    """
    turns = _each(record, "reversed", _time_reversed)
    clip = replace(record.clip, reversed=not record.clip.reversed)
    return _marked(replace(record, clip=clip, turns=turns), "reversed")


def swapped(record: Record) -> Record:
    """The record with each comparison asked the other way round: yes <-> no.

    Seven templates compare. "Yes" becomes "no" always; "no" becomes "yes" where equals cannot
    be: in `STRICT_SOURCES`, and where the "no" itself came from a swapped "yes". Other
    questions with a template stay as they are, since the clip does.

    Raises:
        UnsafeAugmentation: a turn is open, no turn compares, a comparison has "no" for an
            answer that may hide equals, compares a thing with itself, or has no slots.
    """
    strict = record.source in STRICT_SOURCES or "swapped" in record.provenance
    turns = _each(record, "swapped", functools.partial(_swapped, strict=strict))
    if turns == record.turns:
        raise UnsafeAugmentation(
            f"record {record.id}: cannot be swapped: none of its {len(turns)} turns compares two "
            "things; leave it as it is"
        )
    return _marked(replace(record, turns=turns), "swapped")


AUGMENTATIONS: dict[str, Callable[[Record], Record]] = {
    "mirror": mirrored,
    "reverse": time_reversed,
    "swap": swapped,
}


def _each(
    record: Record, mark: str, change: Callable[[Turn, np.random.Generator], Turn]
) -> tuple[Turn, ...]:
    turns = []
    for number, turn in enumerate(record.turns, 1):
        key = hashlib.sha256(f"{record.id}\n{number}\n{mark}".encode()).digest()
        try:
            _require_closed(turn)
            turns.append(change(turn, np.random.default_rng(list(key[:8]))))
        except _Refusal as why:
            raise UnsafeAugmentation(
                f"record {record.id}, turn {number}, {turn.question!r}: cannot be {mark}: {why}; "
                "leave the record as it is"
            ) from None
    return tuple(turns)


def _marked(record: Record, mark: str) -> Record:
    """Undoing what was done last takes its mark away; anything else adds one."""
    *before, last = record.provenance or ("",)
    provenance = tuple(before) if last == mark else (*record.provenance, mark)
    return replace(record, provenance=provenance)


def _require_closed(turn: Turn) -> None:
    if turn.template is None or turn.label is None:
        missing = "template" if turn.template is None else "label"
        raise _Refusal(f"it has no {missing}, so that nothing tells what its answer rests on")
    if turn.template not in TEMPLATES:
        raise _Refusal(f"{turn.template!r} is none of the 33 templates")
    template = TEMPLATES[turn.template]
    if turn.label not in ANSWERS[template.answers]:
        raise _Refusal(f"{turn.label!r} is no answer to its template")
    if turn.slots and len(turn.slots) != len(template.slots):
        raise _Refusal(f"it has {len(turn.slots)} slots where its template has other")


# -- the three changes of a turn -----------------------------------------------------------


def _mirrored(turn: Turn, rng: np.random.Generator) -> Turn:
    template = TEMPLATES[turn.template or ""]
    if _SIDE_SLOTS & set(template.slots):
        _require_slots(turn)
    slots = turn.slots and tuple(
        MIRROR.get(value, value) if slot in _SIDE_SLOTS else value
        for slot, value in zip(template.slots, turn.slots, strict=True)
    )
    label = turn.label or ""
    if template.answers in ("side", "which-side"):
        label = MIRROR.get(label, label)
    for choice in turn.choices:
        if choice not in MIRROR and _SIDE_WORDS & _words(choice):
            raise _Refusal(f"its choice {choice!r} speaks of a side")
    choices = tuple(MIRROR.get(choice, choice) for choice in turn.choices)
    return _retold(replace(turn, choices=choices), slots, label, _SIDE_WORDS, rng)


def _time_reversed(turn: Turn, rng: np.random.Generator) -> Turn:
    if _ORDER_SLOTS & set(TEMPLATES[turn.template or ""].slots):
        raise _Refusal(
            "it is about the order of starts, which is the order of stops backwards, and that "
            "cannot be known from slots and label"
        )
    return _retold(turn, turn.slots, turn.label or "", _ORDER_WORDS, rng)


def _swapped(turn: Turn, rng: np.random.Generator, *, strict: bool) -> Turn:
    template = TEMPLATES[turn.template or ""]
    if template.kind != "Comparative":
        return turn
    _require_slots(turn)
    half = len(turn.slots) // 2
    one, other = turn.slots[:half], turn.slots[half:]
    if one == other:
        raise _Refusal(f"it compares {' '.join(one)!r} with itself")
    if turn.label == "no" and not strict:
        raise _Refusal("its 'no' may mean that both are equal")
    label = "no" if turn.label == "yes" else "yes"
    return _retold(turn, other + one, label, frozenset(), rng)


def _require_slots(turn: Turn) -> None:
    if not turn.slots and TEMPLATES[turn.template or ""].slots:
        raise _Refusal("its source does not tell what fills its slots")


# -- question and answer for other slots and another label ---------------------------------


def _retold(
    turn: Turn,
    slots: tuple[str, ...],
    label: str,
    unsafe: frozenset[str],
    rng: np.random.Generator,
) -> Turn:
    """The turn with other slots and label; a text with `unsafe` words has to be known to stay."""
    after = replace(turn, slots=slots, label=label)
    question, answer = turn.question, turn.answer
    if slots != turn.slots or unsafe & _words(question):
        question = _question(turn, after, rng)
    if (slots, label) != (turn.slots, turn.label) or unsafe & _words(answer):
        answer = _answer(turn, after, rng)
    return replace(after, question=question, answer=answer)


def _question(turn: Turn, after: Turn, rng: np.random.Generator) -> str:
    """The question in the same wording, or in a new one where nobody knows which it was."""
    _require_slots(turn)
    template = turn.template or ""
    said = same_words(template, turn.question, turn.slots, after.slots)
    if said is None:
        return ask(template, [spoken(value) for value in after.slots], rng, original=0.0)
    return said


def same_words(
    template: str, question: str, slots: tuple[str, ...], others: tuple[str, ...]
) -> str | None:
    """A question with other slots in the wording that it has, held-out wordings included.

    None where no wording of the template gives this text with these slots.
    """
    known = _wordings(template, slots)
    if question not in known:
        return None
    wording, voice = known[question]
    return _asked(template, wording, tuple(_VOICES[voice](value) for value in others))


def speaks_of_sides(text: str) -> bool:
    """Whether a text has a word that mirroring may make wrong."""
    return bool(_SIDE_WORDS & _words(text))


def speaks_of_order(text: str) -> bool:
    """Whether a text has a word that playing backwards may make wrong."""
    return bool(_ORDER_WORDS & _words(text))


@functools.lru_cache(maxsize=4096)
def _wordings(template: str, slots: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    """Each way to ask the question: by its text, the wording and the way the slots are said."""
    found: dict[str, tuple[str, int]] = {}
    for number, voice in enumerate(_VOICES):
        values = tuple(voice(value) for value in slots)
        for wording in (template, *WORDINGS[template]):
            found.setdefault(_asked(template, wording, values), (wording, number))
    return found


def _asked(template: str, wording: str, values: tuple[str, ...]) -> str:
    return fill(template, values) if wording == template else fill_wording(wording, values)


def _answer(turn: Turn, after: Turn, rng: np.random.Generator) -> str:
    """The answer in the same manner or pattern, or as a new sentence."""
    before, label = turn.label or "", after.label or ""
    for manner in _MANNERS:
        if turn.answer == manner(before):
            return manner(label)
    _require_slots(turn)
    number = number_of(turn)
    if number is None:
        return sentence(after, rng)
    return say(patterns(after.template or "", label)[number], after.slots, label)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower()))
