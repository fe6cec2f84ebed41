"""Many ways to ask each benchmark question: draw one, fill it, and prove that they are sound.

A wording is text with numbered fields: `{0}`, `{1}`, ... are the template's slots from
left to right, so a paraphrase may use them in another order. `{0:s}` is the plural, and
`a(n)` becomes "a" or "an" by the word that follows. A third of each template's wordings in
`wordings_*.py` is held out, so that robustness to rephrasing can be measured on questions never
trained on; those of `training_wordings/*.txt` were written without sight of them, and are for
training alone.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from instruct_data.templates import SIDES, SLOT, SLOT_VALUES, TEMPLATES, Template, fill
from instruct_data.wordings_audio import WORDINGS_AUDIO
from instruct_data.wordings_audio_visual import WORDINGS_AUDIO_VISUAL
from instruct_data.wordings_visual import WORDINGS_VISUAL
from instruct_data.wordings_where_when import WORDINGS_WHERE_WHEN


def _read_training() -> dict[str, list[str]]:
    """Per template text the lines that follow it, `# ` before it, in `training_wordings/*.txt`."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).with_name("training_wordings").glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                lines = found.setdefault(line[2:], [])
            else:
                lines.append(line)
    return found


_SPLIT: dict[str, tuple[str, ...]] = {
    **WORDINGS_AUDIO,
    **WORDINGS_VISUAL,
    **WORDINGS_AUDIO_VISUAL,
    **WORDINGS_WHERE_WHEN,
}
_TRAINING = _read_training()

WORDINGS: dict[str, tuple[str, ...]] = {
    text: (*lines, *_TRAINING.get(text, ())) for text, lines in _SPLIT.items()
}
"""Per template text, its paraphrases. The template's own text is never among them."""

MIN_WORDINGS = 25

_FIELD = re.compile(r"\{(\d+)(:s)?\}")
_ARTICLE = re.compile(r"\b([Aa])\(n\) (\w)(\w*)")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")

_NEGATIONS = frozenset(
    "not no never none nothing neither nor without cannot silent silence silently mute muted "
    "unheard fail fails lack lacks lacking missing absent hardly rarely except unless".split()
)
_OPPOSITES = frozenset(
    "quieter quietest softer softest lower fainter weaker fewer less least slower slowest calmer "
    "shorter briefer sooner false untrue incorrect wrong".split()
)
# Words that a slot decides; a wording that spells one out would contradict the slot.
_ORDER = frozenset(
    "before after earlier later prior following previous first second third fourth "
    "fifth last final finally initial initially left middle right centre center leftmost rightmost "
    "leftest rightest loudest lowest".split()
)
# What follows these in a comparison is the thing compared with, never the thing asked about.
_REFERENCE = re.compile(
    r"\b(?:than|compared (?:with|to)|relative to|outlast|exceed|ahead of)\b[^{]*\{(\d+)",
    re.IGNORECASE,
)


@functools.cache
def split(template_text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The template's wordings as (training, held out).

    Held out is the third of those in `wordings_*.py` with the smallest SHA-256 of the text, so
    that the choice is nobody's and does not move when the order of the file changes.
    """
    ranked = sorted(_SPLIT[template_text], key=lambda line: hashlib.sha256(line.encode()).digest())
    held_out = frozenset(ranked[: len(ranked) // 3])
    wordings = WORDINGS[template_text]
    return (
        tuple(wording for wording in wordings if wording not in held_out),
        tuple(wording for wording in wordings if wording in held_out),
    )


def plural(noun: str) -> str:
    """The plural of an instrument's name; "congas" is one already."""
    if noun.endswith("ss"):
        return f"{noun}es"
    return noun if noun.endswith("s") else f"{noun}s"


def fill_wording(wording: str, values: Sequence[str]) -> str:
    """Put the slot values into a wording's fields.

    Resolves plurals and a/an, capitalises the start, and says "in the middle" where the
    other sides take "on the left" or "on the left-hand side". Raises ValueError when the
    wording's fields do not use each of the values.
    """
    used = {int(match[1]) for match in _FIELD.finditer(wording)}
    if used != set(range(len(values))):
        raise ValueError(
            f"{wording!r} has the fields {sorted(used)} but got {len(values)} values {list(values)}"
        )
    text = _FIELD.sub(
        lambda match: plural(values[int(match[1])]) if match[2] else values[int(match[1])], wording
    )
    text = _middle(_ARTICLE.sub(_article, text))
    return text[0].upper() + text[1:]


def _article(match: re.Match[str]) -> str:
    """`a(n) erhu` -> `an erhu`. "u" counts as a consonant: ukulele is the only such name."""
    article = f"{match[1]}n" if match[2] in "aeioAEIO" else match[1]
    return f"{article} {match[2]}{match[3]}"


def _middle(text: str) -> str:
    """Idiom for the third side: nothing is "on the middle-hand side"."""
    text = re.sub(r"\bmiddle-hand\b", "middle", text)
    place = r"(?<!compared )(?<!relative )\b(?:on|to) the middle(?: side)?\b(?! of)"
    text = re.sub(place, "in the middle", text)
    return re.sub(r"\bOn the middle\b(?! of)", "In the middle", text)


def ask(
    template_text: str,
    values: Sequence[str],
    rng: np.random.Generator,
    *,
    held_out: bool = False,
    original: float = 0.1,
) -> str:
    """Draw one way to ask the template's question, filled with `values`.

    In training mode the template's own text comes with probability `original`; in
    held-out mode it never does. Raises ValueError when the number of values is wrong.
    """
    training, held = split(template_text)
    if not held_out and rng.random() < original:
        return fill(template_text, values)
    wordings = held if held_out else training
    return fill_wording(wordings[int(rng.integers(len(wordings)))], values)


def vocabulary() -> set[str]:
    """Every lower-case word that `ask` can produce, slot values and their plurals included."""
    texts = [wording for wordings in WORDINGS.values() for wording in wordings]
    texts += list(TEMPLATES)
    instruments = [name.replace("_", " ") for name in SLOT_VALUES["Object"]]
    texts += [value for values in SLOT_VALUES.values() for value in values]
    texts += [*instruments, *map(plural, instruments), "an", "leftmost", "rightmost"]
    bare = (SLOT.sub(" ", _FIELD.sub(" ", text)).replace("a(n)", "a") for text in texts)
    return {word for text in bare for word in _words(text)}


def check(wordings: Mapping[str, Sequence[str]] = WORDINGS) -> list[str]:
    """What is wrong with the wordings, one line a problem; empty when all is well."""
    problems = [f"no wordings for {text!r}" for text in TEMPLATES if text not in wordings]
    problems += [f"{text!r} is no template" for text in wordings if text not in TEMPLATES]
    known = {text: tuple(lines) for text, lines in wordings.items() if text in TEMPLATES}
    for text, lines in known.items():
        if len(lines) < MIN_WORDINGS:
            problems.append(f"{text!r} has {len(lines)} wordings, fewer than {MIN_WORDINGS}")
        for line in lines:
            problems += [
                f"{fault}: {line!r} for {text!r}" for fault in _faults(TEMPLATES[text], line)
            ]
    return problems + list(_duplicates(known))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("_", " "))


def _faults(template: Template, line: str) -> Iterator[str]:
    fields = {int(match[1]) for match in _FIELD.finditer(line)}
    expected = set(range(len(template.slots)))
    if expected - fields:
        yield f"lost slots {sorted(expected - fields)}"
    if fields - expected:
        yield f"unknown slots {sorted(fields - expected)}"
    if re.search(r"[{}<>]", _FIELD.sub("", line)):
        yield "malformed field"
    for match in _FIELD.finditer(line):
        index = int(match[1])
        if match[2] and index in expected and template.slots[index] != "Object":
            yield f"plural of the slot {template.slots[index]}"
    if not line.isascii():
        yield "not ASCII"
    if "  " in line or line != line.strip():
        yield "stray spaces"
    if not (line[:1].isupper() or line.startswith("{")):
        yield "no capital"
    yield from _meaning_faults(template, line)


def _meaning_faults(template: Template, line: str) -> Iterator[str]:
    words = set(_words(_FIELD.sub(" ", line)))
    negative = {word for word in words if word in _NEGATIONS or word.endswith("n't")}
    template_negative = _NEGATIONS & set(_words(template.text))
    if negative and not template_negative:
        yield f"polarity: {sorted(negative)}"
    if template_negative and not negative:
        yield "polarity: the negation is lost"
    if opposite := words & _OPPOSITES:
        yield f"polarity: {sorted(opposite)}"
    # Only a question whose answer is a side may list the sides as choices.
    allowed = set(SIDES) if template.answers in ("side", "which-side") else set()
    if order := (words & _ORDER) - allowed:
        yield f"order words {sorted(order)}"
    if template.kind == "Comparative":
        for match in _REFERENCE.finditer(line):
            if int(match[1]) < len(template.slots) // 2:
                yield f"order of comparison: {{{match[1]}}} is the reference"


def _shape(template: Template, text: str) -> str:
    """The text with slot names for fields, without case and punctuation."""
    slots = dict(enumerate(template.slots))
    named = _FIELD.sub(
        lambda match: f" {'slots' if match[2] else 'slot'}{slots.get(int(match[1]), '')} ", text
    )
    named = SLOT.sub(r" slot\1 ", named).replace("a(n)", "a")
    return " ".join(re.findall(r"\w+", named.lower()))


def _duplicates(wordings: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Wordings that read the same once filled, within a template or across two."""
    owner: dict[str, str] = {}
    for text in wordings:
        owner[_shape(TEMPLATES[text], text)] = text
    for text, lines in wordings.items():
        shapes = Counter(_shape(TEMPLATES[text], line) for line in lines)
        yield from (f"duplicate in {text!r}: {shape!r}" for shape, n in shapes.items() if n > 1)
        for shape in shapes:
            if shape not in owner:
                owner[shape] = text
            elif owner[shape] == text:
                yield f"duplicate of the template's own text in {text!r}: {shape!r}"
            else:
                yield f"the same question under {owner[shape]!r} and {text!r}: {shape!r}"
