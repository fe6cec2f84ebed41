"""One process's work: files are decoded ahead while the encoders run on the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from avqa_llm.encoders import PictureConfig, PictureEncoder, SoundConfig, SoundEncoder
from avqa_llm.encoders.load import load_picture_encoder, load_sound_encoder
from avqa_llm.encoders.store import Entry, variant
from avqa_llm.encoders.store_info import StoreInfo
from avqa_llm.encoders.store_writer import StoreWriter
from avqa_llm.encoding import clip_digests
from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.featuring.files import Job
from avqa_llm.folders import sha256_of
from avqa_llm.media import Clip, PerSecond, read_clip
from avqa_llm.media.changes import Cut, changed, sampling_of

SHARD_BYTES = 2**28
POLL_S = 0.5
"""How often files are asked about that another process has in hand."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a process has to know; it may run on another machine."""

    picture: PictureConfig
    sound: SoundConfig
    out: str
    """The store."""
    dtype: str = "float16"
    shard_bytes: int = SHARD_BYTES
    threads: int | None = None
    """Of the processor, for the encoders; None: all cores."""

    def encoders(self) -> tuple[PictureEncoder, SoundEncoder]:
        """Load both encoders, on the GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        picture, sound = load_picture_encoder(self.picture), load_sound_encoder(self.sound)
        return picture.to(device), sound.to(device)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a file."""

    name: str
    encoded: int = 0
    known: int = 0
    """Cuts that were there before."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A file that is decoded, or need not be, or cannot be."""

    job: Job
    sha256: str = ""
    clips: tuple[tuple[Cut, Clip], ...] = ()
    errors: tuple[str, ...] = ()
    busy: bool = False
    """Another process has it in hand."""


class Worker:
    """Encoders and a store to write to."""

    def __init__(
        self,
        picture: PictureEncoder,
        sound: SoundEncoder,
        out: str | Path,
        *,
        dtype: str = "float16",
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Raises CheckpointError if the store holds features of other encoders."""
        self.picture, self.sound = picture, sound
        self.sampling = picture.config.sampling()
        info = StoreInfo.of(picture, sound, dtype=dtype)
        self.writer = StoreWriter(out, info, shard_bytes=shard_bytes)
        self._seen: dict[str, str] = {}
        """sha256 of files that have to wait."""

    @classmethod
    def of(cls, plan: Plan) -> Worker:
        """With encoders of its own."""
        encoders = plan.encoders()
        return cls(*encoders, plan.out, dtype=plan.dtype, shard_bytes=plan.shard_bytes)

    def run(self, jobs: Iterable[Job], report: Callable[[Outcome], object]) -> None:
        """Encode files; what was done is on disk when this ends, in whatever way."""
        try:
            waiting = self._pass(jobs, report)
            while waiting:
                self.writer.flush()  # nobody shall wait for what is waiting here
                before = len(waiting)
                waiting = self._pass(waiting, report)
                if len(waiting) == before:
                    time.sleep(POLL_S)
        finally:
            self.writer.flush()

    def _pass(self, jobs: Iterable[Job], report: Callable[[Outcome], object]) -> list[Job]:
        """Returns the files that are in other hands."""
        waiting = []
        for ready in _ahead(self._prepare, jobs):
            if ready.busy:
                waiting.append(ready.job)
                continue
            report(self._finish(ready))
            if self.writer.is_full:
                self.writer.flush()
        return waiting

    def _prepare(self, job: Job) -> Ready:
        """Read a file, unless all that is wanted of it is there or in other hands."""
        writer = self.writer
        try:
            sha256 = self._seen.pop(job.name, "") or sha256_of(job.path)
        except OSError as error:
            return Ready(job=job, errors=(f"cannot be read: {error.strerror}",))
        if not self._missing(job, sha256):
            return Ready(job=job, sha256=sha256)
        # A copy of a file that is not on disk yet has to wait like one in other hands.
        if sha256 in writer.claims or not writer.claims.take(sha256):
            self._seen[job.name] = sha256
            return Ready(job=job, busy=True)
        writer.store.refresh()  # it may have been finished just before the claim
        clips, errors = self._read(job, sha256, self._missing(job, sha256))
        return Ready(job=job, sha256=sha256, clips=clips, errors=errors)

    def _missing(self, job: Job, sha256: str) -> list[Cut]:
        """What is wanted and not there, each variant once."""
        wanted = {variant(cut): cut for cut in reversed(job.cuts)}
        return [cut for cut in wanted.values() if not self.writer.store.has(sha256, cut)]

    def _read(
        self, job: Job, sha256: str, cuts: list[Cut]
    ) -> tuple[tuple[tuple[Cut, Clip], ...], tuple[str, ...]]:
        """Decode once for all cuts that look at the same moments."""
        whole: dict[PerSecond, Clip] = {}
        clips, errors = [], []
        for cut in cuts:
            sampling = sampling_of(cut, self.sampling)
            try:
                if sampling not in whole:
                    whole[sampling] = self._decode(job.path, sampling, sha256)
                turned = _encoders_cut(cut)
                pairs = sampling.pair_gap_s is not None
                clips.append((turned, changed(whole[sampling], turned, pairs=pairs)))
            except AVQAError as error:
                errors.append(str(error).removeprefix(f"{job.path}: "))
        return tuple(clips), tuple(dict.fromkeys(errors))

    def _decode(self, path: Path, sampling: PerSecond, sha256: str) -> Clip:
        clip = read_clip(path, sampling=sampling, max_side=max(self.picture.size))
        if clip.sha256 != sha256:
            raise MediaError(f"{path}: was changed while it was read; run again")
        return clip

    def _finish(self, ready: Ready) -> Outcome:
        """Run the encoders."""
        job, sha256 = ready.job, ready.sha256
        for cut, clip in ready.clips:
            self._encode(sha256, cut, clip)
        if sha256:
            self.writer.name(job.name, job.folder, sha256)
            if not ready.clips:  # nothing that a shard has to bring to disk first
                self.writer.claims.release(sha256)
        variants = len({variant(cut) for cut in job.cuts})
        failed = bool(ready.errors)
        return Outcome(
            name=job.name,
            encoded=len(ready.clips),
            known=0 if failed else variants - len(ready.clips),
            error="; ".join(ready.errors),
        )

    def _encode(self, sha256: str, cut: Cut, clip: Clip) -> None:
        picture, sound = self.picture(clip), self.sound(clip)
        digests = clip_digests(clip)
        entry = Entry(
            key=self.writer.info.clip_key(sha256, digests, self.sampling),
            sound=digests[0],
            picture=digests[1],
            file=sha256,
            cut=variant(cut),
            seconds=clip.duration_s,
            sound_tokens=sound.n,
            picture_tokens=picture.n,
            sound_length_s=sound.length_s,
            picture_length_s=picture.length_s,
        )
        self.writer.add(entry, picture, sound)


def _encoders_cut(cut: Cut) -> Cut:
    """The cut with both modalities: each is encoded, and readers leave out what is not wanted."""
    return replace(cut, sound=True, picture=True)


def _ahead(prepare: Callable[[Job], Ready], jobs: Iterable[Job]) -> Iterator[Ready]:
    """Prepare each job in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        last = None
        for job in jobs:
            following = pool.submit(prepare, job)
            if last is not None:
                yield last.result()
            last = following
        if last is not None:
            yield last.result()
