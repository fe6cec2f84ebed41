"""A Bandstand set on disk: truth, annotations, and the clips as mp4 files or as arrays.

OUT/truth.json             every scene, exactly
OUT/avqa.json              annotations in MUSIC-AVQA v1's schema (templates with slots)
OUT/avqa-reworded.json     the same questions filled in and reworded, as MUSIC-AVQA-R has them
OUT/instruct.jsonl         a line a clip: event record, questions, steps, answers, evidence
OUT/videos/ID.mp4          H.264 + AAC                       (--media mp4)
OUT/arrays-00000.safetensors  frames and sound for training  (--media arrays)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.errors import AVQAError
from instruct_data.bandstand.annotate import annotate, instruct_row, v1_row
from instruct_data.bandstand.scene import BANKS, Scene, sample_scene

SHARD = 100
"""Clips in an array file."""


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """One Bandstand set. The same values give the same files, byte for byte."""

    clips: int
    seed: int
    split: str = "train"
    seconds: float = 10.0
    hard: float = 0.0
    """Share of crowded, noisy scenes, evenly spread; see `sample_scene`."""
    bias: float = 0.0
    held_out: bool = False
    """Word the questions with the paraphrases that training never sees."""
    of_records: bool = False
    """Questions for those who read the records, see `annotate`; such a set has no media."""
    media: str = "none"
    """`none`, `mp4` or `arrays`."""
    height: int = 216
    fps: float = 20.0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise AVQAError(f"--clips {self.clips}: a set needs at least one clip")
        if self.seed < 0:
            raise AVQAError(f"--seed {self.seed}: zero or a positive number")
        if self.split not in BANKS:
            raise AVQAError(f"--split {self.split}: choose one of {', '.join(BANKS)}")
        if not 6 <= self.seconds <= 600:
            raise AVQAError(f"--seconds {self.seconds:g}: a clip lasts 6 to 600 seconds")
        if not 0 <= self.hard <= 1:
            raise AVQAError(f"--hard {self.hard:g}: the share of hard clips, from 0 to 1")
        if not 0 <= self.bias <= 1:
            raise AVQAError(f"--bias {self.bias:g}: from 0 (balanced) to 1 (as MUSIC-AVQA v1)")
        if self.height % 2 or not 36 <= self.height <= 2160:
            raise AVQAError(f"--height {self.height}: an even number of pixels from 36 to 2160")
        if not 1 <= self.fps <= 120:
            raise AVQAError(f"--fps {self.fps:g}: 1 to 120 frames a second")
        if self.of_records and self.media != "none":
            raise AVQAError(
                f"--of-records with --media {self.media}: these questions are for text alone; some"
                " ask what nobody could hear. Leave one of the two out"
            )
        if self.workers < 1:
            raise AVQAError(f"--workers {self.workers}: at least one process")

    def scene(self, index: int) -> Scene:
        """Clip number `index`."""
        hard = int((index + 1) * self.hard) > int(index * self.hard)
        return sample_scene(self.seed, index, split=self.split, seconds=self.seconds, hard=hard)


def write_set(out: Path, config: SetConfig) -> dict[str, int]:
    """Write a whole set; returns counts. Files are written aside and renamed.

    Media that are there already stay, so that a set that was stopped goes on, or grows.
    Raises AVQAError where the folder holds other scenes.
    """
    scenes = [config.scene(i) for i in range(config.clips)]
    _refuse_other_scenes(out, scenes)
    out.mkdir(parents=True, exist_ok=True)
    counts = _write_annotations(out, config, scenes)
    if config.media == "mp4":
        (out / "videos").mkdir(exist_ok=True)
        _in_parallel(_write_video, out, config, config.clips)
    elif config.media == "arrays":
        _in_parallel(_write_shard, out, config, -(-config.clips // SHARD))
    return counts


def _refuse_other_scenes(out: Path, scenes: list[Scene]) -> None:
    truth = out / "truth.json"
    if not truth.exists():
        return
    there = map(Scene.from_json, json.loads(truth.read_text(encoding="utf-8")))
    if any(one != other for one, other in zip(there, scenes, strict=False)):
        raise AVQAError(f"{out} holds another set: name another folder, or delete that one")


def _write_annotations(out: Path, config: SetConfig, scenes: list[Scene]) -> dict[str, int]:
    truth, plain, reworded = [], [], []
    asked = annotate(
        scenes,
        seed=config.seed,
        bias=config.bias,
        held_out=config.held_out,
        of_records=config.of_records,
    )
    with _aside(out / "instruct.jsonl") as file:
        for scene, rows in zip(scenes, asked, strict=True):
            truth.append(scene.to_json())
            plain += [v1_row(row, reworded=False) for row in rows]
            reworded += [v1_row(row, reworded=True) for row in rows]
            file.write(json.dumps(instruct_row(scene, rows)) + "\n")
    for name, rows_ in (("truth", truth), ("avqa", plain), ("avqa-reworded", reworded)):
        with _aside(out / f"{name}.json") as file:
            json.dump(rows_, file)
    return {"clips": len(scenes), "questions": len(plain)}


class _aside:
    """A text file that appears under its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_suffix(path.suffix + ".writing")

    def __enter__(self) -> Any:
        self.file = self.temporary.open("w", encoding="utf-8")
        return self.file

    def __exit__(self, kind: object, *_: object) -> None:
        self.file.close()
        if kind is None:
            os.replace(self.temporary, self.path)
        else:
            self.temporary.unlink()


def _in_parallel(write: Any, out: Path, config: SetConfig, n: int) -> None:
    """Write pieces 0..n-1 with a progress bar; pieces that are there already stay."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from tqdm import tqdm

    bar = tqdm(total=n, desc=f"writing {config.media}")
    if config.workers == 1:
        for index in range(n):
            write(out, config, index)
            bar.update()
        return
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(write, [out] * n, [config] * n, range(n)):
            bar.update()


# -- arrays --------------------------------------------------------------------------------

ARRAY_SIZE = (72, 128)
ARRAY_RATE_HZ = 16000
PAIR_GAP_S = 0.2


def pair_times(seconds: float) -> list[float]:
    """Two frames a second, `PAIR_GAP_S` apart, around the middle of each second."""
    return [t for k in range(int(seconds)) for t in (k + 0.5, k + 0.5 + PAIR_GAP_S)]


def _write_shard(out: Path, config: SetConfig, shard: int) -> None:
    """`frames_NTHWC` uint8 (pairs, see `pair_times`) and `sound_NCS` int16 at 16 kHz."""
    from safetensors.numpy import save_file

    path = out / f"arrays-{shard:05d}.safetensors"
    indices = range(shard * SHARD, min((shard + 1) * SHARD, config.clips))
    if path.exists() and _clips_in(path) == len(indices):
        return
    frames, sounds = zip(*(_arrays(config.scene(i)) for i in indices), strict=True)
    aside = path.with_suffix(".writing")
    save_file({"frames_NTHWC": np.stack(frames), "sound_NCS": np.stack(sounds)}, aside)
    os.replace(aside, path)


def _clips_in(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return int(file.get_slice("sound_NCS").get_shape()[0])


def _arrays(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    from instruct_data.bandstand.picture import render_frames
    from instruct_data.bandstand.sound import render_sound

    height, width = ARRAY_SIZE
    frames = render_frames(scene, pair_times(scene.seconds), height=height, width=width)
    if scene.look % 2:  # half of the clips carry the blocks that lossy video leaves
        frames = _lossy(frames, quality=30 + scene.look // 2 % 60)
    sound = render_sound(scene, rate_hz=ARRAY_RATE_HZ)
    return frames, (np.clip(sound, -1, 1) * 32767).astype(np.int16)


def _lossy(frames_THWC: np.ndarray, quality: int) -> np.ndarray:
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    pressed = [cv2.imencode(".jpg", frame, flags)[1] for frame in frames_THWC]
    return np.stack([np.asarray(cv2.imdecode(p, cv2.IMREAD_COLOR)) for p in pressed])


# -- mp4 -----------------------------------------------------------------------------------

SOUND_RATE_HZ = 44100


def _write_video(out: Path, config: SetConfig, index: int) -> None:
    scene = config.scene(index)
    path = out / "videos" / f"{scene.video_id}.mp4"
    if not path.exists():
        write_video(scene, path, height=config.height, fps=config.fps)


def write_video(scene: Scene, path: Path, *, height: int = 216, fps: float = 20.0) -> None:
    """Render a scene to an mp4 file (H.264 yuv420p and AAC stereo), 16:9.

    One encoder thread and no dates, so that the same scene gives the same bytes.
    """
    import av

    from instruct_data.bandstand.picture import render_frames
    from instruct_data.bandstand.sound import render_sound

    width = round(height * 16 / 9 / 2) * 2
    times = [k / fps for k in range(int(scene.seconds * fps))]
    aside = path.with_suffix(".writing")
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(aside), "w", format="mp4", options=options) as container:
        picture = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.options = {"crf": "23", "preset": "veryfast", "threads": "1"}
        track = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
        track.bit_rate = 128_000
        for some in _chunks(times, 100):
            for frame in render_frames(scene, some, height=height, width=width):
                packets = picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
                container.mux(packets)
        container.mux(picture.encode())
        sound = render_sound(scene, rate_hz=SOUND_RATE_HZ)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", "stereo")
        frame.sample_rate, frame.pts = SOUND_RATE_HZ, 0
        container.mux(track.encode(frame))
        container.mux(track.encode())
    os.replace(aside, path)


def _chunks(values: Iterable[float], size: int) -> Iterator[list[float]]:
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some
