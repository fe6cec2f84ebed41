"""Encoders: every family's tokens lie where the picture and the sound are; loading; cache."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avqa_llm.encoders import PictureConfig, PictureEncoder, SoundConfig, SoundEncoder, Tokens
from avqa_llm.encoders.cache import FeatureCache, feature_key, fingerprint, identity
from avqa_llm.encoders.load import load_picture_encoder, load_sound_encoder
from avqa_llm.errors import CheckpointError
from avqa_llm.media import PerSecond
from tests.miniatures import (
    PICTURE_KINDS,
    SOUND_KINDS,
    make_clip,
    picture_model,
    saved,
    sound_model,
)

LONG_S = 31.8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    models = {f"picture-{kind}": picture_model(kind) for kind in PICTURE_KINDS}
    models |= {f"sound-{kind}": sound_model(kind) for kind in SOUND_KINDS}
    return {name: saved(model, root / name) for name, model in models.items()}


@pytest.fixture(scope="module")
def hearing(checkpoints: dict[str, Path]) -> dict[str, SoundEncoder]:
    return {
        kind: load_sound_encoder(SoundConfig(source=str(checkpoints[f"sound-{kind}"])))
        for kind in SOUND_KINDS
    }


def picture(checkpoints: dict[str, Path], kind: str, **how: Any) -> PictureEncoder:
    how = {"grid": (4, 4)} | how
    source = str(checkpoints[f"picture-{kind}"])
    return load_picture_encoder(PictureConfig(source=source, **how))


# -- picture -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PICTURE_KINDS)
@pytest.mark.parametrize(("height", "width", "grid"), [(32, 32, (4, 4)), (24, 48, (3, 6))])
def test_a_changed_patch_changes_its_own_token_most(
    checkpoints: dict[str, Path], kind: str, height: int, width: int, grid: tuple[int, int]
) -> None:
    size = {"height": height, "width": width} if (height, width) != (32, 32) else {}
    encoder = picture(checkpoints, kind, motion="none", grid=grid, **size)
    frame = torch.full((1, 3, height, width), 90, dtype=torch.uint8)
    changed = frame.clone()
    changed[:, :, 8:16, width - 8 :] = 220
    with torch.no_grad():
        change = (encoder.grid_PRQD(changed) - encoder.grid_PRQD(frame)).norm(dim=-1)[0]
    assert change.shape == grid
    assert divmod(int(change.argmax()), grid[1]) == (1, grid[1] - 1)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_only_the_vision_tower_of_a_whole_checkpoint_is_loaded(
    checkpoints: dict[str, Path], kind: str
) -> None:
    whole = picture_model(kind).eval()
    encoder = picture(checkpoints, kind, motion="none")
    names = [name for name, _ in encoder.model.named_parameters()]
    assert names and not any("text" in name for name in names)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        there = whole.vision_model(pixel_values=pixels).last_hidden_state
        here = encoder.model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(here, there)


def test_tokens_have_time_and_place(checkpoints: dict[str, Path]) -> None:
    encoder = picture(checkpoints, "siglip", grid=(2, 4))
    tokens = encoder(make_clip(3.0))
    assert tokens.values_ND.shape == (3 * 8, encoder.width) == (24, 64)
    assert tokens.times_N.tolist() == pytest.approx([t for t in (0.6, 1.6, 2.6) for _ in range(8)])
    assert tokens.places_N2[:5].tolist() == [
        [0.125, 0.25],
        [0.375, 0.25],
        [0.625, 0.25],
        [0.875, 0.25],
        [0.125, 0.75],
    ]


def test_motion_is_zero_on_a_still_clip_and_only_there(checkpoints: dict[str, Path]) -> None:
    encoder = picture(checkpoints, "dinov2", motion="difference")
    moving, still = (encoder(make_clip(still=flag)).values_ND for flag in (False, True))
    torch.testing.assert_close(moving[:, :32], still[:, :32])
    assert still[:, 32:].abs().max() < 1e-5 < 1e-2 < moving[:, 32:].abs().max()


def test_stacked_frames_need_an_encoder_with_six_channels(checkpoints: dict[str, Path]) -> None:
    shape = {"image_size": (24, 32), "patch_size": (12, 8), "num_channels": 6}
    config = PictureConfig(source="six", motion="stack", grid=(2, 4))
    encoder = PictureEncoder(config, picture_model("vit", **shape))
    moving, still = (encoder(make_clip(still=flag)).values_ND for flag in (False, True))
    assert moving.shape == still.shape == (4 * 8, 32)
    assert not torch.allclose(moving, still, atol=1e-3)
    with pytest.raises(CheckpointError, match="3 channels and motion 'stack' gives 6"):
        picture(checkpoints, "vit", motion="stack")


def test_a_grid_finer_than_the_patches_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"\(7, 7\) is finer than its 4 x 4"):
        picture(checkpoints, "vit", grid=(7, 7))


def test_normalisation_comes_from_config_then_checkpoint_then_family(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    assert picture(checkpoints, "clip").mean[0] == pytest.approx(0.48145466)
    assert picture(checkpoints, "dinov2").std == (0.229, 0.224, 0.225)
    folder = saved(picture_model("clip"), tmp_path / "own")
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "size": {"shortest_edge": 40}}
    said |= {"do_center_crop": True, "crop_size": {"height": 24, "width": 48}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    config = PictureConfig(source=str(folder), grid=(3, 3))
    encoder = load_picture_encoder(config)
    assert (encoder.mean, encoder.std, encoder.size) == ((0.1, 0.2, 0.3), (1, 1, 1), (24, 48))
    encoder = load_picture_encoder(replace(config, mean=(0.5, 0.5, 0.5), height=32))
    assert (encoder.mean, encoder.size) == ((0.5, 0.5, 0.5), (32, 48))


# -- sound -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOUND_KINDS)
def test_an_event_changes_the_tokens_of_its_time_most(
    hearing: dict[str, SoundEncoder], kind: str
) -> None:
    encoder = hearing[kind]
    window = encoder.family.window_s
    clip = make_clip(window)
    start, stop = round(0.7 * window * 16000), round(0.8 * window * 16000)
    loud = clip.sound_CS.copy()
    loud[:, start:stop] += 0.3 * np.sin(np.arange(stop - start) * 0.4).astype(np.float32)
    quiet, changed = encoder(clip), encoder(replace(clip, sound_CS=loud))
    change = (changed.values_ND - quiet.values_ND).norm(dim=-1)
    at = quiet.times_N / window
    assert 0.68 < float(at[change.argmax()]) < 0.82
    inside = (at > 0.7) & (at < 0.8)
    assert change[inside].mean() > 2 * change[at < 0.6].mean()


@pytest.mark.parametrize("kind", SOUND_KINDS)
def test_tokens_cover_a_clip_longer_than_the_window(
    hearing: dict[str, SoundEncoder], kind: str
) -> None:
    encoder = hearing[kind]
    tokens = encoder(make_clip(LONG_S), batch=2)
    starts = tokens.times_N - tokens.length_s / 2
    assert tokens.values_ND.shape == (len(starts), encoder.width) == (len(starts), 32)
    assert starts[0].abs() < 1e-4
    assert bool((tokens.times_N.diff() > 0.9 * tokens.length_s).all())
    assert LONG_S - tokens.length_s - 1e-3 < float(starts[-1]) < LONG_S
    assert tokens.values_ND.isfinite().all()


@pytest.mark.parametrize("kind", SOUND_KINDS)
def test_the_batch_size_changes_nothing_for_sound(
    hearing: dict[str, SoundEncoder], kind: str
) -> None:
    clip = make_clip(2.2 * hearing[kind].family.advance_s)
    one, all_ = hearing[kind](clip, batch=1), hearing[kind](clip, batch=8)
    torch.testing.assert_close(one.values_ND, all_.values_ND, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seconds", [0.3, 4.8, 7.3, 10.0])
def test_a_sound_shorter_than_the_window_is_cut_to_its_length(
    hearing: dict[str, SoundEncoder], seconds: float
) -> None:
    assert hearing["vit"](make_clip(seconds)).n == round(seconds * 10)


def test_clap_with_fusion_hears_the_same_twice() -> None:
    model = sound_model("clap", enable_fusion=True).audio_model
    encoder = SoundEncoder(SoundConfig(source="fused"), model)
    first, second = (encoder(make_clip(21.0)).values_ND for _ in range(2))
    torch.testing.assert_close(first, second)


def test_the_extractor_of_a_checkpoint_is_used(
    checkpoints: dict[str, Path], hearing: dict[str, SoundEncoder], tmp_path: Path
) -> None:
    kind = "audio-spectrogram-transformer"
    folder = saved(sound_model(kind), tmp_path)
    said = {"feature_extractor_type": "ASTFeatureExtractor", "mean": -1.0, "std": 2.0}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = load_sound_encoder(SoundConfig(source=str(folder)))
    clip = make_clip(2.0)
    assert not torch.allclose(encoder(clip).values_ND, hearing[kind](clip).values_ND, atol=1e-3)
    assert identity(encoder) != identity(hearing[kind])


def test_a_picture_model_is_refused_as_an_ear(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="'clip'.*whisper"):
        load_sound_encoder(SoundConfig(source=str(checkpoints["picture-clip"])))
    with pytest.raises(CheckpointError, match="2 channels"):
        load_sound_encoder(SoundConfig(source=str(checkpoints["picture-vit"])))


# -- both --------------------------------------------------------------------------------------


def test_a_missing_modality_gives_no_tokens(
    checkpoints: dict[str, Path], hearing: dict[str, SoundEncoder]
) -> None:
    look = picture(checkpoints, "siglip")
    blank = look(make_clip().blanked())
    assert (blank.n, blank.values_ND.shape[1]) == (0, look.width)
    for hear in hearing.values():
        assert hear(make_clip().muted()).values_ND.shape == (0, hear.width)


def test_encoders_stay_frozen_and_in_eval_mode(
    checkpoints: dict[str, Path], hearing: dict[str, SoundEncoder]
) -> None:
    parent = torch.nn.ModuleList([picture(checkpoints, "siglip"), *hearing.values()])
    parent.append(torch.nn.Dropout())
    parent.train()
    assert parent[-1].training
    assert not any(m.training for encoder in parent[:-1] for m in encoder.modules())
    assert not any(p.requires_grad for p in parent.parameters())


def test_the_batch_size_changes_nothing_for_pictures(checkpoints: dict[str, Path]) -> None:
    look = picture(checkpoints, "dinov2_with_registers")
    one, all_ = look(make_clip(5.0), batch=1), look(make_clip(5.0), batch=8)
    torch.testing.assert_close(one.values_ND, all_.values_ND, rtol=1e-4, atol=1e-5)


def test_saving_and_loading_keeps_the_numbers(
    checkpoints: dict[str, Path], hearing: dict[str, SoundEncoder]
) -> None:
    clip = make_clip()
    look = PictureEncoder(PictureConfig(source="fresh", grid=(4, 4)), picture_model("vit"))
    hear = SoundEncoder(SoundConfig(source="fresh"), sound_model("vit"))
    again = picture(checkpoints, "vit")
    torch.testing.assert_close(look(clip).values_ND, again(clip).values_ND)
    torch.testing.assert_close(hear(clip).values_ND, hearing["vit"](clip).values_ND)
    assert identity(look) == identity(again)


# -- loading -----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_name_is_found_in_the_cache_by_revision(hub: Path) -> None:
    repository, commit = hub / "models--some--eye", "a" * 40
    saved(picture_model("siglip"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for revision in (None, commit):
        config = PictureConfig(source="some/eye", revision=revision, grid=(4, 4))
        assert load_picture_encoder(config).width == 64
    with pytest.raises(CheckpointError, match=f"--revision {'b' * 40}"):
        load_picture_encoder(PictureConfig(source="some/eye", revision="b" * 40))


def test_what_is_not_there_says_what_to_do(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hf download no/such.*HF_HUB_OFFLINE"):
        load_sound_encoder(SoundConfig(source="no/such"))
    with pytest.raises(CheckpointError, match="no such directory"):
        load_sound_encoder(SoundConfig(source=str(tmp_path / "nowhere")))
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(CheckpointError, match="not a model.*config.json"):
        load_picture_encoder(PictureConfig(source=str(tmp_path / "empty")))


def test_only_whole_safetensors_are_loaded(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(picture_model("siglip"), tmp_path)
    config, weights = PictureConfig(source=str(folder), grid=(4, 4)), folder / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "vision" in name and "fc1.weight" in name)
    save_file({k: v for k, v in tensors.items() if k != name}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights of SiglipVisionModel are missing"):
        load_picture_encoder(config)
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_picture_encoder(config)
    weights.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="Only safetensors"):
        load_picture_encoder(config)


# -- cache -------------------------------------------------------------------------------------


def features(width: int = 6) -> tuple[Tokens, Tokens]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, width, generator=generator) * 10
    times = torch.arange(50) * 0.1 + 1000.05
    tokens = Tokens(values_ND=values, times_N=times, places_N2=torch.rand(50, 2), length_s=1 / 3)
    return tokens, Tokens.none(width)


def test_cached_features_equal_fresh_ones(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_bytes=10**6)
    assert cache.get("k") is None
    fresh = features()
    cache.put("k", *fresh)
    cached = FeatureCache(tmp_path, limit_bytes=10**6).get("k")
    assert cached is not None
    for one, other in zip(fresh, cached, strict=True):
        torch.testing.assert_close(one.values_ND, other.values_ND, rtol=1e-3, atol=1e-5)
        assert other.values_ND.dtype == torch.float32
        assert torch.equal(one.times_N, other.times_N)
        assert torch.equal(one.places_N2, other.places_N2)
        assert one.length_s == other.length_s
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]


def test_values_too_large_for_half_precision_survive(tmp_path: Path) -> None:
    tokens, none = features()
    tokens = replace(tokens, values_ND=tokens.values_ND * 1e5)
    cache = FeatureCache(tmp_path, limit_bytes=10**6)
    cache.put("k", tokens, none)
    cached = cache.get("k")
    assert cached is not None and torch.equal(cached[0].values_ND, tokens.values_ND)


def test_the_key_changes_with_all_that_decides_the_tokens() -> None:
    def encoder(**how: Any) -> PictureEncoder:
        config = PictureConfig(source="here", grid=(2, 2))
        return PictureEncoder(replace(config, **how), picture_model("vit"))

    first, changed = encoder(), encoder()
    assert identity(first) == identity(encoder(source="elsewhere"))
    with torch.no_grad():
        next(changed.model.parameters()).view(-1)[0] += 1e-6
    assert fingerprint(first) != fingerprint(changed)
    who = [identity(e) for e in (first, changed, encoder(motion="none"), encoder(grid=(4, 4)))]
    keys = {feature_key("f", name, "s", PerSecond()) for name in who}
    keys |= {feature_key("g", who[0], "s", PerSecond())}
    keys |= {feature_key("f", who[0], "t", PerSecond())}
    keys |= {feature_key("f", who[0], "s", PerSecond(fps=2))}
    assert len(keys) == 7


def test_a_damaged_or_foreign_file_is_replaced(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_bytes=10**6)
    path = tmp_path / "k.safetensors"
    cache.put("k", *features())
    whole = path.read_bytes()
    cache.put("other", *features())
    for damaged in (whole[:-7], b"", b"no features", (tmp_path / "other.safetensors").read_bytes()):
        path.write_bytes(damaged)
        assert cache.get("k") is None
        cache.put("k", *features())
        assert cache.get("k") is not None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    import os

    cache = FeatureCache(tmp_path, limit_bytes=10**6)
    cache.put("0", *features())
    size = (tmp_path / "0.safetensors").stat().st_size
    cache = FeatureCache(tmp_path, limit_bytes=4 * size)
    for n in (1, 2, 3):
        cache.put(str(n), *features())
    for n in range(4):
        os.utime(tmp_path / f"{n}.safetensors", (1000 + n, 1000 + n))
    assert cache.get("0") is not None  # used just now
    cache.put("4", *features())
    assert {n for n in "01234" if cache.get(n) is not None} == {"0", "3", "4"}


def _write_often(folder: Path) -> None:
    cache = FeatureCache(folder, limit_bytes=10**6)
    for _ in range(100):
        cache.put("k", *features())


def test_two_processes_may_write_the_same_key(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_bytes=10**6)
    cache.put("k", *features())
    other = multiprocessing.get_context("spawn").Process(target=_write_often, args=(tmp_path,))
    other.start()
    while other.is_alive():
        cache.put("k", *features())
        assert cache.get("k") is not None
    other.join()
    assert other.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]
