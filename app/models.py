"""The models that can be chosen in the page, and a plain word on what each can do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.backstage import Backstage
from app.clips import SAMPLES
from avqa_llm.errors import AVQAError
from avqa_llm.media import MediaLimits
from avqa_llm.presets import PRESETS
from avqa_llm.serving.contract import Ask, Attached, ModelInfo, Service
from avqa_llm.serving.service import AVQAService, ServiceSettings

SERVER = "openai:"
"""Before the name of a model that a server has."""
WORLDS = {
    "Bandstand": "It knows Bandstand clips only: drawn players of 22 instruments with synthesised"
    " sound, such as the samples. What it says about real videos means nothing, and it warns when a"
    " clip looks or sounds unlike its world.",
}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which models the page offers."""

    models: tuple[str, ...] = ("tiny",)
    """Presets, model directories, or `openai:NAME` for one behind `base_url`."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """Names and directories of adapters of the first model of our own."""
    base_url: str = ""
    """Of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key; unset: none is sent."""
    limits: MediaLimits = MediaLimits(max_bytes=200 * 10**6, max_seconds=120)
    deadline_s: float = 120.0
    """From a question to its answer."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model that can be chosen."""

    name: str
    service: Service
    about: str
    """What it can do, for people."""
    opens: bool
    """Whether it answers in free words only."""
    here: bool = True
    """Whether clips stay on this machine."""


class Models:
    """All services of the page, by the names of their models."""

    def __init__(self, options: ModelOptions, stage: Backstage) -> None:
        """Load; takes a while.

        Raises:
            AVQAError: a model cannot be loaded, or a server is not named.
        """
        self.stage, self.limits = stage, options.limits
        self._services: list[Service] = []
        self._choices: dict[str, Choice] = {}
        adapters = dict(options.adapters)
        for model in options.models:
            if model.startswith(SERVER):
                self._add_server(model.removeprefix(SERVER), options)
            else:
                self._add_own(model, adapters, options)
                adapters = {}
        if adapters:
            raise AVQAError("--adapter needs a model of our own that it fits: add --model tiny")

    def _add_own(self, model: str, adapters: Mapping[str, Path], options: ModelOptions) -> None:
        settings = ServiceSettings(limits=options.limits, deadline_s=options.deadline_s)
        service = AVQAService.local(model, adapters=adapters, settings=settings)
        service.catalogue.warm()
        self._services.append(service)
        first = service.models()[0].name
        sample = Ask(model=first, media=(Attached(path=SAMPLES / "duo.mp4"),), question="")
        with suppress(AVQAError):  # what reads files is slow the first time, too
            self.stage.do_blocking(service.prepare(sample))
        for info in service.models():
            place = adapters.get(info.name) or PRESETS.get(model, Path(model))
            self._add(
                Choice(name=info.name, service=service, about=about(info, place), opens=False)
            )

    def _add_server(self, name: str, options: ModelOptions) -> None:
        from app.server import ServerService

        if not options.base_url:
            raise AVQAError(f"{SERVER}{name} needs --base-url, such as http://127.0.0.1:8000/v1")
        service = ServerService(
            name,
            base_url=options.base_url,
            key_env=options.key_env,
            limits=options.limits,
            deadline_s=options.deadline_s,
        )
        self._services.append(service)
        text = (
            f"{name} answers in free words from {service.host}: your clip is sent there. What it"
            " heard and saw of it cannot be told from here, and it cites no evidence."
        )
        self._add(Choice(name=name, service=service, about=text, opens=True, here=False))

    def _add(self, choice: Choice) -> None:
        if choice.name in self._choices:
            raise AVQAError(f"two models are named {choice.name!r}: choose one of them")
        self._choices[choice.name] = choice

    @property
    def names(self) -> list[str]:
        """Of all models, the default first."""
        return list(self._choices)

    def choice(self, name: object) -> Choice:
        """The model of that name. Raises AVQAError."""
        if not isinstance(name, str) or name not in self._choices:
            raise AVQAError(
                f"there is no model {str(name)[:40]!r}; there are {', '.join(self.names)}"
            )
        return self._choices[name]

    def close(self) -> None:
        """End all services and their loop; what is in flight is waited for."""

        async def close() -> None:
            await asyncio.gather(*(service.close() for service in self._services))

        self.stage.do_blocking(close())
        self.stage.end()


def about(info: ModelInfo, place: Path) -> str:
    """What a model of ours can do, in plain words."""
    told: dict[str, Any] = info.about
    world, longest = str(told.get("world", "")), told.get("longest_s")
    known = WORLDS.get(world, f"It was trained on {world or 'data that its card names'}.")
    clips = f" Made for clips of up to {longest:g} s." if longest else ""
    kind = "The embedded model" if info.base is None and info.name in PRESETS else "A model of ours"
    kind = f"An adapter of {info.base}" if info.base else kind
    return (
        f"{kind}, running here: clips stay on this machine. {known}{clips} It chooses one of"
        f" {told.get('answers', 0)} answers and says how likely it is to be right"
        f" ({place.name}/README.md has its card)."
    )


def options_of(
    models: Sequence[str], adapters: Sequence[str], *, base_url: str, **more: Any
) -> ModelOptions:
    """From what the command line says. Raises AVQAError."""
    pairs: dict[str, Path] = {}
    for given in adapters:
        name, equals, place = given.partition("=")
        if not equals or not name or not place:
            raise AVQAError(f"--adapter {given!r}: write NAME=DIRECTORY")
        pairs[name] = Path(place)
    return ModelOptions(
        models=tuple(models) or ("tiny",), adapters=pairs, base_url=base_url, **more
    )


def own_models(models: Sequence[str]) -> list[str]:
    """Presets and directories among models, without those of a server."""
    return [model for model in models if not model.startswith(SERVER)]
