"""Shipped recipes carried out whole, on miniatures of the classes that they name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.test_recipes import ROOT, SAMPLES, miniature
from tests.test_recipes import parts as parts

SMALL = {
    "loop.steps": "3",
    "loop.batch": "4",
    "loop.parts": "2",
    "loop.log_every": "1",
    "loop.warmup": "1",
    "loop.validate_every": "0",
    "loop.lr": "1e-3",
}


def avqa(*arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    spread = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    spread += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    start = [sys.executable, *(spread if processes > 1 else []), "-m", "avqa_llm"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [*start, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def arguments(name: str, parts: Path, out: Path, *more: str) -> list[str]:
    path = ROOT / "adapters" / "recipes" / f"{name}.yaml"
    row = yaml.safe_load(path.read_text())
    changes = [*miniature(row, parts), f"out={out / 'model'}", f"work={out / 'work'}"]
    for stage in ("align", "instruct", "prefer"):
        if stage in row:
            changes += [f"{stage}.{key}={value}" for key, value in SMALL.items()]
    if "base" in row:
        changes += ["bridge.width=32", "bridge.heads=2", "base.picture.grid=[2, 2]"]
        changes += ["base.sound.tokens_per_s=4.0", "lora.rank=4"]
    if "omni" in row:
        changes += ["omni.dtype=float32", "omni.rank=4", "omni.max_frames=4"]
        changes += [f"omni.{key}={value}" for key, value in SMALL.items()]
        changes += ["omni.loop.precision=fp32", "omni.max_pixels=12544"]
    command = ["train", str(path)]
    for change in [*changes, *more]:
        command += ["--set", change]
    return command


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["small", "cat-7b", "qlora-24gb", "omni-lora"])
def test_a_recipe_is_carried_out_and_its_model_answers(
    name: str, parts: Path, tmp_path: Path
) -> None:
    more = []
    if name == "qlora-24gb":
        pytest.importorskip("bitsandbytes", reason="pip install 'avqa-llm[train]'")
        more = ["base.dtype=float32"]  # bf16 kills the process on some virtual machines
    if name == "cat-7b":
        more = ["base.dtype=float32"]
    if name == "small":
        more = ["instruct.loop.validate_every=2"]
    done = avqa(*arguments(name, parts, tmp_path, *more))
    assert done.returncode == 0, done.stderr[-3000:]
    row = yaml.safe_load((ROOT / "adapters" / "recipes" / f"{name}.yaml").read_text())
    wanted = [stage for stage in ("align", "instruct", "prefer", "omni") if stage in row]
    logged = [json.loads(x) for x in (tmp_path / "work/metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(one["stage"] for one in logged)) == wanted
    model = tmp_path / "model"
    assert (model / "adapter_model.safetensors").exists()
    assert (model / "results.json").exists() == ("validate" in row)
    asked = avqa("ask", SAMPLES / "duo.mp4", "Who plays?", "--model", model, "--json")
    assert asked.returncode == 0, asked.stderr[-2000:]
    answer = json.loads(asked.stdout)
    assert answer["consumed"]["sound"] and answer["consumed"]["picture"]
    again = avqa(*arguments(name, parts, tmp_path, *more), "--resume")
    assert again.returncode == 0 and "starts" not in again.stdout


@pytest.mark.timeout(600)
def test_two_processes_carry_out_a_recipe(parts: Path, tmp_path: Path) -> None:
    done = avqa(*arguments("cat-7b", parts, tmp_path, "base.dtype=float32"), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("instruct: starts") == 1
    asked = avqa("ask", SAMPLES / "duo.mp4", "Who plays?", "--model", tmp_path / "model", "--json")
    assert asked.returncode == 0, asked.stderr[-2000:]
