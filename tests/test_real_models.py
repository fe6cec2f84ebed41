"""Every family of real models: miniatures of their classes learn, are saved, loaded and asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avqa_llm.encoders import PictureConfig, SoundConfig
from avqa_llm.encoders.load import load_picture_encoder, load_sound_encoder
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import CheckpointError
from avqa_llm.labels import LABELS
from avqa_llm.llm import ALL_LINEAR, lora_targets
from avqa_llm.model import AVQAModel, ClipTokens, LoraSettings, ModelConfig
from avqa_llm.prompt import CLUE, PICTURE, SOUND
from tests.miniatures import make_clip, picture_model, saved, sound_model
from tests.model_parts import BRIDGE, QUESTIONS, TEMPLATE, ask_keys, small_clip, small_llm
from tests.model_parts import small_tokenizer as tokenizer_of

MATRIX = [
    ("siglip", "audio-spectrogram-transformer", "qwen2"),
    ("siglip2", "clap", "qwen3"),
    ("clip", "whisper", "llama"),
    ("dinov2", "pe_audio", "mistral"),
    ("dinov2_with_registers", "vit", "phi"),
    ("dinov3_vit", "clap", "phi3"),
    ("siglip2", "pe_audio", "gemma3_text"),
]
"""Picture, sound, language model: each at least once."""
CHAT = ("qwen3", "phi3", "gemma3_text")
"""Those that are given a chat template."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_parts(folder: Path, picture: str, sound: str, family: str) -> ModelConfig:
    """Frozen parts as the hub would give them: whole checkpoints, towers of text included."""
    tokenizer = tokenizer_of(chat=family in CHAT)
    llm = small_llm(family, vocab_size=len(tokenizer) + 8)  # as most: more rows than words
    saved(picture_model(picture), folder / "picture")
    saved(sound_model(sound), folder / "sound")
    saved(llm, folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    return ModelConfig(
        picture=PictureConfig(source="picture", motion="difference", grid=(2, 2)),
        sound=SoundConfig(source="sound", tokens_per_s=4.0),
        bridge=BRIDGE,
        llm="llm",
        lora=LoraSettings(rank=4, alpha=8, targets=tuple(lora_targets(llm, ALL_LINEAR))),
    )


def answer_loss(model: AVQAModel, clip: ClipTokens, answer: str) -> Tensor:
    """Cross-entropy of an answer and its end, after soft tokens and question."""
    prompt, keys = model.prompt, model.keys([clip])
    soft, exists = ask_keys(model, keys, [QUESTIONS[0]])
    counts = int(keys.sound_there_BQ.sum()), int(keys.picture_there_BQ.sum())
    given = prompt.clip(*counts) + prompt.question(QUESTIONS[0], int(exists.sum()))
    learned = prompt.answer("", answer)
    counted = {
        SOUND: (keys.sound_BQE, keys.sound_there_BQ),
        PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
        CLUE: (soft, exists),
    }
    embeds = model.place(torch.tensor([given + learned]), counted)
    logits = model.llm(inputs_embeds=embeds).logits[0, len(given) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(learned))


def taught(model: AVQAModel, clip: ClipTokens, steps: int = 6) -> list[float]:
    """Some steps over bridge and LoRA; the losses."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.Adam(trained, lr=1e-2), []
    for _ in range(steps):
        loss = answer_loss(model, clip, "two")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("picture", "sound", "family"), MATRIX)
def test_train_save_load_answer(tmp_path: Path, picture: str, sound: str, family: str) -> None:
    model = AVQAModel.fresh(write_parts(tmp_path, picture, sound, family), tmp_path, seed=1)
    clip = model.encode(small_clip(0))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    losses = taught(model, clip)
    assert losses[-1] < 0.8 * losses[0], losses
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert all(name.startswith("bridge.") or ".lora_" in name for name in changed)
    assert {name for name in after if ".lora_" in name} <= changed

    model.eval().save_pretrained(tmp_path)
    again = AVQAModel.from_pretrained(tmp_path)
    loaded = again.state_dict()
    assert list(loaded) == list(after)
    assert [name for name in after if not torch.equal(after[name], loaded[name])] == []
    with torch.no_grad():
        heard = again.encode(small_clip(0))
        assert torch.equal(heard.picture.values_ND, clip.picture.values_ND)
        assert torch.equal(heard.sound.values_ND, clip.sound.values_ND)
        assert torch.equal(answer_loss(again, heard, "two"), answer_loss(model, clip, "two"))
    said = LocalEngine(again).answer(small_clip(0), list(QUESTIONS[:2]), evidence=True)
    assert len(said) == 2 and all(one.label in LABELS and one.evidence for one in said)
    assert said[0].consumed.sound_tokens == clip.sound.n > 0


def test_every_family_is_in_the_matrix() -> None:
    from avqa_llm.encoders.picture import PICTURE_FAMILIES
    from avqa_llm.encoders.sound_families import SOUND_FAMILIES

    seen = [str(picture_model(row[0]).config.model_type) for row in MATRIX]
    known = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
    known |= {"siglip2": "siglip2_vision_model", "clap": "clap_audio_model"}
    known |= {"pe_audio": "pe_audio_encoder"}
    assert {known.get(kind, kind) for kind in seen} | {"vit"} == set(PICTURE_FAMILIES)
    assert {known.get(row[1], row[1]) for row in MATRIX} == set(SOUND_FAMILIES)


def test_a_chat_template_is_used_by_those_that_have_one(tmp_path: Path) -> None:
    from avqa_llm.llm import load_llm
    from avqa_llm.prompt import Prompt

    write_parts(tmp_path, "siglip", "vit", "phi3")
    _, tokenizer = load_llm(str(tmp_path / "llm"), None)
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.convert_tokens_to_ids("<|user|>") in Prompt(tokenizer).opening


# --- pictures -----------------------------------------------------------------------------------


def test_patches_are_those_of_the_models_own_preparation(tmp_path: Path) -> None:
    """NaFlex wants patches in an order of its own: held against transformers' processor."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    folder = saved(picture_model("siglip2"), tmp_path / "eye")
    frame = np.random.default_rng(0).integers(0, 256, (24, 48, 3), dtype=np.uint8)
    config = PictureConfig(source=str(folder), motion="none", height=24, width=48, grid=(3, 6))
    encoder = load_picture_encoder(config)
    theirs = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=18)(
        [frame], return_tensors="pt"
    )
    frames_PCHW = torch.from_numpy(frame).permute(2, 0, 1)[None]
    ours = encoder._patches(encoder.normalise(frames_PCHW))
    assert ours["spatial_shapes"].tolist() == theirs["spatial_shapes"].tolist() == [[3, 6]]
    torch.testing.assert_close(
        ours["pixel_values"], theirs["pixel_values"].float(), atol=1e-5, rtol=0
    )
    with torch.no_grad():
        wanted = encoder.model(**theirs).last_hidden_state[0]
        found = encoder.grid_PRQD(frames_PCHW).flatten(1, 2)[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_naflex_has_the_square_of_its_patches_where_nothing_else_is_said(tmp_path: Path) -> None:
    folder = saved(picture_model("siglip2"), tmp_path / "eye")
    said = {"patch_size": 8, "max_num_patches": 16, "image_mean": [0.4] * 3, "size": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = load_picture_encoder(PictureConfig(source=str(folder), grid=(4, 4)))
    assert encoder.size == (32, 32) and encoder.mean == (0.4, 0.4, 0.4)
    with pytest.raises(CheckpointError, match=r"finer than its 4 x 4"):
        load_picture_encoder(PictureConfig(source=str(folder), grid=(5, 4)))


# --- sound: PE-AV -------------------------------------------------------------------------------


def whole_pe_av(folder: Path) -> Path:
    """A joint checkpoint as its keys and its config.json lie on the hub; its video part needs
    timm to be made here, and is left out."""
    saved(sound_model("pe_audio"), folder)
    tensors = load_file(folder / "model.safetensors")
    joint = {f"audio_model.{name}": tensor for name, tensor in tensors.items()}
    joint["audio_video_encoder.norm.weight"] = torch.ones(32)
    save_file(joint, folder / "model.safetensors", {"format": "pt"})
    row = json.loads((folder / "config.json").read_text())
    joint_row = {"model_type": "pe_audio_video", "text_config": row["text_config"]}
    joint_row["audio_video_config"] = {"audio_config": row["audio_config"], "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(joint_row))
    return folder


def test_the_ear_of_a_joint_checkpoint_is_loaded_alone(tmp_path: Path) -> None:
    alone = saved(sound_model("pe_audio"), tmp_path / "alone")
    joint = whole_pe_av(tmp_path / "joint")
    one, other = (load_sound_encoder(SoundConfig(source=str(f))) for f in (alone, joint))
    assert type(other.model).__name__ == "PeAudioEncoder" and other.width == 32
    clip = make_clip(2.0)
    assert torch.equal(one(clip).values_ND, other(clip).values_ND)


def test_silence_after_the_end_is_left_out(tmp_path: Path) -> None:
    """The same sound in a window of its own length and at the start of a whole one."""
    folder = saved(sound_model("pe_audio"), tmp_path / "ear")
    encoder: Any = load_sound_encoder(SoundConfig(source=str(folder), tokens_per_s=25.0))
    clip = make_clip(4.0)
    tokens = encoder(clip)
    assert tokens.n == 100 and tokens.length_s == pytest.approx(0.04)
    sound_1CS = torch.from_numpy(clip.sound_at(48000, 1).copy())[None]
    with torch.no_grad():
        alone = encoder.model(input_values=sound_1CS).last_hidden_state[0]
    # The last tokens differ: their codec frames reach over the end.
    torch.testing.assert_close(tokens.values_ND[:90], alone[:90], atol=0.02, rtol=0.02)
    family = replace(encoder.family, encode_masked=None)
    encoder.family = family
    assert not torch.allclose(encoder(clip).values_ND[:90], alone[:90], atol=0.02, rtol=0.02)


def test_it_wants_its_sound_as_transformers_prepares_it() -> None:
    from transformers import PeAudioFeatureExtractor

    from avqa_llm.encoders.sound_families import SOUND_FAMILIES

    family = SOUND_FAMILIES["pe_audio_encoder"](sound_model("pe_audio").config.audio_config, {})
    theirs = PeAudioFeatureExtractor()
    assert (family.rate_hz, family.channels) == (theirs.sampling_rate, theirs.feature_size)
    wave = np.random.default_rng(0).normal(size=round(family.window_s * 48000)).astype(np.float32)
    given = theirs([wave], sampling_rate=48000, return_tensors="pt")["input_values"]
    assert torch.equal(given, torch.from_numpy(wave)[None, None])
