"""Features of a Bandstand set's arrays: of these encoders and no others, and cut as rows say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from avqa_llm.encoders.cache import identity
from avqa_llm.errors import AnnotationError, CheckpointError
from avqa_llm.media.changes import Cut
from avqa_llm.model import AVQAModel
from avqa_llm.presets import find_model
from avqa_llm.training.assemble import Place, load_clips, load_rows
from avqa_llm.training.connect import ConnectConfig
from avqa_llm.training.features import encode_arrays, load_features
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.recipe import Recipe
from avqa_llm.training.rows import ClipRow
from instruct_data.bandstand.write import SetConfig, write_set


@pytest.fixture(scope="module")
def model() -> AVQAModel:
    return AVQAModel.from_pretrained(find_model("tiny"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: AVQAModel) -> Place:
    place = Place(work=tmp_path_factory.mktemp("run"))
    write_set(place.data / "set", SetConfig(clips=2, seed=7, media="arrays"))
    encode_arrays(place.data / "set", place.work / "features/set", model.picture, model.sound)
    return place


@pytest.fixture(scope="module")
def rows(place: Place) -> list[ClipRow]:
    loop = LoopConfig(steps=1, batch=1, lr=0.0)
    return load_rows(ConnectConfig(rows="set/instruct.jsonl", loop=loop), place)


@pytest.fixture(scope="module")
def recipe(place: Place) -> Recipe:
    return Recipe(out="out", work=str(place.work), start="tiny")


@pytest.fixture
def copied(place: Place, tmp_path: Path) -> Path:
    shutil.copytree(place.work / "features/set", tmp_path / "features")
    return tmp_path / "features"


def test_features_of_other_encoders_are_refused(
    model: AVQAModel, place: Place, copied: Path
) -> None:
    again = (place.data / "set", copied, model.picture, model.sound)
    (path,) = copied.glob("*.safetensors")
    written, before = path.stat().st_mtime_ns, load_features(copied, seconds=10.0, pair_gap_s=0.2)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert about == {"picture": identity(model.picture), "sound": identity(model.sound)}
    encode_arrays(*again)
    assert path.stat().st_mtime_ns == written, "what is there stays"

    weight = next(model.sound.model.parameters())
    weight.data[0] += 1
    try:
        with pytest.raises(
            CheckpointError, match=f"{copied} holds.*other encoders.*remove {copied}"
        ):
            encode_arrays(*again)
    finally:
        weight.data[0] -= 1
    for silent in (None, {"sound": about["sound"]}):
        save_file(load_file(path), path, metadata=silent)
        with pytest.raises(CheckpointError, match=f"does not say.*remove {copied}"):
            encode_arrays(*again)
        with pytest.raises(CheckpointError, match=f"does not say.*remove {copied}"):
            load_features(copied, seconds=10.0, pair_gap_s=0.2)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"cannot be read.*remove {copied}"):
        encode_arrays(*again)
    shutil.rmtree(copied)
    encode_arrays(*again)
    after = load_features(copied, seconds=10.0, pair_gap_s=0.2)
    assert torch.equal(before.sound_NTD, after.sound_NTD)


def test_array_files_may_go_when_all_clips_are_encoded(
    model: AVQAModel, place: Place, copied: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    shutil.copy(place.data / "set/truth.json", folder)
    encode_arrays(folder, copied, model.picture, model.sound)
    (path,) = copied.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file({name: value[:1] for name, value in load_file(path).items()}, path, metadata=about)
    with pytest.raises(AnnotationError, match=f"{folder} holds no arrays"):
        encode_arrays(folder, copied, model.picture, model.sound)


def test_files_of_different_encoders_are_no_set(copied: Path) -> None:
    (path,) = copied.glob("*.safetensors")
    save_file(
        load_file(path), copied / "features-9.safetensors", metadata={"picture": "a", "sound": "b"}
    )
    with pytest.raises(CheckpointError, match="features-9.safetensors"):
        load_features(copied, seconds=10.0, pair_gap_s=0.2)


def test_a_cut_takes_a_modality_away(
    model: AVQAModel, place: Place, recipe: Recipe, rows: list[ClipRow]
) -> None:
    whole = load_clips(recipe, place, "set", rows, model)
    deaf, blind = replace(rows[1], cut=Cut(sound=False)), replace(rows[0], cut=Cut(picture=False))
    found = load_clips(recipe, place, "set", [deaf, blind, rows[0]], model)
    assert [found.present(n) for n in range(3)] == [(False, True), (True, False), (True, True)]
    assert found.clip(0).sound.n == found.clip(1).picture.n == 0
    assert found.clip(0).sound.values_ND.shape[1] == model.sound.width
    assert torch.equal(found.clip(0).picture.values_ND, whole.clip(1).picture.values_ND)
    assert torch.equal(found.clip(2).picture.values_ND, whole.clip(0).picture.values_ND)
    sound, picture, seconds_B = found.batch([2, 1, 0])
    assert sound.there_BN.any(1).tolist() == [True, True, False]
    assert picture.there_BN.any(1).tolist() == [True, False, True]
    assert seconds_B.tolist() == [found.timeline(0)] * 3
    same = load_clips(recipe, place, "set", [rows[0], deaf], model)
    assert [same.present(n) for n in (0, 1)] == [(True, True), (False, True)]
    assert whole.present(1) == (True, True), "features that are shared stay as they are"


def test_features_keep_their_cuts_when_some_are_chosen(place: Place) -> None:
    features = load_features(place.work / "features/set", seconds=10.0, pair_gap_s=0.2)
    cut = features.chosen([0, 1], [Cut(), Cut(sound=False)])
    assert cut.chosen([1]).present(0) == (False, True)
    assert features.chosen([1]).present(0) == (True, True)
    with pytest.raises(ValueError, match="2 clips and 1 cuts"):
        features.chosen([0, 1], [Cut()])


@pytest.mark.parametrize("cut", [Cut(end_s=4.0), Cut(mirrored=True), Cut(reversed=True)])
def test_other_changes_are_refused(
    model: AVQAModel, place: Place, recipe: Recipe, rows: list[ClipRow], cut: Cut
) -> None:
    changed = [rows[0], replace(rows[1], cut=cut)]
    with pytest.raises(AnnotationError, match=f"{rows[1].video_id}: .*'set' are of whole clips"):
        load_clips(recipe, place, "set", changed, model)
