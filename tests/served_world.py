"""A service over the embedded model in an event loop of its own, and adapters beside it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from avqa_llm.answer import Answer
from avqa_llm.asking import SAMPLES
from avqa_llm.presets import PRESETS
from avqa_llm.serving.contract import Ask, Attached, Delta, Done, Event, Started
from avqa_llm.serving.service import AVQAService

TINY = PRESETS["tiny"]
BRIDGE, LORA = "bridge.safetensors", "adapter_model.safetensors"


class World:
    """Calls a service's coroutines from tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def end(self) -> None:
        """Stop the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@contextmanager
def world() -> Iterator[World]:
    made = World()
    try:
        yield made
    finally:
        made.end()


def asked(path: Path, question: str, *, modality: str = "video", **how: Any) -> Ask:
    """A question to the base about a file."""
    media = (Attached(path=path, modality=modality),)
    return Ask(**{"model": "tiny", "media": media, "question": question, **how})


async def events(service: AVQAService, ask: Ask) -> list[Event]:
    """All that an answer consists of."""
    return [event async for event in service.answer(ask)]


def whole(found: list[Event]) -> Answer:
    """The answer, once the order of events was checked."""
    assert isinstance(found[0], Started) and isinstance(found[-1], Done)
    assert all(isinstance(event, Delta) for event in found[1:-1])
    return found[-1].answer


def bare(answer: Answer) -> Answer:
    """What must be the same whenever and wherever it was answered."""
    return replace(answer, timing_s={}, warnings=())


def samples() -> list[tuple[Path, str]]:
    """Files and questions that are bundled."""
    rows = json.loads((SAMPLES / "samples.json").read_text())
    return [(SAMPLES / row["file"], one["question"]) for row in rows for one in row["questions"]]


def adapter(folder: Path, *, lora: float = 0.3, bridge: float = 0.02, seed: int = 1) -> Path:
    """Another adapter of the embedded base: its weights, disturbed by so much."""
    folder.mkdir()
    for name in ("llm", "picture", "sound"):
        (folder / name).symlink_to(TINY / name)
    for name in ("avqa.json", "adapter_config.json"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    torch.manual_seed(seed)
    for name, share in ((LORA, lora), (BRIDGE, bridge)):
        weights = load_file(TINY / name)
        for key, value in weights.items():
            if value.is_floating_point() and value.dim() > 1:
                value += share * value.std() * torch.randn_like(value.float()).to(value.dtype)
            weights[key] = value
        save_file(weights, folder / name)
    return folder


def rewrite(path: Path, change: Any) -> None:
    """Change the weights of a safetensors file."""
    save_file(change(load_file(path)), path)
