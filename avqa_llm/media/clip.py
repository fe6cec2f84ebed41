"""The Clip: what the rest of the package knows about a media file.

Shapes: T frames, H height, W width, C channels (of colour in frames, of sound in sound),
S samples.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from avqa_llm.media.sound import mix, resample

SILENCE_PEAK = 1e-3
"""-60 dBFS: below it a track is called silent (dither and codec noise lie under it)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Frames and sound of one file on one clock, whose 0 is the earlier start of the two.

    A file without sound, without picture, silent or cut short is still a clip: ``notes``
    says so in sentences.
    """

    path: str
    sha256: str
    """Of the bytes of the file."""
    duration_s: float
    """End of the longer stream on the clip clock; 0.0 for a still image."""
    frames_THWC: np.ndarray
    """uint8 RGB, turned upright; T = 0 without picture."""
    frame_times_s: np.ndarray
    """float64 (T,): true presentation times of the frames."""
    sound_CS: np.ndarray
    """float32 at the native rate; sample 0 is clip time 0; (0, 0) without sound."""
    sound_rate_hz: int
    """0 without sound."""
    sound_span_s: tuple[float, float]
    """Where the sound track lies; (0.0, 0.0) without."""
    picture_span_s: tuple[float, float]
    """Where the picture lies; (0.0, 0.0) without."""
    notes: tuple[str, ...] = ()

    @property
    def has_picture(self) -> bool:
        """Whether there is at least one frame."""
        return len(self.frames_THWC) > 0

    @property
    def has_sound(self) -> bool:
        """Whether there is a sound track, silent or not."""
        return self.sound_CS.size > 0

    @property
    def is_silent(self) -> bool:
        """Whether there is a sound track whose peak stays below -60 dBFS."""
        return self.has_sound and peak(self.sound_CS) < SILENCE_PEAK

    def sound_at(self, rate_hz: int, channels: int | None = None) -> np.ndarray:
        """Return the sound as float32 ``(channels, S')`` at ``rate_hz``.

        ``channels`` is 1, 2 or None (as in the file). Without sound the result is
        ``(channels or 0, 0)``.
        """
        if not self.has_sound:
            return np.zeros((channels or 0, 0), np.float32)
        sound_CS = self.sound_CS if channels is None else mix(self.sound_CS, channels)
        return resample(sound_CS, self.sound_rate_hz, rate_hz)

    def muted(self) -> Clip:
        """Return the same clip without its sound track."""
        return dataclasses.replace(
            self,
            sound_CS=np.zeros((0, 0), np.float32),
            sound_rate_hz=0,
            sound_span_s=(0.0, 0.0),
            notes=(*self.notes, "the sound was taken away on purpose"),
        )

    def blanked(self) -> Clip:
        """Return the same clip without its picture."""
        return dataclasses.replace(
            self,
            frames_THWC=np.zeros((0, 0, 0, 3), np.uint8),
            frame_times_s=np.zeros(0),
            picture_span_s=(0.0, 0.0),
            notes=(*self.notes, "the picture was taken away on purpose"),
        )


def peak(sound_CS: np.ndarray) -> float:
    """Largest absolute sample, without a copy of the sound."""
    return max(float(sound_CS.max()), -float(sound_CS.min())) if sound_CS.size else 0.0
