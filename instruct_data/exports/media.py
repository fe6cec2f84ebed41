"""Which file a clip is, and which clips a file name alone can mean."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from instruct_data.records import Clip

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wav .mp3 .m4a .aac .flac .ogg .opus".split()
)
"""What a clip's name ends with where it is the path of a file of the user's own."""


def media_path(clip: Clip, folder: Path | None) -> str:
    """The clip's file in the folder: VIDEO.mp4, or the file that the record itself names.

    What the record names as a file is written with `./`, which tells it from the name of a clip.
    """
    video = clip.video
    if Path(video).is_absolute():
        return video
    own = "/" in video or "\\" in video or Path(video).suffix.lower() in SUFFIXES
    name = f"./{video}" if own else f"{video}.mp4"
    return name if folder is None else f"{folder.as_posix()}/{name}"


def video_of(path: str, folder: Path | None) -> str:
    """The clip's name again; a file that does not lie in the folder keeps its path."""
    start = "./" if folder is None else f"{folder.as_posix()}/./"
    if path.startswith(start):
        return path[len(start) :]
    parts = PurePosixPath(path)
    home = PurePosixPath(".") if folder is None else PurePosixPath(folder.as_posix())
    return parts.stem if parts.parent == home and parts.suffix == ".mp4" else path


def unsayable(clip: Clip) -> str | None:
    """Why a file's name does not say which clip is meant; None where it does."""
    if clip.mirrored or clip.reversed:
        return "mirrored or reversed"
    if clip.start_s is not None or clip.end_s is not None:
        return "part of a file"
    if not (clip.sound or clip.picture):
        return "neither heard nor seen"
    return None
