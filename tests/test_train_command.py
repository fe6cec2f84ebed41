"""`avqa train` from nothing to a model that answers: every stage, in miniature."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STAGES = (
    *("set-words", "set-clips", "text", "picture", "sound"),
    *("align-features", "align", "instruct-features", "instruct", "finish"),
)


def recipe(folder: Path) -> Path:
    """The recipe of the embedded default with little of everything."""
    row = yaml.safe_load((ROOT / "adapters" / "recipes" / "tiny.yaml").read_text())
    row |= {"out": str(folder / "model"), "work": str(folder / "work"), "threads": 2}
    row["sets"] = [
        {"name": "words", "clips": 12, "seed": 1, "arrays": False},
        {"name": "clips", "clips": 6, "seed": 2},
    ]
    loop = {"steps": 2, "batch": 2, "lr": 1e-3, "warmup": 1, "log_every": 1}
    row["text"] |= {"rows": "words/instruct.jsonl", "vocab_size": 500, "compile": False}
    row["text"] |= {"hidden": 48, "layers": 1, "heads": 3, "intermediate": 64, "loop": loop}
    row["text"]["sums"] = {"loop": loop}
    row["encoders"] |= {"arrays": "clips", "hidden": 40, "layers": 1, "intermediate": 48}
    row["encoders"] |= {"compile": False, "sound_layers": 2, "picture": loop, "sound": loop}
    row["bridge"] |= {"width": 40, "clue_layers": 1}
    clips = {"rows": "clips/instruct.jsonl", "features": "clips", "compile": False}
    row["align"] |= {**clips, "loop": loop}
    row["instruct"] |= {**clips, "loop": loop, "length": 0}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(row))
    return path


def avqa(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avqa_llm", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.timeout(900)
def test_from_nothing_to_an_answer(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    done = avqa("train", path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.endswith(": starts")] == [
        f"{name}: starts" for name in STAGES
    ]
    model, work = tmp_path / "model", tmp_path / "work"
    logged = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in logged} == {
        "text",
        "sums",
        "picture",
        "sound",
        "align",
        "instruct",
    }
    assert all(row["loss"] > 0 for row in logged)
    assert {"naming", "grounding"} <= set(logged[-1])
    saved = yaml.safe_load((model / "recipe.yaml").read_text())
    assert saved["text"]["hidden"] == 48 and saved["instruct"]["missing"] == 0.15

    asked = avqa(
        *("ask", ROOT / "app/samples/duo.mp4", "Where is the performance?"),
        *("--json", "--model", model),
    )
    assert asked.returncode == 0, asked.stderr[-2000:]
    answer = json.loads(asked.stdout)
    assert answer["consumed"]["sound"] and answer["consumed"]["picture"]
    assert 0 < answer["probability"] <= 1

    refused = avqa("train", path)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    other = avqa("train", path, "--resume", "--set", "instruct.missing=0.9")
    assert other.returncode == 2 and "instruct.missing was 0.15" in other.stderr
    again = avqa("train", path, "--resume")
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(STAGES)
