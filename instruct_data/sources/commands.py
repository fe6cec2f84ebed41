"""Commands: which sources there are, a source as records, and what is odd about a question file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `sources`, `records` and `faults` to `python -m instruct_data`."""
    listed = commands.add_parser("sources", help="list the data sets that can be read")
    listed.set_defaults(run=_sources)
    made = commands.add_parser("records", help="read a data set and write it as records (JSONL)")
    made.add_argument("name", metavar="NAME", help="a source: see `sources`")
    made.add_argument("path", type=Path, metavar="PATH", help="its file, or a Bandstand folder")
    made.add_argument("--split", default="", help="train, val, test, or the source's own word")
    made.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    made.set_defaults(run=_records)
    odd = commands.add_parser("faults", help="what is odd about a question file of MUSIC-AVQA")
    odd.add_argument("path", type=Path, metavar="FILE.json")
    odd.set_defaults(run=_faults)


def _sources(args: argparse.Namespace) -> int:
    from instruct_data.sources import SOURCES

    for source in SOURCES.values():
        evaluation = "; for evaluation only" if source.evaluation_only else ""
        print(f"{source.name:<14} {source.what} (licence: {source.licence}{evaluation})")
    return 0


def _records(args: argparse.Namespace) -> int:
    from avqa_llm.errors import AnnotationError
    from instruct_data.records import write_records
    from instruct_data.sources import SOURCES

    if args.name not in SOURCES:
        raise AnnotationError(f"no source {args.name!r}: choose one of {', '.join(SOURCES)}")
    if args.out.resolve() == args.path.resolve():
        raise AnnotationError(f"--out {args.out} is the file that is read; name another one")
    count = write_records(args.out, SOURCES[args.name].read(args.path, args.split))
    print(f"{count} records in {args.out}")
    return 0


def _faults(args: argparse.Namespace) -> int:
    from instruct_data.sources.music_avqa import read_annotations
    from instruct_data.sources.music_avqa_files import faults, version

    annotations = read_annotations(args.path)
    named = version(annotations) or "no version that is known"
    print(f"{args.path}: {len(annotations.rows)} questions, sha256 {annotations.sha256}, {named}")
    found = faults(annotations)
    for line in found:
        print(line)
    print(f"{len(found)} oddities" if found else "nothing odd")
    return 0
