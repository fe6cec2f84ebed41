"""A `Service` without a model: it answers with what it was really given.

Every answer names the SHA-256 of the file that it is about and repeats the question, so that a
reply which went to another's question shows. Words of the question steer it: see `Scripted`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avqa_llm.answer import Alternative, Answer, Consumed, Evidence
from avqa_llm.errors import CheckpointError, MediaError
from avqa_llm.media import probe
from avqa_llm.serving.contract import (
    Ask,
    Delta,
    Done,
    Event,
    ModelInfo,
    RetryableError,
    Started,
    Token,
    UnknownModelError,
)

SILENT = "There was no sound to hear: the answer rests on the picture alone."


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@dataclass
class Scripted:
    """Questions that start with a word of `!…` make it misbehave:

    `!slow` never ends, `!stall` never ends after the first word, `!away` cannot answer now,
    `!bug` fails, `!bug-late` after the first word, `!unreadable` names a path of the server.
    """

    served: dict[str, str | None] = field(default_factory=lambda: {"tiny": None})
    asks: list[Ask] = field(default_factory=list)
    delay_s: float = 0.0
    running: int = 0
    most_running: int = 0
    cancelled: int = 0
    answered: int = 0

    def models(self) -> Sequence[ModelInfo]:
        return [ModelInfo(name=n, base=base, created=7) for n, base in self.served.items()]

    async def answer(self, ask: Ask) -> AsyncIterator[Event]:
        if ask.model not in self.served:
            raise UnknownModelError(f"no model {ask.model}")
        self.asks.append(ask)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async for event in self._events(ask):
                yield event
            self.answered += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _events(self, ask: Ask) -> AsyncIterator[Event]:
        word = ask.question.split()[0]
        await asyncio.sleep(self.delay_s)
        await self._before(word, ask)
        clip = ask.media[-1].path if ask.media else None
        heard = clip is not None and probe(clip).sound is not None and not ask.mute
        seen = clip is not None and ask.media[-1].modality == "video" and not ask.blank
        consumed = Consumed(
            sound=heard, picture=seen, sound_tokens=40 * heard, picture_tokens=80 * seen
        )
        warnings = () if heard else (SILENT,)
        prompt = len(ask.question.split()) + consumed.sound_tokens + consumed.picture_tokens
        yield Started(consumed=consumed, prompt_tokens=prompt, warnings=warnings)
        text = self._text(ask, clip)
        words = text.split(" ")
        for n, piece in enumerate(words):
            if n == 1 and word == "!stall":
                await asyncio.sleep(1000)
            if n == 1 and word == "!bug-late":
                raise RuntimeError("secret of the server")
            tail = "" if n + 1 == len(words) else " "
            token = Token(text=piece + tail, logprob=-0.25, top=((piece, -0.25), ("other", -2.0)))
            yield Delta(text=piece + tail, tokens=(token,) if ask.open_ended else ())
        answer = Answer(
            answer=text,
            label=ask.choices[0] if ask.choices else "two",
            probability=0.75,
            alternatives=(Alternative(label="three", probability=0.125),),
            evidence=(Evidence(modality="sound", start_s=0.0, end_s=1.0, region=None, weight=0.5),),
            consumed=consumed,
            steps="counted",
            record="violin 0-1",
            warnings=warnings,
            timing_s={"encode": 0.01},
        )
        yield Done(answer=answer, completion_tokens=len(words))

    async def _before(self, word: str, ask: Ask) -> None:
        if word == "!slow":
            await asyncio.sleep(1000)
        if word == "!away":
            raise RetryableError("vLLM is being started again", after_s=2.5)
        if word == "!bug":
            raise RuntimeError("secret of the server at /srv/secret/weights")
        if word == "!unreadable":
            raise MediaError(f"{ask.media[-1].path}: cut short, see /srv/secret/tmp/x")

    def _text(self, ask: Ask, clip: Path | None) -> str:
        if ask.choices:
            return ask.choices[0]
        about = "nothing" if clip is None else digest_of(clip)
        return f"{about} {len(ask.history)} {ask.question}"

    async def add_adapter(self, name: str, folder: Path) -> ModelInfo:
        if not (folder / "adapter_config.json").exists():
            raise CheckpointError(f"{folder}: has no adapter_config.json")
        self.served[name] = "tiny"
        return ModelInfo(name=name, base="tiny", created=8)

    async def remove_adapter(self, name: str) -> None:
        if self.served.get(name) is None:
            raise UnknownModelError(f"no adapter {name}")
        del self.served[name]

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "engine": "scripted", "folder": "/srv/secret/models"}

    def counters(self) -> dict[str, float]:
        return {"feature_hits": 3.0, "in_flight_now": float(self.running)}

    async def close(self) -> None:
        pass
