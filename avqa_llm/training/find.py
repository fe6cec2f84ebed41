"""The media file of each row, in one folder and nowhere else."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from avqa_llm.errors import MediaError
from avqa_llm.training.lines import short

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wav .mp3 .m4a .aac .flac .ogg .opus".split()
)
"""What a file ends with that a name without suffix may mean."""
SHOWN = 5


class AboutClip(Protocol):
    """A row that names a clip: `ClipRow`, `PairRow`."""

    @property
    def video_id(self) -> str:
        """The clip's name."""

    @property
    def media(self) -> str:
        """Its file below the folder, or its name without suffix; empty: as `video_id`."""


def find_media(rows: Sequence[AboutClip], folder: Path) -> list[Path]:
    """The media file of each row: the path that it names, else a file of that name below.

    Raises:
        MediaError: files are missing (all are counted), a path leads out of the folder, or two
            files of one name differ.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is no folder: name the one that holds the media files")
    index: dict[str, list[str]] | None = None
    found: dict[str, Path | None] = {}
    for row in rows:
        name = row.media or row.video_id
        if name in found:
            continue
        _refuse_way_out(name, folder)
        exact = folder / name
        if _is_file(exact):
            found[name] = _inside(exact, folder)
            continue
        if index is None:
            index = _index(folder)
        found[name] = _one_of([folder / path for path in _named(index, name)], name, folder)
    missing = [name for name, path in found.items() if path is None]
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise MediaError(
            f"{len(missing)} of {len(found)} media files are not in {folder} or below: {shown}"
        )
    return [path for row in rows if (path := found[row.media or row.video_id]) is not None]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is longer than any file's
        return False


def _refuse_way_out(name: str, folder: Path) -> None:
    if not name.strip() or "\0" in name:
        raise MediaError(f"{short(name)} is no name of a media file")
    if name.startswith("/") or name[1:2] == ":" or "\\" in name:
        raise MediaError(
            f"{short(name)}: name media files relative to {folder}, with '/' between folders"
        )
    if ".." in name.split("/"):
        raise MediaError(f"{short(name)} leads out of {folder}: name files in it or below")


def _inside(path: Path, folder: Path) -> Path:
    """The path, if it does not lead out of the folder by a link."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise MediaError(
            f"{path} is a link out of {folder}, to {path.resolve()}: name the folder that holds "
            "the files themselves, or copy them"
        )
    return path


def _index(folder: Path) -> dict[str, list[str]]:
    """Media files below the folder, as relative paths, by their name without suffix."""
    found: dict[str, list[str]] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in SUFFIXES:
                path = Path(place, file).relative_to(folder).as_posix()
                found.setdefault(stem, []).append(path)
    return found


def _named(index: dict[str, list[str]], name: str) -> Iterator[str]:
    """Files that a name can mean: with or without its suffix, with the folders that it names."""
    last = name.rsplit("/", 1)[-1]
    for stem in dict.fromkeys((last, os.path.splitext(last)[0])):
        for path in index.get(stem, ()):
            given = path if stem != last else os.path.splitext(path)[0]
            if f"/{given}".endswith(f"/{name}"):
                yield path


def _one_of(paths: list[Path], name: str, folder: Path) -> Path | None:
    """The one file of that name; copies of it are as good."""
    if not paths:
        return None
    first, *others = [_inside(path, folder) for path in paths]
    for other in others:
        if not filecmp.cmp(first, other, shallow=False):
            raise MediaError(
                f"{short(name)} is the name of {first} and of {other}, which differ: write the "
                "path of the right one in the row"
            )
    return first
