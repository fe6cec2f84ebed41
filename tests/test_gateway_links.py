"""Links: fetched from hosts that are allowed by name, and from no address inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.serving.links import Links, is_public
from avqa_llm.serving.refusals import Refusal
from tests.gateway_world import chat, clip_file, digest, gateway, video

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip_file(tmp_path_factory.mktemp("clips")).read_bytes()


def error(reply: Any, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, is_open: bool) -> None:
    assert is_public(address) is is_open


class Site(BaseHTTPRequestHandler):
    """A site that answers as it was told, path by path."""

    pages: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, str]]
    drip_s = 0.0

    def do_GET(self) -> None:
        self.asked.append((self.headers["Host"], self.path))
        status, headers, content = self.pages[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for start in range(0, len(content), 1000):
                self.wfile.write(content[start : start + 1000])
                time.sleep(self.drip_s)
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def site(pages: dict[str, tuple[int, dict[str, str], bytes]], drip_s: float = 0.0) -> Iterator[Any]:
    handler = type("Own", (Site,), {"pages": pages, "asked": [], "drip_s": drip_s})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield handler, server.server_address[1]
        server.shutdown()


def links(*hosts: str, **more: Any) -> Links:
    """Links that take the loopback for the open internet."""
    given = {"max_bytes": 100_000, "timeout_s": 5.0, "is_public": lambda _: True, **more}
    return Links(allowed_hosts=hosts, resolve=lambda host, port: ["127.0.0.1"], **given)


def test_a_link_is_fetched_from_the_address_that_was_checked(tmp_path: Path) -> None:
    with site({"/a?b=c": (200, {}, b"content")}) as (pages, port):
        name = f"media.example:{port}"
        count = links(name).fetch(f"http://{name}/a?b=c#d", tmp_path / "a")
    assert count == 7 and (tmp_path / "a").read_bytes() == b"content"
    assert pages.asked == [(name, "/a?b=c")]  # the name was never looked up by anything else


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a",
        "http://media.example.evil.example/a",
        "http://media.example:81/a",
        "http://sub.media.example/a",
        "http://user@media.example/a",
        "http://media.example@evil.example/a",
        "http://127.0.0.1/a",
        "http://2130706433/a",
        "http://[::1]/a",
        "http:///a",
        "http://media.example\\@evil.example/a",
        "ftp://media.example/a",
        "http://media.example/\r\nX: y",
        "http://media.example/a b",
        "http://[media.example/a",
        "http://media.example:port/a",
    ],
)
def test_only_allowed_names_are_fetched(tmp_path: Path, url: str) -> None:
    looked_up: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        looked_up.append(host)
        raise OSError

    with pytest.raises(Refusal) as found:
        replace(links("media.example"), resolve=resolve).fetch(url, tmp_path / "a")
    assert found.value.status in (400, 403) and not looked_up


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.216.34", "127.0.0.1"], []])
def test_an_allowed_name_that_leads_inside_is_not_followed(
    tmp_path: Path, addresses: list[str]
) -> None:
    inside = replace(
        links("media.example"), resolve=lambda host, port: addresses, is_public=is_public
    )
    with pytest.raises(Refusal, match="not a public one") as found:
        inside.fetch("http://media.example/a", tmp_path / "a")
    assert "10.0.0.1" not in found.value.message


def test_redirects_are_held_to_the_same(tmp_path: Path) -> None:
    with site({}) as (pages, port):
        name = f"media.example:{port}"
        pages.pages.update(
            {
                "/ok": (302, {"Location": "/end"}, b""),
                "/end": (200, {}, b"end"),
                "/out": (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b""),
                "/file": (302, {"Location": "file:///etc/passwd"}, b""),
                "/loop": (302, {"Location": "/loop"}, b""),
                "/lost": (302, {}, b""),
            }
        )
        own = links(name)
        assert own.fetch(f"http://{name}/ok", tmp_path / "ok") == 3
        for path in ("/out", "/file", "/loop", "/lost"):
            with pytest.raises(Refusal):
                own.fetch(f"http://{name}{path}", tmp_path / path[1:])


def test_links_are_bounded_in_size_and_time(tmp_path: Path) -> None:
    large = bytes(200_000)
    pages = {
        "/said": (200, {"Content-Length": "200000"}, large),
        "/unsaid": (200, {}, large),
        "/packed": (200, {"Content-Encoding": "gzip"}, b"x"),
        "/cut": (200, {"Content-Length": "50"}, b"x"),
        "/gone": (404, {}, b""),
    }
    with site(pages) as (_, port):
        name = f"media.example:{port}"
        statuses = {}
        for path in pages:
            with pytest.raises(Refusal) as found:
                links(name).fetch(f"http://{name}{path}", tmp_path / path[1:])
            statuses[path] = found.value.status
    assert statuses == {"/said": 413, "/unsaid": 413, "/packed": 400, "/cut": 400, "/gone": 400}
    with site({"/slow": (200, {}, large)}, drip_s=0.05) as (_, port):
        name, started = f"media.example:{port}", time.monotonic()
        with pytest.raises(Refusal, match="took longer|broke off"):
            links(name, timeout_s=0.4).fetch(f"http://{name}/slow", tmp_path / "slow")
        assert time.monotonic() - started < 3


def test_a_link_in_a_chat(tmp_path: Path, clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path / "off") as client:
        found = error(client.post(CHAT, json=chat(video("https://media.example/a.mp4"))), 403)
        assert found["code"] == "link_refused" and "POST /v1/files" in found["message"]
    pages = {"/a.mp4": (200, {"Content-Type": "text/plain"}, clip), "/b": (200, {}, b"no medium")}
    with site(pages) as (_, port):
        name = f"media.example:{port}"
        monkeypatch.setattr(
            "avqa_llm.serving.gateway.Links",
            lambda **given: links(*given["allowed_hosts"]),
        )
        with gateway(tmp_path / "on", allowed_hosts=(name,)) as client:
            reply = client.post(CHAT, json=chat(video(f"http://{name}/a.mp4")))
            assert digest(clip) in reply.text  # what it is was found out, not believed
            assert error(client.post(CHAT, json=chat(video(f"http://{name}/b"))), 400)
