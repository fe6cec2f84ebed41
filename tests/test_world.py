"""Which clips are said to be unlike a model's world."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avqa_llm.encoders import Tokens
from avqa_llm.engine import LocalEngine
from avqa_llm.model import ClipTokens, World
from avqa_llm.world import AXES, measure, unlike_world

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT / "../shared/data"))
WIDTH = 24


def tokens(values_ND: torch.Tensor) -> Tokens:
    n = len(values_ND)
    return Tokens(
        values_ND=values_ND, times_N=torch.arange(n) + 0.5, places_N2=torch.zeros(n, 2), length_s=1
    )


def clip(values_ND: torch.Tensor) -> ClipTokens:
    return ClipTokens(sound=Tokens.none(WIDTH), picture=tokens(values_ND), seconds=4.0)


def drawn(seed: int, along: float) -> torch.Tensor:
    """Tokens of a clip that lies somewhere along one axis, with a little of everything."""
    rng = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.ones(WIDTH), dim=0)
    return along * axis + torch.randn(30, WIDTH, generator=rng)


@pytest.fixture(scope="module")
def world() -> World:
    along = torch.linspace(-3, 3, 600).tolist()
    found = measure(drawn(seed, place) for seed, place in enumerate(along))
    assert len(found["axes"]) == AXES * 2 * WIDTH
    return World(name="a world", statistics={f"picture_{key}": v for key, v in found.items()})


def test_a_clip_is_unlike_where_training_clips_hardly_differ(world: World) -> None:
    assert unlike_world(world, clip(drawn(1000, 0.5))) == []
    assert unlike_world(world, clip(drawn(1001, 4.0))) == [], "further along the axis they lie on"
    off = torch.zeros(WIDTH)
    off[0], off[1] = 2.0, -2.0
    (said,) = unlike_world(world, clip(drawn(1002, 0.5) + off))
    assert "The picture is unlike anything in a world" in said


def test_statistics_without_axes_are_read(world: World) -> None:
    older = {key: value for key, value in world.statistics.items() if key != "picture_axes"}
    older["picture_limit"] = [1.0]
    said = unlike_world(replace(world, statistics=older), clip(drawn(1, 9.0)))
    assert len(said) == 1


def test_the_embedded_model_knows_its_own_world_from_a_real_clip() -> None:
    real = DATA / "clips" / "demo_1.mp4"
    if not real.is_file():
        pytest.skip(f"no clip {real}; set AVQA_TEST_DATA to the folder of the data")
    engine = LocalEngine.load("tiny")
    statistics = engine.model.config.world
    own = sorted((ROOT / "app" / "samples").glob("*.mp4"))
    assert own
    for path in own:
        assert unlike_world(statistics, engine.encode(engine.read(path))) == []
    said = unlike_world(statistics, engine.encode(engine.read(real)))
    assert any("picture is unlike anything in Bandstand" in one for one in said)
