"""Several processes learn what one learns: real ones, started by torchrun, on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
STEPS = 4


def start(folder: Path, *arguments: str, processes: int) -> dict[str, torch.Tensor]:
    command = [sys.executable, "-m", "tests.distributed_stage", str(folder), *arguments]
    if processes > 1:
        spread = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        spread += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
        command = [sys.executable, *spread, *command[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "weights.safetensors")


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, start(folder, str(STEPS), "whole", processes=1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["whole", "sharded"])
def test_two_processes_learn_what_one_learns(
    alone: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, how: str
) -> None:
    folder, wanted = alone
    found = start(tmp_path, str(STEPS), how, processes=2)
    assert losses(tmp_path) == pytest.approx(losses(folder), abs=2e-4)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-3)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["whole", "sharded"])
def test_what_one_process_began_two_can_finish(
    alone: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, how: str
) -> None:
    folder, wanted = alone
    # Both steps are warm-up, in which the length of the run does not matter.
    start(tmp_path, "2", how, processes=1 if how == "whole" else 2)
    found = start(tmp_path, str(STEPS), how, "resume", processes=2)
    assert losses(tmp_path) == pytest.approx(losses(folder), abs=2e-4)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-3)
