"""`avqa train RECIPE`: run the stages of a recipe, one after the other.

A stage that is finished leaves its mark in the work folder; `--resume` goes on after it, and
inside an unfinished stage at its last checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from avqa_llm.errors import AVQAError, RecipeError
from avqa_llm.training.recipe import BandstandSet, Recipe, read_recipe


def run(args: argparse.Namespace) -> int:
    """The command."""
    from avqa_llm.devices import prepare_training

    recipe = read_recipe(args.recipe)
    if args.out is not None:
        recipe = dataclasses.replace(recipe, out=str(args.out))
    if args.dry_run:
        print("\n".join(plan(recipe)))
        return 0
    prepare_training(recipe.threads)
    work = Path(recipe.work)
    if work.exists() and any(work.iterdir()) and not args.resume:
        raise RecipeError(
            f"work folder {work} is not empty: go on with --resume, or remove it to start anew"
        )
    work.mkdir(parents=True, exist_ok=True)
    _save_recipe(recipe, work / "recipe.yaml")
    for name, stage in stages(recipe, work):
        done = work / f"{name}.done"
        if done.exists():
            print(f"{name}: done before")
            continue
        print(f"{name}: starts")
        stage()
        done.touch()
    _save_recipe(recipe, Path(recipe.out) / "recipe.yaml")
    print(f"the model is in {recipe.out}")
    return 0


def stages(recipe: Recipe, work: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and work of the stages, in order. Every one of them resumes by itself."""
    from avqa_llm.training import encoders as taggers
    from avqa_llm.training.text import train_text

    data = work / "data"
    for wanted in recipe.sets:
        yield f"set-{wanted.name}", partial(make_set, wanted, data)
    common: dict[str, Any] = {"data": data, "folder": work, "resume": True}
    if recipe.text:
        yield "text", partial(train_text, recipe.text, **common)
    if recipe.encoders:
        yield "picture", partial(taggers.train_picture, recipe.encoders, **common)
        yield "sound", partial(taggers.train_sound, recipe.encoders, **common)
    if recipe.align or recipe.instruct:
        yield "connect", partial(connect, recipe, work, data)


def make_set(wanted: BandstandSet, data: Path) -> None:
    """Write a Bandstand set with `python -m instruct_data`, which this package must not import.

    Raises:
        AVQAError: it failed; its own words stand above.
    """
    command = [sys.executable, "-m", "instruct_data", "bandstand", str(data / wanted.name)]
    command += ["--clips", str(wanted.clips), "--seed", str(wanted.seed)]
    command += ["--media", "arrays"] if wanted.arrays else []
    if subprocess.run(command, check=False).returncode:
        raise AVQAError(
            f"set {wanted.name!r} could not be written; run this from a checkout, where"
            " `python -m instruct_data` is"
        )


def connect(recipe: Recipe, work: Path, data: Path) -> None:
    """Align, instruct, and save the model."""
    from avqa_llm.model import AVQAModel
    from avqa_llm.training.connect import train_connect
    from avqa_llm.training.features import encode_arrays, load_features
    from avqa_llm.training.finish import finish, fresh_model
    from avqa_llm.training.rows import read_rows

    model: AVQAModel = fresh_model(recipe, work)
    last = None
    for name, config in (("align", recipe.align), ("instruct", recipe.instruct)):
        if config is None:
            continue
        folder = work / "features" / config.features
        encode_arrays(data / config.features, folder, model.picture, model.sound)
        features = load_features(folder, seconds=10.0, pair_gap_s=model.config.picture.pair_gap_s)
        rows = read_rows(data / config.rows)
        train_connect(name, model, rows, features, config, folder=work, resume=True)
        model.save_pretrained(work / name)
        last = features
    assert last is not None
    finish(model, last, work, Path(recipe.out))


def plan(recipe: Recipe) -> Iterator[str]:
    """What `--dry-run` prints: every stage with its steps, without loading anything heavy."""
    yield f"model goes to {recipe.out}, work to {recipe.work}"
    for wanted in recipe.sets:
        kind = "arrays" if wanted.arrays else "texts"
        yield f"set {wanted.name}: {wanted.clips} clips, seed {wanted.seed}, {kind}"
    loops = []
    if recipe.text:
        loops.append(("text", recipe.text.loop))
    if recipe.encoders:
        loops += [("picture", recipe.encoders.picture), ("sound", recipe.encoders.sound)]
    loops += [(n, c.loop) for n, c in (("align", recipe.align), ("instruct", recipe.instruct)) if c]
    for name, loop in loops:
        yield f"{name}: {loop.steps} steps of {loop.batch} clips, lr {loop.lr:g}"


def _save_recipe(recipe: Recipe, path: Path) -> None:
    import yaml

    aside = path.with_suffix(".writing")
    aside.write_text(yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False))
    shutil.move(aside, path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
