"""Clients that people have work unchanged, and a machine that looks for holes finds none."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_world import QUESTION, clip_file, data_url, digest, serving, video
from tests.scripted_service import Scripted

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [clip_file(folder, number) for number in range(4)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("store"), Scripted(), rate_per_s=0.0) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found:
        yield found


def asking(*parts: Any, question: str = QUESTION) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


# -- openai ------------------------------------------------------------------------------------


def test_openai_asks_about_a_file_it_has_uploaded(client: Any, clips: list[Path]) -> None:
    with clips[0].open("rb") as file:
        sent = client.files.create(file=file, purpose="user_data")
    assert client.files.retrieve(sent.id).filename == clips[0].name
    assert sent.id in [one.id for one in client.files.list()]
    for part in (video(sent.id), {"type": "file", "file": {"file_id": sent.id}}):
        reply = client.chat.completions.create(
            model="tiny", messages=asking(part), extra_body={"avqa": {"open": True}}, logprobs=True
        )
        assert digest(clips[0].read_bytes()) in reply.choices[0].message.content
        assert reply.avqa["consumed"]["sound_tokens"] == 40
        assert reply.usage.prompt_tokens_details.audio_tokens == 40
        assert reply.choices[0].logprobs.content[0].logprob == -0.25
    assert client.files.content(sent.id).read() == clips[0].read_bytes()
    assert client.files.delete(sent.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(sent.id)


def test_openai_streams(client: Any, clips: list[Path]) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=asking(video(data_url(clips[1].read_bytes()))),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == f"{digest(clips[1].read_bytes())} 0 {QUESTION}"
    assert chunks[0].avqa["consumed"]["sound"] is True
    assert chunks[-1].usage.total_tokens > 120
    assert chunks[-2].avqa["evidence"][0]["modality"] == "sound"


def test_openai_asks_asynchronously(url: str, clips: list[Path]) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            part = video(data_url(clips[2].read_bytes()))
            stream = await client.chat.completions.create(
                model="tiny", messages=asking(part), stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream])

    assert asyncio.run(ask()).startswith(digest(clips[2].read_bytes()))


def test_openai_raises_its_own_errors(client: Any, url: str) -> None:
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="model"):
        ask(model="gpt", messages=asking())
    with pytest.raises(openai.BadRequestError, match="one answer"):
        ask(model="tiny", messages=asking(), n=2)
    with pytest.raises(openai.InternalServerError) as away:
        ask(model="tiny", messages=asking(question="!away"))
    assert away.value.status_code == 503
    with pytest.raises(openai.APIError, match="log"):
        list(ask(model="tiny", messages=asking(question="!bug-late"), stream=True))
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "avqa"


def test_many_at_once_get_their_own_answers(url: str, clips: list[Path]) -> None:
    contents = [clip.read_bytes() for clip in clips]

    def ask(number: int) -> tuple[str, str]:
        content, question = contents[number % len(contents)], f"Question {number}?"
        if number % 10 == 9:  # bad ones in between
            content = content[:100]
        body = {
            "model": "tiny",
            "messages": asking(video(data_url(content)), question=question),
            "stream": number % 2 == 0,
        }
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        if number % 10 == 9:
            return ("400", str(reply.status_code))
        expected = f"{digest(content)} 0 {question}"
        if number % 2:
            return expected, reply.json()["choices"][0]["message"]["content"]
        return expected, expected if f'"answer":"{expected}"' in reply.text else reply.text

    with ThreadPoolExecutor(20) as pool:
        for expected, found in pool.map(ask, range(100)):
            assert found == expected


# -- LangChain ---------------------------------------------------------------------------------


def test_langchain_asks_and_streams(url: str, clips: list[Path]) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    model = langchain_openai.ChatOpenAI(
        model="tiny", base_url=f"{url}/v1", api_key="none", temperature=0, max_retries=0
    )
    content = clips[3].read_bytes()
    messages = [
        SystemMessage("Be brief."),
        HumanMessage([video(data_url(content)), {"type": "text", "text": "One?"}]),
        AIMessage("yes"),
        HumanMessage("And now?"),
    ]
    expected = f"{digest(content)} 1 And now?"
    reply = model.invoke(messages)
    assert reply.content == expected
    assert reply.usage_metadata["input_tokens"] == 122
    assert "".join(chunk.content for chunk in model.stream(messages)) == expected

    async def streamed() -> str:
        return "".join([chunk.content async for chunk in model.astream(messages)])

    assert asyncio.run(streamed()) == expected


# -- schemathesis --------------------------------------------------------------------------------


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis is not installed")
    keys, admins, adapters = (tmp_path / name for name in ("keys", "admins", "adapters"))
    keys.write_text(hashlib.sha256(b"ann").hexdigest())
    admins.write_text(hashlib.sha256(b"boss").hexdigest())
    adapters.mkdir()
    who: dict[str, Any] = {"keys_file": keys, "admin_keys_file": admins}
    with serving(tmp_path / "s", rate_per_s=0.0, adapters_folder=adapters, **who) as url:
        command = [
            *(program, "run", f"{url}/openapi.json", "--header", "Authorization: Bearer boss"),
            *("--phases", "coverage,fuzzing", "--max-examples", "8", "--generation-deterministic"),
            # A schema cannot say which bytes are a video, or that a question comes last.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            # CPython 3.11 may fail to parse in several threads at once (its issue 106905).
            *("--workers", "1", "--no-color"),
        ]
        found = subprocess.run(
            [str(word) for word in command], cwd=tmp_path, capture_output=True, text=True
        )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "12 selected / 12 total" in found.stdout
