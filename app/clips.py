"""The files of a conversation: which may be used, and which one a question is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.folders import sha256_of
from avqa_llm.media import MediaLimits, probe

SAMPLES = Path(__file__).resolve().parent / "samples"
MOST_CLIPS = 20
"""Of one conversation."""
NAME_CHARS = 80

_PLACES = {
    word: number
    for number, words in enumerate(
        ("first 1st", "second 2nd", "third 3rd", "fourth 4th", "fifth 5th")
    )
    for word in words.split()
} | {"last": -1, "latest": -1}
_THING = r"(?:video|clip|recording|film|file)"
_ORDINAL = re.compile(
    rf"\bthe\s+(?P<place>first|second|third|fourth|fifth|1st|2nd|3rd|4th|5th|last|latest)\s+"
    rf"{_THING}\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    rf"\b(?:the\s+)?{_THING}\s+(?:no\.?\s*|number\s+|#\s*)?"
    r"(?P<place>[1-9]\d?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Media:
    """A file of a conversation."""

    path: Path
    name: str
    """As the visitor knows it; each once in a conversation."""
    sha256: str


def admitted(given: str, known: Sequence[Media], *, uploads: Path, limits: MediaLimits) -> Media:
    """The file that a visitor named, as it is known or would be. A new one is read once.

    Only files that were uploaded here, or samples that come with the page, are taken: their
    folders carry a keyed hash of the content, so that nobody can name a file of somebody else.

    Raises:
        MediaError: it lies elsewhere, is gone, is no media file or exceeds a limit; names no path.
    """
    path = Path(given)
    name = path.name[:NAME_CHARS]
    real = path.resolve()
    if not any(real.is_relative_to(folder.resolve()) for folder in (uploads, SAMPLES)):
        raise MediaError(f"{name}: this file was not uploaded here; drop it into the conversation")
    if not real.is_file():
        raise MediaError(f"{name} is not there any more; drop it into the conversation again")
    size = real.stat().st_size
    if size > limits.max_bytes:
        raise MediaError(
            f"{name} has {size / 1e6:.0f} MB, the limit is {limits.max_bytes / 1e6:.0f} MB; cut it"
            " or pack it smaller"
        )
    for media in known:
        if media.path == real:
            return media
    if len(known) >= MOST_CLIPS:
        raise MediaError(f"a conversation has at most {MOST_CLIPS} clips; begin a new one")
    try:
        length_s, sha256 = _looked_into(real, size, real.stat().st_mtime_ns, limits)
    except OSError as error:
        raise MediaError(f"{name} could not be read; drop it in again") from error
    except MediaError as error:
        raise MediaError(str(error).replace(str(real), name)) from error
    if length_s > limits.max_seconds:
        raise MediaError(
            f"{name} lasts {length_s:.1f} s, the limit is {limits.max_seconds:g} s; cut out"
            " the part that matters"
        )
    return Media(path=real, name=_free(name, known), sha256=sha256)


@lru_cache(maxsize=1024)
def _looked_into(path: Path, size: int, changed: int, limits: MediaLimits) -> tuple[float, str]:
    """Length in seconds and SHA-256 of a file, once as long as it does not change."""
    return probe(path, limits).duration_s or 0.0, sha256_of(path)


def _free(name: str, known: Sequence[Media]) -> str:
    taken = {media.name for media in known}
    stem, suffix, number = Path(name).stem, Path(name).suffix, 2
    while name in taken:
        name = f"{stem} ({number}){suffix}"
        number += 1
    return name


def meant(question: str, known: Sequence[Media]) -> tuple[Media, str]:
    """Which clip a question is about, and the question as a model shall read it.

    A clip is meant by its place ("in the second video", "clip 2") or by its name ("in trio.mp4");
    otherwise it is the latest one. What chose it becomes "the video", since a model sees one.

    Raises:
        AVQAError: there is no clip yet, or none at that place.
    """
    if not known:
        raise AVQAError(
            "There is no clip yet: drop a video into the conversation, record one, or take one of"
            " the samples."
        )
    for media in sorted(known, key=lambda one: -len(one.name)):
        pattern = re.compile(rf"(?<![\w.-])(?:the\s+)?{re.escape(media.name)}(?!\w)", re.IGNORECASE)
        if pattern.search(question):
            return media, pattern.sub("the video", question)
    for pattern in (_ORDINAL, _NUMBER):
        if found := pattern.search(question):
            place = found["place"].lower()
            number = int(place) - 1 if place.isdecimal() else _PLACES[place]
            if number >= len(known):
                raise AVQAError(
                    f"The question is about clip {number + 1}, and this conversation has"
                    f" {len(known)}: {', '.join(media.name for media in known)}."
                )
            return known[number], pattern.sub("the video", question, count=1)
    return known[-1], question
