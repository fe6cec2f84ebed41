"""Instruction rows of which a share hedges: `python -m instruct_data hedged PAIRS --out ROWS`.

What models wrote as instruction data often commits itself to nothing. With such rows, made on
purpose and counted, it can be studied what they teach a model, and what preference tuning mends.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avqa_llm.errors import AnnotationError
from instruct_data.pairs import Pair, read_pairs
from instruct_data.records import write_lines


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `hedged`."""
    parser = commands.add_parser("hedged", help="rows of which a share of the answers hedges")
    parser.add_argument("pairs", type=Path, metavar="PAIRS.jsonl", help="of `prefer`")
    parser.add_argument("--out", type=Path, required=True, metavar="ROWS.jsonl")
    parser.add_argument("--share", type=float, default=0.4, help="of hedging answers (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rows (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out `hedged`."""
    if not 0 <= args.share <= 1:
        raise AnnotationError(f"--share {args.share:g}: from 0 to 1")
    pairs = [pair for pair in read_pairs(args.pairs) if pair.tag == "ambiguous"]
    if not pairs:
        raise AnnotationError(
            f"{args.pairs} has no pairs whose rejected answer hedges: make them with"
            " `python -m instruct_data prefer RECORDS --tags ambiguous:1 --out PAIRS`"
        )
    rows = list(hedged_rows(pairs, share=args.share, seed=args.seed))
    write_lines(args.out, (json.dumps(row).encode() + b"\n" for row, _ in rows))
    count = sum(hedges for _, hedges in rows)
    print(f"{len(rows)} rows, {count} of them hedge; written to {args.out}")
    return 0


def hedged_rows(
    pairs: list[Pair], *, share: float, seed: int
) -> Iterator[tuple[dict[str, str], bool]]:
    """A row of each pair, with its clear or its hedging answer, and which of them it is."""
    for pair in pairs:
        name = zlib.crc32(f"{pair.record}/{pair.turn}".encode())
        hedges = bool(np.random.default_rng([seed, name]).random() < share)
        answer = pair.rejected if hedges else pair.chosen
        yield {"video": pair.clip.video, "question": pair.question, "answer": answer}, hedges
