"""Who asks, how often, and how many at once: keys, rates and places."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from avqa_llm.errors import AVQAError
from avqa_llm.serving.refusals import Refusal

_HASH = re.compile(r"[0-9a-f]{64}")
_KNOWN_ADDRESSES = 20_000
"""Senders whose rate is remembered; the one that was silent for longest is forgotten first."""
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class User:
    """Whoever sent a request."""

    owner: str
    """Name of the folder of its uploads: tells nothing about key or address."""
    is_admin: bool = False
    has_key: bool = False


def new_key() -> tuple[str, str]:
    """A new API key, and its line for the file of keys."""
    key = "avqa-" + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """API keys, of which only SHA-256 hashes are kept: lines of `hash [name]`, `#` comments.

    A plain hash will do because `new_key` draws 256 random bits; choose no keys by hand. The
    file is read again when it changes, so that a key is withdrawn without a restart.
    """

    def __init__(self, file: Path) -> None:
        """Raises AVQAError: the file cannot be read, or a line is no hash."""
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._looked = -_LOOK_AGAIN_S
        self._hashes: tuple[bytes, ...] = ()
        self._refresh()

    def has(self, key: str) -> bool:
        """Whether it is one of them; takes the same time for whichever, and for none."""
        if time.monotonic() - self._looked > _LOOK_AGAIN_S:
            self._refresh()
        given = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest().encode()
        found = False
        for known in self._hashes:
            found |= hmac.compare_digest(given, known)
        return found

    def _refresh(self) -> None:
        self._looked = time.monotonic()
        try:
            facts = self._file.stat()
            stamp = (facts.st_mtime_ns, facts.st_size)
            if stamp == self._stamp:
                return
            lines = self._file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AVQAError(f"{self._file}: the file of keys cannot be read ({error})") from None
        hashes = []
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if not _HASH.fullmatch(words[0].lower()):
                raise AVQAError(
                    f"{self._file}, line {number}: is not the SHA-256 of a key (64 hexadecimal "
                    "digits); never write the key itself here"
                )
            hashes.append(words[0].lower().encode())
        self._hashes, self._stamp = tuple(hashes), stamp


class Door:
    """Tells who sends a request."""

    def __init__(self, keys_file: Path | None, admin_keys_file: Path | None) -> None:
        """Raises AVQAError: a file of keys cannot be read."""
        self.keys = None if keys_file is None else Keys(keys_file)
        self.admins = None if admin_keys_file is None else Keys(admin_keys_file)

    def user(self, authorization: str, address: str) -> User | None:
        """The sender, or None if a key is needed and a right one was not given.

        Where no key is needed, any is welcome, as clients insist on sending one: without it
        the sender is known by its address.
        """
        scheme, _, key = authorization.partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        if key and self.admins is not None and self.admins.has(key):
            return User(owner=_owner("key", key), is_admin=True, has_key=True)
        if self.keys is None:
            return User(owner=_owner("address", address))
        if key and self.keys.has(key):
            return User(owner=_owner("key", key), has_key=True)
        return None


def _owner(kind: str, name: str) -> str:
    given = f"avqa owner {kind} {name}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(given).hexdigest()[:40]


def network_of(address: str) -> str:
    """What stands for a sender's address: one name for the loopback, and for an IPv6 network."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if found.is_loopback:
        return "loopback"
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class Rate:
    """Token buckets: `burst` requests at once, `per_s` in the long run; 0 a second: any."""

    def __init__(
        self, per_s: float, burst: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._burst, self._clock = per_s, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, name: str) -> float:
        """Take one: 0.0, or the seconds after which there will be one."""
        if not self._per_s:
            return 0.0
        now = self._clock()
        left, then = self._buckets.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_s)
        is_free = left >= 1.0
        self._buckets[name] = (left - is_free, now)
        while len(self._buckets) > _KNOWN_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if is_free else (1.0 - left) / self._per_s


class Places:
    """So many at once and so many waiting, more are refused; nobody takes more than a share.

    First come, first served, but whoever has its share already is passed by.
    """

    def __init__(self, running: int, waiting: int, what: str, *, share: float = 1.0) -> None:
        """`share`: of all places, running and waiting, that one owner may have (0..1)."""
        self._most = (running, waiting)
        self._most_of_one = (max(1, int(running * share)), max(1, int(waiting * share)))
        self._what = what
        self._queue: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._owners: Counter[str] = Counter()
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @asynccontextmanager
    async def place(self, owner: str = "") -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises Refusal (429) if too many wait already."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._has_room(owner):
            self._check_queue(owner)
        self._queue.append((owner, turn))
        self._grant()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.running -= 1
                self._owners[owner] -= 1
                self._owners += Counter()  # those who have none are forgotten
            else:
                self._queue.remove((owner, turn))
            self._grant()

    def _has_room(self, owner: str) -> bool:
        return self.running < self._most[0] and self._owners[owner] < self._most_of_one[0]

    def _check_queue(self, owner: str) -> None:
        own = sum(other == owner for other, _ in self._queue)
        if self.waiting < self._most[1] and own < self._most_of_one[1]:
            return
        raise Refusal(
            429,
            f"Too many {self._what} are under way ({self.running}) and waiting "
            f"({self.waiting}); ask again a little later.",
            code="overloaded",
            after_s=1.0 + self.waiting / max(1, self.running),
        )

    def _grant(self) -> None:
        for owner, turn in list(self._queue):
            if self.running >= self._most[0]:
                return
            if self._has_room(owner) and not turn.done():
                self._queue.remove((owner, turn))
                self.running += 1
                self._owners[owner] += 1
                turn.set_result(None)


class Room:
    """Bytes that may be held at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that takes bytes more, given back at the end; it raises Refusal (429)."""
        own = 0

        def take(count: int) -> None:
            nonlocal own
            if self.taken + count > self.most:
                raise Refusal(
                    429,
                    "Too many large requests are under way; ask again a little later, or "
                    "upload the media first (POST /v1/files).",
                    code="overloaded",
                    after_s=2.0,
                )
            own += count
            self.taken += count

        try:
            yield take
        finally:
            self.taken -= own
