"""Features of clips on disk: one safetensors file a clip, found by content.

The key holds everything that decides the tokens: the bytes of the media file, both encoders
with their weights, and which frames are read. Nothing is ever out of date, so a file is only
removed to keep the folder below its limit, the least recently used first.

Legend: N tokens, D features.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avqa_llm.encoders.codec import packed, unpacked
from avqa_llm.encoders.frozen import FrozenEncoder
from avqa_llm.encoders.tokens import Tokens
from avqa_llm.media import Sampling

FORMAT = "1"
"""To be raised when the same encoder comes to give other tokens."""
SUFFIX, ASIDE = ".safetensors", ".part"
ABANDONED_S = 3600.0
"""A file that was being written this long ago belongs to a process that was killed."""


def fingerprint(module: nn.Module) -> str:
    """Return the sha256 of names, kinds, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def identity(encoder: FrozenEncoder) -> str:
    """Return the sha256 of an encoder: preparation, shape and weights.

    Reads all weights, about a second per gigabyte: ask once and keep the answer.
    """
    return identity_of(encoder.description(), fingerprint(encoder.model))


def identity_of(description: str, weights: str) -> str:
    """Return the identity of an encoder by its description and the fingerprint of its weights."""
    return hashlib.sha256(f"{description} {weights}".encode()).hexdigest()


def feature_key(file_sha256: str, picture: str, sound: str, sampling: Sampling) -> str:
    """Return the cache key of a file as two encoders, given by their `identity`, see it."""
    parts = [FORMAT, file_sha256, picture, sound, type(sampling).__name__, asdict(sampling)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class FeatureCache:
    """A folder of features, safe to share between processes.

    Values are kept in half precision (in float32 if they do not fit), times and places in
    float32. Whatever cannot be read as features of its key counts as absent.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())

    def get(self, key: str) -> tuple[Tokens, Tokens] | None:
        """Return the tokens of picture and sound, or None."""
        path = self._path(key)
        try:
            found = _read(path, key)
            os.utime(path)  # used just now; access times are often switched off
        except Exception:  # absent, cut short, foreign, or removed by another process meanwhile
            return None
        return found

    def put(self, key: str, picture: Tokens, sound: Tokens) -> None:
        """Keep the tokens; a reader sees the whole file or none."""
        from safetensors.torch import save

        tensors = packed("picture", picture) | packed("sound", sound)
        lengths = {"picture": picture.length_s, "sound": sound.length_s}
        about = {"key": key, "format": FORMAT, "length_s": json.dumps(lengths)}
        content = save(tensors, metadata=about)
        handle, aside = tempfile.mkstemp(suffix=ASIDE, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(aside, self._path(key))
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
        self._bytes += len(content)
        if self._bytes > self.limit_bytes:
            self._shrink()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, bytes and path of every file of ours."""
        files = []
        for path in self.folder.iterdir():
            if path.suffix in (SUFFIX, ASIDE):
                with suppress(OSError):  # removed by another process meanwhile
                    status = path.stat()
                    files.append((status.st_mtime, status.st_size, path))
        return files

    def _shrink(self) -> None:
        """Remove the least recently used files, to a tenth below the limit so that it lasts."""
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        if self._bytes <= self.limit_bytes:  # another process has done it
            return
        for used, size, path in files:
            if self._bytes <= 0.9 * self.limit_bytes:
                break
            if path.suffix == ASIDE and time.time() - used < ABANDONED_S:
                continue
            with suppress(OSError):
                path.unlink()
            self._bytes -= size


def _read(path: Path, key: str) -> tuple[Tokens, Tokens]:
    """Raises anything if the file is not what `put` has written for this key."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = file.metadata() or {}
        if (about.get("key"), about.get("format")) != (key, FORMAT):
            raise ValueError(f"{path} holds other features")
        lengths = json.loads(about["length_s"])
        picture, sound = (unpacked(file, name, lengths[name]) for name in ("picture", "sound"))
    return picture, sound
