"""Recipes: checked in full before anything is loaded, and each that ships can be carried out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from avqa_llm.engine import LocalEngine, Session
from avqa_llm.errors import AnnotationError, MediaError, RecipeError
from avqa_llm.training.assemble import Place
from avqa_llm.training.connect import ConnectConfig
from avqa_llm.training.plan import Sizes, plan
from avqa_llm.training.recipe import read_recipe
from tests.model_parts import write_parts
from tests.omni_parts import write_base

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "adapters" / "recipes").glob("*.yaml"))
SAMPLES = ROOT / "app" / "samples"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of everything that a recipe names, and rows about the sample clips."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder, "qwen2-siglip-ast")
    write_base("qwen2_5_omni_thinker", folder / "omni")
    rows = [
        {"video": path.name, "question": "Who plays?", "answer": "violin"}
        for path in sorted(SAMPLES.glob("*.mp4"))
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    pairs = [{**row, "chosen": "The violin.", "rejected": "Hard to say."} for row in rows]
    (folder / "pairs.json").write_text(
        json.dumps([{k: v for k, v in pair.items() if k != "answer"} for pair in pairs])
    )
    return folder


def miniature(row: dict[str, Any], parts: Path) -> list[str]:
    """The values that make a shipped recipe one of miniatures."""
    changes = [f"media={SAMPLES}"]
    # Whole precision: there are virtual machines on which bf16 products kill the process.
    changes += [f"{n}.loop.precision=fp32" for n in ("align", "instruct", "prefer") if n in row]
    for name in ("align", "instruct"):
        made = {f"{one['name']}/instruct.jsonl" for one in row.get("sets", ())}
        if name in row and row[name]["rows"] not in made:
            changes += [f"{name}.rows={parts / 'rows.json'}", f"{name}.splits=[]"]
    if "prefer" in row:
        changes.append(f"prefer.rows={parts / 'pairs.json'}")
    if "base" in row:
        changes.append(f"base.llm={parts / 'llm'}")
        changes += [f"base.{side}.source={parts / side}" for side in ("picture", "sound")]
    if "validate" in row:
        changes += [f"validate.rows={parts / 'rows.json'}", "validate.splits=[]"]
    if "omni" in row:
        changes += [f"omni.base={parts / 'omni'}", "omni.revision=null"]
        changes += [f"omni.rows={parts / 'rows.json'}"]
    return changes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_passes_its_dry_run(path: Path, parts: Path) -> None:
    row = yaml.safe_load(path.read_text())
    recipe = read_recipe(path, miniature(row, parts))
    said = "\n".join(plan(recipe))
    for name in ("align", "instruct", "prefer", "omni", "text"):
        assert (f"{name}: " in said) == (name in row)
    if "base" in row or "start" in row:
        assert "LoRA: " in said and "bridge: " in said and "aggregator " in said
    if "base" in row:
        assert "memory, estimated: " in said and "time, estimated: " in said
        assert ("media: all 3 files are there" in said) == ("sets" not in row)
    if "prefer" in row:
        costs = said[said.index("prefer: ") :]
        assert ("memory, estimated: " in costs) == ("time, estimated: " in costs) is True
    assert ("validate: at most " in said) == ("validate" in row)


def planned(parts: Path, name: str, *changes: str) -> list[str]:
    path = ROOT / "adapters" / "recipes" / f"{name}.yaml"
    made = miniature(yaml.safe_load(path.read_text()), parts)
    return list(plan(read_recipe(path, [*made, *changes])))


def test_the_dry_run_looks_for_the_pairs_clips(parts: Path, tmp_path: Path) -> None:
    pairs = json.loads((parts / "pairs.json").read_text())
    said = planned(parts, "cat-7b")
    after = said[next(n for n, line in enumerate(said) if line.startswith("prefer: ")) + 1 :]
    assert after[0].endswith("pairs.json: 3 pairs")
    assert after[1] == "  media: all 3 files are there"
    (tmp_path / "twice.json").write_text(json.dumps(pairs * 2))
    twice = planned(parts, "cat-7b", f"prefer.rows={tmp_path / 'twice.json'}")
    assert "  media: all 3 files are there" in twice[-3:]
    tokens = [int(re.findall(r"clips of (\d+) tokens", "".join(x[-3:]))[0]) for x in (said, twice)]
    assert tokens[0] < tokens[1], "two pairs about a clip share its sequence"
    (tmp_path / "gone.json").write_text(json.dumps([{**pairs[0], "video": "gone.mp4"}]))
    with pytest.raises(MediaError, match=r"1 of 1 media files.*gone.mp4"):
        planned(parts, "cat-7b", f"prefer.rows={tmp_path / 'gone.json'}")
    assert "not there yet" in "\n".join(planned(parts, "cat-7b", "prefer.rows=none.jsonl"))


def test_the_dry_run_reads_the_rows_of_validation(parts: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    row = {"video": next(SAMPLES.glob("*.mp4")).name, "question": "Who?", "answer": "violin"}
    held.write_text(json.dumps([row]))
    block = "validate={{rows: {}}}"
    said = planned(parts, "own-data", block.format(held))
    after = said[said.index("validate: at most 2000 questions") :]
    assert "  clips: 1" in after and "  media: all 1 files are there" in after
    held.write_text(json.dumps([{**row, "video": "gone.mp4"}]))
    with pytest.raises(MediaError, match="gone.mp4"):
        planned(parts, "own-data", block.format(held))
    with pytest.raises(AnnotationError, match="none.json exists"):
        planned(parts, "own-data", block.format(tmp_path / "none.json"))


def test_a_reference_costs_another_pass_and_no_activations(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "adapters/recipes/cat-7b.yaml"
    recipe = read_recipe(path, miniature(yaml.safe_load(path.read_text()), parts))
    assert recipe.prefer is not None
    monkeypatch.setattr("avqa_llm.training.plan.product_rate", lambda precision: 1e6)
    sizes = Sizes.of(recipe, Place(work=Path(recipe.work)))
    stage = ConnectConfig(rows="", loop=recipe.prefer.loop, train_bridge=False)
    plain, costly = (
        list(sizes.costs(recipe, stage, [])),
        list(sizes.prefer_costs(recipe, recipe.prefer, [])),
    )
    assert plain[0] == costly[0]
    hours = [
        float(re.findall(r"estimated: ([\d.]+) days", lines[1])[0]) for lines in (plain, costly)
    ]
    due = (6 * sizes.llm + 8 * sizes.lora) / (4 * sizes.llm + 6 * sizes.lora)
    assert hours[1] / hours[0] == pytest.approx(due, rel=0.02)


def test_the_command_prints_the_plan_and_trains_nothing(parts: Path, tmp_path: Path) -> None:
    row = yaml.safe_load((ROOT / "adapters/recipes/small.yaml").read_text())
    command = [sys.executable, "-m", "avqa_llm", "train", "adapters/recipes/small.yaml"]
    for change in [*miniature(row, parts), f"work={tmp_path / 'work'}"]:
        command += ["--set", change]
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "instruct: 6000 steps of 32 clips in 4 parts" in done.stdout
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("instruct.lop.steps=3", "unknown key 'lop': did you mean 'loop'"),
        ("brige.width=3", "unknown key 'brige': did you mean 'bridge'"),
        ("instruct.loop.steps=many", "'many' should be of type int"),
        ("bridge.connector=qform", "qform"),
        ("base.attention=flash", "'flash' should be one of eager, sdpa"),
        ("start=tiny", "a run starts from one of .* base and start"),
        ("instruct.features=mine", "there is no set 'mine'"),
        ("media=''", "name the folder of the clips"),
        ("align.train_bridge=false", "neither the bridge nor LoRA"),
        ("instruct.debias={}", "at least one of mccd"),
        ("instruct.loop.fsdp=true", None),
        ("instruct.questions=0", "0 learns records alone"),
        ("instruct.loop.batch=2", "loop.parts is 4, should be from 1 to batch"),
        ("instruct.loop.clip_norm=0", "loop.clip_norm is 0.0, should be above 0"),
        ("instruct.loop.log_every=0", "loop.log_every"),
        ("instruct.missing=.nan", "shares, from 0 to 1"),
        ("lora.rank=0", "rank is at least 1"),
        ("validate=null", "there is no block `validate`"),
        ("nonsense", "should be KEY.KEY=VALUE"),
        ("out.deeper=3", "should be KEY.KEY=VALUE"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    change: str, said: str | None
) -> None:
    path = ROOT / "adapters/recipes/small.yaml"
    if said is None:
        alone = ["instruct.loop.validate_every=0", "instruct.loop.patience=0"]
        read_recipe(path, [change, *alone])
        with pytest.raises(RecipeError, match="quantised weights cannot be split"):
            read_recipe(path, [change, *alone, "base.quantize=nf4"])
        with pytest.raises(RecipeError, match="validate_every needs the whole model"):
            read_recipe(path, [change])
        return
    with pytest.raises(RecipeError, match=said):
        read_recipe(path, [change])


def test_a_model_that_is_there_keeps_its_own_bridge() -> None:
    path = ROOT / "adapters/recipes/own-data.yaml"
    with pytest.raises(RecipeError, match="tagged: the model in 'tiny' has its own"):
        read_recipe(path, ["tagged=true"])
    with pytest.raises(RecipeError, match="bridge: the model in 'tiny' has its own"):
        read_recipe(path, ["bridge.width=64"])


def test_clues_that_are_not_there_cannot_be_drawn_anywhere() -> None:
    path = ROOT / "adapters/recipes/small.yaml"
    with pytest.raises(RecipeError, match="grounding and events are about clues"):
        read_recipe(path, ["bridge.clues=0"])
    changes = ["bridge.clues=0", "align.grounding=0", "instruct.grounding=0"]
    assert read_recipe(path, changes).bridge.clues == 0
    with pytest.raises(RecipeError, match="stand for no place"):
        read_recipe(path, ["bridge.connector=stc", "instruct.naming=0.1"])


def test_a_person_s_own_clips_become_a_model_that_answers(tmp_path: Path) -> None:
    """The shipped recipe, with fewer steps: from three clips and a JSON file to an answer."""
    clips = tmp_path / "my-clips"
    clips.mkdir()
    rows = []
    for n, path in enumerate(sorted(SAMPLES.glob("*.mp4"))):
        shutil.copy(path, clips)
        rows.append({"video": path.name, "question": "Which take is this?", "answer": f"take {n}"})
    (clips / "questions.json").write_text(json.dumps(rows))
    environment = {"PYTHONPATH": str(ROOT)}
    recipe = str(ROOT / "adapters/recipes/own-data.yaml")
    command = [sys.executable, "-m", "avqa_llm", "train", recipe]
    command += ["--set", "instruct.loop.batch=3", "--set", "instruct.loop.steps=160"]
    command += ["--set", "instruct.loop.validate_every=160", "--set", "instruct.missing=0"]
    command += ["--set", "validate={rows: my-clips/held.json}"]
    held = [{"video": rows[0]["video"], "question": "Is a violin sounding?", "answer": "yes"}]
    (clips / "held.json").write_text(json.dumps(held))

    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = tmp_path / "runs/own-data/model"
    asked = subprocess.run(
        [sys.executable, "-m", "avqa_llm", "ask", str(clips / rows[0]["video"])]
        + [rows[0]["question"], "--model", str(out), "--open", "--json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert json.loads(asked.stdout)["answer"] == "take 0"
    engine = LocalEngine.load(out)
    for n, row in enumerate(rows):
        session = Session(engine, engine.read(clips / row["video"]))
        assert session.ask(row["question"], open_ended=True).answer == f"take {n}"
    results = json.loads((out / "results.json").read_text())
    assert results["overall"]["n"] == 1
    card = (out / "README.md").read_text()
    assert "questions.json (instruct)" in card and "3" in card
    rows_logged = [json.loads(x) for x in (out.parent / "metrics.jsonl").read_text().splitlines()]
    assert any("val_score" in row for row in rows_logged)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("text.favour=Which", "'Which' should be a block of keys"),
        ("text.favour={Which: many}", "text.favour.Which: 'many' should be of type float"),
        ("text.favour={Which: -1}", "'Which' has -1.0, should be 0 or more"),
    ],
)
def test_how_often_questions_are_drawn_is_a_number_for_each_kind(change: str, said: str) -> None:
    path = ROOT / "adapters/recipes/tiny.yaml"
    text = read_recipe(path, ["text.favour={louder: 3}"]).text
    assert text is not None and text.favour["louder"] == 3
    with pytest.raises(RecipeError, match=said):
        read_recipe(path, [change])
