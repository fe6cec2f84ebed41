"""Fetching from a server of our own: whole, cut, changed, wrong, too large, sent elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import http.server
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from avqa_llm.errors import AVQAError
from instruct_data import downloads
from instruct_data.downloads import DownloadError, FetchConfig, check_url, fetch
from instruct_data.places import CATALOGUE, Place

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT / "../shared/data"))
BYTES = bytes(range(256)) * 4096  # 1 MiB: four chunks
QUICK = FetchConfig(backoff_s=0.0, timeout_s=5.0, tries=3)


@dataclass
class Server:
    """A file on loopback, and how its server behaves."""

    body: bytes = BYTES
    etag: str | None = '"one"'
    ranges: bool = True
    if_range: bool = True
    """Whether a part is refused to who has another version."""
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    """Per answer, after how many bytes the connection is cut."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers that are sent before the file is."""
    pause_s: float = 0.0
    """After each 64 KiB."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of every request."""
    port: int = 0

    def place(self, **facts: Any) -> Place:
        url = f"http://127.0.0.1:{self.port}/../../etc/other-name.json"
        return Place(name="file.json", what="", url=url, licence="", **facts)


def handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(dict(self.headers.items()))
            if server.answers:
                status, headers = server.answers.pop(0)
                return self.head(status, headers | {"Content-Length": "0"})
            self.send_body()

        def head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def send_body(self) -> None:
            first = self.first()
            if first > len(server.body):
                return self.head(416, {"Content-Length": "0"})
            headers = {"ETag": server.etag} if server.etag else {}
            body = server.body[first:]
            if server.length:
                headers["Content-Length"] = str(len(body))
            if first:
                whole = len(server.body)
                headers["Content-Range"] = f"bytes {first}-{whole - 1}/{whole}"
            self.head(206 if first else 200, headers)
            cut = server.cuts.pop(0) if server.cuts else len(body)
            try:
                for at in range(0, cut, 1 << 16):
                    self.wfile.write(body[at : min(cut, at + (1 << 16))])
                    time.sleep(server.pause_s)
            except OSError:
                pass  # the client is gone
            self.close_connection = True

        def first(self) -> int:
            wanted = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") == server.etag or not server.if_range
            return int(wanted[1]) if wanted and server.ranges and same else 0

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    facts = Server()
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(facts))
    facts.port = http_server.server_address[1]
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield facts
    http_server.shutdown()
    http_server.server_close()
    thread.join()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half_way(server: Server, folder: Path, at: int = 700_000) -> Place:
    """Leave a part of the file, as a broken connection does."""
    server.cuts = [at]
    with pytest.raises(DownloadError, match=r"given up after 1 tries.*the same command goes on"):
        fetch(server.place(), folder, dataclasses.replace(QUICK, tries=1))
    assert (folder / "file.json.part").stat().st_size == at
    server.asked.clear()
    return server.place(sha256=sha256(server.body))


# --- what works -----------------------------------------------------------------------------


def test_a_whole_file_gets_the_catalogues_name_and_is_then_only_verified(
    server: Server, tmp_path: Path
) -> None:
    place = server.place(size=len(BYTES), sha256=sha256(BYTES))
    path = fetch(place, tmp_path / "new", QUICK)
    assert path == tmp_path / "new" / "file.json" and path.read_bytes() == BYTES
    assert left(tmp_path / "new") == ["file.json"]
    assert server.asked[0]["Accept-Encoding"] == "identity"
    assert fetch(place, tmp_path / "new", QUICK) == path
    assert len(server.asked) == 1


def test_a_cut_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cuts = [700_000, 100_000]
    path = fetch(server.place(sha256=sha256(BYTES)), tmp_path, QUICK)
    assert path.read_bytes() == BYTES and left(tmp_path) == ["file.json"]
    ranges = [asked.get("Range") for asked in server.asked]
    assert ranges == [None, "bytes=700000-", "bytes=800000-"]
    assert server.asked[1]["If-Range"] == '"one"'


def test_a_later_call_goes_on_too(server: Server, tmp_path: Path) -> None:
    place = half_way(server, tmp_path)
    assert fetch(place, tmp_path, QUICK).read_bytes() == BYTES
    assert [asked["Range"] for asked in server.asked] == ["bytes=700000-"]


def test_a_server_without_range_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    place = half_way(server, tmp_path)
    server.ranges = False
    assert fetch(place, tmp_path, QUICK).read_bytes() == BYTES


@pytest.mark.parametrize("heeded", [True, False])
def test_a_file_that_changed_in_between_is_read_from_the_start(
    server: Server, tmp_path: Path, heeded: bool
) -> None:
    half_way(server, tmp_path)
    server.body, server.etag, server.if_range = BYTES[::-1], '"two"', heeded
    assert fetch(server.place(), tmp_path, QUICK).read_bytes() == BYTES[::-1]
    assert server.asked[0]["If-Range"] == '"one"'


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_version_nothing_is_joined(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.etag = etag
    place = half_way(server, tmp_path)
    assert fetch(place, tmp_path, QUICK).read_bytes() == BYTES
    assert "Range" not in server.asked[0]


def test_a_part_of_another_address_or_with_a_broken_note_is_not_joined(
    server: Server, tmp_path: Path
) -> None:
    for note in ('{"url": "https://elsewhere.org/x", "version": "\\"one\\""}', "{", "[]"):
        place = half_way(server, tmp_path)
        (tmp_path / "file.json.part.json").write_text(note)
        fetch(place, tmp_path, QUICK).unlink()
        assert "Range" not in server.asked[0]


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    place = half_way(server, tmp_path)
    with (tmp_path / "file.json.part").open("ab") as file:
        file.write(b"x" * len(BYTES))
    assert fetch(place, tmp_path, QUICK).read_bytes() == BYTES


def test_a_part_that_is_whole_is_only_verified(server: Server, tmp_path: Path) -> None:
    place = half_way(server, tmp_path)
    (tmp_path / "file.json.part").write_bytes(BYTES)
    assert fetch(place, tmp_path, QUICK).read_bytes() == BYTES
    assert server.asked == []


def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [(503, {}), (429, {"Retry-After": "0"})]
    assert fetch(server.place(), tmp_path, QUICK).read_bytes() == BYTES


def test_a_kill_in_the_middle_and_then_the_same_again(server: Server, tmp_path: Path) -> None:
    server.pause_s = 0.2
    place = server.place(sha256=sha256(BYTES))
    code = (
        "from pathlib import Path; from instruct_data.downloads import fetch;"
        "from instruct_data.places import Place;"
        f"fetch(Place(name='file.json', what='', url={place.url!r}, licence=''),"
        f" Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    part = tmp_path / "file.json.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(BYTES) and not (tmp_path / "file.json").exists()
    server.pause_s = 0.0
    server.asked.clear()
    assert fetch(place, tmp_path, QUICK).read_bytes() == BYTES
    assert server.asked[0]["Range"] == f"bytes={kept}-"


# --- what is refused ------------------------------------------------------------------------


def test_a_wrong_hash_removes_the_part_and_names_both(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as error:
        fetch(server.place(sha256="0" * 64), tmp_path, QUICK)
    assert "0" * 64 in str(error.value) and sha256(BYTES) in str(error.value)
    assert left(tmp_path) == []


def test_gits_own_id_is_verified_too(server: Server, tmp_path: Path) -> None:
    server.body = b"hello\n"
    known = "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object of these six bytes
    fetch(server.place(git_blob=known), tmp_path, QUICK).unlink()
    with pytest.raises(DownloadError, match=f"git blob id is {known}"):
        fetch(server.place(git_blob="f" * 40), tmp_path, QUICK)


def test_a_file_of_another_version_that_is_there_is_not_written_over(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.json").write_text("mine")
    with pytest.raises(DownloadError, match="another version"):
        fetch(server.place(sha256=sha256(BYTES)), tmp_path, QUICK)
    assert (tmp_path / "file.json").read_text() == "mine" and server.asked == []


@pytest.mark.parametrize("announced", [True, False])
def test_too_large(server: Server, tmp_path: Path, announced: bool) -> None:
    server.length = announced
    small = dataclasses.replace(QUICK, max_bytes=500_000)
    with pytest.raises(DownloadError, match=r"the limit is 500,000"):
        fetch(server.place(), tmp_path, small)
    with pytest.raises(DownloadError, match=r"the catalogue says 1,000"):
        fetch(server.place(size=1000), tmp_path, QUICK)
    assert left(tmp_path) == []


def test_a_size_other_than_the_catalogues_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"1,048,576 bytes .* the catalogue says 2,000,000"):
        fetch(server.place(size=2_000_000), tmp_path, QUICK)


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_large_needs_a_yes(server: Server, tmp_path: Path, announced: bool) -> None:
    server.length = announced
    config = dataclasses.replace(QUICK, ask_above=500_000)
    with pytest.raises(DownloadError, match="only with --yes"):
        fetch(server.place(), tmp_path, config)
    assert not (tmp_path / "file.json").exists()
    fetch(server.place(), tmp_path, dataclasses.replace(config, yes=True))


def test_a_full_disk_is_said_before(server: Server, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    config = dataclasses.replace(QUICK, reserve_bytes=free + 10**12)
    with pytest.raises(DownloadError, match="make room"):
        fetch(server.place(), tmp_path, config)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("http://127.0.0.1:{port}/again", "only https"),
        ("http://example.org/file.json", "only https"),
        ("ftp://example.org/file.json", "only https|not allowed|status 302"),
        ("file:///etc/passwd", "only https|not allowed|status 302"),
        ("https://127.0.0.1/file.json", "private address 127.0.0.1"),
        ("https://169.254.169.254/meta", "private address 169.254.169.254"),
        ("https://[::ffff:10.0.0.1]/x", "private address"),
        ("https://localhost/x", "private address"),
        ("https://user:word@example.org/x", "login"),
    ],
)
def test_a_redirect_to_where_none_should_lead(
    server: Server, tmp_path: Path, to: str, said: str
) -> None:
    server.answers = [(302, {"Location": to.format(port=server.port)})]
    with pytest.raises(DownloadError, match=said):
        fetch(server.place(), tmp_path, QUICK)
    assert len(server.asked) == 1 and left(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "said"), [(401, "login"), (403, "refuses"), (404, "no such file"), (418, "418")]
)
def test_a_refusal_is_said_in_words_and_not_repeated(
    server: Server, tmp_path: Path, status: int, said: str
) -> None:
    server.answers = [(status, {})] * 5
    with pytest.raises(DownloadError, match=said):
        fetch(server.place(), tmp_path, QUICK)
    assert len(server.asked) == 1


def test_too_many_requests_are_waited_for_but_not_for_ever(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waited.append)
    server.answers = [(429, {"Retry-After": "7"}), (429, {"Retry-After": "99999"}), (429, {})]
    with pytest.raises(DownloadError, match="too many requests"):
        fetch(server.place(), tmp_path, QUICK)
    assert waited == [7.0, 60.0]


def test_packed_bytes_though_plain_ones_were_asked_for(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {"Content-Encoding": "gzip"})]
    with pytest.raises(DownloadError, match="gzip"):
        fetch(server.place(), tmp_path, QUICK)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = Server(port=taken.getsockname()[1]).place()
        with pytest.raises(DownloadError, match="no connection to 127.0.0.1"):
            fetch(place, tmp_path, QUICK)


def test_an_unknown_host_and_a_false_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(downloads.urllib.request, "getproxies", dict)
    with pytest.raises(DownloadError, match="no network here"):
        check_url("https://example.org/x")
    false = ssl.SSLCertVerificationError(1, "certificate verify failed")
    false.verify_message = "self-signed certificate"
    error = downloads._no_connection("https://example.org/x", urllib.error.URLError(false).reason)
    assert isinstance(error, DownloadError) and "self-signed" in str(error)


def test_a_public_name_that_stands_for_a_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(address: str) -> None:
        found = [(2, 1, 6, "", (address, 443))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)

    monkeypatch.setattr(downloads.urllib.request, "getproxies", dict)
    answer("140.82.121.3")
    check_url("https://github.com/x", redirected=True)
    for private in ("10.1.2.3", "192.168.0.1", "0.0.0.0", "100.64.0.1"):
        answer(private)
        with pytest.raises(DownloadError, match=f"private address {private}"):
            check_url("https://github.com/x", redirected=True)


# --- the command ----------------------------------------------------------------------------


def get(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    downloads.add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["get", *argv])
    return int(args.run(args))


def test_without_a_name_or_with_list_nothing_is_fetched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "fetch", lambda *args: pytest.fail("something was fetched"))
    assert get() == 0
    assert set(CATALOGUE) <= set(capsys.readouterr().out.split())
    assert get("music-avqa-v2", "--list") == 0
    said = capsys.readouterr().out
    assert "GPL-3.0" in said and "test_balance.json" in said and "2.9 MB" in said
    assert "was not confirmed" in said and "by hand:" in said
    assert "downloads/music-avqa-v2/videos" in said


@pytest.mark.parametrize(("name", "said"), [("music", "music-avqa-v2"), ("bandstand", "is made")])
def test_a_name_that_is_none(name: str, said: str) -> None:
    with pytest.raises(AVQAError, match=said):
        get(name)


def test_the_command_fetches_files_and_explains_the_rest(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_hand = next(p for p in CATALOGUE["music-avqa"].places if p.kind == "manual")
    own = dataclasses.replace(
        CATALOGUE["music-avqa"], places=(server.place(sha256=sha256(BYTES)), by_hand)
    )
    monkeypatch.setitem(CATALOGUE, "music-avqa", own)
    assert get("music-avqa", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'file.json'}: 1.0 MB, sha-256 as in the catalogue" in said
    assert f"put the video files into {tmp_path}/videos" in said
    with pytest.raises(DownloadError, match="cannot be fetched by a program"):
        fetch(by_hand, tmp_path)


# --- the catalogue --------------------------------------------------------------------------

PLACES = [(name, place) for name, data in CATALOGUE.items() for place in data.places]


@pytest.mark.parametrize(("name", "place"), PLACES, ids=lambda value: getattr(value, "name", value))
def test_a_place_is_complete(name: str, place: Place) -> None:
    assert urlsplit(place.url).scheme == "https" and place.licence and place.what
    assert Path(place.name).name == place.name and not place.name.startswith(".")
    assert bool(place.todo) == (place.kind == "manual")
    if place.kind == "file":
        assert place.confirmed and (place.sha256 or place.git_blob)
    for hexadecimal, digits in ((place.sha256, 64), (place.git_blob, 40)):
        assert hexadecimal is None or re.fullmatch(f"[0-9a-f]{{{digits}}}", hexadecimal)
    # A branch's name would let the file change under its hash.
    hosts = ("raw.githubusercontent.com", "huggingface.co")
    if place.kind == "file" and urlsplit(place.url).hostname in hosts:
        assert re.search(r"/[0-9a-f]{40}/", place.url)


def test_no_file_is_listed_twice() -> None:
    files = [(name, place) for name, place in PLACES if place.kind == "file"]
    for key in ("url", "sha256", "git_blob"):
        values = [value for _, place in files if (value := getattr(place, key)) is not None]
        assert len(values) == len(set(values))
    assert len({(name, place.name) for name, place in PLACES}) == len(PLACES)


def test_every_source_but_the_one_that_is_made_here_has_a_place() -> None:
    from instruct_data.sources import SOURCES

    assert {data.reader for data in CATALOGUE.values()} == set(SOURCES) - {"bandstand"}


@pytest.mark.parametrize(
    ("name", "folder"),
    [("music-avqa", "music-avqa"), ("music-avqa-2022", "music-avqa"), ("music-avqa-v2",) * 2],
)
def test_the_real_files_are_those_of_the_catalogue(name: str, folder: str) -> None:
    seen = 0
    for place in CATALOGUE[name].places:
        path = DATA / folder / place.name
        if place.kind == "file" and path.exists():
            assert downloads.wrong_bytes(place, path) is None
            assert place.size == path.stat().st_size
            seen += 1
    if not seen:
        pytest.skip(f"no annotation file in {DATA / folder}; set AVQA_TEST_DATA to its folder")
    assert seen == 2
