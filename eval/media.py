"""Where the clips of a benchmark lie on this disk."""

from __future__ import annotations

from pathlib import Path

from eval.samples import RunError
from instruct_data.sources.music_avqa import FLIP

SOUND_ONLY = frozenset((".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"))


def find_media(folder: Path) -> dict[str, Path]:
    """The media files of a folder and those below it, by their names without suffix.

    Of several of one name the less deep one is taken, then the one with a picture.

    Raises:
        RunError: it is no folder, or two files of one name are as good as each other and differ.
    """
    from instruct_data.verify import find_media as find

    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; --media holds VIDEO_ID.mp4 of each clip")
    return {name: _best([folder / file for file in files]) for name, files in find(folder).items()}


def _best(paths: list[Path]) -> Path:
    first, *others = sorted(paths, key=lambda path: (*_rank(path), str(path)))
    for other in others:
        if _rank(other) == _rank(first) and other.stat().st_size != first.stat().st_size:
            raise RunError(
                f"{first} and {other} have one name and differ: name the folder of the right one"
            )
    return first


def _rank(path: Path) -> tuple[int, bool]:
    return len(path.parts), path.suffix.lower() in SOUND_ONLY


def file_of(files: dict[str, Path], video_id: str) -> Path | None:
    """A clip's file; a mirrored clip of v2 may be made from the clip itself."""
    return files.get(video_id) or files.get(video_id.removesuffix(FLIP))
