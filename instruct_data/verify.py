"""What of a benchmark is on disk: the clips that its question files name, and what ails them.

A clip is looked for by its name in all sub-folders. Each file found is probed: container,
streams and one picture; `--deep` decodes it. What was found out about a file is kept beside
the report, so that a check that was stopped, or is repeated after a further download, only
looks at what is new.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from avqa_llm.errors import AnnotationError, AVQAError, MediaError
from instruct_data.places import CATALOGUE

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")
FLIP = "_flip"
"""MUSIC-AVQA v2 names a mirrored clip so."""
FAMILY = ("music-avqa", "music-avqa-v2", "music-avqa-r", "fortisavqa")
"""Readers whose clips are those of MUSIC-AVQA: documented length 60 s."""
SHORT_S = 10.0
"""A clip of MUSIC-AVQA below this was cut by accident."""
LONGEST_S = 3600.0
"""What is longer is not decoded."""
LATE_S = 1.0
"""By how much the sound may end before the picture."""
BUCKETS_S = (10.0, 30.0, 59.0, 61.0)
SHOWN = 10

FAULTS = {
    "zero bytes": "files of zero bytes",
    "unreadable": "files that cannot be read",
    "no sound": "clips without a sound track",
    "no picture": "clips without a picture",
    "sound ends early": f"clips whose sound ends more than {LATE_S:g} s before the picture",
    "short": f"clips shorter than {SHORT_S:g} s",
    "silent": "clips whose sound is silence",
    "cut": f"clips that end more than {LATE_S:g} s before their header says",
}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found out about one media file."""

    file: str
    """Below the folder."""
    size: int
    mtime_ns: int
    deep: bool
    error: str | None = None
    has_picture: bool = False
    has_sound: bool = False
    picture_s: float | None = None
    """Where the picture ends; None where it is absent or the header does not say."""
    sound_s: float | None = None
    duration_s: float | None = None
    header_s: float | None = None
    """What the header says, where the file was decoded."""
    is_silent: bool = False
    notes: tuple[str, ...] = ()

    def faults(self, shortest_s: float) -> Iterator[str]:
        """Name the keys of `FAULTS` that this file has."""
        if self.error is not None:
            yield "unreadable" if self.size else "zero bytes"
            return
        if not self.has_sound:
            yield "no sound"
        if not self.has_picture:
            yield "no picture"
        if self.picture_s is not None and self.sound_s is not None:
            if self.picture_s - self.sound_s > LATE_S:
                yield "sound ends early"
        if self.duration_s is not None and self.duration_s < shortest_s:
            yield "short"
        if self.is_silent:
            yield "silent"
        if self.header_s is not None and self.duration_s is not None:
            if self.header_s - self.duration_s > LATE_S:
                yield "cut"


@dataclass(frozen=True, kw_only=True)
class Named:
    """A question file, and the clips that it names."""

    path: Path
    sha256: str
    rows: int
    clips: tuple[str, ...]
    """Each once, in order of appearance."""


@dataclass(kw_only=True)
class Report:
    """Everything that a check found."""

    folder: Path
    source: str
    deep: bool
    named: list[Named]
    media: dict[str, list[str]]
    """Per clip name, its files below the folder."""
    checked: list[Checked] = field(default_factory=list)

    def found(self, clips: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
        """Part clips into found, there only as their mirror image, and missing."""
        parts: tuple[list[str], list[str], list[str]] = ([], [], [])
        for clip in clips:
            here = 0 if clip in self.media else 1 if mirror_name(clip) in self.media else 2
            parts[here].append(clip)
        return parts

    def faults(self) -> dict[str, list[str]]:
        """Per key of `FAULTS`, the files that have it; without the empty ones."""
        shortest_s = SHORT_S if self.source in FAMILY else 0.0
        files: dict[str, list[str]] = {key: [] for key in FAULTS}
        for checked in self.checked:
            for key in checked.faults(shortest_s):
                files[key].append(checked.file)
        return {key: found for key, found in files.items() if found}

    def is_whole(self) -> bool:
        """Whether every clip is there and nothing is wrong with any."""
        return not self.faults() and not any(self.found(each.clips)[2] for each in self.named)


# --- command --------------------------------------------------------------------------------


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `verify`."""
    verify = commands.add_parser("verify", help="which clips of a data set are on disk, and usable")
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument(
        "--annotations", type=Path, nargs="+", metavar="FILE", help="question files (DIR/*.json)"
    )
    verify.add_argument("--source", help="whose question files (by the name of DIR, or music-avqa)")
    verify.add_argument("--deep", action="store_true", help="decode every file (slow)")
    verify.add_argument(
        "--out", type=Path, metavar="REPORT.json", help="everything, with all names"
    )
    verify.set_defaults(run=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """Check a folder; status 1 where a clip is missing or a file has a fault."""
    report = verify(
        args.folder,
        annotations=args.annotations,
        source=args.source,
        deep=args.deep,
        out=args.out,
    )
    for line in describe(report):
        print(line)
    return 0 if report.is_whole() else 1


def verify(
    folder: Path,
    *,
    annotations: list[Path] | None = None,
    source: str | None = None,
    deep: bool = False,
    out: Path | None = None,
) -> Report:
    """Check the clips below a folder against question files, and write the report.

    Raises:
        AVQAError: no such folder, no question file, or one that cannot be read.
    """
    if not folder.is_dir():
        raise AVQAError(f"{folder} is no folder; give the one that holds the videos")
    if source is None:
        name = folder.resolve().name
        source = CATALOGUE[name].reader if name in CATALOGUE else "music-avqa"
    paths = annotations or _question_files(folder, out)
    report = Report(
        folder=folder,
        source=source,
        deep=deep,
        named=[read_named(path, source) for path in paths],
        media=find_media(folder),
    )
    clips = dict.fromkeys(clip for each in report.named for clip in each.clips)
    report.checked = list(_check_all(report, list(clips), out))
    if out is not None:
        _write(out, report)
    return report


def _question_files(folder: Path, out: Path | None) -> list[Path]:
    own = {out.resolve()} if out is not None else set()
    files = [
        path
        for path in sorted(folder.glob("*.json"))
        if path.resolve() not in own and not path.name.endswith(".part.json")
    ]
    if not files:
        raise AVQAError(f"{folder} holds no question file (*.json); name them with --annotations")
    return files


# --- what is named, and what is there -------------------------------------------------------


def read_named(path: Path, source: str) -> Named:
    """Read a question file and return the clips that it names.

    Raises:
        AnnotationError: the file cannot be read, or no reader has this name.
    """
    if source in FAMILY:
        from instruct_data.sources.music_avqa import read_annotations

        read = read_annotations(path)
        # A row of v2 may ask about a clip that is heard with the sound of another.
        names_of_rows = ((row.video_id, row.sound_of) for row in read.rows)
        clips = dict.fromkeys(name for pair in names_of_rows for name in pair if name)
        return Named(path=path, sha256=read.sha256, rows=len(read.rows), clips=tuple(clips))
    from instruct_data.sources import SOURCES

    if source not in SOURCES:
        raise AnnotationError(f"no reader {source!r} is known; there are {', '.join(SOURCES)}")
    rows = 0
    names: dict[str, None] = {}
    for record in SOURCES[source].read(path, ""):
        rows += len(record.turns)
        names[clip_name(record.clip.video)] = None
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return Named(path=path, sha256=digest.hexdigest(), rows=rows, clips=tuple(names))


def clip_name(video: str) -> str:
    """Return the name of a clip, without folder and media suffix."""
    path = PurePosixPath(video)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def mirror_name(clip: str) -> str:
    """Return the name under which the mirror image of a clip would lie."""
    return clip[: -len(FLIP)] if clip.endswith(FLIP) else f"{clip}{FLIP}"


def find_media(folder: Path) -> dict[str, list[str]]:
    """Return the media files below a folder by clip name; links to folders are followed once."""
    found: dict[str, list[str]] = {}
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(path.stem, []).append(path.relative_to(folder).as_posix())
    return found


# --- the files ------------------------------------------------------------------------------


def _check_all(report: Report, clips: list[str], out: Path | None) -> Iterator[Checked]:
    """Check every file of the named clips; what is known from an earlier check is not repeated."""
    from tqdm import tqdm

    there = dict.fromkeys(
        name for clip in clips for name in (clip, mirror_name(clip)) if name in report.media
    )
    files = [file for name in there for file in report.media[name]]
    journal = out.with_name(f"{out.name}.checked.jsonl") if out is not None else None
    known = _known(journal) if journal is not None else {}
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") if journal else nullcontext() as lines:
        if lines is not None and lines.tell():
            lines.write("\n")  # a kill may have left half a line
        for file in tqdm(files, desc="clips", unit="file", disable=None):
            before, path = known.get(file), report.folder / file
            if before is not None and _is_same(before, path) and before.deep >= report.deep:
                yield before
                continue
            checked = check(path, file, deep=report.deep)
            if lines is not None:
                lines.write(json.dumps(dataclasses.asdict(checked)) + "\n")
                lines.flush()
            yield checked


def _known(journal: Path) -> dict[str, Checked]:
    """Read what an earlier check wrote; a line that a kill cut in two is left out."""
    known = {}
    if journal.exists():
        for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                values = json.loads(line)
                checked = Checked(**values | {"notes": tuple(values["notes"])})
            except (ValueError, TypeError, KeyError):
                continue
            known[checked.file] = checked
    return known


def _is_same(checked: Checked, path: Path) -> bool:
    try:
        facts = path.stat()
    except OSError:
        return False
    return (checked.size, checked.mtime_ns) == (facts.st_size, facts.st_mtime_ns)


def check(path: Path, file: str, *, deep: bool) -> Checked:
    """Probe a media file, or decode it; what is wrong with it is said in the result."""
    try:
        facts = path.stat()
    except OSError as error:  # a link that leads nowhere
        return Checked(file=file, size=-1, mtime_ns=0, deep=deep, error=str(error.strerror))
    about: dict[str, Any] = {"file": file, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    if not facts.st_size:
        return Checked(**about, deep=deep, error="0 bytes")
    import av

    try:
        found = _decoded(path) if deep else _probed(path)
    except (MediaError, av.FFmpegError, ValueError, OverflowError) as error:
        return Checked(**about, deep=deep, error=str(error).removeprefix(f"{path}: "))
    return Checked(**about, deep=deep, **found)


def _probed(path: Path) -> dict[str, Any]:
    from avqa_llm.media import StreamInfo, probe

    info = probe(path)

    def end_s(stream: StreamInfo | None) -> float | None:
        if stream is None or stream.duration_s is None:
            return None
        return (stream.start_s or 0.0) + stream.duration_s

    return {
        "has_picture": info.picture is not None,
        "has_sound": info.sound is not None,
        "picture_s": end_s(info.picture),
        "sound_s": end_s(info.sound),
        "duration_s": info.duration_s,
    }


def _decoded(path: Path) -> dict[str, Any]:
    """Decode at one small picture a second: enough to meet every packet of the file."""
    from avqa_llm.media import MediaLimits, PerSecond, read_clip

    header_s = _probed(path)["duration_s"]
    limits = MediaLimits(max_seconds=LONGEST_S, timeout_s=600.0)
    clip = read_clip(path, sampling=PerSecond(), max_side=64, limits=limits)
    return {
        "has_picture": clip.has_picture,
        "has_sound": clip.has_sound,
        "picture_s": clip.picture_span_s[1] if clip.has_picture else None,
        "sound_s": clip.sound_span_s[1] if clip.has_sound else None,
        "duration_s": clip.duration_s,
        "header_s": header_s,
        "is_silent": clip.is_silent,
        "notes": clip.notes,
    }


# --- what is said ---------------------------------------------------------------------------


def describe(report: Report) -> Iterator[str]:
    """Say what was found, ten names of each kind."""
    for named in report.named:
        found, mirrored, missing = report.found(named.clips)
        yield (
            f"{named.path.name}: {named.rows:,} rows, {len(named.clips):,} clips named, "
            f"{len(found):,} found, {len(missing):,} missing"
        )
        if mirrored:
            yield f"  {len(mirrored):,} are there only as their mirror image: {_some(mirrored)}"
        if missing:
            yield f"  missing: {_some(missing)}"
    way = "decoded" if report.deep else "probed (--deep decodes them)"
    yield f"{len(report.checked):,} files {way}"
    errors = {checked.file: checked.error for checked in report.checked}
    for key, files in report.faults().items():
        shown = [f"{file} ({errors[file]})" if key == "unreadable" else file for file in files]
        yield f"{len(files):,} {FAULTS[key]}: {_some(shown)}"
    several = {clip: files for clip, files in report.media.items() if len(files) > 1}
    if several:
        yield f"{len(several):,} clips have more than one file: {_some(list(several))}"
    unknown = [c.file for c in report.checked if c.error is None and not _says_ends(c)]
    if unknown:
        yield f"{len(unknown):,} headers do not say where sound and picture end: {_some(unknown)}"
    yield from _describe_lengths(report)


def _says_ends(checked: Checked) -> bool:
    return (checked.picture_s is not None or not checked.has_picture) and (
        checked.sound_s is not None or not checked.has_sound
    )


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _describe_lengths(report: Report) -> Iterator[str]:
    lengths = sorted(c.duration_s for c in report.checked if c.duration_s is not None)
    if not lengths:
        return
    documented = " (documented: 60 s)" if report.source in FAMILY else ""
    middle = lengths[len(lengths) // 2]
    yield (
        f"length{documented}: shortest {lengths[0]:.1f} s, median {middle:.1f} s, "
        f"longest {lengths[-1]:.1f} s"
    )
    yield "  " + ", ".join(f"{name}: {count:,}" for name, count in buckets(lengths).items())


def buckets(lengths_s: list[float]) -> dict[str, int]:
    """Count lengths by `BUCKETS_S`, a lower bound belonging to its own bucket."""
    edges = ["below 10 s", "10 to 30 s", "30 to 59 s", "59 to 61 s", "61 s and more"]
    counts = Counter(sum(length >= edge for edge in BUCKETS_S) for length in lengths_s)
    return {name: counts[index] for index, name in enumerate(edges)}


def _write(out: Path, report: Report) -> None:
    """Write everything, with all names, aside first."""
    lengths = [c.duration_s for c in report.checked if c.duration_s is not None]
    content = {
        "folder": str(report.folder),
        "source": report.source,
        "deep": report.deep,
        "annotations": [
            {
                "file": str(named.path),
                "sha256": named.sha256,
                "rows": named.rows,
                "clips": len(named.clips),
                **dict(
                    zip(("found", "mirrored", "missing"), report.found(named.clips), strict=True)
                ),
            }
            for named in report.named
        ],
        "faults": report.faults(),
        "several_files": {clip: files for clip, files in report.media.items() if len(files) > 1},
        "lengths": buckets(lengths),
        "files": [dataclasses.asdict(checked) for checked in report.checked],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f"{out.name}.writing")
    aside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(aside, out)
