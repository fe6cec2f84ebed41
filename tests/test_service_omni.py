"""Omni models behind a stock vLLM: parts that are sent are counted, and only what counts is heard.

The server is scripted. It counts prompt tokens from the parts that it really finds, so that what
is proved rests on what was sent; it can drop the sound as servers do, without a word.
"""

from __future__ import annotations

import base64
import io
import math
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from avqa_llm.asking import SAMPLES
from avqa_llm.errors import CheckpointError, MediaError
from avqa_llm.labels import LABELS
from avqa_llm.prompt import Turn
from avqa_llm.serving.contract import Delta, RetryableError, Started, UnknownModelError
from avqa_llm.serving.omni_service import OmniService
from tests.served_world import World, asked, events, whole, world

DUO = SAMPLES / "duo.mp4"
HOW_MANY = "How many instruments are sounding?"


class Server:
    """What a `VLLMClient` is asked, answered as vLLM does."""

    def __init__(self, *, deaf: bool = False, away: bool = False) -> None:
        self.deaf, self.away = deaf, away
        self.bodies: list[dict[str, Any]] = []

    def tokens(self, body: dict[str, Any]) -> int:
        count = 0
        for message in body["messages"]:
            parts = message["content"]
            for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
                if part["type"] == "input_audio" and not self.deaf:
                    sound = io.BytesIO(base64.b64decode(part["input_audio"]["data"]))
                    with wave.open(sound) as file:
                        count += 4 * round(file.getnframes() / file.getframerate())
                elif part["type"] == "video_url":
                    data = base64.b64decode(part["video_url"]["url"].partition(",")[2])
                    with av.open(io.BytesIO(data)) as media:
                        assert not media.streams.audio, "the sound goes by itself"
                        count += 64 * sum(1 for _ in media.decode(video=0))
                elif part["type"] == "text":
                    count += len(part["text"].split())
        return count

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.away:
            raise RetryableError("vLLM is away")
        self.bodies.append(body)
        return {"usage": {"prompt_tokens": self.tokens(body)}}

    def chat_stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.bodies.append(body)
        usage = {"prompt_tokens": self.tokens(body)}
        for n, text in enumerate(("two", "")):
            logprobs = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": []}]}
            choice = {"delta": {"content": text}, "logprobs": logprobs if text else None}
            choice["finish_reason"] = None if text else "stop"
            yield {"choices": [choice], "usage": usage | {"completion_tokens": n + 1}}

    def close(self) -> None:
        pass


@pytest.fixture
def loop() -> Iterator[World]:
    with world() as made:
        yield made


def service(server: Server) -> OmniService:
    return OmniService(server, name="omni")


def test_what_makes_the_prompt_longer_was_heard_and_seen(loop: World) -> None:
    server = Server()
    own = service(server)
    found = loop.do(events(own, asked(DUO, HOW_MANY, model="omni")))
    answer = whole(found)
    assert found[0].consumed.sound_tokens == 40 and found[0].consumed.picture_tokens == 64 * 16
    assert found[0].prompt_tokens == 40 + 64 * 16 + len(HOW_MANY.split())
    assert (answer.answer, answer.label, answer.warnings) == ("two", "two", ())
    assert answer.probability == pytest.approx(math.exp(-0.1), abs=1e-4)
    last = server.bodies[-1]
    assert len(last["structured_outputs"]["choice"]) == len(LABELS) and last["temperature"] == 0
    kinds = [part["type"] for part in last["messages"][0]["content"]]
    assert kinds == ["video_url", "input_audio", "text"]

    counted = len(server.bodies)
    turns = (Turn(question=HOW_MANY, answer="two"),)
    ask = asked(DUO, "Where?", model="omni", history=turns, open_ended=True)
    found = loop.do(events(own, ask))
    assert len(server.bodies) == counted + 1, "a clip is counted once"
    first, reply, last_turn = server.bodies[-1]["messages"]
    assert [part["type"] for part in first["content"]] == kinds, "the clip stays in front"
    assert reply["content"] == "two" and len(last_turn["content"]) == 1
    assert "structured_outputs" not in server.bodies[-1]
    assert [event.text for event in found if isinstance(event, Delta)] == ["two"]
    assert own.counters()["reading_hits"] == 1


def test_a_server_that_drops_the_sound_has_not_heard_it(loop: World) -> None:
    found = loop.do(events(service(Server(deaf=True)), asked(DUO, HOW_MANY, model="omni")))
    assert isinstance(found[0], Started)
    assert found[0].consumed.sound is False and found[0].consumed.sound_tokens == 0
    assert found[0].consumed.picture is True
    assert found[0].warnings == (
        "The sound was sent, but the model dropped it: nothing was heard.",
    )
    assert whole(found).warnings == found[0].warnings


def test_muted_and_sound_alone(loop: World) -> None:
    own = service(Server())
    muted = loop.do(events(own, asked(DUO, HOW_MANY, model="omni", mute=True)))
    assert not muted[0].consumed.sound and muted[0].consumed.picture
    assert any("no sound to send" in said for said in muted[0].warnings)
    heard = loop.do(events(own, asked(DUO, HOW_MANY, model="omni", modality="audio")))
    assert heard[0].consumed.sound and not heard[0].consumed.picture
    both = asked(DUO, HOW_MANY, model="omni", mute=True, blank=True)
    with pytest.raises(MediaError, match="nothing could be decoded"):
        loop.do(events(own, both))


def test_what_cannot_be_asked(loop: World, tmp_path: Path) -> None:
    own = service(Server(away=True))
    with pytest.raises(UnknownModelError):
        loop.do(events(own, asked(DUO, HOW_MANY, model="other")))
    with pytest.raises(RetryableError, match="away"):
        loop.do(events(own, asked(DUO, HOW_MANY, model="omni")))
    with pytest.raises(CheckpointError, match="takes no adapters"):
        loop.do(own.add_adapter("a", tmp_path))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no media" * 100)
    with pytest.raises(MediaError) as refused:
        loop.do(events(own, asked(broken, HOW_MANY, model="omni")))
    assert str(tmp_path) not in str(refused.value)
    assert own.health()["in_flight"] == 0
    loop.do(own.close())
    with pytest.raises(RetryableError, match="shutting down"):
        loop.do(events(own, asked(DUO, HOW_MANY, model="omni")))
