"""Preference pairs: a clear answer against a hedging, a wrong or a deaf one.

The training data of ADPO, ambiguity-aware preference optimisation (CAT: Ye et al., ECCV 2024):
a model that is shown both learns to commit itself, and to the right answer. These pairs are made
from records whose answers are known, so that no rejected answer is right by accident.
"""

from __future__ import annotations

import argparse
import functools
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from avqa_llm import labels
from avqa_llm.errors import AnnotationError, AVQAError
from avqa_llm.labels import LABELS, NO_ANSWER
from instruct_data.hedges import DEAF, DEAF_LABELS, hedge
from instruct_data.known_answers import Answers, NoPair, drawn, family, plain, without
from instruct_data.pairs import Pair as Pair
from instruct_data.pairs import Tag, write_pairs
from instruct_data.records import Record, Turn, read_records
from instruct_data.sentences import ANSWERS, sentence, spoken
from instruct_data.templates import TEMPLATES

ATTEMPTS = 8
"""Draws of a rejected answer before a turn is given up."""

# Sentences come again and again, and to score one is most of the work.
to_label = functools.lru_cache(maxsize=1 << 16)(labels.to_label)


class PreferenceError(AVQAError):
    """Options or records that no preference pairs can be made of."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A turn with what a pair is made of."""

    record: Record
    number: int
    answers: Answers

    @property
    def turn(self) -> Turn:
        """The turn itself."""
        return self.record.turns[self.number]

    def pair(self, tag: Tag, seed: int) -> Pair:
        """Make a pair; the same record and seed give the same one, whatever else is in the set.

        Raises:
            NoPair: this turn cannot give one.
        """
        name = f"{self.record.id}/{self.number}/{tag}".encode()
        rng = np.random.default_rng([seed, zlib.crc32(name)])
        chosen = clear(self.turn, rng)
        for _ in range(ATTEMPTS):
            rejected, note = _REJECTED[tag](self, rng)
            if differs(self.turn, chosen, rejected):
                return self.of(chosen, rejected, tag, note)
        raise NoPair("each rejected answer that was drawn could pass for the right one")

    def of(self, chosen: str, rejected: str, tag: Tag, note: str, *, alone: bool = False) -> Pair:
        """The pair of two answers; `alone`: given without what was said before."""
        record, turn = self.record, self.turn
        return Pair(
            record=record.id,
            turn=self.number,
            clip=record.clip,
            history=() if alone else record.turns[: self.number],
            question=turn.question,
            chosen=chosen,
            rejected=rejected,
            tag=tag,
            label=turn.label,
            source=record.source,
            split=record.split,
            licence=record.licence,
            provenance=(*record.provenance, f"preference, {tag}: {note}"),
        )


def clear(turn: Turn, rng: np.random.Generator) -> str:
    """The preferred answer: the turn's own, as a sentence where it is a bare label.

    Rejected answers are sentences; were the chosen ones bare words, a model would learn to
    prefer short answers and nothing else.

    Raises:
        NoPair: the turn contradicts itself, or has no answer.
    """
    if not turn.answer.strip():
        raise NoPair("the answer is empty")
    if turn.label in LABELS and to_label(turn.answer) not in (turn.label, NO_ANSWER):
        raise NoPair("the answer says another label than the turn names")
    if turn.label is None or plain(turn.answer) != plain(turn.label):
        return turn.answer
    return say(turn, turn.label, rng)


def say(turn: Turn, label: str, rng: np.random.Generator) -> str:
    """A label of the turn's family in the manner of the turn's answer.

    Raises:
        NoPair: the answer is a text of its own, in which the label cannot be exchanged.
    """
    if _is_whole(turn):
        return _sentence(replace(turn, label=label), label, rng)
    right = spoken(turn.label or "")
    if plain(turn.answer) == plain(right):
        return spoken(label)
    pattern = re.compile(rf"(?<!\w){re.escape(right)}(?!\w)", re.IGNORECASE)
    if len(pattern.findall(turn.answer)) != 1:
        raise NoPair("the answer is a text in which its label cannot be exchanged")
    return pattern.sub(lambda _: spoken(label), turn.answer)


def _sentence(turn: Turn, label: str, rng: np.random.Generator) -> str:
    """A sentence that the scorer understands, if one is found: some name two instruments."""
    said = ""
    for _ in range(ATTEMPTS):
        try:
            said = sentence(turn, rng)
        except AnnotationError as error:
            raise NoPair("the label cannot answer the template") from error
        if to_label(said) == label:
            break
    return said


def _is_whole(turn: Turn) -> bool:
    """Whether a sentence can be made: benchmarks with filled questions give no slots."""
    template = TEMPLATES.get(turn.template or "")
    return template is not None and len(turn.slots) == len(template.slots)


def differs(turn: Turn, chosen: str, rejected: str) -> bool:
    """Whether a rejected answer is surely not the right one in other words."""
    if not plain(rejected) or plain(chosen) == plain(rejected):
        return False
    right = turn.label if turn.label is not None else to_label(chosen)
    if right == NO_ANSWER:
        return True
    if right in LABELS:
        return to_label(rejected) != right
    return f" {plain(right)} " not in f" {plain(rejected)} "


def _ambiguous(asked: Asked, rng: np.random.Generator) -> tuple[str, str]:
    turn = asked.turn
    kind = family(turn)
    others = without(dict.fromkeys(ANSWERS.get(kind, ()), 1), turn.label or "")
    if turn.label is None or not others:
        return hedge("any", "", "", rng), "a hedge"
    try:
        other = asked.answers.wrong(turn, rng)
    except NoPair:
        other = drawn(others, rng)
    return hedge(kind, turn.label, other, rng), "a hedge"


def _wrong(asked: Asked, rng: np.random.Generator) -> tuple[str, str]:
    label = asked.answers.wrong(asked.turn, rng)
    return say(asked.turn, label, rng), f"{label} instead of {asked.turn.label}"


def _swapped(asked: Asked, rng: np.random.Generator) -> tuple[str, str]:
    video = asked.record.clip.video
    if asked.record.kind == "caption":
        text, other = asked.answers.caption(video, rng)
        return text, f"describes {other}"
    label, other = asked.answers.elsewhere(asked.turn, video, rng, follows=asked.number > 0)
    return say(asked.turn, label, rng), f"{label} holds for {other}"


def _muted(asked: Asked, rng: np.random.Generator) -> tuple[str, str]:
    turn = asked.turn
    if not asked.record.clip.sound:
        raise NoPair("the clip is asked about without its sound")
    about = TEMPLATES[turn.template].modality if turn.template in TEMPLATES else turn.type or ""
    if not about.startswith("Audio"):
        raise NoPair("the question is not known to be about sound")
    label = DEAF_LABELS.get(turn.template or "")
    if label is not None and label != turn.label and rng.random() < 0.5:
        return say(turn, label, rng), f"{label}, as if nothing were heard"
    return DEAF[int(rng.integers(len(DEAF)))], "as if nothing were heard"


_REJECTED: dict[str, Callable[[Asked, np.random.Generator], tuple[str, str]]] = {
    "ambiguous": _ambiguous,
    "wrong": _wrong,
    "swapped": _swapped,
    "muted": _muted,
}


# -- a set ---------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Tally:
    """What became of the turns of a set."""

    turns: int = 0
    made: Counter[str] = field(default_factory=Counter)
    """Pairs by tag."""
    none: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Turns without a pair, by the wanted tag and the reason."""

    def lines(self) -> Iterator[str]:
        """The counts for a person."""
        yield f"{sum(self.made.values())} pairs of {self.turns} turns"
        tags = {*self.made, *(tag for tag, _ in self.none)}
        for tag in sorted(tags):
            reasons = {why: n for (of, why), n in self.none.items() if of == tag}
            yield f"  {tag}: {self.made[tag]} of {self.made[tag] + sum(reasons.values())} wanted"
            for why, n in sorted(reasons.items(), key=lambda item: -item[1]):
                yield f"    {n} without: {why}"


def make_pairs(
    records: Iterable[Record],
    answers: Answers,
    shares: Mapping[Tag, float],
    *,
    seed: int,
    tally: Tally,
) -> Iterator[Pair]:
    """Make at most one pair of each turn, of a tag drawn by its share.

    A turn that cannot give a pair of its tag gives none, and is counted in `tally`: another
    tag instead would change the shares that were asked for.

    Raises:
        PreferenceError: not one turn gave a pair.
    """
    tags = sorted(shares)
    weights = np.array([shares[tag] for tag in tags])
    for record in records:
        draw = np.random.default_rng([seed, zlib.crc32(record.id.encode())])
        for number in range(len(record.turns)):
            tag = tags[int(draw.choice(len(tags), p=weights / weights.sum()))]
            tally.turns += 1
            try:
                pair = Asked(record=record, number=number, answers=answers).pair(tag, seed)
            except NoPair as reason:
                tally.none[tag, str(reason)] += 1
                continue
            tally.made[tag] += 1
            yield pair
    if not tally.made:
        raise PreferenceError("no pair could be made: " + "\n".join(tally.lines()))


def parse_tags(text: str) -> dict[Tag, float]:
    """Read `ambiguous:0.4,wrong:0.6`: tags and their shares, which need not add up to one.

    Raises:
        PreferenceError: a tag is unknown, twice or without a positive share.
    """
    shares: dict[Tag, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, share = part.partition(":")
        if name not in _REJECTED:
            raise PreferenceError(
                f"--tags: {name!r} is none of {', '.join(_REJECTED)}"
                + ("; mined pairs are made by the command mine" if name == "mined" else "")
            )
        tag = cast(Tag, name)
        try:
            value = float(share or 1)
        except ValueError:
            value = 0.0
        if tag in shares or not 0 < value < float("inf"):
            raise PreferenceError(f"--tags: {part!r} should be a tag once, and a share above 0")
        shares[tag] = value
    if not shares:
        raise PreferenceError("--tags names no tag: for example ambiguous:0.5,wrong:0.5")
    return shares


def run_prefer(args: argparse.Namespace) -> int:
    """`prefer RECORDS --out PAIRS`: read the set twice, once to count and once to make pairs."""
    shares = parse_tags(args.tags)
    if args.seed < 0:
        raise PreferenceError(f"--seed {args.seed}: zero or a positive number")
    if args.out.resolve() == args.records.resolve():
        raise PreferenceError(f"--out {args.out} is the file of records itself; name another")
    answers, tally = Answers.of(read_records(args.records)), Tally()
    records = read_records(args.records)
    write_pairs(args.out, make_pairs(records, answers, shares, seed=args.seed, tally=tally))
    print("\n".join(tally.lines()))
    print(f"Written to {args.out}")
    return 0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `prefer` and `mine`."""
    from instruct_data import mine

    prefer = commands.add_parser("prefer", help="make preference pairs of records")
    prefer.add_argument("records", type=Path, metavar="RECORDS.jsonl")
    prefer.add_argument("--out", type=Path, required=True, metavar="PAIRS.jsonl")
    prefer.add_argument(
        "--tags",
        default="ambiguous:0.4,wrong:0.4,swapped:0.2",
        help=f"kinds of rejected answers ({', '.join(_REJECTED)}) with their shares (%(default)s)",
    )
    prefer.add_argument("--seed", type=int, default=0, help="same seed, same pairs (0)")
    prefer.set_defaults(run=run_prefer)
    mine.add_commands(commands)
