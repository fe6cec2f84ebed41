"""Links to media: fetched from hosts that are allowed by name, and from nowhere else.

A name is looked up once, every address that comes back must be a public one, and the
connection goes to the very address that was checked: a name that points elsewhere a moment
later changes nothing. The same holds for each redirect.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

from avqa_llm.serving.refusals import Refusal

_BLOCK = 1 << 16
_STALL_S = 10.0
"""A server that says nothing for so long is given up."""
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
# They carry an IPv4 address inside, which may be a private one.
_TRANSLATED = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]


def is_public(address: str) -> bool:
    """Whether an address lies in the open internet: not here, not in a private network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        tunnelled = found.ipv4_mapped or found.sixtofour or found.teredo
        if tunnelled or any(found in net for net in _TRANSLATED):
            return False
    return found.is_global and not (
        found.is_multicast or found.is_reserved or found.is_unspecified or found.is_link_local
    )


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, kw_only=True)
class Links:
    """What may be fetched. `resolve` and `is_public` are there to be replaced in tests."""

    allowed_hosts: tuple[str, ...] = ()
    max_bytes: int
    timeout_s: float
    redirects: int = 3
    resolve: Callable[[str, int], list[str]] = resolve
    is_public: Callable[[str], bool] = is_public

    def fetch(self, url: str, to: Path, *, stop: threading.Event | None = None) -> int:
        """Fetch a link into a new file; gives its bytes. Blocks: for a thread.

        `stop`: once set, the fetch is given up.

        Raises:
            Refusal: the link is not allowed, leads to a private network, is too large or too
                slow, or its server does not give it.
        """
        deadline = time.monotonic() + self.timeout_s
        for _ in range(1 + self.redirects):
            target, address, port = self.checked(url)
            connection = _connection(target, address, port, deadline)
            with closing(connection), _cut_at(deadline, connection):
                reply = _asked(connection, target)
                if reply.status not in _REDIRECTS:
                    return self._saved(reply, to, deadline, stop)
                url = urljoin(url, reply.headers.get("Location", ""))
                if target.scheme == "https" and urlsplit(url).scheme != "https":
                    raise _refused("redirects from https to an open connection")
        raise _refused(f"redirects more than {self.redirects} times")

    def checked(self, url: str) -> tuple[SplitResult, str, int]:
        """A link whose host is allowed, and the public address and port to connect to.

        Raises Refusal.
        """
        try:
            target = urlsplit(url)
            host, port = (target.hostname or "").rstrip("."), target.port
        except ValueError:
            raise _refused("is not a URL") from None
        if target.scheme not in _PORTS:
            raise _refused(f"starts with {target.scheme[:20]!r}; use https", status=400)
        if target.username is not None or target.password is not None:
            raise _refused("carries a user name", status=400)
        if any(ord(letter) <= 32 or ord(letter) > 126 for letter in url):
            raise _refused("holds characters that have to be escaped", status=400)
        usual = _PORTS[target.scheme]
        name = host if port in (None, usual) else f"{host}:{port}"
        if not host or name not in {allowed.lower().rstrip(".") for allowed in self.allowed_hosts}:
            raise _refused(
                "is not fetched: its host is not one that this server allows. Upload the file "
                "(POST /v1/files) and give its id, or send it as a data: URL"
            )
        try:
            addresses = self.resolve(host, port or usual)
        except (OSError, UnicodeError):
            raise _refused("names a host that is not found", status=400) from None
        if not addresses or not all(self.is_public(address) for address in addresses):
            raise _refused("leads to an address that is not a public one")
        return target, addresses[0], port or usual

    def _saved(
        self,
        reply: http.client.HTTPResponse,
        to: Path,
        deadline: float,
        stop: threading.Event | None,
    ) -> int:
        if reply.status != 200:
            raise _refused(f"is answered by its server with status {reply.status}", status=400)
        if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _refused("is sent packed although that was not asked for", status=400)
        if (reply.length or 0) > self.max_bytes:
            raise self._too_large()
        count = 0
        try:
            with to.open("xb") as file:
                while block := reply.read1(_BLOCK):
                    count += len(block)
                    if count > self.max_bytes:
                        raise self._too_large()
                    if time.monotonic() > deadline or (stop is not None and stop.is_set()):
                        raise TimeoutError
                    file.write(block)
            if time.monotonic() > deadline:
                raise TimeoutError
            if reply.length:
                raise _refused("ended early", status=400)
        except TimeoutError:
            raise _refused(f"took longer than {self.timeout_s:g} s", status=400) from None
        except (http.client.HTTPException, ConnectionError, ssl.SSLError):
            raise _refused("broke off while it was fetched", status=400) from None
        return count

    def _too_large(self) -> Refusal:
        return _refused(f"has more than {self.max_bytes:,} bytes", status=413)


def _refused(what: str, *, status: int = 403) -> Refusal:
    return Refusal(status, f"The link {what}.", code="link_refused", param="messages")


class _Straight(http.client.HTTPConnection):
    """A connection to an address that was checked, for a host of another name."""

    def __init__(self, target: SplitResult, address: str, port: int, timeout_s: float) -> None:
        super().__init__(str(target.hostname), port, timeout=timeout_s)
        self._target, self._address = target, address

    def connect(self) -> None:
        place = (self._address, self.port)
        self.sock = socket.create_connection(place, self.timeout)  # no proxy, no second look-up
        if self._target.scheme == "https":
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.hostname)


def _connection(
    target: SplitResult, address: str, port: int, deadline: float
) -> http.client.HTTPConnection:
    left = min(_STALL_S, deadline - time.monotonic())
    if left <= 0:
        raise _refused("took too long", status=400)
    return _Straight(target, address, port, left)


@contextmanager
def _cut_at(deadline: float, connection: http.client.HTTPConnection) -> Iterator[None]:
    """Break a connection off at the deadline, even if a byte comes now and then."""

    def cut() -> None:
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _asked(connection: http.client.HTTPConnection, target: SplitResult) -> http.client.HTTPResponse:
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    usual = _PORTS[target.scheme]
    host = str(target.hostname) + ("" if connection.port == usual else f":{connection.port}")
    headers = {"Host": host, "Accept-Encoding": "identity", "User-Agent": "avqa"}
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse()
    except TimeoutError:
        raise _refused("is not answered in time", status=400) from None
    except (OSError, http.client.HTTPException):
        raise _refused("cannot be reached", status=400) from None
