"""Uploads on disk, in a folder that several gateways may share.

    uploads/OWNER/ID.part     being received
    uploads/OWNER/ID.media    whole
    uploads/OWNER/ID.json     says so: an upload exists once this file does
    locks/NN                  held while quotas are counted and uploads begin, end or go
    requests/…                media that came inside of requests, until these are answered

An id is drawn at random and the only part of a name that a sender sees; the owner's folder comes
from its key. What the sender calls the file is kept as text and never used as a name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from avqa_llm.serving.refusals import Refusal
from avqa_llm.serving.settings import MIB, GatewaySettings

_ID = re.compile(r"file-[0-9a-f]{32}")
_LOOK_EVERY = 4 * MIB
"""Bytes after which a growing upload is weighed against the quota again."""
_ABANDONED_S = 3600.0
"""A file of an upload or request that was left behind by a gateway that died."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A media file that somebody sent."""

    id: str
    filename: str
    """What the sender calls it: shown, never opened."""
    purpose: str
    bytes: int
    sha256: str
    created_at: int
    expires_at: int
    """Unix seconds."""
    media: dict[str, Any] = field(default_factory=dict)


class Incoming:
    """An upload that is being received: `write`, then `Uploads.keep` or `drop`. For threads."""

    def __init__(self, store: Uploads, owner: str, name: str, path: Path) -> None:
        self.owner, self.id, self.path = owner, name, path
        self.bytes = 0
        self._store, self._digest = store, hashlib.sha256()
        self._file = path.open("wb")
        self._seen = 0

    @property
    def sha256(self) -> str:
        """Of what was received so far."""
        return self._digest.hexdigest()

    def write(self, block: bytes) -> None:
        """Take more bytes. Raises Refusal: the file (413) or all of the owner's (403) are more
        than allowed.
        """
        self.bytes += len(block)
        most = self._store.settings.media.max_bytes
        if self.bytes > most:
            raise Refusal(
                413, f"The file has more than {most:,} bytes.", code="too_large", param="file"
            )
        self._digest.update(block)
        self._file.write(block)
        if self.bytes - self._seen >= _LOOK_EVERY:
            self._file.flush()
            self._seen = self.bytes
            self._store.check_quota(self.owner)

    def close(self) -> None:
        """No more bytes come."""
        self._file.close()

    def drop(self) -> None:
        """Forget it."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Uploads:
    """The uploads of all users. Every method takes the owner and sees no other's. For threads."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises OSError: the folder cannot be made."""
        self.settings = settings
        self._uploads, self._locks, self._requests = (
            settings.folder / name for name in ("uploads", "locks", "requests")
        )
        for folder in (self._uploads, self._locks, self._requests):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # -- receiving -------------------------------------------------------------------------

    def begin(self, owner: str) -> Incoming:
        """Room for one more upload. Raises Refusal (403, 503): a quota is used up."""
        name = f"file-{secrets.token_hex(16)}"
        with self._locked(owner) as folder:
            self._expire(folder)
            self._check(folder, more=1)
            folder.mkdir(mode=0o700, exist_ok=True)
            return Incoming(self, owner, name, folder / f"{name}.part")

    def check_quota(self, owner: str) -> None:
        """Raises Refusal (403, 503): what is being received uses a quota up."""
        with self._locked(owner) as folder:
            self._check(folder)

    def keep(
        self,
        incoming: Incoming,
        *,
        filename: str,
        purpose: str,
        media: dict[str, Any],
        ttl_s: float | None = None,
    ) -> Upload:
        """What was received becomes an upload. Raises Refusal: see `check_quota`."""
        now = time.time()
        most = self.settings.file_ttl_s
        upload = Upload(
            id=incoming.id,
            filename=filename,
            purpose=purpose,
            bytes=incoming.bytes,
            sha256=incoming.sha256,
            created_at=int(now),
            expires_at=int(now + min(ttl_s or most, most)),
            media=media,
        )
        incoming.close()
        with self._locked(incoming.owner) as folder:
            self._check(folder)
            aside = incoming.path.with_suffix(".aside")
            aside.write_text(json.dumps(asdict(upload)))
            os.replace(incoming.path, incoming.path.with_suffix(".media"))
            os.replace(aside, incoming.path.with_suffix(".json"))
        return upload

    def _check(self, folder: Path, *, more: int = 0) -> None:
        limits = self.settings
        count, size = _usage(folder)
        if count + more > limits.max_files:
            raise _full(f"You have {count} uploads, the limit is {limits.max_files}")
        if size + more > limits.max_files_bytes:
            raise _full(f"Your uploads have more than {limits.max_files_bytes:,} bytes")
        if more or size > _LOOK_EVERY:
            whole = sum(_usage(Path(other.path))[1] for other in _entries(self._uploads))
            if whole > limits.max_store_bytes:
                raise Refusal(
                    503,
                    "The server has no room for uploads now; ask again later.",
                    code="store_full",
                    after_s=60.0,
                )

    # -- kept ------------------------------------------------------------------------------

    def get(self, owner: str, name: str) -> tuple[Upload, Path]:
        """An upload and its file. Raises Refusal (404): this owner has none of that id."""
        upload = None
        if _ID.fullmatch(name):
            upload = _read(self._uploads / owner / f"{name}.json")
        path = self._uploads / owner / f"{name}.media"
        if upload is None or upload.expires_at <= time.time() or not path.is_file():
            raise Refusal(
                404,
                "There is no such file, or it has expired: upload it again (POST /v1/files).",
                code="file_not_found",
                param="file_id",
            )
        return upload, path

    def all(self, owner: str) -> list[Upload]:
        """All uploads of an owner, the newest first."""
        found = [
            _read(Path(entry.path))
            for entry in _entries(self._uploads / owner)
            if entry.name.endswith(".json")
        ]
        now = time.time()
        there = [upload for upload in found if upload is not None and upload.expires_at > now]
        return sorted(there, key=lambda upload: (-upload.created_at, upload.id))

    def delete(self, owner: str, name: str) -> None:
        """Raises Refusal (404)."""
        self.get(owner, name)
        with self._locked(owner) as folder:
            _remove(folder / name)

    def total(self) -> tuple[int, int]:
        """Uploads of everybody, and their bytes."""
        usages = [_usage(Path(owner.path)) for owner in _entries(self._uploads)]
        return sum(count for count, _ in usages), sum(size for _, size in usages)

    def sweep(self) -> None:
        """Remove what has expired, and what gateways that died have left behind."""
        for owner in _entries(self._uploads):
            with self._locked(owner.name) as folder:
                self._expire(folder)
                with suppress(OSError):  # somebody has uploads
                    folder.rmdir()
        for entry in _entries(self._requests):
            if _age_s(entry) > _ABANDONED_S:
                shutil.rmtree(entry.path, ignore_errors=True)

    def _expire(self, folder: Path) -> None:
        now = time.time()
        longest = max(_ABANDONED_S, 2 * self.settings.upload_timeout_s)
        for entry in _entries(folder):
            path = Path(entry.path)
            if path.suffix == ".json":
                upload = _read(path)
                if upload is None or upload.expires_at <= now:
                    _remove(path.with_suffix(""))
            elif _age_s(entry) > longest and not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)

    # -- of requests -----------------------------------------------------------------------

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for the media of one request, removed at the end."""
        folder = Path(tempfile.mkdtemp(dir=self._requests))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self, owner: str) -> Iterator[Path]:
        """The owner's folder, which no other gateway counts or changes meanwhile."""
        with open(self._locks / owner[:2], "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._uploads / owner


def _full(what: str) -> Refusal:
    message = f"{what}; delete some (DELETE /v1/files/ID) or wait until they expire."
    return Refusal(403, message, code="quota_exceeded", param="file")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _usage(folder: Path) -> tuple[int, int]:
    """Uploads of an owner, with those that are being received, and their bytes."""
    count = size = 0
    for entry in _entries(folder):
        if entry.name.endswith((".part", ".media")):
            with suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
                count += 1
    return count, size


def _age_s(entry: os.DirEntry[str]) -> float:
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path) -> Upload | None:
    try:
        found = json.loads(path.read_text())
        return Upload(**{key.name: found[key.name] for key in fields(Upload)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(stem: Path) -> None:
    for suffix in (".json", ".media"):  # first it exists no more, then it is gone
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)
