"""Asking a stock vLLM: one whole prompt as vectors in, token ids with their chances out.

`POST /v1/completions` with `prompt_embeds`: no text goes in, so that the words are the very ones
of transformers and peft. Connections are kept; any number of threads may ask at once.

Legend: L tokens of a prompt, E width of the language model.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from avqa_llm.errors import AVQAError
from avqa_llm.serving.contract import RetryableError
from avqa_llm.serving.turns import Turns

WANTED = 256
"""Most token ids whose chances one request may ask for; the server is started with that limit."""
AWAY = (http.client.HTTPException, OSError)
"""What a connection raises when the server is gone: refused, reset, cut, silent too long."""
AWAY_S = 5.0
"""Seconds that callers are told to wait when the server is away."""
KEPT_S = 3.0
"""Seconds that an idle connection is kept: servers close them after 5 (uvicorn's default)."""
AT_ONCE = 64
"""Most requests of `complete_all` under way at the same time."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the model shall write on."""

    model: str
    """The base or an adapter, by its name on the server."""
    embeds_LE: Tensor
    """The whole prompt."""
    most: int
    """Tokens."""
    stops: tuple[int, ...] = ()
    """Ids that end the text; the end token of the model does not, unless it is one of them."""
    wanted: tuple[int, ...] = ()
    """Ids whose log-probabilities are wanted at each place; at most `WANTED`."""
    top: int = 0
    """How many of the likeliest are wanted at each place; counts where `wanted` is empty."""

    def body(self) -> dict[str, Any]:
        """As JSON of `/v1/completions`."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt_embeds": encoded(self.embeds_LE),
            "max_tokens": self.most,
            "temperature": 0,
            "repetition_penalty": 1.0,  # whatever the checkpoint's generation settings say
            "ignore_eos": True,
            "stop_token_ids": list(self.stops),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "logprobs": self.top,
        }
        if self.wanted:
            body["logprob_token_ids"] = list(self.wanted)
        return body


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the server wrote."""

    ids: tuple[int, ...]
    """The stop too, where one came."""
    chances: tuple[float, ...]
    """Log-probability of each of them."""
    tops: tuple[dict[int, float], ...]
    """At each place the log-probabilities of the ids that were wanted, or of the likeliest."""
    finish: str
    """`stop` or `length`."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt: those that were in the prefix cache, where the server says."""


class VLLMClient:
    """One server. Share one client for each server in a process: the queue of adapters is its."""

    def __init__(
        self, base_url: str, *, key: str = "", one_adapter: bool = False, timeout_s: float = 600
    ) -> None:
        """Describe a server; nothing is sent yet.

        Args:
            base_url: such as `http://127.0.0.1:8000` (a trailing `/v1` does no harm).
            key: its API key; empty: none is sent.
            one_adapter: requests of different models never run at the same time. vLLM on a
                processor needs it: rows of one batch would all get the adapter of one
                (https://github.com/vllm-project/vllm/pull/48421).
            timeout_s: without a word from the server, in seconds.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AVQAError(
                f"{base_url!r} is no address of a server; write it like http://127.0.0.1:8000"
            )
        self.base_url, self.timeout_s = base_url, timeout_s
        self._key, self._parts = key, parts
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vllm")
        self.turns = Turns(exclusive=one_adapter)
        self.longest: int | None = None
        """Tokens of a prompt with what is written, once `models` was asked."""

    # -- completions -------------------------------------------------------------------------

    def complete(self, wish: Wish) -> Completion:
        """Let the model write on greedily.

        Raises:
            RetryableError: the server is away, or failed.
            AVQAError: it refuses the request.
        """
        body = wish.body()
        with self.turns.of(wish.model):
            return _completion(self._call("POST", "/v1/completions", body))

    def complete_all(self, wishes: Sequence[Wish]) -> list[Completion]:
        """Several at the same time, in order; waits for all. Raises what the first raised."""
        if len(wishes) < 2:
            return [self.complete(wish) for wish in wishes]
        futures = [self._threads.submit(self.complete, wish) for wish in wishes]
        wait(futures)
        return [future.result() for future in futures]

    def stream(self, wish: Wish) -> Iterator[Completion]:
        """As it is written: pieces whose ids make up the whole. Close it to end the request.

        Raises: as `complete`.
        """
        body = json.dumps(wish.body() | {"stream": True}).encode()
        ended = False
        with self.turns.of(wish.model), self._answer("POST", "/v1/completions", body) as reply:
            for line in _lines(reply):
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or data == b"[DONE]":
                    continue
                row = json.loads(data)
                if "error" in row:
                    raise RetryableError(f"vLLM stopped in the middle: {_said(data)}")
                if row.get("choices"):
                    piece = _completion(row)
                    ended = ended or bool(piece.finish)
                    yield piece
            if not ended:  # http.client takes a connection that is cut for the end
                raise RetryableError("vLLM went away in the middle of an answer; ask again")

    # -- chats, for models that see and hear by themselves ----------------------------------------

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """One `POST /v1/chat/completions`. Raises: as `complete`."""
        row = self._call("POST", "/v1/chat/completions", body)
        return row if isinstance(row, dict) else {}

    def chat_stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Its events, if `body` wants a stream. Close it to end the request."""
        data = json.dumps(body).encode()
        with self._answer("POST", "/v1/chat/completions", data) as reply:
            for line in _lines(reply):
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or data == b"[DONE]":
                    continue
                row = json.loads(data)
                if "error" in row:
                    raise RetryableError(f"vLLM stopped in the middle: {_said(data)}")
                yield row

    # -- the server -----------------------------------------------------------------------------

    def healthy(self, timeout_s: float = 10) -> bool:
        """Whether it answers now."""
        try:
            with self._answer("GET", "/health", timeout_s=timeout_s):
                return True
        except AVQAError:
            return False

    def models(self) -> list[str]:
        """Names of what it serves: the base and its adapters."""
        rows = self._call("GET", "/v1/models")["data"]
        self.longest = next((row["max_model_len"] for row in rows if "max_model_len" in row), None)
        return [str(row["id"]) for row in rows]

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve another LoRA adapter. Raises AVQAError where the server refuses it."""
        body = {"lora_name": name, "lora_path": str(folder)}
        self._call("POST", "/v1/load_lora_adapter", body)

    def unload_adapter(self, name: str) -> None:
        """Serve an adapter no longer."""
        with self.turns.of(name):
            self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def close(self) -> None:
        """Close connections that are kept."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop()[1].close()

    # -- HTTP -----------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with self._answer(method, path, data) as reply:
            content = reply.read()
        try:
            return json.loads(content)
        except ValueError:
            return content.decode(errors="replace")

    @contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """A reply that is good; its connection is kept if it was read to the end."""
        try:
            connection, reply = self._sent(method, path, body, timeout_s or self.timeout_s)
            try:
                if reply.status >= 400:
                    raise _refusal(path, reply.status, reply.read())
                yield reply
            finally:
                if reply.isclosed() and not reply.will_close:
                    self._idle.append((time.monotonic(), connection))
                else:
                    connection.close()
        except AWAY as error:
            raise RetryableError(
                f"vLLM at {self.base_url} is away ({type(error).__name__}: {error}); ask again",
                after_s=AWAY_S,
            ) from error

    def _sent(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        kept = self._kept()
        for connection in (kept, self._new()) if kept else (self._new(),):
            connection.timeout = timeout_s
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            try:
                connection.request(method, self._path + path, body, headers)
                return connection, connection.getresponse()
            except AWAY as error:
                connection.close()
                # The server may close a connection that was kept, just as it is used again.
                if connection is not kept or isinstance(error, TimeoutError):
                    raise
        raise AssertionError("a new connection returns or raises")

    def _kept(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < KEPT_S:
                return connection
            connection.close()

    def _new(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port)


def encoded(embeds_LE: Tensor) -> str:
    """Vectors as vLLM reads them: base64 of what `torch.save` writes."""
    out = io.BytesIO()
    torch.save(embeds_LE.detach().cpu().contiguous().clone(), out)
    return base64.b64encode(out.getvalue()).decode()


def _completion(row: Any) -> Completion:
    choice, usage = row["choices"][0], row.get("usage") or {}
    said = choice.get("logprobs") or {}
    details = usage.get("prompt_tokens_details") or {}
    return Completion(
        ids=tuple(choice.get("token_ids") or ()),
        chances=tuple(float(chance) for chance in said.get("token_logprobs") or ()),
        tops=tuple(_by_id(top) for top in said.get("top_logprobs") or ()),
        finish=choice.get("finish_reason") or "",
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


def _by_id(top: dict[str, float] | None) -> dict[int, float]:
    return {
        int(key.removeprefix("token_id:")): float(chance) for key, chance in (top or {}).items()
    }


def _lines(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := reply.readline():
        yield line


def _said(content: bytes) -> str:
    """What an error reply says, in one line."""
    text = content.decode(errors="replace")
    try:
        row = json.loads(text)
        error = row.get("error", row)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:500]


def _refusal(path: str, status: int, content: bytes) -> AVQAError:
    text = f"vLLM answered {path} with {status}: {_said(content)}"
    if status >= 500 or status in (408, 429):
        return RetryableError(text, after_s=AWAY_S)
    return AVQAError(text)
