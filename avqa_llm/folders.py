"""Where things are kept that can be made again, and which bytes a file has."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def user_cache() -> Path:
    """The folder that `AVQA_CACHE` names, or `avqa-llm` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AVQA_CACHE") or Path(home) / "avqa-llm")


def sha256_of(path: Path) -> str:
    """Of a file's bytes, read in pieces. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
