"""Answers as full sentences: what a label says of its question, in words.

A pattern of `sentences_bank` is text with fields. `{0}`, `{1}`, ... are the template's
slots, `{=}` is the answer, as they are said: "electric bass", "leftmost". After the name
comes what is wanted of it:

    {0:a}           a violin, an erhu, a set of congas
    {0:n} {0:s}     violin, violins; set of congas, sets of congas
    {0:at}          on the left, in the middle
    {=:adverb}      indoors
    {0|is|are}      the one or the other verb: "the violin is", "the congas are"
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import COUNT_LABELS, INSTRUMENT_LABELS
from instruct_data.records import Record, Turn
from instruct_data.sentences_bank import COUNTS, NAMED, SIMULTANEOUSLY, YES_NO
from instruct_data.templates import SIDES, TEMPLATES
from instruct_data.wordings import plural

ANSWERS: dict[str, tuple[str, ...]] = {
    "yes-no": ("yes", "no"),
    "count": COUNT_LABELS,
    "instrument": INSTRUMENT_LABELS,
    "side": SIDES,
    "which-side": (*SIDES, "simultaneously"),
    "place": ("indoor", "outdoor"),
}
"""The labels that answer a template, by its kind of answers."""

MARK = "answers as sentences"
"""What `with_sentences` adds to the provenance."""

_FIELD = re.compile(r"\{(\d|=)(?::(\w+)|\|([^{}|]+)\|([^{}|]+))?\}")
_SPOKEN = {"leftest": "leftmost", "rightest": "rightmost"}
# The one name that is a plural already.
_PLURALS = frozenset({"congas"})


def spoken(value: str) -> str:
    """A slot value or a label as people say it: `electric_bass` -> "electric bass"."""
    return _SPOKEN.get(value, value.replace("_", " "))


def patterns(template: str, label: str) -> tuple[str, ...]:
    """All patterns for an answer to one of the 33 templates.

    Patterns of one number belong together: where an augmentation makes another answer out
    of an answer, the sentence with the same number says it.

    Raises:
        AnnotationError: the text is no template, or the label cannot answer it.
    """
    if template not in TEMPLATES:
        raise AnnotationError(f"{template!r} is none of the 33 templates: no sentence is known")
    kind = TEMPLATES[template].answers
    if label not in ANSWERS[kind]:
        raise AnnotationError(
            f"{label!r} cannot answer {template!r}: give one of {', '.join(ANSWERS[kind])}"
        )
    if kind == "yes-no":
        return tuple(pair[label == "no"] for pair in YES_NO[template])
    if kind == "count":
        number = min(COUNT_LABELS.index(label), 2)
        return tuple(triple[number] for triple in COUNTS[template])
    return SIMULTANEOUSLY if label == "simultaneously" else NAMED[template]


def say(pattern: str, slots: Sequence[str], label: str) -> str:
    """Fill a pattern: with agreement, articles, plurals and a capital at the start."""
    said = {str(number): spoken(value) for number, value in enumerate(slots)}
    said["="] = spoken(label)
    text = _FIELD.sub(lambda match: _field(said[match[1]], match), pattern)
    return text[0].upper() + text[1:]


def _field(value: str, match: re.Match[str]) -> str:
    if match[3]:
        return match[4] if value in _PLURALS else match[3]
    form = match[2]
    if form is None:
        return value
    one = f"set of {value}" if value in _PLURALS else value
    if form == "a":
        return f"an {one}" if one[0] in "aeio" else f"a {one}"
    if form == "n":
        return one
    if form == "s":
        return f"sets of {value}" if value in _PLURALS else plural(value)
    if form == "at":
        return f"in the {value}" if value == "middle" else f"on the {value}"
    assert form == "adverb", f"unknown form in {match[0]}"
    return f"{value}s"


def sentence(turn: Turn, rng: np.random.Generator) -> str:
    """The turn's label as a full sentence, one of the patterns at random.

    Raises:
        AnnotationError: the turn has no template or no label, its label cannot answer the
            template, or its slots are not as many as the template has.
    """
    choices = _sentences(*_known(turn))
    return choices[int(rng.integers(len(choices)))]


def number_of(turn: Turn) -> int | None:
    """Which of the patterns the turn's answer was made from; None if from none of them.

    Raises:
        AnnotationError: as in `sentence`.
    """
    choices = _sentences(*_known(turn))
    return choices.index(turn.answer) if turn.answer in choices else None


@functools.lru_cache(maxsize=4096)
def _sentences(template: str, slots: tuple[str, ...], label: str) -> tuple[str, ...]:
    return tuple(say(pattern, slots, label) for pattern in patterns(template, label))


def _known(turn: Turn) -> tuple[str, tuple[str, ...], str]:
    """Template, slots and label of a turn that has them all."""
    if turn.template is None or turn.label is None:
        missing = "template" if turn.template is None else "label"
        raise AnnotationError(f"{turn.question!r} has no {missing}: no sentence is known for it")
    wanted = TEMPLATES[turn.template].slots if turn.template in TEMPLATES else turn.slots
    if len(turn.slots) != len(wanted):
        raise AnnotationError(
            f"{turn.question!r} has the slots {list(turn.slots)}, but {turn.template!r} needs "
            f"{len(wanted)}: read it from a file that gives them"
        )
    return turn.template, turn.slots, turn.label


def with_sentences(record: Record, rng: np.random.Generator) -> Record:
    """The record with every answer as a sentence that can be: it takes template, slots, label.

    Open answers stay as they are, and so does a turn of a benchmark that gives its questions
    filled, without slots. A record where nothing changes comes back as it was.

    Raises:
        AnnotationError: a template is unknown, a label cannot answer its template, or there
            are some slots, but not all.
    """
    turns = tuple(_with_sentence(turn, rng) for turn in record.turns)
    if turns == record.turns:
        return record
    return replace(record, turns=turns, provenance=(*record.provenance, MARK))


def _with_sentence(turn: Turn, rng: np.random.Generator) -> Turn:
    if turn.template is None or turn.label is None:
        return turn
    if not turn.slots and turn.template in TEMPLATES and TEMPLATES[turn.template].slots:
        return turn
    return replace(turn, answer=sentence(turn, rng))
