"""A clip as training asks about it: a part of it, mirrored, backwards, or without a modality.

Each function gives a new clip and a note that says what was done; the old clip stays as it was.

Shapes: T frames, H height, W width, C channels (of colour in frames, of sound in sound),
S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from avqa_llm.errors import MediaError
from avqa_llm.media.clip import Clip
from avqa_llm.media.sampling import PerSecond

EDGE_S = 0.5
"""Ends are often written down in whole seconds: an end that lies so little after the clip's is
taken for the clip's."""
# Which channel comes in place of each one, in the usual order FL FR FC LFE BL BR SL SR.
_EXCHANGED = {2: [1, 0], 6: [1, 0, 2, 3, 5, 4], 8: [1, 0, 2, 3, 5, 4, 7, 6]}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is done to a clip before it is asked about.

    Raises:
        MediaError: times that are negative, no numbers, or in the wrong order.
    """

    start_s: float | None = None
    end_s: float | None = None
    """The part that is meant, on the clock of the file; both absent: all of it."""
    mirrored: bool = False
    """Left and right exchanged, in the picture and between the stereo channels."""
    reversed: bool = False
    """The part played backwards, sound and picture."""
    sound: bool = True
    picture: bool = True
    """Whether the model is given it."""

    def __post_init__(self) -> None:
        for name, value in (("start", self.start_s), ("end", self.end_s)):
            if value is not None and not 0 <= value < math.inf:
                raise MediaError(f"a part with its {name} at {value} s: give 0 s or more")
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise MediaError(
                f"a part from {self.start_s or 0:g} s to {self.end_s:g} s has no length: "
                "the end comes after the start"
            )

    @property
    def is_whole(self) -> bool:
        """Whether a clip stays as it is."""
        return self == Cut()

    @property
    def is_part(self) -> bool:
        """Whether a start or an end is given."""
        return self.start_s is not None or self.end_s is not None


def sampling_of(cut: Cut, sampling: PerSecond) -> PerSecond:
    """Moments that lie in the part of a file as they would in a file of its own.

    For `read_clip`: the first moment then lies `offset_s / fps` after the start of the part; in
    a part that is shorter than that, at its middle.
    """
    start, offset = cut.start_s or 0.0, sampling.offset_s
    if cut.end_s is not None:
        offset = min(offset, (cut.end_s - start) * sampling.fps / 2)
    return replace(sampling, offset_s=start * sampling.fps + offset)


def changed(clip: Clip, cut: Cut, *, pairs: bool | None = None) -> Clip:
    """The clip after a cut: the part first, then mirrored, then backwards, then what is taken away.

    Args:
        clip: read whole, best with `sampling_of(cut, ...)`.
        cut: what to do.
        pairs: whether two frames make a moment, which are kept together; None: as the times
            of the frames tell (`are_pairs`).

    Raises:
        MediaError: the part lies beyond the end of the clip.
    """
    if cut.is_part:
        clip = part(clip, cut.start_s, cut.end_s, pairs=pairs)
    if cut.mirrored:
        clip = mirrored(clip)
    if cut.reversed:
        clip = time_reversed(clip)
    if not cut.sound and clip.has_sound:
        clip = clip.muted()
    if not cut.picture and clip.has_picture:
        clip = clip.blanked()
    return clip


# -- a part ------------------------------------------------------------------------------------


def part(
    clip: Clip, start_s: float | None, end_s: float | None, *, pairs: bool | None = None
) -> Clip:
    """The clip from `start_s` to `end_s`, whose times start again at 0.

    Frames stay that are presented at or after the start and before the end. Of a pair the first
    frame decides; a second one that comes too late becomes the first again, so that nothing
    moves there. If no frame is presented in the part, the last one before it is what a player
    still shows: it stands at 0.

    Raises:
        MediaError: the part lies beyond the end of the clip, or has no length.
    """
    start, end = _edges(clip, start_s, end_s)
    picture = _part_of_picture(clip, start, end, pairs)
    sound = _part_of_sound(clip, start, end)
    notes = (*clip.notes, f"the part from {start:g} s to {end:g} s of the file")
    if clip.has_sound and not sound["sound_CS"].size:
        notes += ("the sound lies outside of the part",)
    if clip.has_picture and not len(picture["frames_THWC"]):
        notes += ("the picture lies outside of the part",)
    return replace(clip, duration_s=end - start, notes=notes, **picture, **sound)


def _edges(clip: Clip, start_s: float | None, end_s: float | None) -> tuple[float, float]:
    Cut(start_s=start_s, end_s=end_s)  # raises where these are no times
    start, end = start_s or 0.0, clip.duration_s if end_s is None else end_s
    if start >= clip.duration_s or end > clip.duration_s + EDGE_S:
        raise MediaError(
            f"{clip.path}: the part from {start:g} s to {end:g} s lies beyond the end of the "
            f"clip, {clip.duration_s:g} s: correct start or end"
        )
    return start, min(end, clip.duration_s)


def _part_of_picture(clip: Clip, start: float, end: float, pairs: bool | None) -> dict[str, Any]:
    span = _cut_span(clip.picture_span_s, start, end)
    if not clip.has_picture or span[1] <= span[0]:
        return {
            "frames_THWC": np.zeros((0, 0, 0, 3), np.uint8),
            "frame_times_s": np.zeros(0),
            "picture_span_s": (0.0, 0.0),
        }
    times = clip.frame_times_s
    kept = np.flatnonzero((times >= start) & (times < end))
    paired = are_pairs(clip) if pairs is None else pairs
    if paired and len(times) % 2 == 0:  # one frame alone, a still image, is no pair
        first = kept[kept % 2 == 0]
        second = np.where(times[first + 1] < end, first + 1, first)
        kept = np.stack([first, second], axis=1).reshape(-1)
    if not len(kept):
        kept = np.array([max(0, int(np.searchsorted(times, start, side="right")) - 1)])
    return {
        "frames_THWC": clip.frames_THWC[kept],
        "frame_times_s": np.clip(times[kept] - start, 0.0, end - start),
        "picture_span_s": span,
    }


def _part_of_sound(clip: Clip, start: float, end: float) -> dict[str, Any]:
    span = _cut_span(clip.sound_span_s, start, end)
    rate = clip.sound_rate_hz
    sound_CS = clip.sound_CS[:, round(start * rate) : round(end * rate)].copy()
    if span[1] <= span[0] or not sound_CS.size:
        return {
            "sound_CS": np.zeros((0, 0), np.float32),
            "sound_rate_hz": 0,
            "sound_span_s": (0.0, 0.0),
        }
    return {"sound_CS": sound_CS, "sound_span_s": span}


def _cut_span(span_s: tuple[float, float], start: float, end: float) -> tuple[float, float]:
    return max(span_s[0], start) - start, min(span_s[1], end) - start


def are_pairs(clip: Clip) -> bool:
    """Whether the times of the frames are those of `PerSecond(pair_gap_s=...)`.

    The two frames of a moment lie at most half as far apart as two moments do. Of two frames
    alone, they lie closer than a third of the picture's length. A number that is odd is never
    one of pairs.
    """
    times = clip.frame_times_s
    if len(times) < 2 or len(times) % 2:
        return False
    within = float((times[1::2] - times[0::2]).max())
    if len(times) == 2:
        return within < (clip.picture_span_s[1] - clip.picture_span_s[0]) / 3
    between = float((times[2::2] - times[1:-1:2]).min())
    return within < between and within <= between / 2 + 1e-6


# -- sides and time ----------------------------------------------------------------------------


def mirrored(clip: Clip) -> Clip:
    """The clip with left and right exchanged, in the frames and between the sound's channels.

    Sound in one channel, or in a number of channels whose sides are not known, stays.
    """
    sides = _EXCHANGED.get(len(clip.sound_CS))
    return replace(
        clip,
        frames_THWC=clip.frames_THWC[:, :, ::-1].copy(),
        sound_CS=clip.sound_CS if sides is None else clip.sound_CS[sides],
        notes=(*clip.notes, "left and right were exchanged"),
    )


def time_reversed(clip: Clip) -> Clip:
    """The clip played backwards: what was at `t` is at `duration - t`.

    All frames turn round as one list, so that times still ascend, and that the two frames of a
    moment stay neighbours with their distance while the later one now comes first. A picture
    encoder takes frames 2 n and 2 n + 1 for a moment and sees how the first changes to the
    second: the motion that it sees is turned round too.
    """
    end = clip.duration_s
    changes: dict[str, Any] = {}
    if clip.has_picture:
        changes["frames_THWC"] = clip.frames_THWC[::-1].copy()
        changes["frame_times_s"] = np.maximum(end - clip.frame_times_s, 0.0)[::-1].copy()
        changes["picture_span_s"] = _turned(clip.picture_span_s, end)
    if clip.has_sound:
        span = _turned(clip.sound_span_s, end)
        # Silence after the track comes first now; silence before it is no part of the track.
        after = max(0, round(end * clip.sound_rate_hz) - clip.sound_CS.shape[1])
        sound_CS = np.pad(clip.sound_CS, ((0, 0), (0, after)))[:, ::-1]
        kept = max(1, round(span[1] * clip.sound_rate_hz))
        changes["sound_CS"] = np.ascontiguousarray(sound_CS[:, :kept])
        changes["sound_span_s"] = span
    return replace(clip, notes=(*clip.notes, "played backwards"), **changes)


def _turned(span_s: tuple[float, float], end: float) -> tuple[float, float]:
    return max(0.0, end - span_s[1]), max(0.0, end - span_s[0])
