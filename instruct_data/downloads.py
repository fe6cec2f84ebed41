"""Fetches the files of the catalogue: over https, resumed after a cut, verified by their hash.

Nothing is fetched unless it is asked for by name. A file grows as `NAME.part`, beside a note
of which version of it that is, and gets its name when its hash is right. What has no direct
link (Google Drive, Baidu, YouTube) is explained instead. Archives are never unpacked.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from avqa_llm.errors import AVQAError
from instruct_data.places import CATALOGUE, DataSet, Place

MB = 1_000_000
CHUNK = 1 << 18
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class DownloadError(AVQAError):
    """A file that cannot be fetched, or that is not the one that the catalogue means."""


class _Cut(Exception):
    """A passing fault: the connection broke, or the server is busy. Worth another try."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How much is fetched at most, and how patiently."""

    yes: bool = False
    """Fetch also what is larger than `ask_above`."""
    ask_above: int = 100 * MB
    """Bytes."""
    max_bytes: int = 2000 * MB
    """Of a file whose size the catalogue does not know."""
    reserve_bytes: int = 200 * MB
    """What stays free on the disk."""
    timeout_s: float = 30.0
    """Without a byte."""
    tries: int = 5
    backoff_s: float = 1.0
    """Before the second try; doubled each time."""
    longest_wait_s: float = 60.0
    """The most that a server's Retry-After is obeyed."""


DEFAULT = FetchConfig()


# --- commands -------------------------------------------------------------------------------


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add `get`."""
    get = commands.add_parser("get", help="fetch annotation files; say how videos are got")
    get.add_argument("name", nargs="?", metavar="NAME", help=", ".join(CATALOGUE))
    get.add_argument("--out", type=Path, metavar="DIR", help="folder (downloads/NAME)")
    get.add_argument("--yes", action="store_true", help="also files above 100 MB")
    get.add_argument("--list", action="store_true", help="say what there is; fetch nothing")
    get.set_defaults(run=run_get)


def run_get(args: argparse.Namespace) -> int:
    """Fetch the files of one data set, or list what there is."""
    if args.name is None:
        for name, dataset in CATALOGUE.items():
            print(f"{name:16} {dataset.title}")
        print("Fetch one with: python -m instruct_data get NAME")
        return 0
    dataset = _data_set(args.name)
    folder = args.out or Path("downloads") / args.name
    for line in describe(dataset, folder):
        print(line)
    if args.list:
        return 0
    for place in dataset.places:
        if place.kind == "file":
            path = fetch(place, folder, FetchConfig(yes=args.yes))
            print(f"{path}: {_mb(path.stat().st_size)}, {_verified(place)}")
    return 0


def describe(dataset: DataSet, folder: Path) -> Iterator[str]:
    """Say what a data set consists of, under which licences, and what is to be done by hand."""
    yield f"{dataset.title}\n  {dataset.home}"
    if dataset.note:
        yield f"  {dataset.note}"
    for place in dataset.places:
        size = ", size not known" if place.kind == "file" else ""
        size = f", {_mb(place.size)}" if place.size else size
        doubt = "" if place.confirmed else " (linked there; its content was not confirmed)"
        yield f"  {place.name}: {place.what}{size}{doubt}"
        yield f"    {place.url}\n    licence: {place.licence}"
        if place.kind == "manual":
            yield f"    by hand: {place.todo.replace('DIR', str(folder))}"
    yield f"  then: python -m instruct_data verify {folder}"


def _data_set(name: str) -> DataSet:
    if name == "bandstand":
        raise DownloadError(
            "bandstand is made, not fetched: python -m instruct_data bandstand OUT "
            "--clips N --seed N --media"
        )
    if name not in CATALOGUE:
        raise DownloadError(f"no data set {name!r} is known; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _mb(size: int) -> str:
    return f"{size / MB:,.1f} MB"


def _verified(place: Place) -> str:
    if place.sha256:
        return "sha-256 as in the catalogue"
    return "git blob id as in the catalogue" if place.git_blob else "not verified: no known hash"


# --- one file -------------------------------------------------------------------------------


def fetch(place: Place, folder: Path, config: FetchConfig = DEFAULT) -> Path:
    """Fetch one file into a folder and return its path; one that is there is only verified.

    Raises:
        DownloadError: it cannot be had, is too large, or its bytes are not the right ones.
    """
    if place.kind != "file":
        raise DownloadError(f"{place.name} cannot be fetched by a program: {place.todo}")
    to = folder / place.name
    if to.exists():
        if wrong := wrong_bytes(place, to):
            raise DownloadError(
                f"{to} is there already, but {wrong}: another version; move it away, or give "
                "another --out"
            )
        return to
    check_url(place.url)
    folder.mkdir(parents=True, exist_ok=True)
    part = _Part(to)
    _pull_patiently(place, part, config)
    if wrong := wrong_bytes(place, part.path):
        part.drop()
        raise DownloadError(
            f"{place.url}: {wrong}; what was fetched is removed. It was damaged on the way or "
            "changed at its source: try again, or look at the page"
        )
    os.replace(part.path, to)
    part.drop()
    return to


def wrong_bytes(place: Place, path: Path) -> str | None:
    """Say how a file differs from what the catalogue knows of it; None where it does not."""
    size = path.stat().st_size
    if place.size is not None and size != place.size:
        return f"it has {size:,} bytes where the catalogue says {place.size:,}"
    sha256 = hashlib.sha256()
    # Not for secrecy: git names its blobs so, and no other hash is known of some files.
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
    for kind, is_, should in (
        ("sha-256", sha256.hexdigest(), place.sha256),
        ("git blob id", blob.hexdigest(), place.git_blob),
    ):
        if should is not None and is_ != should:
            return f"its {kind} is {is_} where the catalogue says {should}"
    return None


class _Part:
    """The bytes that are there so far, and the note which version they are of."""

    def __init__(self, to: Path) -> None:
        self.path = to.with_name(f"{to.name}.part")
        self.note_path = to.with_name(f"{to.name}.part.json")

    def note(self, url: str) -> dict[str, Any]:
        """Return what the note says; empty where going on would not be safe."""
        try:
            note = json.loads(self.note_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        fits = isinstance(note, dict) and note.get("url") == url and note.get("version")
        return note if fits else {}

    def have(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, note: dict[str, Any]) -> None:
        """Start anew: no bytes first, then the note, so that the two never disagree."""
        self.path.write_bytes(b"")
        aside = self.note_path.with_name(f"{self.note_path.name}.writing")
        aside.write_text(json.dumps(note), encoding="utf-8")
        os.replace(aside, self.note_path)

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)


def _pull_patiently(place: Place, part: _Part, config: FetchConfig) -> None:
    for number in range(1, config.tries + 1):
        try:
            return _pull(place, part, config)
        except _Cut as cut:
            if number == config.tries:
                raise DownloadError(
                    f"{place.url}: given up after {config.tries} tries ({cut}); "
                    f"{part.have():,} bytes are kept in {part.path}: the same command goes on"
                ) from cut
            wait_s = max(cut.wait_s, config.backoff_s * 2 ** (number - 1))
            time.sleep(min(wait_s, config.longest_wait_s))


def _pull(place: Place, part: _Part, config: FetchConfig) -> None:
    """Ask once, for what is missing; :class:`_Cut` where less than that came."""
    note, have = part.note(place.url), part.have()
    if have and have == note.get("total"):
        return  # stopped between the last byte and the new name
    headers = {"User-Agent": "avqa-llm (annotation download)", "Accept-Encoding": "identity"}
    if have and note:
        headers |= {"Range": f"bytes={have}-", "If-Range": note["version"]}
    request = urllib.request.Request(place.url, headers=headers)
    with _answer(request, part, config) as response:
        going_on = response.status == 206
        if going_on:
            total = _agreed_total(response, part, have, note)
        else:  # no Range here, or another version than ours: from the first byte
            have, total = 0, _length(response)
        _check_size(place, total, have, part, config)
        if not going_on:
            version = _version(response)
            part.begin({"url": place.url, "version": version, "total": total})
        _write(place, part, response, have, total, config)


def _write(
    place: Place, part: _Part, response: Any, have: int, total: int | None, config: FetchConfig
) -> None:
    from tqdm import tqdm

    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=place.name, disable=None)
    with bar, part.path.open("ab") as file:
        while chunk := _next(response):
            have += len(chunk)
            _check_size(place, None, have, part, config)
            try:
                file.write(chunk)
            except OSError as error:
                raise DownloadError(f"cannot write {part.path}: {error.strerror}") from error
            bar.update(len(chunk))
    if total is not None and have < total:
        raise _Cut(f"the connection ended after {have:,} of {total:,} bytes")


def _next(response: Any) -> bytes:
    try:
        return bytes(response.read(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"the connection broke: {error or type(error).__name__}") from error


def _check_size(
    place: Place, total: int | None, have: int, part: _Part, config: FetchConfig
) -> None:
    """Hold size, consent and free disk against what is announced, or has come so far."""
    size = have if total is None else total
    limit = config.max_bytes if place.size is None else place.size
    if size > limit or (place.size is not None and total not in (None, place.size)):
        part.drop()
        known = "the limit is" if place.size is None else "the catalogue says"
        raise DownloadError(
            f"{place.url}: {size:,} bytes are sent where {known} {limit:,}; something else lies "
            "there now: look at the page, and fetch it by hand if it is right"
        )
    if size > config.ask_above and not config.yes:
        raise DownloadError(
            f"{place.name} has {_mb(size)}{'' if total else ' or more'}; above "
            f"{_mb(config.ask_above)} it is fetched only with --yes"
        )
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - have + config.reserve_bytes > free:
        raise DownloadError(
            f"{place.name} needs {_mb(total - have)} more and {_mb(config.reserve_bytes)} to "
            f"spare; {part.path.parent} has {_mb(free)} free: make room, or give another --out"
        )


# --- what the server says -------------------------------------------------------------------


def _length(response: Any) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _version(response: Any) -> str | None:
    """What names this version of the file: a strong ETag, or the date of its last change."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    return response.headers.get("Last-Modified")


def _agreed_total(response: Any, part: _Part, have: int, note: dict[str, Any]) -> int | None:
    """Return the whole size, once the server goes on exactly where we are in our version."""
    text = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", text.strip())
    total = int(found[2]) if found and found[2] != "*" else note.get("total")
    changed = _version(response) not in (None, note.get("version")) or (
        note.get("total") not in (None, total)
    )
    if not found or int(found[1]) != have or changed:
        part.drop()
        raise _Cut("the file changed while it was fetched; from its start again")
    return total


@contextmanager
def _answer(
    request: urllib.request.Request, part: _Part, config: FetchConfig
) -> Iterator[http.client.HTTPResponse]:
    """Open a request; faults become words, or :class:`_Cut` where another try may help."""
    url = request.full_url
    handlers: list[Any] = [_CheckedRedirects()]
    if urlsplit(url).hostname in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        response = opener.open(request, timeout=config.timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error, part) from error
    except urllib.error.URLError as error:
        raise _no_connection(url, error.reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"no answer: {error or type(error).__name__}") from error
    with response:
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise DownloadError(f"{url}: sent as {coding!r} although plain bytes were asked for")
        yield response


def _refusal(url: str, error: urllib.error.HTTPError, part: _Part) -> Exception:
    code = error.code
    if code == 416:
        part.drop()
        return _Cut("the server has fewer bytes than are here; from the start again")
    if code in (408, 429) or code >= 500:
        said = "too many requests from here (429)" if code == 429 else f"the server says {code}"
        after = error.headers.get("Retry-After", "") if error.headers else ""
        return _Cut(said, float(after) if re.fullmatch(r"[0-9]{1,6}", after) else 0.0)
    words = {
        401: "asks for a login: fetch it in a browser where you are logged in",
        403: "refuses (403): it may want a login or an agreement, or block this network; open "
        "the page in a browser",
        404: "has no such file (404): it was moved or removed; look at the page of the authors",
        410: "has removed the file (410); look at the page of the authors",
    }
    return DownloadError(f"{url}: the server {words.get(code, f'answers with status {code}')}")


def _no_connection(url: str, reason: Any) -> Exception:
    host = urlsplit(url).hostname
    if isinstance(reason, socket.gaierror):
        return _unknown_host(url, reason)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{host}: its certificate cannot be verified ({reason.verify_message}); a network "
            "in between may be reading along: use another one"
        )
    return _Cut(f"no connection to {host}: {reason}")


def _unknown_host(url: str, error: socket.gaierror) -> DownloadError:
    return DownloadError(
        f"{urlsplit(url).hostname} cannot be found ({error.strerror}): there is no network here, "
        f"or its name service fails; connect, or fetch {url} elsewhere and put it in the folder"
    )


# --- which addresses may be asked -----------------------------------------------------------


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_WITH_IPV4 = tuple(ipaddress.IPv6Network(n) for n in ("::/96", "64:ff9b::/96"))
"""IPv4-compatible addresses and those of NAT64: the IPv4 address is in the last 32 bits."""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a first request might go too, and never to loopback."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        check_url(newurl, redirected=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str, *, redirected: bool = False) -> None:
    """Allow https to public addresses, and http to this machine itself unless redirected.

    Raises:
        DownloadError: another scheme, a login in the URL, a private address, an unknown host.
    """
    where = f"{url} (redirected there)" if redirected else url
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{where}: no URL ({error})") from error
    host = parts.hostname or ""
    if parts.username is not None:
        raise DownloadError(f"{where}: a URL with a login is not fetched")
    if parts.scheme == "http" and host in LOOPBACK and not redirected:
        return
    if parts.scheme != "https" or not host:
        raise DownloadError(f"{where}: only https is fetched, not {parts.scheme or 'this'}")
    for address in _addresses(url, host):
        meant = _inside(address)
        if not meant.is_global or meant.is_multicast:
            raise DownloadError(f"{where}: {host} is the private address {address}; not fetched")


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _WITH_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _addresses(url: str, host: str) -> list[Address]:
    """Return what a host stands for; nothing where a proxy will look it up."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    if "https" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return []
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise _unknown_host(url, error) from error
    # The scope of a link-local address ("fe80::1%eth0") is not part of the number.
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
