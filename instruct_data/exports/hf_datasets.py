"""A folder in the layout of Hugging Face `datasets`: `load_dataset(FOLDER)` reads it.

    FOLDER/README.md                          dataset card: YAML front matter, what is inside
    FOLDER/data/train-00000-of-00002.jsonl    rows, a file of each 50,000 of a split

Rows are records (or pairs) as they are, every field written out, so nothing is lost; `media` is
added with the path of the clip's file where a folder of media is named. After the documentation
of `datasets` 4 ("Structure your repository", "Create a dataset card"): `configs` in the front
matter name the files of each split, `dataset_info` the features, without which a column that is
null in the first rows would get the wrong type. Nothing of `datasets` is needed to write or read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import IO, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from avqa_llm.errors import AnnotationError
from instruct_data.exports.media import media_path
from instruct_data.exports.rows import ExportError, Row
from instruct_data.pairs import PAIR, Pair
from instruct_data.records import RECORD, Record

SHARD = 50_000
"""Rows in a file."""

# Licences as the hub spells them (hub documentation, "Licenses"); others are `other`.
_HUB_LICENCES = frozenset(
    "apache-2.0 mit gpl-3.0 cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 "
    "cc-by-nc-nd-4.0 cc-by-nd-4.0 cc-by-3.0 bsd-3-clause odc-by".split()
)
_DTYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}

Item = TypeVar("Item", Record, Pair)


class _Splits:
    """Files of rows by split, with numbers only until it is known how many there will be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: Counter[str] = Counter()
        self._open: dict[str, IO[bytes]] = {}

    def write(self, split: str, line: bytes) -> None:
        if self.rows[split] % SHARD == 0:
            self.close(split)
            path = self.folder / _part(split, self.rows[split] // SHARD)
            self._open[split] = path.open("wb")
        self._open[split].write(line)
        self.rows[split] += 1

    def close(self, split: str) -> None:
        if split in self._open:
            self._open.pop(split).close()

    def finish(self) -> None:
        """Give the files their names: each says how many there are."""
        for split, rows in self.rows.items():
            self.close(split)
            count = -(-rows // SHARD)
            for number in range(count):
                name = f"{split}-{number:05d}-of-{count:05d}.jsonl"
                os.replace(self.folder / _part(split, number), self.folder / name)


def _part(split: str, number: int) -> str:
    return f"{split}-{number:05d}.part"


def write_folder(folder: Path, items: Iterable[Record | Pair], media: Path | None) -> int:
    """Write a folder, aside first; returns how many rows.

    Raises:
        ExportError: the folder is there and not empty, or there is nothing to write.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already; name another --out, or remove it")
    aside = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "data").mkdir(parents=True)
    splits, licences = _Splits(aside / "data"), Counter[tuple[str, str]]()
    kind: type[Record] | type[Pair] = Record
    try:
        for item in items:
            kind = type(item)
            splits.write(_split(item.split), _line(item, media))
            licences[item.source, item.licence] += 1
        if not splits.rows:
            raise ExportError("there is nothing to write: no record is left")
        splits.finish()
        card = _card(folder.name, kind, splits.rows, licences, with_media=media is not None)
        (aside / "README.md").write_text(card, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(aside, folder)
    finally:
        for split in list(splits.rows):
            splits.close(split)
        shutil.rmtree(aside, ignore_errors=True)
    return sum(splits.rows.values())


def read_folder(folder: Path, kind: type[Item]) -> Iterator[Item]:
    """Read such a folder of records or of pairs again, split by split.

    Raises:
        AnnotationError: there are no data files, or a line is not of that kind.
    """
    files = sorted((folder / "data").glob("*.jsonl"))
    if not files:
        raise AnnotationError(f"{folder} has no data/*.jsonl")
    adapter: Any = RECORD if kind is Record else PAIR
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    row.pop("media", None)
                    yield adapter.validate_json(json.dumps(row))
                except (ValueError, AttributeError) as error:
                    raise AnnotationError(f"{path}, line {number}: {error}") from error


def _split(name: str) -> str:
    """A split as `datasets` takes it: letters, digits, `_` and dots inside."""
    return re.sub(r"\W+", "_", name).strip("_") or "train"


def _line(item: Record | Pair, media: Path | None) -> bytes:
    adapter: Any = RECORD if isinstance(item, Record) else PAIR
    row: Row = adapter.dump_python(item, mode="json")
    if media is not None:
        row["media"] = media_path(item.clip, media)
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


# -- the dataset card ----------------------------------------------------------------------------


def _card(
    name: str,
    kind: type[Record] | type[Pair],
    rows: Counter[str],
    licences: Counter[tuple[str, str]],
    *,
    with_media: bool,
) -> str:
    import yaml

    columns = features(kind)
    if with_media:
        columns.append({"name": "media", "dtype": "string"})
    files = [{"split": split, "path": f"data/{split}-*"} for split in sorted(rows)]
    front = {
        "license": _licence({licence for _, licence in licences}),
        "language": ["en"],
        "task_categories": ["visual-question-answering", "video-text-to-text"],
        "tags": ["audio-visual-question-answering", "video", "audio"],
        "size_categories": [_size(sum(rows.values()))],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": columns},
    }
    what = "preference pairs" if kind is Pair else "records: conversations about video clips"
    lines = [f"# {name}", "", f"Audio-visual {what}. The media themselves are not included.", ""]
    lines += ["| split | rows |", "|---|---|"]
    lines += [f"| {split} | {count:,} |" for split, count in sorted(rows.items())]
    lines += ["", "| source | licence as stated there | rows |", "|---|---|---|"]
    lines += [f"| {src} | {licence} | {n:,} |" for (src, licence), n in sorted(licences.items())]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n".join(lines) + "\n"


def _licence(stated: set[str]) -> str:
    """One licence, if all rows have the same and the hub knows it."""
    if stated == {"unstated"}:
        return "unknown"
    spelled = {re.sub(r"\s+", "-", licence.strip().lower()) for licence in stated}
    return spelled.pop() if len(spelled) == 1 and spelled <= _HUB_LICENCES else "other"


def _size(rows: int) -> str:
    """The hub's category of a size."""
    if rows < 1000:
        return "n<1K"
    lower = len(str(rows)) - 1
    names = ["", "K", "M", "B"]
    bounds = [f"{10 ** (n % 3)}{names[n // 3]}" for n in (lower, lower + 1)]
    return f"{bounds[0]}<n<{bounds[1]}"


def features(kind: type) -> list[Row]:
    """The columns of a record or a pair as `dataset_info` names them."""
    return [_feature(name, hint) for name, hint in get_type_hints(kind).items()]


def _feature(name: str, hint: Any) -> Row:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"name": name, "dtype": "string"}
    if origin in (Union, UnionType):
        (hint,) = (each for each in inside if each is not type(None))
        return _feature(name, hint)
    if origin is tuple:
        if inside[0] in _DTYPES:
            return {"name": name, "list": _DTYPES[inside[0]]}
        return {"name": name, "list": features(inside[0])}
    if hint in _DTYPES:
        return {"name": name, "dtype": _DTYPES[hint]}
    return {"name": name, "struct": features(hint)}
