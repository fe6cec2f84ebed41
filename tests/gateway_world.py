"""A gateway over the scripted service, in this process or behind a real server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from avqa_llm.serving.gateway import create_app, server
from avqa_llm.serving.settings import GatewaySettings
from tests.media_files import Picture, Sound, at_rate, make_media
from tests.scripted_service import Scripted

QUESTION = "How many instruments are sounding?"


def clip_file(folder: Path, number: int = 0, *, sound: bool = True) -> Path:
    """A small clip; another number is another content."""
    picture = Picture(times_s=at_rate(5 + number, 1.0), size=(64, 48))
    path = folder / f"clip{number}{'' if sound else '-silent'}.mp4"
    return make_media(path, picture, Sound(seconds=1.0) if sound else None)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def data_url(content: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def chat(*parts: Any, question: str = QUESTION, **more: Any) -> dict[str, Any]:
    """A request with one message."""
    content = [*parts, {"type": "text", "text": question}]
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **more}


@contextlib.contextmanager
def gateway(folder: Path, service: Scripted | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client in this process."""
    app = create_app(service or Scripted(), GatewaySettings(folder=folder, **settings))
    with TestClient(
        app, base_url="http://127.0.0.1", client=("127.0.0.1", 5), raise_server_exceptions=False
    ) as client:
        yield client


@contextlib.contextmanager
def serving(folder: Path, service: Scripted | None = None, **settings: Any) -> Iterator[str]:
    """A real server on a free port of the loopback; gives its URL."""
    given = GatewaySettings(folder=folder, **settings)
    runner = server(create_app(service or Scripted(), given), given, port=0)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not runner.started and time.monotonic() < end:
        time.sleep(0.01)
    port = runner.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        runner.should_exit = True
        thread.join(15)


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, whose end was said."""
    lines = [line[len("data: ") :] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def upload(client: TestClient, content: bytes, name: str = "a.mp4", **more: Any) -> Any:
    return client.post(
        "/v1/files", files={"file": (name, content)}, data={"purpose": "user_data"}, **more
    )


def wait_until(condition: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
