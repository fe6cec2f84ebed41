"""Which official file a file is, by its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from instruct_data.places import CATALOGUE, Place


@dataclass(frozen=True, kw_only=True)
class Known:
    """A file of the catalogue."""

    data_set: str
    """Its name in `CATALOGUE`."""
    place: Place

    @property
    def benchmark(self) -> str:
        """Whose questions it holds."""
        return CATALOGUE[self.data_set].reader

    @property
    def what(self) -> str:
        """Its name and content, in words."""
        older = " before the correction (2022)" if self.data_set == "music-avqa-2022" else ""
        return f"the file {self.place.name}{older} ({self.place.what})"


FILES = [
    Known(data_set=name, place=place)
    for name, data_set in CATALOGUE.items()
    for place in data_set.places
    if place.kind == "file"
]
_BY_SHA256 = {known.place.sha256: known for known in FILES if known.place.sha256}
# Of these, git's own name for the bytes is all that is known.
_BY_BLOB = {
    known.place.git_blob: known
    for known in FILES
    if known.place.git_blob and not known.place.sha256
}


def recognise(path: Path, sha256: str) -> Known | None:
    """The official file that has these bytes, whatever its name is; None for any other."""
    return _BY_SHA256.get(sha256) or _BY_BLOB.get(git_blob(path))


def git_blob(path: Path) -> str:
    """The id under which git stores a file's bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
