"""The stages that tune a model: each starts from the directory that the one before it left."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from avqa_llm.errors import AnnotationError
from avqa_llm.model import AVQAModel
from avqa_llm.omni.stage import OmniBatches, OmniStage, OmniTraining
from avqa_llm.training.assemble import (
    Place,
    load_clips,
    load_rows,
    load_stage_model,
    parts_folder,
    with_records,
)
from avqa_llm.training.checkpoints import put_back
from avqa_llm.training.connect import ConnectConfig, choose_weights, train_connect
from avqa_llm.training.loop import fit, is_first, is_split
from avqa_llm.training.pair_batches import PairBatches, numbered
from avqa_llm.training.pairs import PairRow
from avqa_llm.training.prefer import Prefer, PreferConfig
from avqa_llm.training.recipe import Recipe
from avqa_llm.training.rows import ClipRow, read_pairs
from avqa_llm.training.validation import Validation

RESULTS = "results.json"


def encode(recipe: Recipe, place: Place, name: str, before: str | None) -> None:
    """Encode the clips of a stage, and of the validation rows, before any process needs them."""
    stage = getattr(recipe, name)
    model = load_stage_model(recipe, place, before)
    rows = _rows_of(stage, place)
    load_clips(recipe, place, stage.features, rows, model)
    if recipe.validate:
        held = load_rows(recipe.validate, place)
        load_clips(recipe, place, recipe.validate.features, held, model)


def connect(
    recipe: Recipe, place: Place, name: str, config: ConnectConfig, before: str | None
) -> None:
    """*Align* or *instruct*."""
    model = load_stage_model(recipe, place, before)
    rows = load_rows(config, place)
    features = load_clips(recipe, place, config.features, rows, model)
    if before is None and recipe.base and recipe.base.records:
        _need_records(rows)
    train_connect(
        name,
        model,
        with_records(model, rows, features),
        features,
        config,
        folder=place.work,
        resume=True,
        validate=_validation(recipe, place, model, rows) if config.loop.validate_every else None,
    )
    if not is_first():
        return
    if is_split(config.loop):
        model = load_stage_model(recipe, place, before)
        choose_weights(model, bridge=config.train_bridge, lora=config.train_lora)
        put_back(place.work / name, nn.ModuleDict({"bridge": model.bridge, "llm": model.llm}))
    model.save_pretrained(place.work / name)


def prefer(recipe: Recipe, place: Place, config: PreferConfig, before: str | None) -> None:
    """*Prefer*: ADPO."""
    model = load_stage_model(recipe, place, before)
    pairs = read_pairs(place.rows(config.rows))
    rows = clips_of_pairs(pairs)
    features = load_clips(recipe, place, config.features, rows, model)
    known = with_records(model, rows, features, ways=["record"])
    records = [row.record for row in known]
    stage = Prefer(model, config)
    fit(
        "prefer",
        stage,
        PairBatches(model, pairs, features, config, records=records),
        config.loop,
        folder=place.work,
        resume=True,
        validate=_validation(recipe, place, model, ()) if config.loop.validate_every else None,
    )
    if not is_first():
        return
    if is_split(config.loop):
        model = load_stage_model(recipe, place, before)
        stage = Prefer(model, config)
        put_back(place.work / "prefer", stage)
    stage.finish()
    model.save_pretrained(place.work / "prefer")


def _need_records(rows: Sequence[ClipRow]) -> None:
    """A new model cannot write them itself."""
    if bare := [row.video_id for row in rows if not row.record]:
        raise AnnotationError(
            f"{len(bare)} clips, such as {bare[0]}, have no event record, and base.records says"
            " that the model learns to write them: set it to false, or give rows with records"
        )


def clips_of_pairs(pairs: Sequence[PairRow]) -> list[ClipRow]:
    """The clips that pairs are about, each once, numbered as `PairBatches` numbers them."""
    clips = dict(zip(numbered(pairs), pairs, strict=True))
    return [clips[n].row for n in sorted(clips)]


def _rows_of(stage: ConnectConfig | PreferConfig, place: Place) -> list[ClipRow]:
    """The clips that a stage learns from."""
    if isinstance(stage, PreferConfig):
        return clips_of_pairs(read_pairs(place.rows(stage.rows)))
    return load_rows(stage, place)


def _validation(
    recipe: Recipe, place: Place, model: AVQAModel, known: Sequence[ClipRow]
) -> Validation | None:
    wanted = recipe.validate
    if wanted is None:
        return None
    rows = load_rows(wanted, place)
    features = load_clips(recipe, place, wanted.features, rows, model)
    return Validation(model, rows, features, questions=wanted.questions, known=known)


def omni(recipe: Recipe, place: Place, config: OmniTraining) -> None:
    """LoRA on a model that sees and hears by itself."""
    from avqa_llm.omni.model import OmniModel

    device = "cuda" if torch.cuda.is_available() else None
    model = OmniModel.fresh(config.model(), place.work, device=device)
    fit(
        "omni",
        OmniStage(model, checkpointing=config.checkpointing),
        OmniBatches(load_rows(config, place), Path(recipe.media), model, config).batch_at,
        config.loop,
        folder=place.work,
        resume=True,
    )
    if is_first():
        model.save_pretrained(Path(recipe.out))


def finish(recipe: Recipe, place: Place, last: str) -> None:
    """Write the finished model with its card, and the figures of the validation rows."""
    from avqa_llm.training.card import write_card
    from avqa_llm.training.finish import data_facts, write_model
    from avqa_llm.training.run import plain

    model = load_stage_model(recipe, place, last)
    stage = recipe.prefer or recipe.instruct or recipe.align
    assert stage is not None
    rows = _rows_of(stage, place)
    features = load_clips(recipe, place, stage.features, rows, model)
    out = Path(recipe.out)
    parts = parts_folder(recipe, place)
    write_model(model, features, parts, out, world=recipe.world, half=recipe.half)
    if recipe.half:  # figures are those of what is shipped
        model = AVQAModel.from_pretrained(out)
    validation = _validation(recipe, place, model, rows if last != "prefer" else ())
    results = validation.results() if validation else None
    if results:
        aside = out / f"{RESULTS}.writing"
        aside.write_text(json.dumps(results, indent=2) + "\n")
        os.replace(aside, out / RESULTS)
    if recipe.card:
        made = dataclasses.replace(recipe, bridge=model.config.bridge, lora=model.config.lora)
        facts = data_facts(recipe, place, model)
        write_card(out, plain(dataclasses.asdict(made)), results, facts)
