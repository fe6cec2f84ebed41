"""Which benchmarks there are, what of them is on disk, and how the rest is got."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avqa_llm.errors import AnnotationError
from avqa_llm.folders import sha256_of
from eval.benchmarks import BENCHMARKS
from eval.benchmarks.bandstand import READY, sets_folder
from eval.benchmarks.base import Benchmark
from eval.benchmarks.known import FILES, Known, recognise
from instruct_data.places import CATALOGUE

QUESTIONS = {
    "music-avqa": "9,129 in test, 4,568 in val, 31,927 in train",
    "music-avqa-v2": "10,819 in the balanced test, 9,119 in the biased one",
    "music-avqa-r": "211,572: 138,153 head, 73,419 tail",
    "fortisavqa": "211,572: 142,548 head, 69,024 tail",
    "avqa": "57,335 in all",
    "bandstand": "about 17 a clip",
    "bandstand-r": "about 17 a clip, in up to 25 wordings each",
    "bandstand-biased": "about 14 a clip",
    "bandstand-hard": "about 14 a clip of 60 s",
}
"""As their authors publish them, or as counted in the files."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file on disk that has an official file's bytes, or only its name."""

    path: Path
    known: Known
    exact: bool


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval benchmarks`."""
    print(listing(args.data))


def listing(data: Path | None) -> str:
    """Every benchmark with what of it is in a folder and below, and how to get the rest.

    Raises:
        AnnotationError: `data` is no folder.
    """
    if data is not None and not data.is_dir():
        raise AnnotationError(f"{data} is no folder: name the one that holds your question files")
    found = [] if data is None else list(find(data))
    blocks = ["\n".join(_block(benchmark, data, found)) for benchmark in BENCHMARKS.values()]
    if data is None:
        blocks.append("With --data DIR it also says which of these files are in DIR and below.")
    return "\n\n".join(blocks)


def find(data: Path) -> Iterator[Found]:
    """The official question files in a folder and below, whatever they are called."""
    by_name: dict[str, Known] = {}
    for known in FILES:
        by_name.setdefault(known.place.name, known)
    sizes = {known.place.size for known in FILES}
    for folder, folders, names in os.walk(data):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            # A file is read whole only where its name or its size gives hope.
            if not path.is_file() or (name not in by_name and path.stat().st_size not in sizes):
                continue
            official = recognise(path, sha256_of(path))
            if official or name in by_name:
                yield Found(path=path, known=official or by_name[name], exact=bool(official))


def _block(benchmark: Benchmark, data: Path | None, found: Sequence[Found]) -> Iterator[str]:
    yield f"{benchmark.name:<14} {benchmark.title}"
    yield _line("by", benchmark.source)
    yield _line("questions", QUESTIONS[benchmark.name])
    if not benchmark.data_sets:
        yield from _made(benchmark)
        return
    mine = [one for one in found if one.known.data_set in benchmark.data_sets]
    for one in mine:
        older = ", of the contradictory files of 2022" if "2022" in one.known.data_set else ""
        doubt = "" if one.exact else ": has the name, but other bytes than the authors' file"
        yield _line("on disk", f"{one.path}{older}{doubt}")
    if data is not None and not mine:
        yield _line("on disk", _none_of(benchmark, data))
    yield from _rest(benchmark, {one.known.place.name for one in mine if one.exact}, data)


def _none_of(benchmark: Benchmark, data: Path) -> str:
    if any(known.benchmark == benchmark.name for known in FILES):
        return f"none of its files in {data}"
    return "not known: nobody has stated the hash of its files"


def _rest(benchmark: Benchmark, there: set[str], data: Path | None) -> Iterator[str]:
    """What is missing, and the command that gets it."""
    name = benchmark.data_sets[0]
    out = (data or Path("downloads")) / name
    places = CATALOGUE[name].places
    files = [place.name for place in places if place.kind == "file"]
    missing = [one for one in files if one not in there]
    if missing:
        yield _line("missing" if data else "files", ", ".join(missing))
        yield _line("get them", f"python -m instruct_data get {name} --out {out}")
    by_hand = [place.name for place in places if place.kind == "manual"]
    if by_hand:
        command = f"python -m instruct_data get {name} --list --out {out}"
        yield _line("by hand", f"{', '.join(by_hand)}; {command} says how")


def _made(benchmark: Benchmark) -> Iterator[str]:
    made = sorted(path.parent for path in sets_folder().glob(f"{benchmark.name}-*/{READY}"))
    # `bandstand-*` names the sets of bandstand-r too.
    own = re.compile(rf"{re.escape(benchmark.name)}-\d+(-[\d.]+s)?-seed\d+")
    mine = [path for path in made if own.fullmatch(path.name)]
    for path in mine:
        yield _line("on disk", str(path))
    yield _line("get it", f"python -m eval run --benchmark {benchmark.name}: made on first use")


def _line(what: str, text: str) -> str:
    return f"    {what:<10} {text}"
