"""One server that speaks OpenAI's chat protocol: requests at a pace, tried again where it helps.

Standard library only. Redirects are not followed, so that neither the key nor a clip goes to an
address that nobody named.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import random
import ssl
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from eval.engines.pace import Pace
from eval.samples import RunError

LARGEST_REPLY = 8 * 2**20
"""Bytes; a reply to a question has a few thousand."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Of the waits between tries, which double."""
LONGEST_ORDERED_S = 300.0
"""A server that asks for a longer wait is given up: the run goes on later."""
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that another try may not get."""
_WAYS_OUT = {
    400: "check that the model takes the parts as they are sent (options picture and sound)",
    401: "put a key that is valid there into the environment variable {key_env}",
    403: "put a key that is allowed to use the model into the environment variable {key_env}",
    404: "check the address, which usually ends in /v1, and the name of the model",
    413: "send less of each clip: fewer frames, or a smaller max_side",
    422: "check that the model takes the parts as they are sent (options picture and sound)",
    429: "lower concurrency or per_minute, or go on later with the same command",
}


class Refused(RunError):
    """A request that the server will not take, however often it is sent."""

    def __init__(self, message: str, *, status: int, said: str) -> None:
        """`said`: the server's own message."""
        super().__init__(message)
        self.status, self.said = status, said


class _Passing(Exception):
    """A failure that another try may not meet; `wait_s`: what the server asked for."""

    def __init__(self, what: str, *, status: int = 0, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.status, self.wait_s = status, wait_s


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """No other request is made: the redirect itself becomes the error."""


class Server:
    """Sends requests to `BASE_URL/chat/completions`; safe to use from several threads."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str,
        key_env: str,
        retries: int,
        per_minute: int | None,
        timeout_s: float,
    ) -> None:
        """Raises RunError for an address that is none, or that a key should not be sent to."""
        self.url = f"{_checked(base_url, key, key_env)}/chat/completions"
        self._key, self._key_env = key, key_env
        self._retries, self._timeout_s = retries, timeout_s
        self._pace = Pace(per_minute)
        self._opener = build_opener(_NoRedirects)

    def post(self, body: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
        """Send a request, again where that may help, and return the reply.

        Raises:
            Refused: the server does not take it.
            RunError: it failed in passing too often, or the reply is not of the protocol.
            Stopped: `stop` was set while waiting.
        """
        data = json.dumps(body).encode()
        for attempt in range(self._retries + 1):
            self._pace.start(stop)
            try:
                return self._send(data)
            except _Passing as failure:
                if attempt == self._retries:
                    raise self._given_up(failure) from failure
                self._wait(attempt, failure, stop)
        raise AssertionError("unreachable")

    def _wait(self, attempt: int, failure: _Passing, stop: threading.Event) -> None:
        if failure.wait_s is None:
            longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
            stop.wait(longest * random.uniform(0.5, 1.0))  # not all at once again
        elif failure.wait_s > LONGEST_ORDERED_S:
            raise RunError(
                f"{self.url} asks for a wait of {failure.wait_s:.0f} s, longer than "
                f"{LONGEST_ORDERED_S:.0f} s; go on later with the same command"
            ) from failure
        else:
            self._pace.hold(failure.wait_s)

    def _given_up(self, failure: _Passing) -> RunError:
        tries = f"{self._retries + 1} tries" if self._retries else "one try"
        way_out = _WAYS_OUT.get(failure.status, "go on later with the same command")
        return RunError(f"{self.url} failed after {tries}: {failure}; {way_out}")

    def _send(self, data: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self.url, data=data, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as reply:
                raw = self._read(reply)
        except HTTPError as error:
            with error:
                raise self._failure(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        return self._parsed(raw)

    def _read(self, reply: Any) -> bytes:
        """The body, within the time and the size of a reply."""
        end, raw = time.monotonic() + self._timeout_s, bytearray()
        while piece := reply.read1(2**16):
            raw += piece
            if len(raw) > LARGEST_REPLY:
                raise RunError(
                    f"{self.url} sent a reply of more than {LARGEST_REPLY // 2**20} MiB; "
                    "this is no server of this protocol"
                )
            if time.monotonic() > end:
                raise TimeoutError("the reply did not end")
        if reply.length:  # read1() ends as quietly where the connection broke
            raise http.client.IncompleteRead(bytes(raw), reply.length)
        return bytes(raw)

    def _failure(self, error: HTTPError) -> Exception:
        """What becomes of a status that is not 200."""
        try:
            body = error.read(2**16)
        except (OSError, http.client.HTTPException):
            body = b""
        said, code = _message(body)
        said = self._shown(said) or str(error.reason)
        if error.code in PASSING and code != "insufficient_quota":
            wait_s = _ordered_wait(error.headers.get("Retry-After"))
            return _Passing(f"status {error.code}: {said}", status=error.code, wait_s=wait_s)
        way_out = _WAYS_OUT.get(error.code, "read the server's log")
        if 300 <= error.code < 400:
            way_out = "redirects are not followed; name the address itself"
        if code == "insufficient_quota":
            way_out = "the account has no credit left; add some, or use another key"
        return Refused(
            f"{self.url} answers with status {error.code}: {said}; "
            f"{way_out.format(key_env=self._key_env or 'of its key')}",
            status=error.code,
            said=said,
        )

    def _unreachable(self, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return RunError(f"{self.url} has no valid certificate: {reason.verify_message}")
        if isinstance(reason, TimeoutError):
            return _Passing(f"no reply within {self._timeout_s:g} s (timeout_s)")
        return _Passing(f"it cannot be reached ({reason or type(reason).__name__})")

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(raw)
        except ValueError:
            reply = None
        if isinstance(reply, dict) and reply.get("choices"):
            return reply
        said = self._shown(_message(raw)[0])
        raise RunError(
            f"{self.url} sent no chat completion but {said!r}; check the address, which usually "
            "ends in /v1"
        )

    def _shown(self, text: str) -> str:
        """A server's message for a terminal: short, printable, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= 300 else f"{text[:297]}..."


def _checked(base_url: str, key: str, key_env: str) -> str:
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise RunError(f"base_url {base_url!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise RunError(f"base_url is {base_url!r}; it starts with http:// or https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise RunError(
            f"base_url on {host} has a user, a query or a fragment; give scheme, host and path "
            "alone, and the key in an environment variable"
        )
    if key and parts.scheme == "http" and not _is_near(host):
        raise RunError(
            f"the key in {key_env} would go to {host} unencrypted; use https://, or an empty "
            "--api-key-env if the server needs no key"
        )
    return base_url.rstrip("/")


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or one of a private network by its number."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def _message(body: bytes) -> tuple[str, str]:
    """A server's message and its code, in the places where servers put them."""
    text = body[: 2**16].decode("utf-8", "replace")
    try:
        reply = json.loads(text)
    except ValueError:
        return text, ""
    if not isinstance(reply, dict):
        return text, ""
    error = reply.get("error")
    error = error if isinstance(error, dict) else reply | {"message": error or reply.get("message")}
    said = error.get("message") or reply.get("detail") or text
    return str(said), str(error.get("code") or "")


def _ordered_wait(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number or a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
