"""From a recipe to what a stage needs: the model, the rows, and the features of their clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from avqa_llm.errors import AnnotationError
from avqa_llm.model import AVQAModel, ClipTokens, ModelConfig
from avqa_llm.omni.stage import OmniTraining
from avqa_llm.presets import find_model
from avqa_llm.training.bandstand import read_truth
from avqa_llm.training.connect import ConnectConfig
from avqa_llm.training.encoders import PICTURE, SOUND
from avqa_llm.training.features import ClipFeatures, Features, encode_arrays, load_features
from avqa_llm.training.recipe import Recipe, ValidateConfig
from avqa_llm.training.rows import ClipRow, find_media, read_rows

SECONDS = 10.0
"""Length of Bandstand's training clips."""
READ = 16
"""Clips that the model writes down as one batch."""
RECORDS = ("record", "record_without_sound", "record_without_picture")
"""Fields of a row: what a model writes down of a clip, whole and without one of its sides."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run works."""

    work: Path

    @property
    def data(self) -> Path:
        """Sets that the run made for itself."""
        return self.work / "data"

    def rows(self, name: str) -> Path:
        """A file of rows: of the run's own sets, else as it is written."""
        own = self.data / name
        return own if own.exists() else Path(name)


def parts_folder(recipe: Recipe, place: Place) -> Path:
    """What relative names of the model's parts are relative to."""
    return find_model(recipe.start) if recipe.start else place.work


def load_stage_model(recipe: Recipe, place: Place, before: str | None) -> AVQAModel:
    """The model that a stage goes on with: as the stage `before` left it, or at its start."""
    parts = parts_folder(recipe, place)
    how: dict[str, Any] = {"device": "cuda" if torch.cuda.is_available() else None}
    if recipe.base:
        base = recipe.base
        how |= {"dtype": base.dtype, "attention": base.attention, "quantize": base.quantize}
    if before:
        return AVQAModel.from_pretrained(place.work / before, parts=parts, trained=True, **how)
    if recipe.start:
        model = AVQAModel.from_pretrained(parts, trained=True, **how)
        if recipe.records is not None:
            model.config = dataclasses.replace(model.config, records=recipe.records)
        return model
    return AVQAModel.fresh(model_config(recipe), parts, **how)


def model_config(recipe: Recipe) -> ModelConfig:
    """What a model with a new bridge and a new adapter is made of."""
    shape: dict[str, Any] = {
        "bridge": recipe.bridge,
        "lora": recipe.lora,
        "tagged": recipe.tagged,
    }
    if recipe.base is None:
        return ModelConfig(picture=PICTURE, sound=SOUND, llm="llm", **shape)
    base = recipe.base
    return ModelConfig(
        picture=dataclasses.replace(base.picture, source=_anywhere(base.picture.source)),
        sound=dataclasses.replace(base.sound, source=_anywhere(base.sound.source)),
        llm=_anywhere(base.llm),
        llm_revision=base.llm_revision,
        records=base.records,
        **shape,
    )


def _anywhere(source: str) -> str:
    """A directory by its whole path, so that the model can be loaded from elsewhere."""
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def load_rows(wanted: ConnectConfig | ValidateConfig | OmniTraining, place: Place) -> list[ClipRow]:
    """Rows of a stage."""
    path = place.rows(wanted.rows)
    if not path.exists():
        raise AnnotationError(
            f"rows {wanted.rows!r}: neither {place.data / path} nor {path.absolute()} exists; write"
            " them by hand or with `python -m instruct_data build`, and name them in the recipe"
        )
    return read_rows(path, splits=wanted.splits)


def load_clips(
    recipe: Recipe, place: Place, features: str, rows: Sequence[ClipRow], model: AVQAModel
) -> ClipFeatures:
    """Features of the clips of some rows; what is missing is encoded first.

    Raises:
        AnnotationError: rows about other clips than the set's, or about changed ones.
    """
    if not features:
        return media_features(recipe, place, rows, model)
    for row in rows:
        if row.cut.is_part or row.cut.mirrored or row.cut.reversed:
            raise AnnotationError(
                f"{row.video_id}: the row is about a part of the clip, or mirrors or reverses it,"
                f" but the features of the set {features!r} are of whole clips as they are: leave"
                " such rows out, or write the clips as files and name their folder with `media`"
            )
    folder = place.work / "features" / features
    encode_arrays(place.data / features, folder, model.picture, model.sound)
    known = {row["video_id"]: n for n, row in enumerate(read_truth(place.data / features))}
    if odd := [row.video_id for row in rows if row.video_id not in known]:
        raise AnnotationError(
            f"{len(odd)} clips, such as {odd[0]}, are not in the set {features!r}: rows and"
            " features must be of the same one"
        )
    found = array_features(folder, model.config.picture.pair_gap_s)
    return found.chosen([known[row.video_id] for row in rows], [row.cut for row in rows])


@lru_cache(maxsize=2)
def array_features(folder: Path, pair_gap_s: float) -> Features:
    """Features of a set, read once for the stages that share it."""
    return load_features(folder, seconds=SECONDS, pair_gap_s=pair_gap_s)


def media_features(
    recipe: Recipe, place: Place, rows: Sequence[ClipRow], model: AVQAModel
) -> ClipFeatures:
    """Features of media files, by content; those of an earlier run or stage are used again."""
    from avqa_llm.featuring import encode_rows
    from avqa_llm.training.stored import StoredFeatures

    folder = Path(recipe.media)
    paths = find_media(rows, folder)
    store = encode_rows(
        model, folder, list(zip(paths, (row.cut for row in rows), strict=True)),
        out=place.work / "features" / "media",
    )  # fmt: skip
    names = [path.relative_to(folder).as_posix() for path in paths]
    return StoredFeatures(store, names, cuts=[row.cut for row in rows])


def with_records(
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    ways: Sequence[str] = RECORDS,
) -> list[ClipRow]:
    """Rows whose clips have a record: where none is known, the model writes it, as it will in use.

    Such a record is read in training, not learned. Models without records leave rows as they are.
    `ways`: those of `RECORDS` that are needed; each is a clip read again.
    """
    if not model.config.records:
        return list(rows)
    unknown = [n for n, row in enumerate(rows) if not row.record]
    found: dict[int, dict[str, Any]] = {}
    for at in range(0, len(unknown), READ):
        some = unknown[at : at + READ]
        texts = written(model, [features.clip(n) for n in some], ways)
        found.update(zip(some, texts, strict=True))
    return [
        dataclasses.replace(row, **found[n], written=True) if n in found else row
        for n, row in enumerate(rows)
    ]


def written(
    model: AVQAModel, clips: Sequence[ClipTokens], ways: Sequence[str] = RECORDS
) -> list[dict[str, Any]]:
    """The records that a model writes of clips, by field of a row: those of `ways`."""
    from avqa_llm.encoders import Tokens
    from avqa_llm.engine import LocalEngine

    engine = LocalEngine(model, merge=False)
    deaf = [dataclasses.replace(c, sound=Tokens.none(model.sound.width)) for c in clips]
    blind = [dataclasses.replace(c, picture=Tokens.none(model.picture.width)) for c in clips]
    given = dict(zip(RECORDS, (clips, deaf, blind), strict=True))
    texts = [engine.digest(given[way]).records for way in ways]
    return [dict(zip(ways, said, strict=True)) for said in zip(*texts, strict=True)]
