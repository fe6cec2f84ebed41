"""Frames through decord (package ``decord2``), in a child process that can be killed.

decord can hang while it holds the interpreter lock, for example where a container claims
more frames than it has (https://github.com/dmlc/decord/issues/373), so that no clock in the
same process could stop it. Run as ``python -m avqa_llm.media.decord_reader FOLDER``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from avqa_llm.errors import MediaError
from avqa_llm.media.limits import Deadline


def read_frames(
    path: str, offsets_s: np.ndarray, size: tuple[int, int], deadline: Deadline
) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 RGB frames (T, H, W, 3) and their times (T,) after the first frame.

    ``offsets_s`` are sorted presentation times counted from the first frame; ``size`` is the
    width and height that frames are scaled to. Raises
    :class:`MediaError` if decord is missing, fails or passes the deadline.
    """
    if importlib.util.find_spec("decord") is None:
        raise MediaError(
            "reader 'decord' is not installed; run: pip install decord2 (or use reader='pyav')"
        )
    with tempfile.TemporaryDirectory() as folder:
        job = {
            # An absolute path cannot be taken for an ffmpeg protocol such as "concat:".
            "path": os.path.abspath(path),
            "offsets_s": offsets_s.tolist(),
            "size": size,
        }
        Path(folder, "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run_child(path, folder, deadline)
        return np.load(Path(folder, "frames.npy")), np.load(Path(folder, "times.npy"))


def _run_child(path: str, folder: str, deadline: Deadline) -> None:
    root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "avqa_llm.media.decord_reader", folder],
            env={**os.environ, "PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline.remaining_s(),
        )
    except subprocess.TimeoutExpired:  # the child is killed by then
        raise deadline.error() from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MediaError(f"{path}: decord could not read it ({reason}); use reader='pyav'")


def _child(folder: str) -> None:
    import cv2
    import decord

    job = json.loads(Path(folder, "job.json").read_text(encoding="utf-8"))
    reader = decord.VideoReader(job["path"], ctx=decord.cpu(0), num_threads=0)
    starts_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(float)
    starts_s -= starts_s[0]
    middles_s = (starts_s[:-1] + starts_s[1:]) / 2
    index = np.searchsorted(middles_s, np.asarray(job["offsets_s"]))
    width, height = job["size"]
    frames = np.lib.format.open_memmap(
        Path(folder, "frames.npy"), "w+", np.uint8, (len(index), height, width, 3)
    )
    for position, number in enumerate(index):
        # One at a time: a batch of full-size frames would be held before it is scaled.
        picture = reader[int(number)].asnumpy()
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        frames[position] = picture
    frames.flush()
    np.save(Path(folder, "times.npy"), starts_s[index])


if __name__ == "__main__":
    _child(sys.argv[1])
