"""A model directory with media, and `avqa features` over them, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from avqa_llm.cli import main
from avqa_llm.encoders import Tokens
from avqa_llm.model import AVQAModel
from tests.media_files import Picture, Sound, at_rate, make_media
from tests.model_parts import write_parts

NAMES = tuple(f"{n}.mp4" for n in range(5))


def make_world(top: Path) -> Path:
    """Write `model` and `media`, whose files differ in length and loudness."""
    config = write_parts(top / "model", "llama-vit-vit")
    AVQAModel.fresh(config, top / "model").save_pretrained(top / "model")
    (top / "media" / "deep").mkdir(parents=True)
    for n, name in enumerate(NAMES):
        picture = Picture(times_s=at_rate(5, 2.0 + 0.5 * n))
        sound = Sound(seconds=2.0 + 0.5 * n, volume=0.1 + 0.1 * n, layout="stereo")
        make_media(top / "media" / name, picture, sound)
    make_media(top / "media" / "deep" / "deaf.mp4", Picture(times_s=at_rate(5, 3.0)))
    return top


def line(source: Path, folder: Path, out: Path, *more: str) -> list[str]:
    return ["features", str(source), "--model", str(folder / "model"), "--out", str(out), *more]


def features(source: Path, folder: Path, out: Path, *more: str) -> int:
    return main(line(source, folder, out, *more))


def tensors(out: Path) -> dict[str, torch.Tensor]:
    """All tensors of a store by key of the clip and name."""
    found = {}
    for path in (out / "shards").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            index = json.loads(file.metadata()["index"])
            for name in file.keys():  # noqa: SIM118
                number, rest = name.split(".", 1)
                key = f"{index[int(number)]['key']} {rest}"
                assert key not in found, "a clip was encoded twice"
                found[key] = file.get_tensor(name)
    return found


def assert_same_store(one: Path, other: Path) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys() and first
    assert all(torch.equal(first[key], second[key]) for key in first)


def same(one: Tokens, other: Tokens) -> bool:
    return (
        torch.equal(one.values_ND, other.values_ND)
        and torch.equal(one.times_N, other.times_N)
        and torch.equal(one.places_N2, other.places_N2)
        and one.length_s == other.length_s
    )
