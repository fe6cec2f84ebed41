"""A feature store that several processes fill, of which one is killed; and Ray Data."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from avqa_llm.encoders.store import FeatureStore
from avqa_llm.encoders.store_writer import Claims
from tests.feature_files import assert_same_store, features, line, make_world
from tests.media_files import Picture, Sound, at_rate, make_media

AVQA = (sys.executable, "-m", "avqa_llm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    """As one process makes it."""
    assert features(folder / "media", folder, folder / "store") == 0
    return FeatureStore(folder / "store")


def until(holds: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait as long as a process lives."""
    while not holds():
        assert process.poll() is None, "the process ended before"
        time.sleep(0.005)


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*AVQA, *command], stdout=quiet, stderr=quiet)


def test_a_killed_run_goes_on(folder: Path, tmp_path: Path) -> None:
    media, out = tmp_path / "media", tmp_path / "s"
    media.mkdir()
    for n in range(24):
        sound = Sound(seconds=2.0, volume=0.02 * (n + 1))
        make_media(media / f"{n:02d}.mp4", Picture(times_s=at_rate(5, 2.0)), sound)
    small = ("--shard-mb", "0.01")
    process = start(line(media, folder, out, *small))
    until(lambda: any((out / "shards").glob("*.safetensors")), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    shards = {path: path.read_bytes() for path in (out / "shards").glob("*.safetensors")}
    assert 0 < len(FeatureStore(out)) < 24
    assert features(media, folder, out, *small) == 0
    assert all(path.read_bytes() == content for path, content in shards.items())
    assert features(media, folder, tmp_path / "whole") == 0
    assert_same_store(out, tmp_path / "whole")


def test_two_processes_at_once_share_the_work(
    folder: Path, store: FeatureStore, tmp_path: Path
) -> None:
    other = start(line(folder / "media", folder, tmp_path / "s"))
    until((tmp_path / "s" / "store.json").exists, other)
    assert features(folder / "media", folder, tmp_path / "s") == 0
    assert len(FeatureStore(tmp_path / "s")) == len(store), "each waits until all is there"
    assert other.wait() == 0
    assert_same_store(tmp_path / "s", store.folder)


def test_two_workers_make_the_same(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    assert features(folder / "media", folder, tmp_path / "s", "--workers", "2") == 0
    assert_same_store(tmp_path / "s", store.folder)


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from avqa_llm.encoders.store_writer import Claims\n"
        "claims = Claims(pathlib.Path(sys.argv[1])); print(claims.take('ab' * 32), flush=True)\n"
        "sys.stdin.read()"
    )
    path = tmp_path / "claims.lock"
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe)
    assert other.stdout is not None and other.stdout.readline() == b"True\n"
    mine = Claims(path)
    assert not mine.take("ab" * 32) and mine.take("cd" * 32)
    other.kill()
    other.wait()
    assert mine.take("ab" * 32)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_makes_the_same(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    more = ("--engine", "ray", "--workers", "2")
    assert features(folder / "media", folder, tmp_path / "s", *more) == 0
    assert_same_store(tmp_path / "s", store.folder)
