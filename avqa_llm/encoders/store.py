"""A store of features: tokens of many clips in shards, found by content, file or name.

    store.json            what the features were made with
    shards/*.safetensors  tensors of some clips; what they are stands in the header
    names/*.jsonl         which names the files had, in which folder

A shard is one file with its index inside, so there is never half of one. Any number of
processes may add shards of their own, and a reader maps them into memory when it needs them.

Legend: N tokens, D features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.encoders.codec import unpacked
from avqa_llm.encoders.store_info import NAMES, SHARDS, StoreInfo, anew, read_info, require
from avqa_llm.encoders.tokens import Tokens
from avqa_llm.errors import CheckpointError

if TYPE_CHECKING:
    from avqa_llm.media.changes import Cut

SUFFIX = ".safetensors"
TIMES = ("start_s", "end_s")
TURNS = ("mirrored", "reversed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One clip in a shard."""

    key: str
    """As `FeatureCache` has it: files, content, encoders, sampling."""
    sound: str
    picture: str
    """Digests of the decoded sound and frames."""
    file: str
    """sha256 of the media file."""
    cut: str
    """`variant` of what was done to it."""
    seconds: float
    sound_tokens: int
    picture_tokens: int
    sound_length_s: float
    picture_length_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an entry's tensors lie."""

    entry: Entry
    shard: str
    number: int


def variant(cut: Cut | None) -> str:
    """What of a cut changes the tokens, as text; empty: the whole clip as it is.

    A missing modality is no variant: the encoders do not see each other, so the tokens of the
    other one are those of the whole clip.
    """
    if cut is None:
        return ""
    parts: dict[str, Any] = {name: getattr(cut, name) for name in TIMES}
    parts = {name: float(value) for name, value in parts.items() if value is not None}
    parts |= {name: True for name in TURNS if getattr(cut, name)}
    return json.dumps(parts, sort_keys=True) if parts else ""


class FeatureStore:
    """The features in a folder, to be read.

    What others add later is seen after `refresh`.
    """

    def __init__(self, folder: str | Path) -> None:
        """Reads the index of all shards, no tensors.

        Raises:
            CheckpointError: no store, or one that is damaged or of another format.
        """
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        self._digest = self.info.digest
        self._shards: set[str] = set()
        self._parts: set[str] = set()
        self._open: dict[str, Any] = {}
        self._keys: dict[str, Place] = {}
        self._sounds: dict[str, Place] = {}
        self._pictures: dict[str, Place] = {}
        self._files: dict[tuple[str, str], Place] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._stems: dict[str, set[str]] = {}
        self.refresh()

    def __len__(self) -> int:
        """Clips, each variant counted."""
        return len(self._keys)

    def require(self, wanted: StoreInfo, model: str = "MODEL") -> None:
        """Raises CheckpointError if these features are not those of the wanted encoders."""
        require(self.folder, self.info, wanted, model)

    def refresh(self) -> None:
        """Read the index of shards and names that came since."""
        for path in _new(self.folder / SHARDS, SUFFIX, self._shards):
            self._add(path)
            self._shards.add(path.name)
        for path in _new(self.folder / NAMES, ".jsonl", self._parts):
            self._add_names(path)
            self._parts.add(path.name)

    # -- what is there -----------------------------------------------------------------------

    @property
    def keys(self) -> list[str]:
        """Keys of all clips."""
        return list(self._keys)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Names of files to the sha256 of what they are; several: two folders have the name."""
        return {name: tuple(sorted(set(found.values()))) for name, found in self._names.items()}

    def has(self, file_sha256: str, cut: Cut | None = None) -> bool:
        """Whether a file is there as a cut wants it."""
        return (file_sha256, variant(cut)) in self._files

    def has_name(self, name: str, folder: str, file_sha256: str) -> bool:
        """Whether it is written down that a file of that folder has this content."""
        return self._names.get(name, {}).get(folder) == file_sha256

    def find(self, name: str, cut: Cut | None = None) -> Place | None:
        """A file by its name below the media folder; the suffix may be left out.

        Raises:
            CheckpointError: the name stands for several files.
        """
        stems = self._stems.get(name, set())
        real = name if name in self._names or len(stems) != 1 else next(iter(stems))
        if real not in self._names and len(stems) > 1:
            raise CheckpointError(f"{name!r} is one of {', '.join(sorted(stems))}: add the suffix")
        found = self._names.get(real, {})
        if len(set(found.values())) > 1:
            raise CheckpointError(
                f"{name!r} stands for different files in {self.folder}: it is in"
                f" {' and in '.join(sorted(found))}; keep one store for each folder"
            )
        return self._files.get((next(iter(found.values())), variant(cut))) if found else None

    # -- reading -----------------------------------------------------------------------------

    def get(self, key: str) -> tuple[Tokens, Tokens] | None:
        """Tokens of picture and sound by the key of `FeatureCache`, or None."""
        place = self._keys.get(key)
        return None if place is None else self.read(place)

    def sound(self, digest: str) -> Tokens | None:
        """Tokens of a decoded sound (`encoding.clip_digests`), or None."""
        place = self._sounds.get(digest)
        return None if place is None else self._tokens(place, "sound")

    def picture(self, digest: str) -> Tokens | None:
        """Tokens of decoded frames (`encoding.clip_digests`), or None."""
        place = self._pictures.get(digest)
        return None if place is None else self._tokens(place, "picture")

    def by_file(self, sha256: str, cut: Cut | None = None) -> tuple[Tokens, Tokens] | None:
        """Tokens of picture and sound by the content of the file, or None.

        Both, whatever `cut` says of missing modalities.
        """
        place = self._files.get((sha256, variant(cut)))
        return None if place is None else self.read(place)

    def by_name(self, name: str, cut: Cut | None = None) -> tuple[Tokens, Tokens] | None:
        """Likewise by the name of the file, as in `find`."""
        place = self.find(name, cut)
        return None if place is None else self.read(place)

    def read(self, place: Place) -> tuple[Tokens, Tokens]:
        """Tokens of picture and sound."""
        return self._tokens(place, "picture"), self._tokens(place, "sound")

    def _tokens(self, place: Place, part: str) -> Tokens:
        """Raises CheckpointError if the shard is gone or damaged."""
        from safetensors import safe_open

        path = self.folder / SHARDS / place.shard
        try:
            if place.shard not in self._open:
                self._open[place.shard] = safe_open(path, framework="pt")
            length_s = getattr(place.entry, f"{part}_length_s")
            return unpacked(self._open[place.shard], f"{place.number}.{part}", length_s)
        except Exception as error:  # safetensors and the disk each have their own
            raise CheckpointError(f"{path} cannot be read ({error}): {_again(path)}") from error

    # -- the index ---------------------------------------------------------------------------

    def _add(self, path: Path) -> None:
        for number, entry in enumerate(self._index(path)):
            place = Place(entry=entry, shard=path.name, number=number)
            self._keys.setdefault(entry.key, place)
            self._files.setdefault((entry.file, entry.cut), place)
            if entry.sound_tokens:
                self._sounds.setdefault(entry.sound, place)
            if entry.picture_tokens:
                self._pictures.setdefault(entry.picture, place)

    def _index(self, path: Path) -> list[Entry]:
        from safetensors import safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, str] = file.metadata() or {}
            entries = [Entry(**row) for row in json.loads(about["index"])]
        except Exception as error:  # safetensors, JSON and the disk each have their own
            raise CheckpointError(f"{path} is no shard ({error}): {_again(path)}") from error
        if about.get("store") != self._digest:
            raise CheckpointError(
                f"{path} belongs to another store than {self.folder}: remove it,"
                f" or {anew(self.folder)}"
            )
        return entries

    def _add_names(self, path: Path) -> None:
        """Later parts win, for a file may have been exchanged."""
        try:
            with path.open(encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            for row in rows:
                name = row["name"]
                self._names.setdefault(name, {})[row["folder"]] = row["file"]
                self._stems.setdefault(name.rpartition(".")[0], set()).add(name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} cannot be read ({error!r}): {_again(path)}") from error


def _new(folder: Path, suffix: str, known: set[str]) -> list[Path]:
    """Files of that suffix, in the order of their names, which is that of their making."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix == suffix)
    return sorted(path for path in found if path.name not in known)


def _again(path: Path) -> str:
    return "remove it and run the same `avqa features` again, which makes what is missing"
