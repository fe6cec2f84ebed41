"""`avqa train RECIPE`: run the stages of a recipe, one after the other.

A stage that is finished leaves its mark in the work folder; `--resume` goes on after it, and
inside an unfinished stage at its last checkpoint. With `torchrun --nproc-per-node N -m avqa_llm
train RECIPE` N processes share the work of a stage; the first one alone writes files.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from avqa_llm.errors import AVQAError, RecipeError
from avqa_llm.training.assemble import Place
from avqa_llm.training.loop import is_first
from avqa_llm.training.recipe import BandstandSet, Recipe, read_recipe


def run(args: argparse.Namespace) -> int:
    """The command."""
    from avqa_llm.devices import prepare_training

    recipe = read_recipe(args.recipe, args.set)
    if args.out is not None:
        recipe = dataclasses.replace(recipe, out=str(args.out))
    prepare_training(recipe.threads, patches=bool(recipe.encoders or recipe.omni))
    if args.dry_run:
        from avqa_llm.training.plan import plan

        for line in plan(recipe):
            print(line)
        return 0
    place, first = Place(work=Path(recipe.work)), is_first()
    if first:
        _prepare(recipe, place.work, resume=args.resume)
    for name, stage, shared in stages(recipe, place):
        done = place.work / f"{name}.done"
        _together()
        if done.exists():
            print(f"{name}: done before") if first else None
            continue
        if not (first or shared):
            continue
        print(f"{name}: starts") if first else None
        stage()
        done.touch() if first else None
    if first:
        _save_recipe(recipe, Path(recipe.out) / "recipe.yaml")
        print(f"the model is in {recipe.out}")
    return 0


def _together() -> None:
    """Wait until all processes are here."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        import torch
        from accelerate import PartialState

        # Encoding may take hours, and the others wait for it.
        patience = timedelta(days=7)
        PartialState(cpu=not torch.cuda.is_available(), timeout=patience).wait_for_everyone()


def _prepare(recipe: Recipe, work: Path, *, resume: bool) -> None:
    if work.exists() and any(work.iterdir()) and not resume:
        raise RecipeError(
            f"work folder {work} is not empty: go on with --resume, or remove it to start anew"
        )
    if resume and (work / "recipe.yaml").exists():
        _refuse_another(recipe, work / "recipe.yaml")
    work.mkdir(parents=True, exist_ok=True)
    _save_recipe(recipe, work / "recipe.yaml")


MAY_CHANGE = ("out", "work", "threads", "card", "half", "world", "validate", "prefer")
"""Keys that what is done already does not depend on; so are those of loops, such as lr."""


def _refuse_another(recipe: Recipe, path: Path) -> None:
    """A run goes on with the recipe that it was begun with."""
    import yaml

    def flat(value: Any, place: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {place: value}
        return {k: v for key, one in value.items() for k, v in flat(one, f"{place}.{key}").items()}

    before, now = flat(yaml.safe_load(path.read_text())), flat(plain(dataclasses.asdict(recipe)))
    for key in sorted({**before, **now}):
        name = key.lstrip(".")
        if name.split(".")[0] in MAY_CHANGE or ".loop." in key:
            continue
        if before.get(key) != now.get(key):
            raise RecipeError(
                f"{name} was {before.get(key)!r} when this run was begun, and is {now.get(key)!r}"
                f" now: name another work folder, or set it back ({path} has all values)"
            )


Stage = tuple[str, Callable[[], object], bool]
"""Name, work, and whether all processes take part."""


def stages(recipe: Recipe, place: Place) -> Iterator[Stage]:
    """The stages, in order. Every one of them resumes by itself."""
    from avqa_llm.training import encoders as taggers
    from avqa_llm.training import tuning
    from avqa_llm.training.text import train_text

    for wanted in recipe.sets:
        yield f"set-{wanted.name}", partial(make_set, wanted, place.data), False
    common: dict[str, Any] = {"data": place.data, "folder": place.work, "resume": True}
    if recipe.text:
        yield "text", partial(train_text, recipe.text, **common), True
    if recipe.encoders:
        yield "picture", partial(taggers.train_picture, recipe.encoders, **common), True
        yield "sound", partial(taggers.train_sound, recipe.encoders, **common), True
    if recipe.omni:
        yield "omni", partial(tuning.omni, recipe, place, recipe.omni), True
    before = None
    for name, config in recipe.connects.items():
        encode = partial(tuning.encode, recipe, place, name, before)
        yield f"{name}-features", encode, False
        yield name, partial(tuning.connect, recipe, place, name, config, before), True
        before = name
    if recipe.prefer:
        yield "prefer-features", partial(tuning.encode, recipe, place, "prefer", before), False
        yield "prefer", partial(tuning.prefer, recipe, place, recipe.prefer, before), True
        before = "prefer"
    if before:
        yield "finish", partial(tuning.finish, recipe, place, before), False


def make_set(wanted: BandstandSet, data: Path) -> None:
    """Write a Bandstand set with `python -m instruct_data`, which this package must not import.

    Raises:
        AVQAError: it failed; its own words stand above.
    """
    command = [sys.executable, "-m", "instruct_data", "bandstand", str(data / wanted.name)]
    command += ["--clips", str(wanted.clips), "--seed", str(wanted.seed)]
    command += ["--hard", str(wanted.hard), "--bias", str(wanted.bias)]
    command += ["--media", "arrays"] if wanted.arrays else []
    command += ["--of-records"] if wanted.of_records else []
    if subprocess.run(command, check=False).returncode:
        raise AVQAError(
            f"set {wanted.name!r} could not be written; run this from a checkout, where"
            " `python -m instruct_data` is"
        )


def _save_recipe(recipe: Recipe, path: Path) -> None:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".writing")
    aside.write_text(yaml.safe_dump(plain(dataclasses.asdict(recipe)), sort_keys=False))
    shutil.move(aside, path)


def plain(value: Any) -> Any:
    """A value as YAML and JSON have it; what is absent is left out."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
