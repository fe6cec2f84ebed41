"""Where the engines of a service live: in this process, or around one vLLM.

A house loads an engine for the base and for each adapter, and says how it is. With the local
engine every adapter is merged into a language model of its own: the sums are then the very ones of
`avqa ask`, and a step takes no more products than without LoRA. What no adapter changes (encoders,
embeddings, head, norms) is in memory once. Where a copy of the linear layers is too much, vLLM is
the engine to take: there all adapters share one language model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from avqa_llm.encoders.cache import FeatureCache
from avqa_llm.engine import Engine, LocalEngine
from avqa_llm.errors import CheckpointError
from avqa_llm.folders import sha256_of
from avqa_llm.llm import ADAPTER
from avqa_llm.model import AVQAModel
from avqa_llm.serving.adapters import Base, check, stamp_of


class House(Protocol):
    """What a service asks of it. All methods may block, and come from one thread at a time."""

    kind: str
    """`local` or `vllm`."""
    workers: int
    """Threads that may ask its engines at the same time."""
    most_batch: int
    """Questions that are asked together."""
    most_prompt: int | None
    """Tokens that a prompt may have beyond what models say; None: no such limit."""

    def load(self, name: str, folder: Path) -> Engine:
        """The engine of a model directory; the first one is the base. Raises CheckpointError."""

    def unload(self, engine: Engine) -> None:
        """An engine of an adapter is not used any more."""

    def state(self) -> tuple[str, str]:
        """`ok`, `starting` or `degraded`, and why."""

    @property
    def restarts(self) -> int:
        """How often what it depends on was started again."""

    def stop(self) -> None:
        """End what was started."""


class LocalHouse:
    """Engines with everything in this process."""

    kind, workers, most_batch = "local", 1, 64
    most_prompt: int | None = None
    restarts = 0

    def __init__(self, cache: FeatureCache | None = None) -> None:
        self._cache = cache
        self._base: LocalEngine | None = None

    def load(self, name: str, folder: Path) -> Engine:
        """Load; see `House`."""
        from avqa_llm.omni.model import is_omni

        if is_omni(folder):
            raise CheckpointError(
                f"{folder} is an omni model, which the local engine answers one by one and does not"
                " serve; ask it with `avqa ask`, or serve it with --engine vllm"
            )
        engine = LocalEngine(AVQAModel.from_pretrained(folder), cache=self._cache)
        if self._base is None:
            self._base = engine
        else:
            share(engine.model, self._base.model)
        return engine

    def unload(self, engine: Engine) -> None:
        """Nothing but memory is held, and goes with the engine."""

    def state(self) -> tuple[str, str]:
        """It is there or the process is not."""
        return "ok", ""

    def stop(self) -> None:
        """Nothing was started."""


class VLLMHouse:
    """Engines around one vLLM: of a process of ours, or one that runs already."""

    kind, workers, most_batch = "vllm", 8, 16
    most_prompt: int | None = 8192

    def __init__(
        self,
        client: Any,
        *,
        process: Any = None,
        there: Mapping[str, Path] | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        """Take a server over, that runs.

        Args:
            client: a `VLLMClient` of the server.
            process: the `VLLMProcess` behind it, which is stopped in the end; None: it is not ours.
            there: adapters that it has already, by `name_there`.
            cache: where encoder tokens of clips are kept on disk.
        """
        self._client, self._process, self._cache = client, process, cache
        self._there = dict(there or {})
        self._stamps: dict[Path, object] = {}
        self._checked = self.restarts
        self._words: tuple[Any, Any] | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        name: str,
        adapters: Mapping[str, Path],
        *,
        cache: FeatureCache | None = None,
        **how: Any,
    ) -> VLLMHouse:
        """Start a vLLM for a model directory with adapters; takes a minute or more.

        Args:
            folder: the model directory.
            name: under which it will be served.
            adapters: what will be loaded beside it.
            cache: where encoder tokens of clips are kept on disk.
            how: what else `VLLMSettings` takes.

        Raises:
            AVQAError: vLLM cannot be started; says why.
            CheckpointError: an adapter cannot be served; before anything is started.
        """
        from avqa_llm.model import read_config
        from avqa_llm.serving.vllm_process import VLLMProcess, VLLMSettings

        if adapters:
            base = Base.of(folder)
            for place in adapters.values():
                check(place, base)
        every = {name: folder, **adapters} if read_config(folder).lora.rank else dict(adapters)
        there = {name_there(own, place): place for own, place in every.items()}
        settings = VLLMSettings.for_model(folder, name=name, adapters=there, **how)
        process = VLLMProcess(settings)
        process.start()
        return cls(process.client, process=process, there=there, cache=cache)

    @classmethod
    def attach(cls, url: str, *, cache: FeatureCache | None = None) -> VLLMHouse:
        """Share a vLLM that another gateway started with the key in `AVQA_VLLM_KEY`.

        On a processor its requests must not mix adapters (see `VLLMClient`), which gateways that
        share one cannot see of each other: they have to serve one and the same model there.

        Raises:
            AVQAError: it is not there, or does not take the key.
        """
        from avqa_llm.serving.vllm_client import VLLMClient
        from avqa_llm.serving.vllm_env import has_gpu

        key = os.environ.get("AVQA_VLLM_KEY", "")
        client = VLLMClient(url, key=key, one_adapter=not has_gpu())
        client.models()
        return cls(client, cache=cache)

    def load(self, name: str, folder: Path) -> Engine:
        """Load; see `House`."""
        from avqa_llm.remote import VLLMEngine

        known, self._stamps[folder] = name_there(name, folder), stamp_of(folder)
        model = AVQAModel.without_llm(folder, words=self._words)
        if self._words is None:
            self._words = (model.llm, model.prompt.tokenizer)
        if model.config.lora.rank and known not in self._there:
            self._add(known, folder)
        return VLLMEngine(model, self._client, name=known, cache=self._cache)

    def _add(self, known: str, folder: Path) -> None:
        if self._process is not None:
            self._process.add_adapter(known, folder)
        elif known not in self._client.models():
            self._client.load_adapter(known, folder.resolve())
        self._there[known] = folder

    def unload(self, engine: Any) -> None:
        """Take the adapter off the server, if that is ours: others may use another's."""
        if self._process is not None:
            self._process.remove_adapter(engine.name)
        if (folder := self._there.pop(engine.name, None)) is not None:
            self._stamps.pop(folder, None)

    def state(self) -> tuple[str, str]:
        """Of the server's process; see `House`."""
        if self._process is None:  # somebody else looks after it
            return "ok", ""
        kind = {"ok": "ok", "starting": "starting"}.get(self._process.state, "degraded")
        if kind == "ok" and self._checked != self.restarts:  # it has read its weights anew
            if changed := [
                folder for folder, stamp in self._stamps.items() if _now(folder) != stamp
            ]:
                return "degraded", f"{changed[0]} has changed since it was loaded: serve it anew"
            self._checked = self.restarts
        return kind, "" if kind == "ok" else f"vLLM is {self._process.state}: {self._process.why}"

    @property
    def restarts(self) -> int:
        """Of the server."""
        return 0 if self._process is None else int(self._process.restarts)

    def stop(self) -> None:
        """Stop the server if it is ours."""
        if self._process is not None:
            self._process.stop()
        else:
            self._client.close()


def _now(folder: Path) -> object:
    try:
        return stamp_of(folder)
    except (CheckpointError, OSError):  # it is gone, or being written
        return None


def name_there(name: str, folder: Path) -> str:
    """Under which vLLM knows an adapter: another one that is served as `name` later is not it."""
    path = folder / ADAPTER
    return f"{name}-{sha256_of(path)[:8]}" if path.exists() else name


def share(model: nn.Module, other: nn.Module) -> int:
    """Let equal weights of two models be one tensor; returns how many bytes that saved."""
    known, saved = dict(other.named_parameters()), 0
    for name, weight in model.named_parameters():
        twin = known.get(name)
        if twin is None or twin.shape != weight.shape or twin.dtype != weight.dtype:
            continue
        if bool((twin == weight).all()):
            weight.data = twin.data
            saved += twin.numel() * twin.element_size()
    return saved
