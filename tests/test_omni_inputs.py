"""Omni bases: frames, spectrograms, counts, order and positions, against transformers' own.

Legend: T frames, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from avqa_llm.omni.batch import picture_times
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.families import FAMILIES, qwen2_5_sound_tokens, qwen3_sound_tokens
from avqa_llm.omni.inputs import OmniClip, Preparation, fitted, patchify
from avqa_llm.omni.model import OmniModel
from tests.omni_parts import (
    KINDS,
    MEAN,
    SETTINGS,
    STD,
    clip_of,
    small_config,
    small_model,
    small_thinker,
    small_tokenizer,
    write_base,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost miniatures more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(kind, tmp_path_factory.mktemp(kind) / "base")


@pytest.fixture(scope="module")
def model(base: Path) -> OmniModel:
    return small_model(base)


# -- preparation -------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [14, 16])
def test_patches_are_those_of_the_image_processor(patch: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    most, unit = 8 * (2 * patch) ** 2, 2 * patch
    theirs = Qwen2VLImageProcessorPil(
        patch_size=patch,
        size={"shortest_edge": unit**2, "longest_edge": most},
        image_mean=MEAN,
        image_std=STD,
    )
    frame = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    wanted = theirs(images=[frame], return_tensors="np")
    ours = _prepared(patch, most, frame[None])
    assert ours.picture.grid == tuple(wanted["image_grid_thw"][0])
    np.testing.assert_allclose(ours.picture.patches_PD, wanted["pixel_values"], atol=1e-5)


def _prepared(patch: int, most: int, frames: np.ndarray) -> OmniClip:
    kind = {14: KINDS[0], 16: KINDS[1]}[patch]
    config = OmniConfig(
        **{**small_config(kind), "max_pixels": most, "min_pixels": (2 * patch) ** 2}
    )
    thinker = small_thinker(kind, small_tokenizer(kind)).config
    prepare = Preparation(config, FAMILIES[kind], thinker, SETTINGS)
    clip = clip_of(0).muted()
    return prepare(replace(clip, frames_THWC=frames, frame_times_s=np.arange(len(frames)) / 2))


def test_two_frames_lie_one_after_the_other_in_a_patch() -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 3, 28, 56)).astype(np.float32)
    both, grid = patchify(pixels, 2, 14, 2)
    assert grid == (2, 2, 4) and both.shape == (16, 3 * 2 * 14 * 14)
    split = both.reshape(2, 8, 3, 2, 14, 14)
    for step, (first, second) in enumerate([(0, 1), (2, 2)]):  # the last one is repeated
        for place, frame in enumerate((first, second)):
            alone, _ = patchify(pixels[[frame, frame]], 2, 14, 2)
            np.testing.assert_array_equal(
                split[step, :, :, place], alone.reshape(8, 3, 2, 14, 14)[:, :, 0]
            )


def test_sizes_are_those_of_transformers() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 1500, (300, 2)).tolist():
        own = fitted(height, width, unit=28, least=16 * 784, most=128 * 784)
        assert own == smart_resize(height, width, 28, 16 * 784, 128 * 784)


def test_spectrograms_are_those_of_the_processor(model: OmniModel, kind: str) -> None:
    clip = clip_of(3)
    clip = replace(clip, sound_CS=clip.sound_CS[:, :70001])
    wave = clip.sound_at(16000, channels=1)[0]
    padding: Any = "max_length" if kind == KINDS[0] else True  # as their processors call it
    theirs = model.prepare.extractor(
        wave, sampling_rate=16000, padding=padding, truncation=False, return_attention_mask=True,
        return_tensors="pt",
    )  # fmt: skip
    wanted = theirs["input_features"][0][:, theirs["attention_mask"][0].bool()]
    mel = model.prepare(clip).sound.mel_MF
    assert mel is not None and mel.shape == wanted.shape
    torch.testing.assert_close(mel, wanted, atol=1e-5, rtol=0)


def test_counts_of_sound_tokens(model: OmniModel, kind: str) -> None:
    from transformers.models.qwen2_5_omni import processing_qwen2_5_omni as two
    from transformers.models.qwen3_omni_moe import processing_qwen3_omni_moe as three

    config = model.thinker_config
    for frames in range(10, 1200):
        if kind == KINDS[0]:
            wanted = two._get_feat_extract_output_lengths(frames)
            assert qwen2_5_sound_tokens(frames, config) == wanted
        else:
            wanted = three._get_feat_extract_output_lengths(frames, config.audio_config.n_window)
            assert qwen3_sound_tokens(frames, config) == wanted
    for samples in (10, 16000, 33333, 64170):  # what leaves the tower; `listen` compares
        clip = clip_of(1, 5)
        prepared = model.prepare(replace(clip, sound_CS=clip.sound_CS[:, :samples]).blanked())
        assert len(model.listen(model.batch([prepared], [[]]))) == prepared.sound.n > 0


# -- order and positions -----------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1, 5, 8])
def test_order_is_that_of_the_processor(model: OmniModel, kind: str, seconds: int) -> None:
    from transformers import Qwen2_5OmniProcessor, Qwen3OmniMoeProcessor

    theirs = {KINDS[0]: Qwen2_5OmniProcessor, KINDS[1]: Qwen3OmniMoeProcessor}[kind]
    clip = model.prepare(clip_of(1, seconds))
    stand_in = SimpleNamespace(
        audio_bos_token="[", audio_token="a", audio_eos_token="]", video_token="v",
        video_processor=SimpleNamespace(merge_size=2),
        get_chunked_index=lambda *given: theirs.get_chunked_index(None, *given),
    )  # fmt: skip
    rate = model.thinker_config.position_id_per_seconds
    text = theirs.replace_video_with_audio_token(
        stand_in,
        {"video_grid_thw": np.array([clip.picture.grid]), "video_second_per_grid": [
            np.float32(clip.picture.step_s)]},
        0, {"num_audio_tokens": np.array([clip.sound.n])}, 0,
        position_id_per_seconds=rate, seconds_per_chunk=2.0,
    )  # fmt: skip
    order = model.family.order(picture_times(clip, 2, rate), clip.sound.n, model.thinker_config)
    assert text == "[" + "".join("v" if one else "a" for one in order) + "]"


def test_positions_follow_time(model: OmniModel) -> None:
    clip = model.prepare(clip_of(1, 8))
    ids = torch.tensor(model.prefix(clip))
    positions_3L = model.positions(ids.tolist(), clip)
    heard, seen = ids == model.marks["audio"], ids == model.marks["video"]
    start = positions_3L[0, heard][0]
    assert (positions_3L[:, heard] == start + torch.arange(clip.sound.n)).all()
    rate = model.thinker_config.position_id_per_seconds
    wanted = torch.from_numpy(picture_times(clip, 2, rate))
    assert ((positions_3L[0, seen] - start) - wanted).abs().max() < 1
    assert clip.picture.step_s == pytest.approx(2 * 7.5 / 7)  # 8 of 16 frames, over 7.5 s
