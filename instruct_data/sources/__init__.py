"""The data sets that instruction data is made from, by name; each reader streams records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from instruct_data.records import Record
from instruct_data.sources import avinstruct, avqa, bandstand, conversations, music_avqa


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set, or a format of a user's own files."""

    name: str
    read: Callable[[Path, str], Iterator[Record]]
    """`read(path, split)`: raises AnnotationError that names file, row and field."""
    licence: str
    """Of the annotations, as their authors state it; `unstated` where they do not."""
    evaluation_only: bool
    """Whether it must never be trained on: rewordings of another set's test questions."""
    what: str
    """In a line."""


def _family(name: str, licence: str, what: str, *, evaluation_only: bool = False) -> Source:
    return Source(
        name=name,
        read=music_avqa.reader(name, licence),
        licence=licence,
        evaluation_only=evaluation_only,
        what=what,
    )


_ALL = (
    # Its three statements differ; whoever builds on it should know of all of them.
    _family(
        "music-avqa",
        "MIT (licence file); GPL-3.0 (README); CC BY-NC 4.0 (project page)",
        "questions about music clips from 33 templates",
    ),
    _family("music-avqa-v2", "GPL-3.0", "MUSIC-AVQA with more clips and balanced answers"),
    _family(
        "music-avqa-r",
        "unstated",
        "the test questions of MUSIC-AVQA in about 25 wordings each, head and tail",
        evaluation_only=True,
    ),
    _family(
        "fortisavqa",
        "GPL-3.0",
        "the questions of MUSIC-AVQA-R, otherwise split into head and tail",
        evaluation_only=True,
    ),
    Source(
        name=avqa.NAME,
        read=avqa.read,
        licence=avqa.LICENCE,
        evaluation_only=False,
        what="multiple-choice questions about VGGSound clips of everyday sounds",
    ),
    Source(
        name=avinstruct.NAME,
        read=avinstruct.read,
        licence=avinstruct.LICENCE,
        evaluation_only=False,
        what="CAT's joint audio-visual instructions about clips of MUSIC-AVQA and AVQA",
    ),
    Source(
        name=conversations.NAME,
        read=conversations.read,
        licence=conversations.UNSTATED,
        evaluation_only=False,
        what="rows as VideoInstruct or LLaVA have them, and files of your own; JSON or JSONL",
    ),
    Source(
        name=bandstand.NAME,
        read=bandstand.read,
        licence=bandstand.LICENCE,
        evaluation_only=False,
        what="a folder of drawn clips with exact truth: questions, and a description a clip",
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
"""Every source by its name."""
