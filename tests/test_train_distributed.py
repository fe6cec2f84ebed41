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

from avqa_llm.errors import CheckpointError
from avqa_llm.training.checkpoints import put_back, save_checkpoint
from avqa_llm.training.connect import choose_weights
from tests.model_parts import small_model

ROOT = Path(__file__).resolve().parent.parent
STEPS = 4


def start(
    folder: Path, *arguments: str, processes: int, script: str = "tests.distributed_stage"
) -> dict[str, torch.Tensor]:
    command = [sys.executable, "-m", script, str(folder), *arguments]
    if processes > 1:
        spread = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        spread += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
        spread += ["--local-addr", "127.0.0.1"]  # a machine's own name may lead nowhere
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
    return folder, start(folder, str(STEPS), processes=1)


@pytest.mark.timeout(600)
def test_two_processes_learn_what_one_learns(
    alone: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, wanted = alone
    found = start(tmp_path, str(STEPS), processes=2)
    assert losses(tmp_path) == pytest.approx(losses(folder), abs=2e-4)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-3)


@pytest.mark.timeout(600)
def test_what_one_process_began_two_can_finish(
    alone: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, wanted = alone
    # Both steps are warm-up, in which the length of the run does not matter.
    start(tmp_path, "2", processes=1)
    found = start(tmp_path, str(STEPS), "resume", processes=2)
    assert losses(tmp_path) == pytest.approx(losses(folder), abs=2e-4)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-3)


@pytest.mark.timeout(600)
def test_weights_that_are_split_are_saved_whole_and_put_back(tmp_path: Path) -> None:
    """accelerate splits weights on GPUs only; here they are split by hand, over two processes."""
    found = start(tmp_path, processes=2, script="tests.distributed_shards")
    names = {name.removeprefix("weight.") for name in found if name.startswith("weight.")}
    assert any("lora_A" in name for name in names) and any("bridge." in name for name in names)


def test_a_stage_that_was_split_is_put_together_from_its_checkpoint(tmp_path: Path) -> None:
    model = small_model()
    choose_weights(model, bridge=True, lora=True)
    trained = torch.nn.ModuleDict({"bridge": model.bridge, "llm": model.llm})
    weights = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    stored = {f"weight.{n}": torch.full_like(p, 0.5) for n, p in weights.items()}
    save_checkpoint(tmp_path, 7, stored, {}, "{}")
    put_back(tmp_path, trained)
    assert all(bool((p == 0.5).all()) for p in weights.values())
    stored.pop(next(iter(stored)))
    save_checkpoint(tmp_path, 8, stored, {}, "{}")
    with pytest.raises(CheckpointError, match="belongs to another recipe"):
        put_back(tmp_path, trained)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        put_back(tmp_path / "none", trained)
