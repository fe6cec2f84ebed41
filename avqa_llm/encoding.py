"""Clips through a model's frozen encoders, each sound and each picture only once.

Frames and sound are told apart by their content: a clip that was muted or changed otherwise
still carries the name of its file.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from avqa_llm.encoders import Tokens
from avqa_llm.encoders.cache import FeatureCache, identity
from avqa_llm.encoders.codec import rounded
from avqa_llm.encoders.store import FeatureStore
from avqa_llm.encoders.store_info import StoreInfo, clip_key
from avqa_llm.media import Clip
from avqa_llm.model import AVQAModel, ClipTokens

KEPT = 64
"""Sounds, and pictures, whose tokens are kept in memory."""


class ClipEncoder:
    """The encoders of a model with what they made of the last clips.

    Values are rounded to half precision (if they fit), so that they are the same when they come
    from a file.
    """

    def __init__(
        self, model: AVQAModel, cache: FeatureCache | None, store: FeatureStore | None = None
    ) -> None:
        """`cache`: where tokens of clips are kept on disk. `store`: where many are already.

        Raises:
            CheckpointError: the store was made with other encoders.
        """
        self.model, self.cache, self.store = model, cache, store
        if store is not None:
            store.require(StoreInfo.of(model.picture, model.sound))
        self._identities = (identity(model.picture), identity(model.sound)) if cache else ("", "")
        self._sounds: OrderedDict[str, Tokens] = OrderedDict()
        self._pictures: OrderedDict[str, Tokens] = OrderedDict()
        self._lock = threading.Lock()  # clips come from several threads of a service
        self.computed = 0
        """Clips of `many` for which an encoder had to run."""

    def __call__(self, clip: Clip) -> ClipTokens:
        """Tokens of a clip, computed or remembered."""
        names = clip_digests(clip)
        with self._lock:
            if self.store is not None:
                self._look(names, self.store)
            known = names[0] in self._sounds and names[1] in self._pictures
            if self.cache is not None and not known:
                self._load(clip, names, self.cache)
            return self._tokens(clip, names)

    def _tokens(self, clip: Clip, names: tuple[str, str]) -> ClipTokens:
        """Those in memory; what is not there is computed."""
        model = self.model
        return ClipTokens(
            sound=_once(self._sounds, names[0], lambda: model.sound(clip)),
            picture=_once(self._pictures, names[1], lambda: model.picture(clip)),
            seconds=clip.duration_s,
        )

    def many(self, clips: Sequence[Clip]) -> list[ClipTokens]:
        """Tokens of several clips; what nobody remembers is computed in joint batches."""
        names = [clip_digests(clip) for clip in clips]
        with self._lock:
            return self._many(clips, names)

    def _many(self, clips: Sequence[Clip], names: list[tuple[str, str]]) -> list[ClipTokens]:
        keys = [self._missing(*both) for both in zip(clips, names, strict=True)]
        new = [n for n, key in enumerate(keys) if key is not None]
        model = self.model
        pictures = {names[n][1]: clips[n] for n in new if names[n][1] not in self._pictures}
        sounds = {names[n][0]: clips[n] for n in new if names[n][0] not in self._sounds}
        _fill(self._pictures, pictures, model.picture)
        _fill(self._sounds, sounds, model.sound)
        for n in new:
            if self.cache is not None and self.store is None:
                both = self._pictures[names[n][1]], self._sounds[names[n][0]]
                self.cache.put(str(keys[n]), *both)
        self.computed += len(new)
        return [self._tokens(*both) for both in zip(clips, names, strict=True)]

    def _missing(self, clip: Clip, names: tuple[str, str]) -> str | None:
        """The name on disk of what has to be computed for a clip; None where nothing has."""
        if self.store is not None:
            self._look(names, self.store)
        if names[0] in self._sounds and names[1] in self._pictures:
            return None
        if self.cache is None:
            return ""
        key = self._key(clip, names)
        if (kept := self.cache.get(key)) is None:
            return key
        _once(self._pictures, names[1], lambda: kept[0])
        _once(self._sounds, names[0], lambda: kept[1])
        return None

    def _key(self, clip: Clip, names: tuple[str, str]) -> str:
        sampling = self.model.config.picture.sampling()
        return clip_key(clip.sha256, names, *self._identities, sampling)

    def _look(self, names: tuple[str, str], store: FeatureStore) -> None:
        """Take from a store what it has: a muted clip still has the frames of the whole one."""
        for kept, name, find in (
            (self._sounds, names[0], store.sound),
            (self._pictures, names[1], store.picture),
        ):
            if name not in kept and (tokens := find(name)) is not None:
                _once(kept, name, lambda tokens=tokens: tokens)  # type: ignore[misc]

    def _load(self, clip: Clip, names: tuple[str, str], cache: FeatureCache) -> None:
        """Take tokens from disk, or compute what is missing and put them there.

        Beside a store nothing is put there, for its values may be rougher than the cache's.
        """
        key = self._key(clip, names)
        kept = cache.get(key)
        picture, sound = kept or (
            self._pictures.get(names[1]) or self.model.picture(clip),
            self._sounds.get(names[0]) or self.model.sound(clip),
        )
        if kept is None and self.store is None:
            cache.put(key, picture, sound)
        _once(self._sounds, names[0], lambda: sound)
        _once(self._pictures, names[1], lambda: picture)


def clip_digests(clip: Clip) -> tuple[str, str]:
    """Of the sound and of the frames, as they were decoded and changed since."""
    return (
        _digest(clip.sound_CS, clip.sound_rate_hz),
        _digest(clip.frames_THWC, clip.frame_times_s.tobytes()),
    )


def _digest(array: np.ndarray, *more: Any) -> str:
    digest = hashlib.sha256(repr((array.shape, more)).encode())
    if array.size:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _fill(kept: OrderedDict[str, Tokens], clips: dict[str, Clip], encoder: Any) -> None:
    """Run an encoder over clips, under whose names its tokens are kept."""
    some = list(clips.values())
    found = [encoder(*some)] if len(some) == 1 else encoder.many(some)
    for name, tokens in zip(clips, found, strict=True):
        _once(kept, name, lambda tokens=tokens: tokens)  # type: ignore[misc]


def _once(kept: OrderedDict[str, Tokens], name: str, make: Callable[[], Tokens]) -> Tokens:
    """What is kept under a name; it is made where there is none, and the oldest one leaves."""
    tokens = kept.pop(name, None) or rounded(make())
    kept[name] = tokens
    with suppress(KeyError):  # another thread may have made room already
        if len(kept) > KEPT:
            kept.popitem(last=False)
    return tokens
