"""What visitors may name: files that were uploaded here, and nothing else.

The page's framework checks the files of most events, but fetches links that stand in place of a
path, and takes paths inside event data as they come. So every request is looked through before it:
whatever it calls a file has to lie in the folder of uploads, and links beside it are taken out.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_BYTES = 4 * 2**20
"""Of a request that is not an upload: a long conversation has some hundred kilobytes."""
DEEPEST = 64
REFUSED = "This names a file that was not uploaded here; upload it and name what comes back."
TOO_LARGE = f"The request is larger than {MOST_BYTES // 2**20} MB; begin a new conversation."


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], *, uploads: Path):
        self._app, self._uploads = app, uploads.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or _is_upload(scope):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await _refuse(send, 413, TOO_LARGE)
        elif (safe := self._safe(body)) is None:
            await _refuse(send, 400, REFUSED)
        else:
            await self._app(scope, _again(safe, receive), send)

    def _safe(self, body: bytes) -> bytes | None:
        """A body without links; None if it names a file that is not ours to open."""
        try:
            data = json.loads(body) if body.strip() else None
        except (ValueError, RecursionError):
            return None if b'"path"' in body else body  # a form of the log-in, say
        if not all(self._is_ours(path) for path in named(data)):
            return None
        return json.dumps(data).encode() if b'"path"' in body else body

    def _is_ours(self, path: object) -> bool:
        if path is None or path == "":
            return True
        if not isinstance(path, str) or "\0" in path:
            return False
        try:
            return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self._uploads)
        except (OSError, ValueError, RuntimeError):
            return False


def named(data: object, depth: int = 0) -> Iterator[object]:
    """All that JSON calls a path; what is nested too deep counts as a wrong one.

    Links beside a path are removed on the way: the page knows where its files are.
    """
    if depth > DEEPEST:
        yield 0
    elif isinstance(data, dict):
        if "path" in data and "url" in data:
            data["url"] = None
        for key, value in data.items():
            if key == "path":
                yield value
            else:
                yield from named(value, depth + 1)
    elif isinstance(data, list):
        for value in data:
            yield from named(value, depth + 1)


def _is_upload(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/upload")


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(pieces)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MOST_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(pieces)


def _again(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def give() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text, "error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
