"""Questions after a change: other slots, in the same wording wherever it is one of ours."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from eval.benchmarks.base import Question
from eval.probes.media import LeftOut
from instruct_data.augment import MIRROR, same_words, speaks_of_order, speaks_of_sides
from instruct_data.sentences import spoken
from instruct_data.sources.music_avqa import TYPES
from instruct_data.templates import SLOT_VALUES, TEMPLATES, Template, fill
from instruct_data.wordings import plural

NO_TEMPLATE = "its template is not known"
NO_SLOTS = "what fills its template is not known"
OTHER_TYPE = "its type does not say what the answer rests on"
NO_COMPARISON = "it compares nothing"
WITH_ITSELF = "it compares a thing with itself"
SIDES_IN_CHOICES = "its choices speak of sides"
ORDER_IN_WORDS = "it may speak of order"

EXCHANGED = {"first": "last", "last": "first", "before": "after", "after": "before"}
_SIDE_SLOTS = frozenset({"LR", "LRer"})
_TURNED_SLOTS = frozenset({"FL", "BA"})
_ORDER_SLOTS = _TURNED_SLOTS | {"TH"}
_ORDER_TYPES = frozenset({"Audio-Visual Location", "Audio-Visual Temporal"})
_FULL_WIDTH = "\uff1f"


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is asked after a change."""

    text: str
    slots: tuple[str, ...] | None
    """None where nobody knows what fills the template, or where there is none."""
    choices: tuple[str, ...] = ()


def mirrored(question: Question) -> Words:
    """Left and right exchanged in slots and choices. Raises LeftOut."""
    template = _template(question)
    before = _before(question)
    if any(choice not in MIRROR and speaks_of_sides(choice) for choice in question.choices):
        raise LeftOut(SIDES_IN_CHOICES)
    choices = tuple(MIRROR.get(choice, choice) for choice in question.choices)
    has_sides = speaks_of_sides(question.question)
    if before.slots is None:
        if has_sides or _SIDE_SLOTS & set(template.slots):
            raise LeftOut(NO_SLOTS)
        return Words(text=before.text, slots=None, choices=choices)
    slots = _exchanged(template, before.slots, MIRROR, _SIDE_SLOTS)
    text = before.text
    if slots != before.slots or has_sides:
        text = _restated(question, before.slots, slots)
    return Words(text=text, slots=slots, choices=choices)


def time_reversed(question: Question) -> Words:
    """First and last, before and after exchanged. Raises LeftOut.

    "Second" and the like stay: backwards, the question has another answer. A text that speaks
    of order otherwise ("from beginning to end") has to be in a known wording to stay.
    """
    before = _before(question)
    if question.template is None:
        if question.type not in TYPES:
            raise LeftOut(OTHER_TYPE)
        if question.type in _ORDER_TYPES:
            raise LeftOut(NO_TEMPLATE)
        if speaks_of_order(question.question):
            raise LeftOut(ORDER_IN_WORDS)
        return before
    template = _template(question)
    if before.slots is None:
        if speaks_of_order(question.question) or is_about_order(question):
            raise LeftOut(NO_SLOTS)
        return before
    slots = _exchanged(template, before.slots, EXCHANGED, _TURNED_SLOTS)
    text = before.text
    if slots != before.slots or speaks_of_order(text):
        text = _restated(question, before.slots, slots)
    return Words(text=text, slots=slots, choices=question.choices)


def swapped(question: Question) -> Words:
    """A comparison the other way round. Raises LeftOut."""
    template = _template(question)
    if template.kind != "Comparative":
        raise LeftOut(NO_COMPARISON)
    slots = slots_of(question)
    if slots is None:
        raise LeftOut(NO_SLOTS)
    half = len(slots) // 2
    one, other = slots[:half], slots[half:]
    if one == other:
        raise LeftOut(WITH_ITSELF)
    text = _restated(question, slots, other + one)
    return Words(text=text, slots=other + one, choices=question.choices)


def is_about_order(question: Question) -> bool:
    """Whether a template's answer rests on the order of starts."""
    template = TEMPLATES.get(question.template or "")
    return template is not None and bool(_ORDER_SLOTS & set(template.slots))


def counts_from_the_start(question: Question) -> bool:
    """Whether a template asks for the second, third, ... player that comes in."""
    template = TEMPLATES.get(question.template or "")
    return template is not None and "TH" in template.slots


def _before(question: Question) -> Words:
    return Words(text=question.question, slots=slots_of(question), choices=question.choices)


def _template(question: Question) -> Template:
    if question.template not in TEMPLATES:
        raise LeftOut(NO_TEMPLATE)
    return TEMPLATES[question.template or ""]


def _exchanged(
    template: Template, slots: tuple[str, ...], other: dict[str, str], which: frozenset[str]
) -> tuple[str, ...]:
    return tuple(
        other.get(value, value) if slot in which else value
        for slot, value in zip(template.slots, slots, strict=True)
    )


def _restated(question: Question, slots: tuple[str, ...], others: tuple[str, ...]) -> str:
    """The question with other slots in its own wording, or else in its template's."""
    template = question.template or ""
    for text in _spellings(template, question.question):
        said = same_words(template, text, slots, others)
        if said is not None:
            return said if _FULL_WIDTH in question.question else said.replace(_FULL_WIDTH, "?")
    return fill(template, others)


def _spellings(template: str, text: str) -> tuple[str, ...]:
    """A template with a full-width question mark is often copied with an ASCII one."""
    if template.endswith(_FULL_WIDTH) and text.endswith("?"):
        return text, text[:-1] + _FULL_WIDTH
    return (text,)


# -- what fills a template -------------------------------------------------------------------


def slots_of(question: Question) -> tuple[str, ...] | None:
    """The slots of a question, read from its text where its file does not give them.

    None where the template is not known, or where none of our wordings gives the text. A text
    that two ways to fill the template give is not read either.
    """
    template = TEMPLATES.get(question.template or "")
    if template is None:
        return None
    if len(question.slots) == len(template.slots):
        return question.slots
    return _read_slots(template.text, question.question)


@functools.lru_cache(maxsize=65536)
def _read_slots(template: str, text: str) -> tuple[str, ...] | None:
    spelled = _spellings(template, text)
    found = [
        slots
        for slots in itertools.product(*_mentioned(template, text))
        if any(same_words(template, one, slots, slots) is not None for one in spelled)
    ]
    return found[0] if len(found) == 1 else None


def _mentioned(template: str, text: str) -> Iterator[tuple[str, ...]]:
    """Of each slot, the values that the text names."""
    lower = text.lower()
    for slot in TEMPLATES[template].slots:
        yield tuple(value for value in SLOT_VALUES[slot] if _named(value).search(lower))


@functools.cache
def _named(value: str) -> re.Pattern[str]:
    ways = {value, value.replace("_", " "), spoken(value)}
    ways |= {plural(way) for way in ways}
    return re.compile(rf"\b(?:{'|'.join(sorted(ways, key=len, reverse=True))})\b")
