"""The same question in other words, and the proof that the words are sound.

Test sets of reworded questions are made by `instruct_data.rephrase_set`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from avqa_llm.errors import AnnotationError, AVQAError
from instruct_data.records import Record, Turn
from instruct_data.sentences import spoken
from instruct_data.templates import SLOT, SLOT_VALUES, TEMPLATES
from instruct_data.wordings import WORDINGS, check, fill_wording, split

R_WORDS = 465
"""Distinct words of MUSIC-AVQA-R's questions, as its authors publish it."""

_FIELD = re.compile(r"\{(\d+)(?::s)?\}")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_ASKS_WHICH = re.compile(r"^(?:how|which|what|where|who)\b|\bhow many\b", re.IGNORECASE)
_ASKS_COUNT = re.compile(r"\b(?:how many|number|count)\b", re.IGNORECASE)
_ASKS_OPEN = re.compile(
    r"\b(?:which|what|where|who|identify|name|tell me|position|location|setting|or)\b",
    re.IGNORECASE,
)


# -- records -------------------------------------------------------------------------------


def rephrased(record: Record, rng: np.random.Generator, *, held_out: bool = False) -> Record:
    """The record with every question that has a template asked in other words.

    Label, slots and template stay. A question without a template stays, and so does one
    whose source gives it filled, without slots; a record where nothing changes comes back
    as it was. `held_out` draws from the third of the wordings that training never sees.

    Raises:
        AnnotationError: a template is unknown, or it has another number of slots.
    """
    turns = tuple(_reworded(turn, rng, held_out) for turn in record.turns)
    if turns == record.turns:
        return record
    mark = f"rephrased ({'held-out' if held_out else 'training'} wordings)"
    return replace(record, turns=turns, provenance=(*record.provenance, mark))


def _reworded(turn: Turn, rng: np.random.Generator, held_out: bool) -> Turn:
    if turn.template is None:
        return turn
    if turn.template not in TEMPLATES:
        raise AnnotationError(
            f"{turn.template!r} of the question {turn.question!r} is none of the 33 templates: "
            "leave the template out where the question is open"
        )
    wanted = len(TEMPLATES[turn.template].slots)
    if wanted and not turn.slots:
        return turn
    if len(turn.slots) != wanted:
        raise AnnotationError(
            f"{turn.question!r} has the slots {list(turn.slots)}, but {turn.template!r} needs "
            f"{wanted}: read it from a file that gives them"
        )
    wordings = split(turn.template)[held_out]
    values = spoken_slots(turn.slots, rng)
    asked = (fill_wording(wordings[int(i)], values) for i in rng.permutation(len(wordings)))
    return replace(turn, question=next(text for text in asked if text != turn.question))


def spoken_slots(slots: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Slot values as people say them; `leftest` stays every other time, as the benchmark has it."""
    plain = rng.random() < 0.5
    return tuple(spoken(value) if plain else value.replace("_", " ") for value in slots)


# -- the bank of wordings ------------------------------------------------------------------


def check_bank(wordings: Mapping[str, Sequence[str]] = WORDINGS) -> list[str]:
    """What is wrong with the bank, one line a problem.

    The checks of `wordings.check` (lost slots, changed polarity, changed order, duplicates),
    and: a wording that asks for another kind of answer, or that parts a player from its side.
    """
    problems = check(wordings)
    for text, lines in wordings.items():
        if text in TEMPLATES:
            problems += [f"{why}: {line!r} for {text!r}" for why, line in _faults(text, lines)]
    return problems


def _faults(text: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    template = TEMPLATES[text]
    for line in lines:
        asks = {"yes-no": not _ASKS_WHICH.search(line), "count": bool(_ASKS_COUNT.search(line))}
        if not asks.get(template.answers, bool(_ASKS_OPEN.search(line))):
            yield f"asks for no {template.answers} answer", line
        fields = [int(match[1]) for match in _FIELD.finditer(line)]
        if sorted(fields) == [0, 1, 2, 3] and {*fields[:2]} not in ({0, 1}, {2, 3}):
            yield f"player and side are parted in {fields}", line


def _alike_in_the_middle() -> int:
    """How many wordings read like an earlier one where the side is the middle.

    The middle is said in its own way ("in the middle" for "on the middle side"), so these
    count as different for the other sides. Case and punctuation do not count.
    """
    found = 0
    for text, lines in WORDINGS.items():
        slots = TEMPLATES[text].slots
        values = ["middle" if slot == "LR" else SLOT_VALUES[slot][-1] for slot in slots]
        filled = (fill_wording(line, values).lower() for line in lines)
        found += len(lines) - len({" ".join(re.findall(r"\w+", line)) for line in filled})
    return found


def words(texts: Sequence[str]) -> set[str]:
    """The distinct words of wordings or templates, without what fills them."""
    bare = (SLOT.sub(" ", _FIELD.sub(" ", text)).replace("a(n)", "a") for text in texts)
    return {word for text in bare for word in _WORD.findall(text.lower())}


# -- commands ------------------------------------------------------------------------------


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `rephrase` and `check-wordings`."""
    new = commands.add_parser("rephrase", help="ask a question file's questions in other words")
    new.add_argument("file", type=Path, metavar="FILE", help="of MUSIC-AVQA v1 or v2")
    new.add_argument("--times", type=int, default=25, help="wordings a question, at most (25)")
    new.add_argument("--out", type=Path, required=True, help="folder for the three files")
    new.add_argument("--seed", type=int, default=0, help="same seed, same bytes (0)")
    new.add_argument(
        "--training-wordings",
        action="store_true",
        help="go on with wordings that training may have seen where the held-out ones run out",
    )
    new.set_defaults(run=_rephrase)
    bank = commands.add_parser("check-wordings", help="check the wordings and print their figures")
    bank.set_defaults(run=_check_wordings)


def _rephrase(args: argparse.Namespace) -> int:
    for name, value, least in (("times", args.times, 1), ("seed", args.seed, 0)):
        if value < least:
            raise AVQAError(f"--{name} {value} is too small: give {least} or more")
    from instruct_data.rephrase_set import read_questions, write_reworded

    questions = read_questions(args.file)
    training = args.training_wordings
    counts = write_reworded(
        args.out, questions, times=args.times, seed=args.seed, training=training
    )
    print(
        f"{len(questions)} questions in {counts['headtail']} rows: {counts['held-out']} in held-out"
        f" wordings, {counts['training']} in training wordings; head {counts['head']}, tail "
        f"{counts['tail']}; in {args.out}"
    )
    missing = len(questions) * args.times - counts["headtail"]
    if missing:
        more = "" if training else " (--training-wordings goes on with others)"
        print(f"{missing} rows fewer than --times {args.times} wants: no more wordings{more}")
    return 0


def _check_wordings(args: argparse.Namespace) -> int:
    problems = check_bank()
    print("wordings  held out  template")
    for text, lines in WORDINGS.items():
        print(f"{len(lines):8}  {len(split(text)[1]):8}  {text}")
    everything = [line for lines in WORDINGS.values() for line in lines]
    held = sum(len(split(text)[1]) for text in WORDINGS)
    filling = words([v.replace("_", " ") for values in SLOT_VALUES.values() for v in values])
    bank, own = words(everything), words(list(TEMPLATES))
    print(f"{len(everything):8}  {held:8}  in all")
    print(
        f"distinct words (with what fills the slots): {len(bank)} ({len(bank | filling)}) here, "
        f"{len(own)} ({len(own | filling)}) in MUSIC-AVQA's templates, {R_WORDS} in MUSIC-AVQA-R "
        "(published)"
    )
    print(f"{_alike_in_the_middle()} wordings read like another one where the side is the middle")
    for problem in problems:
        print(f"fault: {problem}")
    print(f"{len(problems)} faults")
    return 1 if problems else 0
