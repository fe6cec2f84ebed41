"""Adding to a feature store, by any number of processes at once.

Each process writes shards of its own under names that nobody else takes: aside first, then
renamed, so that whatever is killed leaves whole shards or none. Claims keep two processes from
encoding the same file; they save work and nothing else depends on them.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from avqa_llm.encoders.cache import ABANDONED_S
from avqa_llm.encoders.codec import packed, size_bytes
from avqa_llm.encoders.store import SUFFIX, Entry, FeatureStore
from avqa_llm.encoders.store_info import ASIDE, CLAIMS, NAMES, SHARDS, StoreInfo, create
from avqa_llm.encoders.tokens import Tokens

SHARD_S = 120.0
"""A shard that is not full is written after this long, so that little is lost with a process."""


class StoreWriter:
    """One process's part in filling a store."""

    def __init__(self, folder: str | Path, info: StoreInfo, *, shard_bytes: int) -> None:
        """`info.dtype` says how values are kept.

        Raises:
            CheckpointError: the folder holds other features, or something else.
        """
        self.folder = Path(folder)
        create(self.folder, info)
        for name in (SHARDS, NAMES):
            (self.folder / name).mkdir(exist_ok=True)
            _sweep(self.folder / name)
        self.info, self.shard_bytes = info, shard_bytes
        self.store = FeatureStore(self.folder)
        self.claims = Claims(self.folder / CLAIMS)
        self._entries: list[Entry] = []
        self._tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._since = time.monotonic()

    def add(self, entry: Entry, picture: Tokens, sound: Tokens) -> None:
        """Keep a clip's tokens; they are on disk after the next `flush`, which may come now."""
        if not self._entries:
            self._since = time.monotonic()
        number, dtype = len(self._entries), self.info.dtype or "float16"
        self._tensors |= packed(f"{number}.picture", picture, dtype)
        self._tensors |= packed(f"{number}.sound", sound, dtype)
        self._entries.append(entry)

    def name(self, name: str, folder: str, file_sha256: str) -> None:
        """Write down, with the next shard, what a file of a folder is."""
        if not self.store.has_name(name, folder, file_sha256):
            self._names[name, folder] = file_sha256

    @property
    def is_full(self) -> bool:
        """Whether it is time for a `flush`."""
        late = bool(self._entries) and time.monotonic() - self._since > SHARD_S
        return late or size_bytes(self._tensors.values()) >= self.shard_bytes

    def flush(self) -> None:
        """Write what was added as one shard, then names; give all claims back."""
        from safetensors.torch import save

        if self._entries:
            index = json.dumps([asdict(entry) for entry in self._entries])
            about = {"store": self.info.digest, "index": index}
            name = f"{uuid.uuid4().hex}{SUFFIX}"
            _write(self.folder / SHARDS / name, save(self._tensors, metadata=about))
        if self._names:
            rows: list[dict[str, Any]] = [
                {"name": name, "folder": folder, "file": file}
                for (name, folder), file in self._names.items()
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            part = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"  # later ones sort last
            _write(self.folder / NAMES / part, text.encode())
        self._entries, self._tensors, self._names = [], {}, {}
        self.claims.release()


class Claims:
    """Which process works on what: locks on single bytes of one file, which nobody waits for.

    The system gives them back when a process ends in whatever way. A disk that knows no locks
    costs double work where two processes meet, no more.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._mine: dict[str, int] = {}

    def __contains__(self, sha256: str) -> bool:
        """Whether this process has claimed a file."""
        return sha256 in self._mine

    def take(self, sha256: str) -> bool:
        """Claim a file; False: another process has it."""
        byte = int(sha256[:15], 16)
        if not _lock(self._file, byte):
            return False
        self._mine[sha256] = byte
        return True

    def release(self, sha256: str | None = None) -> None:
        """Give one claim back, or all."""
        for name in [sha256] if sha256 else list(self._mine):
            byte = self._mine.pop(name, None)
            if byte is not None:
                _lock(self._file, byte, release=True)


def _lock(file: Any, byte: int, *, release: bool = False) -> bool:
    """Whether the byte is ours now."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    how = fcntl.LOCK_UN if release else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.lockf(file, how, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # no locks on this disk
        return True
    return True


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}{ASIDE}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a name must not survive a power cut without its bytes
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left half-written long ago."""
    for path in folder.glob(f"*{ASIDE}"):
        with suppress(OSError):  # removed by another process meanwhile
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
