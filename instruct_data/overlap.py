"""Overlap of a set with test files: by video, and by question about a video.

A model that has seen a test clip is not tested by it. The official splits of MUSIC-AVQA share
videos, and some of their files share questions, so this is counted for every set that is built.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avqa_llm.errors import AVQAError
from instruct_data.exports.media import SUFFIXES
from instruct_data.mixing import Evaluation
from instruct_data.records import Record

FAMILIES = {
    "music-avqa": "music-avqa",
    "music-avqa-v2": "music-avqa",
    "music-avqa-r": "music-avqa",
    "fortisavqa": "music-avqa",
    "avinstruct": "music-avqa",
    "avqa": "music-avqa",
}
"""Sources that name the same videos in the same way; any other source is a family of its own.
AVinstruct has clips of MUSIC-AVQA and of AVQA, whose names do not collide."""

ANY_FAMILY = frozenset({"conversations"})
"""Sources of a user's own, whose videos may come from anywhere: compared with every family."""

_MEDIA = SUFFIXES | {".npy"}
_ALL = "*"


class OverlapError(AVQAError):
    """Training data that overlap with a test file; names the first record and its test row."""


def video_name(video: str) -> str:
    """A video's name without folder, media suffix and the mark of a mirrored copy (`_flip`)."""
    name = video.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if stem and f"{dot}{suffix}".lower() in _MEDIA:
        name = stem
    return name.removesuffix("_flip")


def plain_question(question: str) -> str:
    """A question without case, punctuation, underscores and extra spaces."""
    text = unicodedata.normalize("NFKC", question).casefold()
    return " ".join(re.findall(r"[^\W_]+", text))


def video_keys(record: Record) -> tuple[tuple[str, str], ...]:
    """Under which names a test file that holds the record's video has it."""
    name = video_name(record.clip.video)
    if record.source in ANY_FAMILY:
        return ((_ALL, name),)
    family = FAMILIES.get(record.source, record.source)
    return (family, name), *((own, name) for own in sorted(ANY_FAMILY))


def place(record: Record) -> str:
    """A record for a message: its id, and the file and row that it was read from."""
    return f"{record.id} ({record.provenance[0] if record.provenance else 'no provenance'})"


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A record that a test file has too."""

    file: int
    """Which of the test files."""
    video_row: str
    """The first row of the test file about the same video, as `place` names it."""
    question_row: str | None
    """The first that asks the same about it, if any."""


@dataclass(kw_only=True)
class HeldOut:
    """What a test file asks about which videos."""

    entry: Evaluation
    rows: int = 0
    videos: dict[tuple[str, str], str] = field(default_factory=dict)
    """First row of each video."""
    questions: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """First row of each question."""

    def add(self, record: Record) -> None:
        """Take in one row."""
        self.rows += 1
        where, name = place(record), video_name(record.clip.video)
        own = record.source if record.source in ANY_FAMILY else None
        family = own or FAMILIES.get(record.source, record.source)
        for key in ((family, name), (_ALL, name)):
            self.videos.setdefault(key, where)
            for turn in record.turns:
                self.questions.setdefault((*key, plain_question(turn.question)), where)

    def look_up(self, record: Record) -> tuple[str, str | None] | None:
        """The rows about the record's video and question, or None."""
        for key in video_keys(record):
            if key in self.videos:
                asked = [(*key, plain_question(turn.question)) for turn in record.turns]
                same = (self.questions[one] for one in asked if one in self.questions)
                return self.videos[key], next(same, None)
        return None


def read_held_out(entries: Sequence[Evaluation]) -> list[HeldOut]:
    """Read the test files that a recipe names, by their sources' own readers.

    Raises:
        AnnotationError: a file is missing or malformed.
    """
    from instruct_data.sources import SOURCES

    files = []
    for entry in entries:
        file = HeldOut(entry=entry)
        for record in SOURCES[entry.name].read(Path(entry.path), entry.split):
            file.add(record)
        for clip in clips_without_records(entry.name, Path(entry.path)):
            file.videos.setdefault((FAMILIES[entry.name], clip), f"a row about {clip}")
            file.videos.setdefault((_ALL, clip), f"a row about {clip}")
        files.append(file)
    return files


def clips_without_records(name: str, path: Path) -> frozenset[str]:
    """All clips of a file whose rows are not all records: v2 asks with the sound of other clips."""
    if name != "music-avqa-v2":
        return frozenset()
    from instruct_data.sources.music_avqa import clips, read_annotations

    return clips(read_annotations(path))


def find(files: Sequence[HeldOut], record: Record) -> tuple[Hit, ...]:
    """Where the record overlaps."""
    hits = ((n, file.look_up(record)) for n, file in enumerate(files))
    return tuple(
        Hit(file=n, video_row=rows[0], question_row=rows[1]) for n, rows in hits if rows is not None
    )


def refuse(files: Sequence[HeldOut], record: Record, hits: Sequence[Hit], records: int) -> None:
    """Raise OverlapError for the first of `records` overlapping records."""
    hit = next((hit for hit in hits if hit.question_row), hits[0])
    shared = "asks the same question about the same video" if hit.question_row else "has its video"
    raise OverlapError(
        f"records that overlap with test files: {records}. The first is {place(record)}, video "
        f"{record.clip.video}: {hit.question_row or hit.video_row} of {files[hit.file].entry.path} "
        f"{shared}. Set `drop: true` for this file under `evaluation` in the recipe to leave such "
        "videos out, or build with --force-overlap, which the report will say"
    )


def figures(
    files: Sequence[HeldOut], hits: Iterable[tuple[str, str, tuple[Hit, ...]]]
) -> list[dict[str, object]]:
    """Per test file how many records overlap; `hits` has each record's place, video and hits."""
    found: list[dict[str, object]] = []
    by_file: list[list[tuple[str, str, Hit]]] = [[] for _ in files]
    for where, video, of_record in hits:
        for hit in of_record:
            by_file[hit.file].append((where, video, hit))
    for file, rows in zip(files, by_file, strict=True):
        first = rows[0] if rows else None
        found.append(
            {
                "name": file.entry.name,
                "path": file.entry.path,
                "split": file.entry.split,
                "rows": file.rows,
                "records_with_its_videos": len(rows),
                "its_videos_in_the_set": len({video_name(video) for _, video, _ in rows}),
                "records_with_its_questions": sum(hit.question_row is not None for *_, hit in rows),
                "first": first
                and {"record": first[0], "row": first[2].question_row or first[2].video_row},
            }
        )
    return found
