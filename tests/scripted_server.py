"""A local server that speaks the OpenAI protocol, and what tests send to it.

It counts prompt tokens from what it really finds in a request (4 a second of sound, 64 a
frame), so that what the engine proves rests on the bytes that were sent.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import numpy as np

from avqa_llm.media import Clip
from eval.engines import Asked
from eval.engines.openai import OpenAI
from tests.media_files import numbered_frame

QUESTION = Asked(clip=0, question="How many instruments are sounding in the video?")
SECONDS, RATE, FRAMES = 4.0, 44_100, 8
Reply = tuple[int, dict[str, str], Any]


def clip(seconds: float = SECONDS, size: tuple[int, int] = (64, 48)) -> Clip:
    """Numbered frames from the centres of equal spans, and a stereo tone."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)
    return Clip(
        path="a.mp4",
        sha256="0" * 64,
        duration_s=seconds,
        frames_THWC=np.stack([numbered_frame(n, size) for n in range(FRAMES)]),
        frame_times_s=(np.arange(FRAMES) + 0.5) * seconds / FRAMES,
        sound_CS=np.stack([tone, tone]).astype(np.float32),
        sound_rate_hz=RATE,
        sound_span_s=(0.0, seconds),
        picture_span_s=(0.0, seconds),
    )


def decoded(part: dict[str, Any]) -> bytes:
    """The bytes of a media part."""
    if part["type"] == "input_audio":
        return base64.b64decode(part["input_audio"]["data"], validate=True)
    kind, _, data = part[part["type"]]["url"].partition(";base64,")
    assert kind.startswith("data:")
    return base64.b64decode(data, validate=True)


def of_type(body: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    (message,) = body["messages"]
    return [part for part in message["content"] if part["type"] in kinds]


def seconds_of(wav: bytes) -> float:
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return file.getnframes() / file.getframerate()


def frames_of(mp4: bytes) -> list[Any]:
    with av.open(io.BytesIO(mp4)) as file:
        assert not file.streams.audio
        return list(file.decode(video=0))


def question_of(body: dict[str, Any]) -> str:
    return of_type(body, "text")[-1]["text"]


@dataclass
class Script:
    """How the server answers: a good reply, unless `faults` holds something for this request."""

    text: Callable[[str], str] = lambda question: "two"
    hears: bool = True
    sees: bool = True
    usage: bool = True
    details: Callable[[int, int], dict[str, Any]] | None = None
    logprobs: list[tuple[str, float]] = field(default_factory=list)
    faults: list[Reply | float] = field(default_factory=list)
    """Taken one by one: a reply in place of the good one, or seconds of silence before it."""
    refuse: Callable[[dict[str, Any]], str | None] = lambda body: None
    delay_s: float = 0.0
    finish: str = "stop"
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def questions(self) -> list[dict[str, Any]]:
        """Requests but those that only count tokens."""
        return [body for body in self.bodies if self.limit(body) > 1]

    @staticmethod
    def limit(body: dict[str, Any]) -> int:
        return body.get("max_tokens") or body["max_completion_tokens"]

    def reply(self, body: dict[str, Any]) -> Reply:
        refused = self.refuse(body)
        if refused is not None:
            return 400, {}, {"error": {"message": refused, "code": 400}}
        heard = seen = 0
        if self.hears:
            heard = sum(round(4 * seconds_of(decoded(p))) for p in of_type(body, "input_audio"))
        if self.sees:
            seen = sum(64 * len(frames_of(decoded(p))) for p in of_type(body, "video_url"))
            seen += 64 * len(of_type(body, "image_url"))
        words = sum(len(part["text"].split()) for part in of_type(body, "text"))
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": self.text(question_of(body))},
            "finish_reason": self.finish,
        }
        if body.get("logprobs") and self.logprobs:
            choice["logprobs"] = {
                "content": [{"token": token, "logprob": value} for token, value in self.logprobs]
            }
        content: dict[str, Any] = {"choices": [choice]}
        if self.usage:
            content["usage"] = {"prompt_tokens": words + heard + seen}
            if self.details:
                content["usage"]["prompt_tokens_details"] = self.details(heard, seen)
        return 200, {}, content


class Handler(BaseHTTPRequestHandler):
    script: Script

    def do_POST(self) -> None:
        script = self.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with script.lock:
            script.bodies.append(body)
            script.headers.append(dict(self.headers))
            script.times.append(time.monotonic())
            script.paths.append(self.path)
            script.in_flight += 1
            script.most_in_flight = max(script.most_in_flight, script.in_flight)
            fault = script.faults.pop(0) if script.faults else None
        time.sleep(fault if isinstance(fault, float) else script.delay_s)
        status, headers, content = fault if isinstance(fault, tuple) else script.reply(body)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        with script.lock:
            script.in_flight -= 1
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            pass  # nobody waits for it any more

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def serving(script: Script) -> Iterator[str]:
    handler = type("Scripted", (Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def ask(
    script: Script,
    clips: list[Clip] | None = None,
    asked: list[Asked] | None = None,
    **options: Any,
) -> list[Any]:
    with serving(script) as url:
        engine = OpenAI.connect("omni", base_url=url, **options)
        return engine.answer(clips or [clip()], asked or [QUESTION])
