"""How much of a media file is read at most, and for how long."""

from __future__ import annotations

import time
from dataclasses import dataclass

from avqa_llm.errors import MediaError

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Upper limits of one read; passing one is a :class:`MediaError` that names it."""

    max_bytes: int = 2 * GIB
    """Size of the file."""
    max_seconds: float = 600.0
    """Length of the clip."""
    max_pixels: int = 7680 * 4320
    """Width x height of the coded picture, before any scaling."""
    max_frames: int = 4096
    """Frames that are kept (not: frames that are decoded)."""
    max_picture_bytes: int = 4 * GIB
    """Memory of the kept frames, after scaling."""
    max_sound_bytes: int = 2 * GIB
    """Memory of the decoded sound, all channels at its native rate: silence packs so well that a
    small file can hold more than any machine does."""
    timeout_s: float = 120.0
    """Wall clock of the whole read."""


class Deadline:
    """The wall clock of one read, asked between packets, frames and blocks of bytes."""

    def __init__(self, limits: MediaLimits, path: str) -> None:
        self._limit_s = limits.timeout_s
        self._path = path
        self._end = time.monotonic() + limits.timeout_s

    def remaining_s(self) -> float:
        """Seconds that are left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise :class:`MediaError` once the time is spent."""
        if time.monotonic() > self._end:
            raise self.error()

    def error(self) -> MediaError:
        """Say that the time is spent, and what to do."""
        return MediaError(
            f"{self._path}: reading took longer than {self._limit_s:g} s (limit timeout_s); "
            "cut the file, ask for fewer frames, or raise MediaLimits(timeout_s=...)"
        )
