"""Which files are encoded, and as which cuts.

Names are paths below the media folder, with `/`. Nothing outside of that folder is read: no
absolute names, no `..`, no links that lead out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from avqa_llm.errors import AnnotationError, MediaError
from avqa_llm.media.changes import Cut

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .flv .wmv .3gp .gif"
    " .wav .mp3 .m4a .aac .flac .ogg .oga .opus .aiff .wma"
    " .png .jpg .jpeg .webp .bmp".split()
)
"""What the name of a media file ends with."""
WHOLE = (Cut(),)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file and what is wanted of it."""

    name: str
    """Below the media folder."""
    folder: str
    """The media folder."""
    cuts: tuple[Cut, ...] = WHOLE

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(self.folder, *PurePosixPath(self.name).parts)

    def to_json(self) -> str:
        """For the way to another machine."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` wrote."""
        row = json.loads(text)
        return cls(**{**row, "cuts": tuple(Cut(**cut) for cut in row["cuts"])})


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is to do."""

    jobs: list[Job]
    refused: dict[str, str]
    """Names that cannot be taken, and why."""
    others: int = 0
    """Files in the folder that are no media by their suffix."""


def find(source: Path, rows: Path | None) -> Found:
    """The files of a folder or of a list; with `rows`, only what they ask for.

    Raises:
        MediaError: there is no such folder or list, or nothing in it.
        AnnotationError: a list or rows with a name or a cut that cannot be.
    """
    if rows is not None:
        if not source.is_dir():
            raise MediaError(f"{source} is no folder: --rows names files below a folder")
        found = _asked(source.resolve(), rows)
    elif source.is_dir():
        found = _all(source.resolve())
    elif source.is_file():
        found = _listed(source)
    else:
        raise MediaError(f"{source} does not exist: name a folder of media, or a list of files")
    if not found.jobs and not found.refused:
        raise MediaError(f"{rows or source} names no media file ({' '.join(sorted(SUFFIXES))})")
    return found


def below(folder: Path, wanted: Sequence[tuple[Path, Cut]]) -> Found:
    """Files of a folder, each as a cut wants it.

    The folder may be a link, or lie below one: files go by their names below it as it is given,
    and what leads out of it is judged by where it really lies.

    Raises:
        AnnotationError: a file that does not lie in the folder.
    """
    given, real = Path(os.path.abspath(folder)), folder.resolve()
    named = []
    for path, cut in wanted:
        whole = Path(os.path.abspath(path))
        name = whole.relative_to(given) if whole.is_relative_to(given) else whole
        named.append((str(folder), name.as_posix(), cut))
    return _named(real, named)


def _all(folder: Path) -> Found:
    """Every media file of a folder, sub-folders included, in order."""
    jobs, refused, others = [], {}, 0
    for top, inside, names in os.walk(folder):
        inside.sort()
        for name in sorted(names):
            path = Path(top, name)
            place = path.relative_to(folder).as_posix()
            if path.suffix.lower() not in SUFFIXES:
                others += 1
            elif why := _leads_out(path, folder):
                refused[place] = why
            else:
                jobs.append(Job(name=place, folder=str(folder)))
        for name in inside:  # os.walk goes into no links
            if (path := Path(top, name)).is_symlink() and (why := _leads_out(path, folder)):
                refused[path.relative_to(folder).as_posix()] = why
    return Found(jobs=jobs, refused=refused, others=others)


def _listed(path: Path) -> Found:
    """The files that a list names, a line each, below the list's own folder."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} is no list of files: {error}") from error
    wanted = [(f"{path}, line {n}", line.strip(), Cut()) for n, line in enumerate(lines, 1)]
    return _named(path.resolve().parent, (row for row in wanted if row[1]))


def _asked(folder: Path, rows: Path) -> Found:
    """The files and cuts that rows of instruction data ask for."""
    return _named(folder, _rows(rows))


def _rows(path: Path) -> Iterator[tuple[str, str, Cut]]:
    known = {field.name for field in fields(Cut)}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            clip: dict[str, Any] = json.loads(line)["clip"]
            cut = Cut(**{key: value for key, value in clip.items() if key in known})
            yield place, str(clip["video"]), cut
        except (ValueError, KeyError, TypeError, AttributeError, MediaError) as error:
            raise AnnotationError(
                f'{place}: {error!r}; a row has {{"clip": {{"video": NAME, ...}}}}'
            ) from error


def _named(folder: Path, wanted: Iterable[tuple[str, str, Cut]]) -> Found:
    cuts: dict[str, dict[Cut, None]] = {}
    refused: dict[str, str] = {}
    for place, name, cut in wanted:
        path = _inside(folder, name, place)
        if path is None:
            refused[name] = f"there is no such file in {folder}"
        elif why := _leads_out(path, folder):
            refused[name] = why
        else:
            cuts.setdefault(path.relative_to(folder).as_posix(), {})[cut] = None
    jobs = [Job(name=name, folder=str(folder), cuts=tuple(own)) for name, own in cuts.items()]
    return Found(jobs=jobs, refused=refused)


def _inside(folder: Path, name: str, place: str) -> Path | None:
    """The file of a name, whose suffix may be left out as in instruction data.

    Raises:
        AnnotationError: the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    out = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    if out or not parts or ".." in (*parts, *PureWindowsPath(name).parts) or "\0" in name:
        raise AnnotationError(
            f"{place}: {name!r} leads out of {folder}: name files by their path below it"
        )
    path = folder.joinpath(*parts)
    if path.is_file():
        return path
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    same = [p for p in beside if p.stem == path.name and p.suffix.lower() in SUFFIXES]
    if len(same) > 1:
        raise AnnotationError(
            f"{place}: {name!r} is one of {', '.join(other.name for other in same)}: add the suffix"
        )
    return same[0] if same else None


def _leads_out(path: Path, folder: Path) -> str:
    """Why a path may not be read; empty: it may."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a loop of links, or nothing at the end of one
        return "a link that leads nowhere"
    if not real.is_relative_to(folder):
        return f"a link that leads out of {folder}: give the folder that it points to"
    return ""
