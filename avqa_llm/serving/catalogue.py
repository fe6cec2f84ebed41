"""The models of a service: a base and adapters of it, added and taken out while it runs."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.encoders.cache import identity
from avqa_llm.engine import Engine
from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.labels import LABELS
from avqa_llm.media import Clip
from avqa_llm.presets import PRESETS
from avqa_llm.serving.adapters import Base, check, stamp_of
from avqa_llm.serving.clips import Encoders
from avqa_llm.serving.contract import ModelInfo, UnknownModelError
from avqa_llm.serving.counters import Counts
from avqa_llm.serving.houses import House

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BOUNDLESS = 2**20


@dataclass(eq=False)
class Served:
    """A model that is served."""

    uid: int
    info: ModelInfo
    engine: Engine
    encoders: Encoders
    most_prompt: int
    """Tokens of prompt and answer together."""
    in_flight: int = 0
    """Questions to it that are being answered."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last of them has been."""

    def left(self) -> None:
        """One of them has been."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()


class Catalogue:
    """Loads and finds models. Loading blocks; everything else belongs to the event loop."""

    def __init__(
        self, house: House, name: str, folder: Path, counts: Counts, gather_s: float
    ) -> None:
        """Load the base.

        Raises:
            CheckpointError: it cannot be served; says why.
        """
        self._house, self._counts, self._gather_s = house, counts, gather_s
        self._models: dict[str, Served] = {}
        self._encoders: dict[str, Encoders] = {}
        self._loading, self._uids = threading.Lock(), itertools.count()
        self._folder, self._base, self._stamp = folder, name, stamp_of(folder)
        self._fitting: Base | None = None
        check_name(name, ())
        self._register(name, folder, None)

    def models(self) -> list[ModelInfo]:
        """What is served now, the base first."""
        return [served.info for served in list(self._models.values())]

    def encoders(self) -> list[Encoders]:
        """Of all models, the same ones once."""
        return list(self._encoders.values())

    def served(self, name: str) -> Served:
        """The model of that name. Raises UnknownModelError."""
        if (found := self._models.get(name)) is None:
            there = ", ".join(info.name for info in self.models())
            raise UnknownModelError(f"model {name!r} is not served; there are {there}")
        return found

    def add(self, name: str, folder: Path) -> Served:
        """Load another adapter of the base; blocks.

        Raises:
            CheckpointError: the name is taken or none, or the adapter cannot be served.
        """
        with self._loading:
            check_name(name, self._models)
            if self._fitting is None:
                if stamp_of(self._folder) != self._stamp:
                    raise CheckpointError(
                        f"{self._folder} has changed since it was loaded: serve it anew, then add"
                        " adapters"
                    )
                self._fitting = Base.of(self._folder)
            check(folder, self._fitting)
            return self._register(name, folder, self._base)

    def take_out(self, name: str) -> Served:
        """Serve an adapter no longer.

        Raises:
            UnknownModelError: there is none of that name.
            AVQAError: it is the base.
        """
        served = self.served(name)
        if served.info.base is None:
            raise AVQAError(f"{name!r} is the base, which is served as long as the service runs")
        return self._models.pop(name)

    def warm(self) -> None:
        """Ask about a second of noise: what is loaded at the first question is slow to load."""
        engine, clip = self._models[self._base].engine, noise()
        reading = engine.digest([engine.model.encode(clip)])
        for open_ended in (False, True):
            engine.ask(reading, [(0, "What is heard?")], open_ended=open_ended)

    def _register(self, name: str, folder: Path, base: str | None) -> Served:
        engine = self._house.load(name, folder)
        model = engine.model
        sampling = model.config.picture.sampling()
        key = f"{identity(model.picture)} {identity(model.sound)} {sampling}"
        if key not in self._encoders:
            self._encoders[key] = Encoders(key, engine, self._counts, self._gather_s)
        info = ModelInfo(name=name, base=base, created=int(time.time()), about=about(engine))
        most = min(_positions(model), self._house.most_prompt or BOUNDLESS)
        served = Served(next(self._uids), info, engine, self._encoders[key], most)
        self._models[name] = served
        return served


def default_name(model: str | Path) -> str:
    """Under which a model is served where nothing is said: the preset's name or the directory's."""
    return str(model) if str(model) in PRESETS else Path(model).resolve().name


def check_name(name: str, taken: Collection[str]) -> None:
    """Raises CheckpointError for a name that is none, or not free."""
    if not NAME.fullmatch(name):
        raise CheckpointError(
            f"model name {name!r}: use up to 64 letters, digits, '.', '_' and '-', a letter or"
            " digit first (`--name` gives the base another)"
        )
    if name in taken:
        raise CheckpointError(f"a model named {name!r} is served already; choose another name")


def about(engine: Engine) -> dict[str, Any]:
    """What a model is for, in plain types."""
    config = engine.model.config
    return {
        "world": config.world.name,
        "longest_s": config.world.longest_s,
        "modalities": ["sound", "picture"],
        "answers": len(LABELS),
        "open_ended": True,
        "records": config.records,
    }


def noise(seconds: float = 1.0) -> Clip:
    """A clip with something in it, of no file."""
    draw = np.random.default_rng(0)
    return Clip(
        path="",
        sha256="",
        duration_s=seconds,
        frames_THWC=draw.integers(0, 255, (2, 72, 128, 3), dtype=np.uint8),
        frame_times_s=np.array([0.4, 0.6]),
        sound_CS=draw.normal(0, 0.1, (2, round(44100 * seconds))).astype(np.float32),
        sound_rate_hz=44100,
        sound_span_s=(0.0, seconds),
        picture_span_s=(0.0, seconds),
    )


def _positions(model: Any) -> int:
    """Tokens that the language model can tell the places of."""
    config = getattr(model.llm.get_base_model(), "config", None)
    return int(getattr(config, "max_position_embeddings", None) or BOUNDLESS)
