"""Short answers of which a share hedges: `python -m instruct_data hedged RECORDS --rows ROWS`.

What models wrote as instruction data often commits itself to nothing. With such rows, made on
purpose and counted, it can be studied what they teach a model, and what preference tuning mends.
Answers are bare labels and hedges name two (`violin or cello`), so that a small model can say them.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from avqa_llm.errors import AnnotationError
from avqa_llm.labels import LABELS
from instruct_data.known_answers import family
from instruct_data.records import Record, read_records, write_lines
from instruct_data.sentences import ANSWERS, spoken

Row = dict[str, str]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `hedged`."""
    parser = commands.add_parser("hedged", help="short answers of which a share hedges")
    parser.add_argument("records", type=Path, metavar="RECORDS.jsonl")
    parser.add_argument("--rows", type=Path, metavar="ROWS.jsonl", help="to learn from")
    parser.add_argument("--pairs", type=Path, metavar="PAIRS.jsonl", help="clear against hedging")
    parser.add_argument("--share", type=float, default=0.4, help="of hedging rows (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same answers (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out `hedged`."""
    if not 0 <= args.share <= 1:
        raise AnnotationError(f"--share {args.share:g}: from 0 to 1")
    if not (args.rows or args.pairs):
        raise AnnotationError("say what to write: --rows, --pairs, or both")
    pairs = list(hedged_pairs(read_records(args.records), seed=args.seed))
    if not pairs:
        raise AnnotationError(f"{args.records} has no answers of the closed set to hedge about")
    if args.pairs:
        print(f"{_write(args.pairs, pairs)} pairs in {args.pairs}")
    if args.rows:
        rows = list(hedged_rows(pairs, share=args.share, seed=args.seed))
        count = sum(" or " in row["answer"] for row in rows)
        print(f"{_write(args.rows, rows)} rows, {count} of them hedge, in {args.rows}")
    return 0


def hedged_pairs(records: Iterable[Record], *, seed: int, word: str = "or") -> Iterator[Row]:
    """For each labelled turn the label, and a hedge between it and another one of its kind.

    `word` stands between the two: one that a small model can write.
    """
    for record in records:
        for number, turn in enumerate(record.turns):
            others = [a for a in ANSWERS.get(family(turn), ()) if a != turn.label and a in LABELS]
            if turn.label not in LABELS or not others:
                continue
            rng = _draws(f"{record.id}/{number}", seed)
            two = [spoken(turn.label), spoken(others[int(rng.integers(len(others)))])]
            first = int(rng.integers(2))
            yield {
                "video": record.clip.video,
                "question": turn.question,
                "chosen": two[0],
                "rejected": f"{two[first]} {word} {two[1 - first]}",
            }


def hedged_rows(pairs: Iterable[Row], *, share: float, seed: int) -> Iterator[Row]:
    """A row of each pair, with its hedging answer in `share` of them."""
    for number, pair in enumerate(pairs):
        hedges = _draws(f"{pair['video']}/{number}", seed).random() < share
        answer = pair["rejected" if hedges else "chosen"]
        yield {"video": pair["video"], "question": pair["question"], "answer": answer}


def _draws(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _write(path: Path, rows: Iterable[Row]) -> int:
    return write_lines(path, (json.dumps(row).encode() + b"\n" for row in rows))
