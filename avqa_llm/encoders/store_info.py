"""What the features of a store were made with: `store.json`.

Features fit a model only if both encoders (weights, preparation) and the sampling are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avqa_llm.encoders.cache import FORMAT as FEATURES
from avqa_llm.encoders.cache import feature_key, fingerprint, identity_of
from avqa_llm.encoders.frozen import FrozenEncoder
from avqa_llm.encoders.picture import PictureEncoder
from avqa_llm.encoders.sound import SoundEncoder
from avqa_llm.errors import CheckpointError
from avqa_llm.media import Sampling

STORE, SHARDS, NAMES, CLAIMS = "store.json", "shards", "names", "claims.lock"
FORMAT = 1
"""Of the store's files; `FEATURES` is raised when an encoder comes to give other tokens."""
ASIDE = ".writing"


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """One frozen encoder."""

    identity: str
    """Of preparation and weights together, as `cache.identity` gives it."""
    weights: str
    """Fingerprint of the weights."""
    preparation: dict[str, Any]
    """Everything else that decides the tokens."""
    width: int
    """Features of a token."""

    @classmethod
    def of(cls, encoder: FrozenEncoder, width: int) -> EncoderInfo:
        """Reads all weights, about a second per gigabyte."""
        description, weights = encoder.description(), fingerprint(encoder.model)
        return cls(
            identity=identity_of(description, weights),
            weights=weights,
            preparation=json.loads(description),
            width=width,
        )


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What a store holds, and what a model wants of one."""

    picture: EncoderInfo
    sound: EncoderInfo
    sampling: dict[str, Any]
    """Kind and fields of the sampling."""
    dtype: str | None = None
    """How values are kept; None: whatever it is (a reader's wish)."""
    features: str = FEATURES
    format: int = FORMAT

    @classmethod
    def of(
        cls, picture: PictureEncoder, sound: SoundEncoder, *, dtype: str | None = None
    ) -> StoreInfo:
        """What these encoders make. Reads all weights, about a second per gigabyte."""
        return cls(
            picture=EncoderInfo.of(picture, picture.width),
            sound=EncoderInfo.of(sound, sound.width),
            sampling=sampling_info(picture.config.sampling()),
            dtype=dtype,
        )

    @property
    def digest(self) -> str:
        """What a shard names as its store."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `store.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def clip_key(self, file_sha256: str, digests: tuple[str, str], sampling: Sampling) -> str:
        """The key of a clip's tokens, here and in `FeatureCache`.

        `digests`: of its sound and of its frames, as `encoding.clip_digests` gives them.
        """
        return clip_key(file_sha256, digests, self.picture.identity, self.sound.identity, sampling)

    def differences(self, wanted: StoreInfo) -> list[str]:
        """In what this store is not what is wanted, in words; nothing: it fits."""
        have, want = asdict(self), asdict(wanted)
        if wanted.dtype is None:
            want["dtype"] = have["dtype"]
        for row in (have, want):  # follows from weights and preparation
            for name in ("picture", "sound"):
                del row[name]["identity"]
        return list(_differences("", have, want))


def clip_key(
    file_sha256: str, digests: tuple[str, str], picture: str, sound: str, sampling: Sampling
) -> str:
    """`feature_key` of a clip that may have been changed after it was read from its file."""
    content = hashlib.sha256(repr(digests).encode()).hexdigest()[:16]
    return feature_key(f"{file_sha256}-{content}", picture, sound, sampling)


def sampling_info(sampling: Sampling) -> dict[str, Any]:
    """Kind and fields of a sampling, for a JSON file."""
    return {"kind": type(sampling).__name__, **asdict(sampling)}


def read_info(folder: Path) -> StoreInfo:
    """Read `store.json`.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    path = folder / STORE
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is no feature store: it has no {STORE}; make one with {command(folder)}"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    found = row.get("format") if isinstance(row, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found!r}, this version reads {FORMAT}: {anew(folder)}"
        )
    try:
        parts = {name: EncoderInfo(**row[name]) for name in ("picture", "sound")}
        return StoreInfo(**{**row, **parts})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}): {anew(folder)}") from error


def create(folder: Path, info: StoreInfo) -> None:
    """Make a store's folder, or make sure that it is one of this kind; many may do so at once.

    Raises:
        CheckpointError: the folder holds other features, or something else.
    """
    if not (folder / STORE).exists():
        if folder.is_file() or (folder.is_dir() and any(_foreign(folder))):
            raise CheckpointError(
                f"{folder} exists and is no feature store: name a new folder with --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{STORE}.{uuid.uuid4().hex}{ASIDE}"
        aside.write_text(info.to_json(), encoding="utf-8")
        try:
            os.link(aside, folder / STORE)
        except FileExistsError:  # another process was first
            pass
        except OSError:  # a disk without links
            os.replace(aside, folder / STORE)
        aside.unlink(missing_ok=True)
    require(folder, read_info(folder), info)


def require(folder: Path, info: StoreInfo, wanted: StoreInfo, model: str = "MODEL") -> None:
    """Raises CheckpointError if a store is not what is wanted; says in what, and the way out."""
    if found := info.differences(wanted):
        raise CheckpointError(
            f"the features in {folder} do not fit: {'; '.join(found[:3])}; {anew(folder, model)}"
        )


def command(folder: Path, model: str = "MODEL") -> str:
    """The command line that makes a store."""
    return f"`avqa features FOLDER --model {model} --out {folder}`"


def anew(folder: Path, model: str = "MODEL") -> str:
    """What to do about a store that cannot be used."""
    return f"remove {folder} (or name another) and run {command(folder, model)}"


def _foreign(folder: Path) -> Iterator[Path]:
    """What lies in a folder and is not of a store that is being made at this moment."""
    for path in folder.iterdir():
        aside = path.name.startswith(STORE) and path.suffix == ASIDE
        if not aside and path.name not in (STORE, SHARDS, NAMES, CLAIMS):
            yield path


_WORDS = {
    "weights": "weights (fingerprint)",
    "features": "version of the features",
    "dtype": "--dtype",
}


def _differences(place: str, have: Any, want: Any) -> Iterator[str]:
    """Each leaf that is not the same, with both values."""
    if isinstance(have, dict) and isinstance(want, dict):
        for key in sorted({*have, *want}):
            inner = f"{place} {_WORDS.get(key, key)}".strip()
            yield from _differences(inner, have.get(key), want.get(key))
    elif json.dumps(have, default=str) != json.dumps(want, default=str):
        yield f"{place} is {_short(have)} there, {_short(want)} here"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
