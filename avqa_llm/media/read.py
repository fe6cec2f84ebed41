"""``read_clip``: a media file becomes a Clip.

Two passes. The first sees every packet and decodes the sound; it knows the true time of
every picture. Sampling then picks pictures, and the second pass decodes up to the last of
them, in order. Shapes: T frames, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.errors import MediaError
from avqa_llm.media import decord_reader, notes
from avqa_llm.media.clip import Clip
from avqa_llm.media.container import check_file, open_media
from avqa_llm.media.limits import Deadline, MediaLimits
from avqa_llm.media.pictures import (
    Room,
    Tally,
    collect,
    decoded_pictures,
    picture_changes,
    scaled_size,
)
from avqa_llm.media.sampling import (
    EPSILON_S,
    Keyframes,
    MotionAdaptive,
    PerSecond,
    Sampling,
    keep_pairs,
    motion_indices,
    nearest,
    shown_at,
    wanted_times,
)
from avqa_llm.media.scan import PictureTable, check_length, make_table, one_frame_s, scan

READERS = ("pyav", "decord")


def read_clip(
    path: str | Path,
    *,
    sampling: Sampling = PerSecond(),
    max_side: int | None = None,
    limits: MediaLimits = MediaLimits(),
    reader: str = "pyav",
) -> Clip:
    """Read frames and sound of a local file.

    ``max_side`` scales frames down while they are decoded, so that their longest side fits.
    ``reader`` is "pyav" or "decord"; the sound always comes from PyAV. Raises
    :class:`MediaError` for whatever is wrong with the file or passes ``limits``.
    """
    import av

    if reader not in READERS:
        raise MediaError(f"reader {reader!r} is unknown; use one of {', '.join(READERS)}")
    if max_side is not None and max_side < 1:
        raise MediaError(f"max_side is {max_side}; it must be at least 1 pixel")
    name = check_file(path, limits)
    job = _Job(name, sampling, max_side, limits, reader, Deadline(limits, name))
    try:
        return _read(job)
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise MediaError(f"{name}: cannot be decoded ({error})") from error


@dataclass(frozen=True)
class _Job:
    """One call of ``read_clip``."""

    path: str
    sampling: Sampling
    max_side: int | None
    limits: MediaLimits
    reader: str
    deadline: Deadline

    @property
    def room(self) -> Room:
        return Room(self.path, self.max_side, self.limits.max_picture_bytes)

    @contextmanager
    def pictures(
        self, tally: Tally, only: set[float] | None = None
    ) -> Iterator[Iterator[tuple[float, Any]]]:
        """Open the file anew: going back in a damaged file is less certain than that."""
        with open_media(self.path, self.limits, self.deadline) as media:
            yield decoded_pictures(media, self.limits, self.deadline, tally, only)


@dataclass
class _Picture:
    """Frames and times, and what there is to say about them."""

    frames_THWC: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    times_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tally: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)


def _read(job: _Job) -> Clip:
    sha256 = _sha256(job)
    with open_media(job.path, job.limits, job.deadline) as media:
        check_length(job.path, notes.promised_s(media) or 0.0, job.limits)
        found = scan(media, job.limits, job.deadline)
        table = found.table
        if found.picture_packets and not len(table.times_s):
            table = _table_by_decoding(job, one_frame_s(media))
        sound_CS = found.sound.sound_CS()
        sound_span = found.sound.span_s if sound_CS.size else (0.0, 0.0)
        end_s = max(table.end_s, sound_span[1])
        picture = _read_picture(job, table, end_s, media.is_still)
        span = _decoded_span(table, picture)
        if not len(picture.times_s) and not sound_CS.size:
            raise MediaError(
                f"{job.path}: neither picture nor sound could be decoded; the file is damaged, "
                "or it is no media file"
            )
        said = [*notes.describe_streams(media), *notes.describe_sound(media, found, sound_CS)]
        if len(picture.times_s) and sound_CS.size:
            said += notes.describe_spans(span, sound_span)
        elif media.picture is not None and not len(picture.times_s):
            said.append("the picture could not be decoded")
        said += notes.describe_damage(media, found, picture.tally, span)
        said += notes.describe_cut(media, max(span[1], sound_span[1]))
    return Clip(
        path=job.path,
        sha256=sha256,
        duration_s=max(span[1], sound_span[1]),
        frames_THWC=picture.frames_THWC,
        frame_times_s=picture.times_s,
        sound_CS=sound_CS,
        sound_rate_hz=found.sound.rate_hz if sound_CS.size else 0,
        sound_span_s=sound_span,
        picture_span_s=span,
        notes=(*said, *picture.notes),
    )


def _sha256(job: _Job) -> str:
    digest = hashlib.sha256()
    with open(job.path, "rb") as file:
        while block := file.read(1 << 20):
            job.deadline.check()
            digest.update(block)
    return digest.hexdigest()


def _table_by_decoding(job: _Job, usual_s: float) -> PictureTable:
    """For containers without presentation times (AVI, raw streams): the decoder knows them."""
    with job.pictures(Tally()) as pictures:
        times = []
        for time_s, _ in pictures:
            check_length(job.path, time_s, job.limits)
            times.append(time_s)
    # No keyframes: a packet without a time cannot be matched with its frame.
    return make_table(times, [0.0] * len(times), [False] * len(times), usual_s)


def _decoded_span(table: PictureTable, picture: _Picture) -> tuple[float, float]:
    if not len(picture.times_s):
        return (0.0, 0.0)
    start, end = table.span_s
    if picture.tally.reached_end and picture.tally.bad_packets:
        end = min(end, picture.tally.last_s + table.frame_s)
    return (max(0.0, start), max(0.0, end))


def _read_picture(job: _Job, table: PictureTable, end_s: float, is_still: bool) -> _Picture:
    picture = _Picture()
    if not len(table.times_s):
        return picture
    targets, is_keys_only = _targets(job, table, end_s, is_still, picture)
    unique, place = np.unique(targets, return_inverse=True)
    if job.reader == "decord" and not is_still:
        frames, times = _by_decord(job, table, unique, picture)
    else:
        frames, times = _by_pyav(job, table, unique, is_keys_only, picture)
    place = np.where(place < len(times), place, -1)
    if isinstance(job.sampling, PerSecond) and job.sampling.pair_gap_s is not None:
        place = keep_pairs(place, len(times) - 1)
    _note_dropped(int((place < 0).sum()), picture)
    place = place[place >= 0]
    if np.array_equal(place, np.arange(len(times))):  # the usual case needs no second copy
        picture.frames_THWC, picture.times_s = frames, times
    else:
        picture.frames_THWC, picture.times_s = frames[place], times[place]
    return picture


def _targets(
    job: _Job, table: PictureTable, end_s: float, is_still: bool, picture: _Picture
) -> tuple[np.ndarray, bool]:
    """Return the times (T,) of the wanted frames and whether all are keyframes."""
    sampling = job.sampling
    if isinstance(sampling, MotionAdaptive):
        _check_count(job, sampling.frames)
        return (table.times_s if is_still else _moving(job, table, sampling.frames)), False
    wanted = wanted_times(sampling, table.span_s, end_s)
    is_paired = isinstance(sampling, PerSecond) and sampling.pair_gap_s is not None
    if is_still:
        wanted = np.zeros(2 if is_paired else 1)
    _check_count(job, len(wanted))
    if isinstance(sampling, Keyframes):
        keys = table.times_s[table.is_key]
        within = wanted[wanted <= table.end_s + EPSILON_S]
        if len(keys) and len(within):
            chosen = keys[nearest(keys, within)]
            if np.all(np.abs(chosen - within) <= sampling.tolerance_s + EPSILON_S):
                _note_dropped(len(wanted) - len(within), picture)
                return chosen, True
        picture.notes.append(
            f"keyframes are further than {sampling.tolerance_s:g} s from a wanted time: "
            "every frame was decoded"
        )
    index = shown_at(table.times_s, table.end_s, wanted)
    if is_paired:
        index = keep_pairs(index, len(table.times_s) - 1)
    _note_dropped(int((index < 0).sum()), picture)
    return table.times_s[index[index >= 0]], False


def _moving(job: _Job, table: PictureTable, frames: int) -> np.ndarray:
    with job.pictures(Tally()) as pictures:
        times, changes = picture_changes(pictures)
    if not len(times):
        return times
    shown_s = np.diff(times, append=max(table.end_s, times[-1]))
    return times[motion_indices(changes, shown_s, frames)]


def _check_count(job: _Job, frames: int) -> None:
    if frames > job.limits.max_frames:
        raise MediaError(
            f"{job.path}: {frames} frames are wanted, the limit is {job.limits.max_frames}; "
            "sample fewer, or raise MediaLimits(max_frames=...)"
        )


def _note_dropped(count: int, picture: _Picture) -> None:
    if count:
        picture.notes.append(f"{count} wanted times lie after the last frame and were left out")


def _by_pyav(
    job: _Job, table: PictureTable, unique: np.ndarray, is_keys_only: bool, picture: _Picture
) -> tuple[np.ndarray, np.ndarray]:
    if is_keys_only:
        only = set(unique.tolist())
        tally = Tally()
        with job.pictures(tally, only) as pictures:
            wanted = ((time_s, frame) for time_s, frame in pictures if time_s in only)
            frames, times = collect(wanted, unique, 0.0, job.room, tally)
        if np.array_equal(times, unique):
            picture.tally = replace(tally, reached_end=False)
            return frames, times
        picture.notes.append("a keyframe could not be decoded: every frame was decoded")
    with job.pictures(picture.tally) as pictures:
        return collect(pictures, unique, table.frame_s, job.room, picture.tally)


def _by_decord(
    job: _Job, table: PictureTable, unique: np.ndarray, picture: _Picture
) -> tuple[np.ndarray, np.ndarray]:
    with job.pictures(Tally()) as pictures:
        first = next((frame for _, frame in pictures), None)
    if first is None or first.rotation:
        # decord2 3.4 turns such pictures into four scrambled channels.
        picture.notes.append("decord cannot read this picture (rotated or damaged): PyAV was used")
        return _by_pyav(job, table, unique, False, picture)
    size = scaled_size(first.width, first.height, job.max_side)
    job.room.check(len(unique), *size)
    start = table.times_s[0]
    frames, offsets = decord_reader.read_frames(job.path, unique - start, size, job.deadline)
    return frames, offsets + start
