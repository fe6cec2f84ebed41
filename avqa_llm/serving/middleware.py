"""What every request passes first: host, origin, key, rate, size; and what every reply gets."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from avqa_llm.serving.guards import Door, Rate, Room, User, network_of
from avqa_llm.serving.metrics import Metrics
from avqa_llm.serving.refusals import Refusal, refusal_of
from avqa_llm.serving.settings import MIB, GatewaySettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("avqa.gateway")
USER = "avqa.user"
"""Where a request's scope holds its `User`."""
_OPEN = frozenset({"/health", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"})
"""What needs no key."""
_DOCS = frozenset({"/docs", "/redoc"})
_STALL_S = 30.0
"""A sender that says nothing for so long in the middle of a body is given up."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_DOCS_POLICY = (
    "default-src 'none'; frame-ancestors 'none'; connect-src 'self'; img-src data: https:; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; worker-src blob:; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com"
)


class Checkpoint:
    """ASGI: a request that may not pass is answered here, the rest with its `User`."""

    def __init__(
        self, app: App, *, settings: GatewaySettings, door: Door, metrics: Metrics
    ) -> None:
        self._app, self._settings, self._door, self._metrics = app, settings, door, metrics
        self._rate = Rate(settings.rate_per_s, settings.rate_burst)
        self._room = Room(settings.max_bodies_bytes)
        names = {name.lower() for name in settings.host_names}
        self._host_names = names | {settings.host.lower()} if names else set()
        if settings.is_loopback:
            self._host_names = names | {"localhost", "127.0.0.1", "[::1]", settings.host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply(send, scope["path"])
        started = time.monotonic()
        try:
            scope[USER] = self._checked(scope)
            with self._room.share() as take:
                body = _Body(receive, scope, self._settings, take)
                await self._app(scope, body, reply)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status == 500:
                log.exception("request %s failed", reply.request_id)
            self._metrics.refused.labels(refusal.code).inc()
            await reply.refuse(refusal)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - started
            self._metrics.request(scope["method"], route, reply.status, seconds)

    def _checked(self, scope: Scope) -> User | None:
        """Who asks. Raises Refusal: not from here, not without a key, not so often."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "").lower()
        if self._host_names and _without_port(host) not in self._host_names:
            raise Refusal(400, "The Host header names another server.", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin not in self._settings.cors_origins:
            if origin.partition("://")[2].lower() != host:
                raise Refusal(403, "Pages of other sites may not ask here.", code="wrong_origin")
        address = network_of((scope.get("client") or ("unknown", 0))[0])
        user = self._door.user(headers.get("authorization", ""), address)
        if scope["path"] != "/health":
            # Those without a right key share what their address may do, or keys could be guessed.
            wait_s = self._rate.wait_s(user.owner if user else address)
            if wait_s:
                raise Refusal(
                    429, "Too many requests; slow down.", code="rate_limited", after_s=wait_s
                )
        if user is None and scope["path"] not in _OPEN:
            raise Refusal(
                401,
                "A valid API key is needed: Authorization: Bearer KEY.",
                code="invalid_api_key",
            )
        return user


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() and not name.endswith(":") else host


class _Body:
    """Receives a body within its size and time, whatever its length was said to be."""

    def __init__(
        self, receive: Receive, scope: Scope, settings: GatewaySettings, take: Callable[[int], None]
    ) -> None:
        self._receive, self._take, self._count = receive, take, 0
        # Uploads go to the disk as they come; everything else is held in memory.
        self._is_upload = scope["method"] == "POST" and scope["path"] == "/v1/files"
        self._most = settings.media.max_bytes + MIB if self._is_upload else settings.max_body_bytes
        limit = settings.upload_timeout_s if self._is_upload else settings.request_timeout_s
        self._end = time.monotonic() + limit
        self._is_whole = False

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._is_whole:
            return await self._receive()  # waits until the sender goes away
        left = min(_STALL_S, self._end - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.0))
        except asyncio.TimeoutError:
            raise Refusal(408, "The request came too slowly.", code="timeout") from None
        if message["type"] == "http.request":
            self._is_whole = not message.get("more_body", False)
            size = len(message.get("body", b""))
            self._count += size
            if self._count > self._most:
                raise Refusal(
                    413,
                    f"The request has more than {self._most:,} bytes; upload large media "
                    "(POST /v1/files).",
                    code="too_large",
                )
            if not self._is_upload:
                self._take(size)
        return message


class _Reply:
    """Sends a reply with the headers that all have; knows its status."""

    def __init__(self, send: Send, path: str) -> None:
        self._send, self._path = send, path
        self.status = 499  # nobody was there any more to be answered
        self.is_started = False
        self.request_id = f"req-{secrets.token_hex(8)}"

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.is_started, self.status = True, message["status"]
            there = {name.lower() for name, _ in message.get("headers", [])}
            own = {"X-Request-Id": self.request_id, **_HEADERS}
            if self._path in _DOCS:
                own["Content-Security-Policy"] = _DOCS_POLICY
            more = [
                (name.lower().encode(), value.encode())
                for name, value in own.items()
                if name.lower().encode() not in there
            ]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error; if an answer has begun, nothing more can be said."""
        if self.is_started:
            return
        body = json.dumps(refusal.body()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **refusal.headers,
        }
        if refusal.status in (408, 413):
            headers["connection"] = "close"  # the rest of the body is not waited for
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})
