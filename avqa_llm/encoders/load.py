"""From a directory or a hub name to a frozen encoder.

Only configuration and safetensors files are ever fetched or read, no code and no pickles; of a
checkpoint that holds more than the wanted tower, that tower alone is loaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from avqa_llm.encoders.picture import PictureConfig, PictureEncoder
from avqa_llm.encoders.sound import SoundConfig, SoundEncoder
from avqa_llm.encoders.tags import HEADS, TagHeads
from avqa_llm.errors import CheckpointError
from avqa_llm.quiet import quiet_loading

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    HEADS,
)
"""What is fetched from the hub."""

PICTURE_CLASSES = {
    "vit": "ViTModel",
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    # SigLIP 2 with a fixed resolution is a `siglip` too; `siglip2` is its NaFlex variant.
    "siglip_vision_model": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
"""`model_type` of a checkpoint to the class of its vision tower."""

SOUND_CLASSES = {
    "vit": "ViTModel",
    "audio-spectrogram-transformer": "ASTModel",
    "clap": "ClapAudioModel",
    "clap_audio_model": "ClapAudioModel",
    "whisper": "WhisperEncoder",
    "pe_audio_encoder": "PeAudioEncoder",
    "pe_audio": "PeAudioEncoder",
    "pe_audio_video": "PeAudioEncoder",
}
"""`model_type` of a checkpoint to the class of its audio tower."""

KEYS = {
    "ClapAudioModel": {r"^audio_model\.": ""},
    "WhisperEncoder": {r"^(model\.)?encoder\.": ""},
    "PeAudioEncoder": {r"^(audio_model\.)?audio_encoder\.": ""},
}
"""Where the tower lies in a whole checkpoint, for classes that do not know it themselves."""

CONFIG_AT = {
    "pe_audio": ("audio_config",),
    "pe_audio_video": ("audio_video_config", "audio_config"),
}
"""Likewise for its configuration: the way down through a whole checkpoint's config.json."""


def load_picture_encoder(config: PictureConfig) -> PictureEncoder:
    """Load the vision model that `config.source` names, in float32 on the CPU.

    What `config` leaves open (size, mean, std) comes from the checkpoint's image processor.

    Raises:
        CheckpointError: nothing there, not a vision model of a known kind, no safetensors,
            weights missing, or a size, grid or motion that the model cannot work with.
    """
    folder = find_checkpoint(config.source, config.revision)
    model = _load(folder, config.source, PICTURE_CLASSES)
    return PictureEncoder(prepared(config, _preparation(folder, "image_processor")), model)


def load_sound_encoder(config: SoundConfig) -> SoundEncoder:
    """Load the audio model that `config.source` names, in float32 on the CPU.

    Raises:
        CheckpointError: nothing there, not an audio model of a known kind, no safetensors,
            weights missing, or damaged tags.
    """
    folder = find_checkpoint(config.source, config.revision)
    model = _load(folder, config.source, SOUND_CLASSES)
    known = _preparation(folder, "feature_extractor")
    foreign = ("feature_extractor_type", "processor_class", "image_processor_type")
    extractor = {k: v for k, v in known.items() if k not in foreign}
    return SoundEncoder(config, model, extractor, TagHeads.load(folder))


def prepared(config: PictureConfig, image_processor: dict[str, Any]) -> PictureConfig:
    """Fill what is open in `config` from an image processor's JSON; what is set wins."""
    crop = image_processor.get("crop_size") if image_processor.get("do_center_crop") else None
    height, width = _size(crop or image_processor.get("size"))
    mean, std = image_processor.get("image_mean"), image_processor.get("image_std")
    return replace(
        config,
        height=config.height or height,
        width=config.width or width,
        mean=config.mean or (tuple(mean) if mean else None),
        std=config.std or (tuple(std) if std else None),
    )


def find_checkpoint(source: str, revision: str | None) -> Path:
    """Return the directory of a checkpoint, fetched from the hub if `source` is no directory.

    Raises:
        CheckpointError: neither a directory nor to be had from the hub.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", source):
        raise CheckpointError(f"{source}: no such directory, and not a hub name (owner/model)")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(source, revision=revision, allow_patterns=list(FILES))
    # The hub has a dozen errors for "not there", httpx and the disk have theirs.
    except Exception as error:
        raise CheckpointError(_not_there(source, revision, error)) from error
    return Path(found)


def _not_there(source: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE, is_offline_mode

    why = str(error).strip().splitlines()
    network = "not asked, HF_HUB_OFFLINE is set" if is_offline_mode() else "asked"
    pinned = f" --revision {revision}" if revision else ""
    return (
        f"{source}: no such model. Tried the directory {source}, the cache {HF_HUB_CACHE} and the "
        f"Hugging Face hub ({network}): {why[0] if why else type(error).__name__}. Check the name; "
        f"run `hf download {source}{pinned}` where there is network, unset HF_HUB_OFFLINE, or "
        "give a directory that holds the model"
    )


def _load(folder: Path, source: str, classes: dict[str, str]) -> Any:
    config = _json(folder / "config.json", source)
    kind = config.get("model_type")
    if kind not in classes:
        raise CheckpointError(
            f"{source}: model_type is {kind!r} in its config.json; this encoder can be one of "
            f"{', '.join(classes)}"
        )
    weights = ("model.safetensors", "model.safetensors.index.json")
    if not any((folder / name).is_file() for name in weights):
        raise CheckpointError(
            f"{source}: no {weights[0]} in {folder}. Only safetensors are read, since pickled "
            "weights can run code; choose a revision that has them or convert the model"
        )
    name = classes[kind]
    try:
        with quiet_loading(folder):
            model, report = _class(name).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype="float32",
                output_loading_info=True,
                key_mapping=KEYS.get(name),
                **_own_config(_class(name), config, CONFIG_AT.get(kind, ())),
                **({"add_pooling_layer": False} if name == "ViTModel" else {}),
            )
    # A damaged file surfaces as an error of safetensors, of json, of torch or of transformers.
    except Exception as error:
        raise CheckpointError(f"{source}: {folder} cannot be loaded as {name}: {error}") from error
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{source}: {len(missing)} weights of {name} are missing in {folder}, such as "
            f"{missing[0]}; download it again"
        )
    return model


def _class(name: str) -> Any:
    import transformers

    if name == "WhisperEncoder":  # not among the public names
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder
    if not hasattr(transformers, name):
        raise CheckpointError(
            f"transformers {transformers.__version__} has no {name}; pip install -U transformers"
        )
    return getattr(transformers, name)


def _own_config(model: Any, config: dict[str, Any], way: tuple[str, ...]) -> dict[str, Any]:
    """The tower's own configuration, where the class would look for it in the wrong place."""
    for part in way:
        config = config.get(part) or {}
    return {"config": model.config_class.from_dict(config)} if way else {}


def _preparation(folder: Path, part: str) -> dict[str, Any]:
    """What a checkpoint says about its input: in a file of its own or as part of a processor."""
    own, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    if own.is_file():
        return _json(own, str(folder))
    return _json(whole, str(folder)).get(part, {}) if whole.is_file() else {}


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{source}: not a model, {path} cannot be read") from error
    except ValueError as error:
        raise CheckpointError(f"{source}: {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: {path} holds a {type(content).__name__}, not an object")
    return content


def _size(size: Any) -> tuple[int | None, int | None]:
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return size.get("height", edge), size.get("width", edge)
    return size, size
