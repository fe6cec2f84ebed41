"""Clips through a model's frozen encoders, each sound and each picture only once.

Frames and sound are told apart by their content: a clip that was muted or changed otherwise
still carries the name of its file.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from avqa_llm.encoders import Tokens
from avqa_llm.encoders.cache import FeatureCache, feature_key, identity
from avqa_llm.media import Clip
from avqa_llm.model import AVQAModel, ClipTokens

KEPT = 64
"""Sounds, and pictures, whose tokens are kept in memory."""


class ClipEncoder:
    """The encoders of a model with what they made of the last clips.

    Values are rounded to half precision (if they fit), so that they are the same when they come
    from a file.
    """

    def __init__(self, model: AVQAModel, cache: FeatureCache | None) -> None:
        """`cache`: where tokens of clips are kept on disk."""
        self.model, self.cache = model, cache
        self._identities = (identity(model.picture), identity(model.sound)) if cache else ("", "")
        self._sounds: OrderedDict[str, Tokens] = OrderedDict()
        self._pictures: OrderedDict[str, Tokens] = OrderedDict()

    def __call__(self, clip: Clip) -> ClipTokens:
        """Tokens of a clip, computed or remembered."""
        names = (
            _digest(clip.sound_CS, clip.sound_rate_hz),
            _digest(clip.frames_THWC, clip.frame_times_s.tobytes()),
        )
        if self.cache is not None and not (names[0] in self._sounds and names[1] in self._pictures):
            self._load(clip, names, self.cache)
        model = self.model
        return ClipTokens(
            sound=_once(self._sounds, names[0], lambda: model.sound(clip)),
            picture=_once(self._pictures, names[1], lambda: model.picture(clip)),
            seconds=clip.duration_s,
        )

    def _load(self, clip: Clip, names: tuple[str, str], cache: FeatureCache) -> None:
        """Take tokens from disk, or compute and put them there."""
        content = hashlib.sha256(repr(names).encode()).hexdigest()[:16]
        sampling = self.model.config.picture.sampling()
        key = feature_key(f"{clip.sha256}-{content}", *self._identities, sampling)
        kept = cache.get(key)
        picture, sound = kept or (self.model.picture(clip), self.model.sound(clip))
        if kept is None:
            cache.put(key, picture, sound)
        _once(self._sounds, names[0], lambda: sound)
        _once(self._pictures, names[1], lambda: picture)


def _digest(array: np.ndarray, *more: Any) -> str:
    digest = hashlib.sha256(repr((array.shape, more)).encode())
    if array.size:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _rounded(tokens: Tokens) -> Tokens:
    half = tokens.values_ND.half()
    return replace(tokens, values_ND=half.float()) if half.isfinite().all() else tokens


def _once(kept: OrderedDict[str, Tokens], name: str, make: Callable[[], Tokens]) -> Tokens:
    """What is kept under a name; it is made where there is none, and the oldest one leaves."""
    tokens = kept.pop(name, None) or _rounded(make())
    kept[name] = tokens
    with suppress(KeyError):  # another thread may have made room already
        if len(kept) > KEPT:
            kept.popitem(last=False)
    return tokens
