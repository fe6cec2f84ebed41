"""Records and pairs in the formats of other trainers, and back.

What a format cannot carry is counted; clips that it would mistake for others are refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from avqa_llm.errors import AnnotationError
from instruct_data.exports import avinstruct, hf_datasets, messages
from instruct_data.exports.media import media_path, unsayable
from instruct_data.exports.rows import ExportError as ExportError
from instruct_data.exports.rows import Format, Row, Summary, losses
from instruct_data.pairs import Pair, read_pairs
from instruct_data.records import Record, aside, read_records

FORMATS: dict[str, Format] = {**avinstruct.FORMATS, **messages.FORMATS}
"""Formats of one file. The layout of `datasets`, a folder, is `hf_datasets`."""


def export(
    source: Path,
    to: str,
    out: Path,
    *,
    media: Path | None = None,
    skip_transformed: bool = False,
) -> Summary:
    """Write a file of records or of pairs in another format.

    Args:
        source: a JSONL file of records or of pairs.
        to: a key of FORMATS, or `hf`.
        out: the file to write, or the folder for `hf`.
        media: folder of VIDEO.mp4 files; without it rows hold the bare file names.
        skip_transformed: leave out clips that are mirrored, reversed, a part of a file or
            neither heard nor seen, which no format but `hf` can tell from the file itself.

    Raises:
        AnnotationError: the source is no such file.
        ExportError: the format cannot express what is in it, or cannot be written there.
    """
    if media is not None and not media.is_dir():
        raise ExportError(f"--media {media} is no folder; it holds VIDEO.mp4 files")
    summary = Summary(pairs=_holds_pairs(source))
    present = None if media is None else {path.name for path in media.iterdir()}
    format_ = FORMATS.get(to)
    folder = _folder(media, format_)
    items = _items(source, folder, present, summary)
    if format_ is None:
        summary.rows = hf_datasets.write_folder(out, items, folder)
        return summary
    if out.suffix != format_.suffix:
        raise ExportError(f"--out {out}: name a {format_.suffix} file, which {to} reads")
    if out.resolve() == source.resolve():
        raise ExportError(f"--out {out} is the file to export itself; name another")
    _write(out, _rows(items, format_, folder, summary), to, summary, skip_transformed)
    if format_.beside is not None:
        format_.beside(out, summary.pairs)
    return summary


def read_records_of(path: Path, to: str, media: Path | None = None) -> Iterator[Record]:
    """Read an exported file of records again: clip, questions and answers.

    Raises:
        AnnotationError: the file is not of that format; names the row.
    """
    for number, row in _read(path, FORMATS[to]):
        try:
            yield FORMATS[to].read_record(row, _folder(media, FORMATS[to]))
        except AnnotationError as error:
            raise AnnotationError(f"{path}, row {number}: {error}") from error


def read_pairs_of(path: Path, to: str, media: Path | None = None) -> Iterator[Pair]:
    """Read an exported file of pairs again, as `read_records_of`."""
    for number, row in _read(path, FORMATS[to]):
        try:
            yield FORMATS[to].read_pair(row, _folder(media, FORMATS[to]))
        except AnnotationError as error:
            raise AnnotationError(f"{path}, row {number}: {error}") from error


def _folder(media: Path | None, format_: Format | None) -> Path | None:
    absolute = media is not None and format_ is not None and format_.absolute
    return media.resolve() if media is not None and absolute else media


def _holds_pairs(source: Path) -> bool:
    """Whether the first line of a file is a pair rather than a record."""
    try:
        with source.open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise AnnotationError(f"cannot read {source}: {error.strerror}") from error
    try:
        row = json.loads(first)
    except ValueError as error:
        raise AnnotationError(f"{source}, line 1 is neither a record nor a pair") from error
    return isinstance(row, dict) and "chosen" in row


def _items(
    source: Path, media: Path | None, present: set[str] | None, summary: Summary
) -> Iterator[Record | Pair]:
    """What is in a source, while it is noted which of the files are missing."""
    items: Iterator[Record | Pair] = read_pairs(source) if summary.pairs else read_records(source)
    for item in items:
        path = Path(media_path(item.clip, media))
        if present is not None:
            here = path.name in present if path.parent == media else path.exists()
            if not here:
                summary.absent.add(item.clip.video)
        yield item


def _rows(
    items: Iterator[Record | Pair], format_: Format, folder: Path | None, summary: Summary
) -> Iterator[Row]:
    """Rows of what the format can say; the rest is counted."""
    for item in items:
        if why := unsayable(item.clip):
            summary.skipped[why] += 1
            continue
        summary.lost.update(losses(item))
        summary.rows += 1
        if isinstance(item, Pair):
            yield format_.pair_row(item, folder)
        else:
            yield format_.record_row(item, folder)


def _write(out: Path, rows: Iterator[Row], to: str, summary: Summary, skip: bool) -> None:
    """Write rows as lines, or as one list. Raises ExportError rather than leave rows out."""
    as_list = out.suffix == ".json"
    with aside(out) as file:
        for number, row in enumerate(rows):
            line = json.dumps(row, ensure_ascii=False).encode()
            if as_list:
                line = (b",\n" if number else b"[\n") + line
            file.write(line if as_list else line + b"\n")
        if summary.skipped and not skip:
            raise ExportError(_refusal(to, summary))
        if not summary.rows:
            raise ExportError(f"nothing is left to write to {out}: all clips were skipped")
        if as_list:
            file.write(b"\n]\n")


def _refusal(to: str, summary: Summary) -> str:
    parts = ", ".join(f"{n} {why}" for why, n in summary.skipped.most_common())
    return (
        f"{to} can only name whole files, and {summary.skipped.total()} of "
        f"{summary.rows + summary.skipped.total()} clips are not just that ({parts}): give "
        "--skip-transformed to leave them out, or --to hf, which keeps them"
    )


def _read(path: Path, format_: Format) -> Iterator[tuple[int, Row]]:
    """Rows with their numbers, from 1."""
    try:
        with path.open("rb") as file:
            rows = json.load(file) if format_.suffix == ".json" else map(json.loads, file)
            for number, row in enumerate(rows, 1):
                if not isinstance(row, dict):
                    raise AnnotationError(f"{path}, row {number} is no object")
                yield number, row
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON of this format: {error}") from error


def run(args: argparse.Namespace) -> int:
    """`export FILE --to FORMAT --out PATH`."""
    summary = export(
        args.source,
        args.to,
        args.out,
        media=args.media,
        skip_transformed=args.skip_transformed,
    )
    print("\n".join(summary.lines()))
    print(f"Written to {args.out}")
    return 0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export`."""
    parser = commands.add_parser("export", help="write records or pairs for another trainer")
    parser.add_argument("source", type=Path, metavar="FILE.jsonl", help="records or pairs")
    named = "; ".join(f"{name}: {each.what}" for name, each in FORMATS.items())
    parser.add_argument(
        "--to",
        required=True,
        choices=(*FORMATS, "hf"),
        help=f"{named}; hf: a folder that Hugging Face datasets loads",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PATH")
    parser.add_argument("--media", type=Path, metavar="DIR", help="folder with VIDEO.mp4 files")
    parser.add_argument(
        "--skip-transformed",
        action="store_true",
        help="leave out clips that a file name alone cannot mean: mirrored, reversed, cut",
    )
    parser.set_defaults(run=run)
