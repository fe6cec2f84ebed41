"""Whether an adapter can be served beside a base: before it is loaded, and with the reason if not.

What engines do with an unfit adapter differs: peft and vLLM refuse some, and load others without
a word and change nothing (keys of another wrapping, matrices that were never trained).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from avqa_llm.errors import CheckpointError
from avqa_llm.folders import sha256_of
from avqa_llm.llm import ADAPTER, ADAPTER_CONFIG
from avqa_llm.model import BRIDGE, located, read_config

PREFIX = "base_model.model."
"""Of the weights in a peft adapter, before the names of the language model's own modules."""
LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
PLAIN_STARTS = (True, "gaussian")
"""Values of `init_lora_weights` that leave the base as it is: PiSSA and its kin change it."""
REFUSED = {
    "modules_to_save": "whole modules besides LoRA, which vLLM does not load",
    "use_dora": "DoRA, which vLLM does not compute",
    "layer_replication": "layers that the base has not",
    "trainable_token_indices": "words of its own, which other adapters would get too",
    "lora_bias": "biases, which vLLM does not load",
    "target_parameters": "LoRA on bare parameters, which vLLM does not load",
}
"""What an adapter must not have, as peft names it, and what that is."""
UNCOMPARED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
"""Entries of a language model's configuration that say nothing of what it computes."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """What adapters have to fit: a model directory, and its language model."""

    folder: Path
    identity: str
    """Of the language model's configuration and weights."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of its weights."""

    @classmethod
    def of(cls, folder: Path) -> Base:
        """Reads all its weights, about a second per gigabyte. Raises CheckpointError."""
        llm = llm_folder(folder)
        return cls(folder=folder, identity=identity_of(llm), shapes=_shapes(llm))


def check(folder: Path, base: Base) -> None:
    """Let an adapter pass, or say why it cannot be served.

    Raises:
        CheckpointError: it is incomplete, of another base, of a kind that engines do not load, or
            would be loaded and change nothing.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no directory; name one that `avqa train` wrote")
    config = read_config(folder)
    if not (folder / BRIDGE).exists():
        raise CheckpointError(
            f"{folder} has no {BRIDGE}: each adapter needs the bridge that was trained with it"
        )
    if not config.lora.rank:
        raise CheckpointError(
            f"{folder} has LoRA merged into a language model of its own: serve it alone, with"
            f" --model {folder}, or add the directory that it was exported from"
        )
    for name in (ADAPTER_CONFIG, ADAPTER):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} has no {name}: the LoRA weights are incomplete")
    own = identity_of(llm_folder(folder))
    if own != base.identity:
        raise CheckpointError(
            f"{folder} is an adapter of another base: its language model is {config.llm!r} with"
            f" sha256 {own[:12]}…, served is {base.identity[:12]}… of {base.folder}"
        )
    _check_kind(folder)
    _check_weights(folder, base)


def _check_kind(folder: Path) -> None:
    """By `adapter_config.json`."""
    path = folder / ADAPTER_CONFIG
    try:
        row: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if row.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: {row.get('peft_type')!r} is not LORA, the kind served here")
    for name, what in REFUSED.items():
        if row.get(name):
            raise CheckpointError(f"{path}: {name} is {row[name]!r}: it has {what}; train without")
    if row.get("bias", "none") != "none":
        raise CheckpointError(f"{path}: bias is {row['bias']!r}, and biases are not loaded")
    if (start := row.get("init_lora_weights", True)) not in PLAIN_STARTS:
        raise CheckpointError(
            f"{path}: init_lora_weights is {start!r}, which changes the base itself; convert the"
            " adapter to plain LoRA (peft: `path_initial_model_for_weight_conversion`)"
        )


def _check_weights(folder: Path, base: Base) -> None:
    """By names, shapes and values of the LoRA matrices."""
    import torch
    from safetensors.torch import load_file

    path = folder / ADAPTER
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors has an error of its own for each damage
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not weights:
        raise CheckpointError(f"{path} holds no weights at all: it would change nothing")
    for key, value in weights.items():
        _check_name(path, key, tuple(value.shape), base)
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} has values that are no numbers: training failed")
    trained = any(bool(value.any()) for key, value in weights.items() if ".lora_B." in key)
    if trained and not _same_weights(path, base.folder / ADAPTER):
        return
    if _same_weights(folder / BRIDGE, base.folder / BRIDGE):
        lora = "so is its LoRA" if trained else "all its LoRA matrices B are zero"
        raise CheckpointError(
            f"{folder} would change nothing: its bridge is that of {base.folder}, and {lora}"
        )


def _check_name(path: Path, key: str, shape: tuple[int, ...], base: Base) -> None:
    found = LORA.fullmatch(key.removeprefix(PREFIX))
    module = found["module"] if found else ""
    target = base.shapes.get(f"{module}.weight")
    if found is None or not key.startswith(PREFIX) or target is None:
        hint = "such weights are loaded without a word and change nothing"
        if module.startswith("model.language_model"):
            hint += "; LoRA was put around a whole omni model: wrap its language model instead"
        raise CheckpointError(f"{path}: {key} is of no module of the language model; {hint}")
    wide = shape[-1] if found["side"] == "A" else shape[0]
    if wide != target[1 if found["side"] == "A" else 0]:
        raise CheckpointError(f"{path}: {key} is {shape}, the weight that it changes is {target}")


def _same_weights(one: Path, other: Path) -> bool:
    """Whether two safetensors files hold the same tensors."""
    from safetensors.torch import load_file

    if not other.exists():
        return False
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(
        first[key].shape == second[key].shape and bool((first[key] == second[key]).all())
        for key in first
    )


# -- the language model ------------------------------------------------------------------------


def llm_folder(folder: Path) -> Path:
    """Where the language model of a model directory lies, fetched from the hub if need be.

    Raises:
        CheckpointError: it is neither a directory nor to be had from the hub.
    """
    config = read_config(folder)
    source = located(config.llm, folder)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors"]
        found = snapshot_download(source, revision=config.llm_revision, allow_patterns=wanted)
    except Exception as error:  # the hub's client has many
        raise CheckpointError(
            f"{folder}: its language model {source!r} is neither a directory nor to be had from the"
            f" hub: {error}"
        ) from error
    return Path(found)


def identity_of(llm: Path) -> str:
    """Sha256 of a language model's configuration and weights. Raises CheckpointError."""
    try:
        config = json.loads((llm / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{llm} has no readable config.json: {error}") from error
    files = sorted(llm.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{llm} has no *.safetensors: there is no language model in it")
    kept = {key: value for key, value in config.items() if key not in UNCOMPARED}
    parts = [json.dumps(kept, sort_keys=True)]
    for path in files:
        status = path.stat()
        parts.append(_hash(path, status.st_size, status.st_mtime_ns))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def stamp_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a model directory's own files and its language model's.

    Cheap to compare: whether they are still those that were loaded. Raises CheckpointError.
    """
    files = [*folder.glob("*.safetensors"), *folder.glob("*.json")]
    llm = llm_folder(folder)
    files += [*llm.glob("*.safetensors"), *llm.glob("*.json")]
    status = [(str(path), path.stat()) for path in sorted(files)]
    return tuple((name, one.st_size, one.st_mtime_ns) for name, one in status)


@lru_cache(maxsize=64)
def _hash(path: Path, size: int, changed_ns: int) -> str:
    return sha256_of(path)


def _shapes(llm: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(llm.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dict
                found[key] = tuple(file.get_slice(key).get_shape())
    return found
