"""What a stage is given: the right clip's features for each row, and a record where one is due."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from avqa_llm.errors import AnnotationError
from avqa_llm.model import AVQAModel
from avqa_llm.presets import find_model
from avqa_llm.training.assemble import Place, load_clips, load_rows, with_records
from avqa_llm.training.connect import ConnectConfig
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.recipe import Recipe
from instruct_data.bandstand.write import SetConfig, write_set

STAGE = ConnectConfig(
    rows="set/instruct.jsonl", features="set", loop=LoopConfig(steps=1, batch=1, lr=0.0)
)


@pytest.fixture(scope="module")
def model() -> AVQAModel:
    return AVQAModel.from_pretrained(find_model("tiny"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(work=tmp_path_factory.mktemp("run"))
    write_set(place.data / "set", SetConfig(clips=3, seed=7, media="arrays"))
    return place


@pytest.fixture(scope="module")
def recipe(place: Place) -> Recipe:
    return Recipe(out="out", work=str(place.work), start="tiny")


def test_rows_find_their_clips_by_name_in_any_order(
    model: AVQAModel, place: Place, recipe: Recipe
) -> None:
    rows = load_rows(STAGE, place)
    whole = load_clips(recipe, place, "set", rows, model)
    turned = load_clips(recipe, place, "set", [rows[2], rows[0]], model)
    assert len(whole) == 3 and len(turned) == 2
    for one, other in ((0, 2), (1, 0)):
        here, there = turned.clip(one), whole.clip(other)
        assert torch.equal(here.sound.values_ND, there.sound.values_ND)
        assert torch.equal(here.picture.values_ND, there.picture.values_ND)
    assert not torch.equal(turned.clip(0).sound.values_ND, turned.clip(1).sound.values_ND)
    with pytest.raises(AnnotationError, match="not in the set 'set'"):
        load_clips(recipe, place, "set", [replace(rows[0], video_id="other")], model)


def test_a_record_is_written_by_the_model_where_none_is_known(
    model: AVQAModel, place: Place, recipe: Recipe
) -> None:
    rows = load_rows(STAGE, place)
    bare = replace(rows[1], record="", record_without_sound="", record_without_picture="")
    features = load_clips(recipe, place, "set", rows, model)
    before = {name: value.clone() for name, value in model.llm.state_dict().items()}
    found = with_records(model, [rows[0], bare, rows[2]], features)
    assert [row.written for row in found] == [False, True, False]
    assert found[0] == rows[0]
    assert found[1].record and found[1].record != found[1].record_without_sound
    # Without the sound nothing can be said of when and how loud, without the picture of where.
    assert " l" not in found[1].record_without_sound.replace("left", "")
    assert not {"left", "middle", "right"} & set(found[1].record_without_picture.split())
    _, whole = with_records(model, [rows[0], bare], features, ways=["record"])
    assert whole == replace(found[1], record_without_sound="", record_without_picture="")
    after = model.llm.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    silent = replace(model.config, records=False)
    quiet, model.config = model.config, silent
    try:
        assert with_records(model, [bare], features) == [bare]
    finally:
        model.config = quiet


def test_rows_that_are_nowhere_are_named(place: Place) -> None:
    with pytest.raises(AnnotationError, match=r"neither .*none.jsonl nor .*none.jsonl exists"):
        load_rows(replace(STAGE, rows="none.jsonl"), place)
