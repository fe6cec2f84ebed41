"""The page before a model of somebody else's server: streamed, stopped, away, and never "heard".

The server is a fake, which is the outer boundary; the page, its services and the client are real.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.app_world import DUO, Visitor, page

WORDS = ["A ", "guzheng", " <b>and</b>", " a violin", "."]


class Server:
    """Says WORDS one by one; remembers what it was sent, and whether its reader went away."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.words, self.pause_s, self.status = list(WORDS), 0.0, 200
        self.left = threading.Event()

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        size = int(handler.headers["Content-Length"])
        self.bodies.append(json.loads(handler.rfile.read(size)))
        handler.send_response(self.status)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        if self.status != 200:
            handler.wfile.write(b'{"error": {"message": "no such model"}}')
            return
        try:
            for word in self.words:
                self._row(handler, {"content": word}, None)
                time.sleep(self.pause_s)
            self._row(handler, {}, "stop")
            handler.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.left.set()

    def _row(self, handler: Any, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        row = {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}
        handler.wfile.write(f"data: {json.dumps({**row, 'created': 1, 'model': 'm'})}\n\n".encode())
        handler.wfile.flush()


@contextmanager
def listening(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.reply(self)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    server = Server()
    folder = tmp_path_factory.mktemp("uploads")
    with (
        listening(server) as address,
        page(folder, "--model", "openai:omni", "--base-url", address) as served,
    ):
        yield server, served


def test_an_answer_grows_and_what_was_heard_is_unknown(world: tuple[Server, Any]) -> None:
    server, served = world
    visitor = Visitor(served)
    job = visitor.client.submit(
        visitor.message("What plays?", DUO), "omni", False, False, api_name="/chat"
    )
    said, told = job.result(60)
    grown = [text for text, _ in job.outputs()]
    assert len(grown) > 2 and any(text.startswith("A guzheng") for text in grown[:-1])
    assert told["answer"]["answer"] == "A guzheng <b>and</b> a violin."
    assert told["answer"]["consumed"] is None and told["answer"]["probability"] is None
    assert "<b>" not in said and "&lt;b&gt;" in said
    assert "Unknown whether heard" in said and "**Heard" not in said
    content = server.bodies[-1]["messages"][0]["content"]
    kinds = [part["type"] for part in content]
    assert kinds.count("image_url") == 16 and kinds.count("input_audio") == 1
    visitor.ask("And then?", model="omni")
    assert [turn["role"] for turn in server.bodies[-1]["messages"]] == ["user", "assistant", "user"]


def test_stopping_an_answer_reaches_the_server(world: tuple[Server, Any]) -> None:
    server, served = world
    server.words, server.pause_s = ["word "] * 400, 0.05
    server.left.clear()
    visitor = Visitor(served)
    job = visitor.client.submit(
        visitor.message("What plays?", DUO), "omni", False, False, api_name="/chat"
    )
    until = time.monotonic() + 30
    while len(job.outputs()) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    job.cancel()
    assert server.left.wait(15), "the server still talks to nobody"
    server.words, server.pause_s = list(WORDS), 0.0
    _, told = visitor.ask("What plays now?", model="omni")
    assert told["answer"] is not None


def test_a_refusal_is_a_sentence(world: tuple[Server, Any]) -> None:
    server, served = world
    visitor = Visitor(served)
    server.status = 404
    said, told = visitor.ask("What plays?", DUO, model="omni")
    server.status = 200
    assert told["answer"] is None and "refused the question (404)" in said
    assert "no such model" in said


def test_a_server_that_is_away_is_said(tmp_path: Path) -> None:
    with listening(Server()) as address:
        pass  # nobody is there any more
    with page(tmp_path / "up", "--model", "openai:omni", "--base-url", address) as served:
        said, told = Visitor(served).ask("What plays?", DUO, model="omni")
        assert told["answer"] is None and "did not answer" in said
