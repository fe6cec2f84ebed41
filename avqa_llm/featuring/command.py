"""The command: find the files, deal them out, say what became of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from avqa_llm.encoders import PictureConfig, SoundConfig
from avqa_llm.encoders.frozen import FrozenEncoder
from avqa_llm.encoders.store import FeatureStore
from avqa_llm.encoders.store_info import SHARDS, STORE, read_info
from avqa_llm.errors import MediaError, RecipeError
from avqa_llm.featuring.files import Found, Job, below, find
from avqa_llm.featuring.local import run_local
from avqa_llm.featuring.on_ray import run_ray
from avqa_llm.featuring.work import Outcome, Plan, Worker
from avqa_llm.media.changes import Cut
from avqa_llm.model import AVQAModel, located, read_config
from avqa_llm.presets import find_model

Report = Callable[[Outcome], object]
ENGINES: dict[str, Callable[[Plan, Sequence[Job], int, Report], None]] = {
    "local": run_local,
    "ray": run_ray,
}
LARGEST_MB = 16384
"""A shard is put together in memory."""
NAMED = 5
"""Files that an error names."""


def run(args: argparse.Namespace) -> int:
    """The command; 1 if a file could not be encoded, unless `--skip-broken` is given."""
    if args.workers < 1 or not 0 < args.shard_mb < LARGEST_MB:
        raise RecipeError(
            f"--workers {args.workers}, --shard-mb {args.shard_mb:g}: give 1 worker or more, and"
            f" shards above 0 and below {LARGEST_MB} MB"
        )
    found = find(args.source, args.rows)
    picture, sound = encoder_configs(args.model)
    plan = Plan(
        picture=picture,
        sound=sound,
        out=str(args.out.resolve()),
        dtype=args.dtype or _kept_dtype(args.out),
        shard_bytes=int(args.shard_mb * 2**20),
    )
    started = time.monotonic()
    outcomes = encode(plan, found, args.engine, args.workers)
    print(summary(found, outcomes, args.out, time.monotonic() - started))
    broken = any(outcome.error for outcome in outcomes)
    return 1 if broken and not args.skip_broken else 0


def encode_rows(
    model: AVQAModel, folder: Path, wanted: Sequence[tuple[Path, Cut]], *, out: Path
) -> FeatureStore:
    """Encode files of a folder, each as a cut wants it, with the encoders of a model.

    Several processes that call this with the same share the work and return when all is done.

    Returns:
        The store, in which everything that is wanted is to be found.

    Raises:
        MediaError: files cannot be read; the others are encoded.
        CheckpointError: `out` holds features of other encoders.
    """
    found = below(folder, wanted)
    with _on_gpu(model.picture, model.sound):
        worker = Worker(model.picture, model.sound, out, dtype=_kept_dtype(out))
        outcomes = _with_bar(found, lambda report: worker.run(found.jobs, report))
    if broken := [outcome for outcome in outcomes if outcome.error]:
        named = "; ".join(f"{outcome.name}: {outcome.error}" for outcome in broken[:NAMED])
        raise MediaError(
            f"{len(broken)} of {len(outcomes)} files cannot be encoded: {named}. Repair them or"
            " take their rows out"
        )
    worker.writer.store.refresh()
    return worker.writer.store


@contextmanager
def _on_gpu(*encoders: FrozenEncoder) -> Iterator[None]:
    """Encoders on the GPU, if there is one; then back, for what is trained needs the memory."""
    before = [encoder.device for encoder in encoders]
    try:
        for encoder in encoders:
            encoder.to("cuda" if torch.cuda.is_available() else encoder.device)
        yield
    finally:
        for encoder, device in zip(encoders, before, strict=True):
            encoder.to(device)


def encode(plan: Plan, found: Found, engine: str, workers: int) -> list[Outcome]:
    """Deal the files out."""
    return _with_bar(found, lambda report: ENGINES[engine](plan, found.jobs, workers, report))


def _with_bar(found: Found, work: Callable[[Report], None]) -> list[Outcome]:
    """A bar shows how far it is and the time left; what cannot be read is named at once."""
    from tqdm import tqdm

    outcomes: list[Outcome] = []
    bar = tqdm(total=len(found.jobs) + len(found.refused), desc="features", unit="file")

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.error:
            bar.write(f"{outcome.name}: {outcome.error}", file=sys.stderr)
        bar.update()

    with bar:
        for name, why in found.refused.items():
            report(Outcome(name=name, error=why))
        if found.jobs:
            work(report)
    return outcomes


def summary(found: Found, outcomes: list[Outcome], out: Path, seconds: float) -> str:
    """What happened and what there is now."""
    broken = sum(bool(outcome.error) for outcome in outcomes)
    known = sum(not (outcome.error or outcome.encoded) for outcome in outcomes)
    encoded = len(outcomes) - broken - known
    lines = [
        f"{len(outcomes)} files: {encoded} encoded, {known} there before, {broken} could not be"
        f" encoded; {seconds:.1f} s"
    ]
    if found.others:
        lines.append(f"{found.others} other files are no media by their suffix")
    if (out / STORE).exists():
        store = FeatureStore(out)
        shards = list((out / SHARDS).glob("*.safetensors"))
        size = sum(path.stat().st_size for path in shards) / 2**20
        lines.append(
            f"{out}: {len(store)} clips, {size:.1f} MiB of {store.info.dtype}"
            f" in {len(shards)} shard{'s' * (len(shards) != 1)}"
        )
    return "\n".join(lines)


def encoder_configs(model: str) -> tuple[PictureConfig, SoundConfig]:
    """What a preset, a model directory or a recipe says about the encoders.

    Raises:
        CheckpointError: there is no such model.
        RecipeError: a recipe that names no encoders, or that has yet to train them.
    """
    if model.endswith((".yaml", ".yml")):
        return _of_recipe(Path(model))
    folder = find_model(model)
    config = read_config(folder)
    return (
        replace(config.picture, source=located(config.picture.source, folder)),
        replace(config.sound, source=located(config.sound.source, folder)),
    )


def _of_recipe(path: Path) -> tuple[PictureConfig, SoundConfig]:
    """Those that a run starts from, or that it made."""
    from avqa_llm.training.recipe import read_recipe

    recipe = read_recipe(path)
    if recipe.base is not None:
        return recipe.base.picture, recipe.base.sound
    if recipe.start is not None:
        return encoder_configs(recipe.start)
    if recipe.encoders is not None and Path(recipe.out).is_dir():
        return encoder_configs(recipe.out)
    raise RecipeError(
        f"{path} names no encoders: it has neither `base` nor `start`; where a recipe trains its"
        " own, run it first and give the directory of the model"
    )


def _kept_dtype(out: Path) -> str:
    """As the store has it already."""
    return (read_info(out).dtype if (out / STORE).exists() else None) or "float16"
