"""One run: stages of its recipe on features of its own making, then the questions.

It does what `avqa train` does with the same recipe, with three differences: sets and features are
those of all runs (`data`), tokens and rows may be changed (`changes`), and new weights depend on
the run's seed. Killed at any moment, it goes on where it was.

    OUT/aligned/KEY/                    an aligned bridge, shared by the runs that begin with it
    OUT/runs/KEY/instruct/              what was instructed, shared by the runs that prefer after it
    OUT/runs/KEY/records-PAIRS.json     what it then wrote down of the clips of pairs, shared too
    OUT/runs/KEY/run.json               written last: what it was, and what it cost
    OUT/runs/KEY/samples-CONDITION.jsonl  a line a question, as `python -m eval run` writes them
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avqa_llm.media.changes import Cut
from avqa_llm.model import BRIDGE, AVQAModel
from avqa_llm.training.assemble import (
    SECONDS,
    Place,
    load_clips,
    load_rows,
    load_stage_model,
    model_config,
    with_records,
)
from avqa_llm.training.connect import ConnectConfig, train_connect
from avqa_llm.training.features import ClipFeatures, load_features
from avqa_llm.training.prefer import PreferConfig
from bench.findings.changes import ROWS, Change, Changed
from bench.findings.data import Shared, clips_of, encoded, test_name
from bench.findings.plan import RUN, Run, aligned_folder, folder_of, records_file, samples_file
from eval.samples import Sample, read_json, write_json

CUTS = {"full": Cut(), "no sound": Cut(sound=False), "no picture": Cut(picture=False)}
CLIPS = 16
"""Clips that are read as one batch."""


def carry_out(run: Run, out: Path) -> None:
    """Train what is not trained, ask what is not asked."""
    from avqa_llm.devices import prepare_training

    prepare_training(run.recipe.threads, patches=False)
    folder, shared = folder_of(out, run), Shared.of(out, run)
    folder.mkdir(parents=True, exist_ok=True)
    costs: dict[str, Any] = {}
    aligned = aligned_folder(out, run)
    if aligned:
        aligned.mkdir(parents=True, exist_ok=True)
        costs["align"] = _noted(run, shared, aligned, "align", fresh)

    def begin(run: Run) -> AVQAModel:
        """With new weights, but for a bridge that is aligned."""
        model = fresh(run)
        if aligned:
            model.load_bridge(aligned / "align" / BRIDGE)
        return model

    load: Start = begin
    for name, place in (("instruct", folder_of(out, run.begun)), ("prefer", folder)):
        if getattr(run.recipe, name) is not None:
            place.mkdir(parents=True, exist_ok=True)
            costs[name] = _noted(run, shared, place, name, load)
            load = partial(_loaded, folder=place, name=name)
    model = load(run)
    asked_s = 0.0
    for condition in run.claim.conditions:
        path = samples_file(folder, condition)
        if not path.exists():
            started = time.process_time()
            _write(path, ask(model, run, shared, condition))
            asked_s = time.process_time() - started
    if not (folder / RUN).exists():
        write_json(folder / RUN, about(run, costs, asked_s))


def about(run: Run, costs: dict[str, Any], asked_s: float) -> dict[str, Any]:
    """What a run was, for whoever reads its results."""
    from eval.results import commit, versions

    row = run.row
    return {
        "recipe": run.plan.recipe,
        "set": run.changes,
        "pool": list(row.pool),
        "shuffle": row.shuffle,
        "rows": row.rows,
        "seed": run.seed,
        "steps": run.steps,
        "processor_s": sum(cost["processor_s"] for cost in costs.values()),
        "resumed": any(cost["resumed"] for cost in costs.values()),
        "asked_s": asked_s,
        "commit": commit(),
        "versions": versions(),
    }


def fresh(run: Run) -> AVQAModel:
    """A model with new weights of the run's seed."""
    base = run.recipe.base
    how: dict[str, Any] = {"device": "cuda" if torch.cuda.is_available() else None}
    how |= {"dtype": base.dtype, "attention": base.attention, "quantize": base.quantize}
    return AVQAModel.fresh(model_config(run.recipe), Path(), seed=run.seed, **how)


def _loaded(run: Run, *, folder: Path, name: str) -> AVQAModel:
    """The model as a stage of the run left it."""
    return load_stage_model(run.recipe, Place(work=folder), name)


Start = Callable[[Run], AVQAModel]


def _noted(run: Run, shared: Shared, folder: Path, name: str, start: Start) -> Any:
    """What a stage cost; it is trained if no note says that it was."""
    note = folder / f"{name}.json"
    if not note.exists():
        write_json(note, _stage(run, shared, folder, name, start))
    return json.loads(note.read_text())


def _stage(run: Run, shared: Shared, folder: Path, name: str, start: Start) -> dict[str, Any]:
    """Train a stage; returns what it cost, in processor seconds of this process."""
    stage = getattr(run.recipe, name)
    model = start(run)
    resumed = any((folder / name).glob("checkpoint-*"))
    started = time.process_time()
    if isinstance(stage, PreferConfig):
        _prefer(model, run, shared, folder, stage)
    else:
        _connect(model, run, shared, folder, name, stage)
    model.save_pretrained(folder / name)
    for path in (folder / name).glob("checkpoint-*"):  # with the optimizer: four times as large
        shutil.rmtree(path)
    return {"processor_s": time.process_time() - started, "resumed": resumed}


def _connect(
    model: AVQAModel, run: Run, shared: Shared, folder: Path, name: str, stage: ConnectConfig
) -> None:
    rows = load_rows(stage, shared)
    if name in run.row.rows:
        rows = ROWS[run.row.rows[name]](rows)
    features = changed(load_clips(run.recipe, shared, stage.features, rows, model), run)
    known = with_records(model, rows, features)
    train_connect(name, model, known, features, stage, folder=folder, resume=True)


def _prefer(model: AVQAModel, run: Run, shared: Shared, folder: Path, stage: PreferConfig) -> None:
    from avqa_llm.training.loop import fit
    from avqa_llm.training.pair_batches import PairBatches
    from avqa_llm.training.prefer import Prefer
    from avqa_llm.training.rows import read_pairs
    from avqa_llm.training.tuning import clips_of_pairs

    pairs, path = read_pairs(shared.rows(stage.rows)), records_file(folder.parent.parent, run)
    rows = clips_of_pairs(pairs)
    features = changed(load_clips(run.recipe, shared, stage.features, rows, model), run)
    if not path.exists():
        known = with_records(model, rows, features, ways=["record"])
        write_json(path, {"records": [row.record for row in known]})
    records = read_json(path)["records"]
    learner = Prefer(model, stage)
    batches = PairBatches(model, pairs, features, stage, records=records)
    fit("prefer", learner, batches, stage.loop, folder=folder, resume=True)
    learner.finish()


def changed(features: ClipFeatures, run: Run) -> ClipFeatures:
    """Features as the run's row wants them."""
    change = Change(pool=run.row.pool, shuffle=run.row.shuffle)
    return Changed(features=features, change=change) if change else features


# -- asking ------------------------------------------------------------------------------------


def ask(model: AVQAModel, run: Run, shared: Shared, condition: str) -> list[Sample]:
    """Ask every question of the test set, clip after clip."""
    from avqa_llm.engine import LocalEngine
    from avqa_llm.labels import to_label
    from eval.benchmarks.bandstand import REWORDED, read

    name = test_name(run.plan.test)
    questions = read(shared.data / name / REWORDED).questions
    ids = clips_of(shared.data / name)
    number = {video: n for n, video in enumerate(ids)}
    gap_s = model.config.picture.pair_gap_s
    found = load_features(encoded(shared, name), seconds=SECONDS, pair_gap_s=gap_s)
    cuts = [CUTS[condition]] * len(ids)
    features = changed(found.chosen(range(len(ids)), cuts), run)
    engine = LocalEngine(model)
    samples = []
    for at in range(0, len(ids), CLIPS):
        clips = range(at, min(at + CLIPS, len(ids)))
        mine = [question for question in questions if number[question.video_id] in clips]
        answers = engine.ask(
            engine.digest([features.clip(n) for n in clips]),
            [(number[question.video_id] - at, question.question) for question in mine],
            open_ended=run.claim.ask == "open",
        )
        samples += [
            Sample.about(
                question,
                answer=answer.answer,
                label=to_label(answer.answer),
                engine_label=answer.label,
                probability=answer.probability,
                consumed=answer.consumed,
            )
            for question, answer in zip(mine, answers, strict=True)
        ]
    return samples


def _write(path: Path, samples: list[Sample]) -> None:
    aside = path.with_suffix(".writing")
    aside.write_text("".join(sample.to_line() for sample in samples), encoding="utf-8")
    os.replace(aside, path)
