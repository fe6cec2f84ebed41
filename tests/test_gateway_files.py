"""Uploads: kept whole, found by their owner alone, within quotas, gone when their time is over."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from avqa_llm.serving.files import shown
from avqa_llm.serving.gateway import create_app
from avqa_llm.serving.settings import GatewaySettings
from avqa_llm.serving.uploads import Uploads
from tests.gateway_world import chat, clip_file, digest, gateway, serving, upload, video
from tests.scripted_service import Scripted

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip_file(tmp_path_factory.mktemp("clips")).read_bytes()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    lines = [hashlib.sha256(key.encode()).hexdigest() + f" {key}'s" for key in ("ann", "bob")]
    file.write_text("# people\n\n" + "\n".join(lines))
    return file


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def code(reply: Any, status: int) -> str:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]["code"]


def left(folder: Path) -> list[str]:
    """What lies in the store, whoever's it is."""
    return sorted(path.suffix for path in (folder / "uploads").rglob("*") if path.is_file())


def test_an_upload_is_kept_shown_given_back_and_deleted(tmp_path: Path, clip: bytes) -> None:
    with gateway(tmp_path) as client:
        sent = upload(client, clip, "my clip.mp4").json()
        assert (sent["object"], sent["bytes"], sent["filename"], sent["purpose"]) == (
            "file",
            len(clip),
            "my clip.mp4",
            "user_data",
        )
        assert sent["avqa"]["seconds"] == 1.0 and "aac" in sent["avqa"]["sound"]
        assert client.get(f"/v1/files/{sent['id']}").json() == sent
        content = client.get(f"/v1/files/{sent['id']}/content")
        assert content.content == clip
        assert content.headers["content-type"] == "application/octet-stream"
        assert content.headers["content-disposition"].startswith("attachment")
        assert client.delete(f"/v1/files/{sent['id']}").json()["deleted"] is True
        for reply in (
            client.get(f"/v1/files/{sent['id']}"),
            client.get(f"/v1/files/{sent['id']}/content"),
            client.delete(f"/v1/files/{sent['id']}"),
            client.post(CHAT, json=chat(video(sent["id"]))),
        ):
            assert code(reply, 404) == "file_not_found"
    assert left(tmp_path) == []


def test_a_list_comes_in_pages(tmp_path: Path, clip: bytes) -> None:
    with gateway(tmp_path) as client:
        names = [upload(client, clip).json()["id"] for _ in range(5)]
        first = client.get("/v1/files", params={"limit": 3, "order": "asc"}).json()
        rest = client.get(
            "/v1/files", params={"limit": 3, "order": "asc", "after": first["last_id"]}
        ).json()
        assert first["has_more"] and not rest["has_more"]
        assert sorted(one["id"] for one in first["data"] + rest["data"]) == sorted(names)
        assert client.get("/v1/files", params={"purpose": "other"}).json()["data"] == []
        assert code(client.get("/v1/files", params={"limit": 0}), 400) == "invalid_request"


def test_nobody_sees_anothers_upload(tmp_path: Path, clip: bytes, keys: Path) -> None:
    with gateway(tmp_path / "s", keys_file=keys) as client:
        name = upload(client, clip, headers=bearer("ann")).json()["id"]
        ann = client.post(CHAT, json=chat(video(name)), headers=bearer("ann"))
        assert digest(clip) in ann.text
        for key, status in (("bob", 404), ("eve", 401)):
            said = set()
            for wanted in (name, "file-" + "0" * 32):  # as if it were not there
                for reply in (
                    client.get(f"/v1/files/{wanted}", headers=bearer(key)),
                    client.get(f"/v1/files/{wanted}/content", headers=bearer(key)),
                    client.delete(f"/v1/files/{wanted}", headers=bearer(key)),
                    client.post(CHAT, json=chat(video(wanted)), headers=bearer(key)),
                ):
                    assert reply.status_code == status
                    said.add(reply.text)
            assert len(said) == 1
        assert client.get("/v1/files", headers=bearer("bob")).json()["data"] == []
        assert len(client.get("/v1/files", headers=bearer("ann")).json()["data"]) == 1
    stored = " ".join(str(path) for path in (tmp_path / "s").rglob("*"))
    texts = " ".join(path.read_text() for path in (tmp_path / "s").rglob("*.json"))
    assert "ann" not in stored and hashlib.sha256(b"ann").hexdigest() not in stored + texts


def test_two_gateways_share_a_store(tmp_path: Path, clip: bytes, keys: Path) -> None:
    more = {"keys_file": keys, "max_files": 2}
    with gateway(tmp_path / "s", **more) as one, gateway(tmp_path / "s", **more) as two:
        name = upload(one, clip, headers=bearer("ann")).json()["id"]
        reply = two.post(CHAT, json=chat(video(name)), headers=bearer("ann"))
        assert digest(clip) in reply.text
        assert upload(two, clip, headers=bearer("ann")).status_code == 200
        assert code(upload(one, clip, headers=bearer("ann")), 403) == "quota_exceeded"
        two.delete(f"/v1/files/{name}", headers=bearer("ann"))
        assert code(one.get(f"/v1/files/{name}", headers=bearer("ann")), 404) == "file_not_found"


def test_an_upload_expires(tmp_path: Path, clip: bytes) -> None:
    with gateway(tmp_path) as client:
        fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}
        sent = client.post("/v1/files", files={"file": ("a.mp4", clip)}, data=fields).json()
        assert sent["expires_at"] - sent["created_at"] == 60
        (card,) = (tmp_path / "uploads").rglob("*.json")
        card.write_text(json.dumps({**json.loads(card.read_text()), "expires_at": 5}))
        assert code(client.get(f"/v1/files/{sent['id']}"), 404) == "file_not_found"
        assert client.get("/v1/files").json()["data"] == []
    Uploads(GatewaySettings(folder=tmp_path)).sweep()
    assert left(tmp_path) == [] and not list((tmp_path / "uploads").iterdir())


def test_what_gateways_that_died_left_behind_is_removed(tmp_path: Path) -> None:
    store = Uploads(GatewaySettings(folder=tmp_path))
    owner = tmp_path / "uploads" / ("a" * 40)
    request = tmp_path / "requests" / "gone"
    owner.mkdir()
    request.mkdir()
    old, new = owner / f"file-{'0' * 32}.part", owner / f"file-{'1' * 32}.part"
    lost = owner / f"file-{'2' * 32}.media"
    for path in (old, new, lost, request / "0.media"):
        path.write_bytes(b"x")
    for path in (old, lost, request):
        os.utime(path, (time.time() - 7200,) * 2)
    store.sweep()
    assert [path for path in owner.iterdir()] == [new] and not request.exists()


@pytest.mark.parametrize("most", [{"max_files": 7}, {"max_files_bytes": 65_000}])
def test_fifty_uploads_at_once_do_not_pass_the_quota(
    tmp_path: Path, clip: bytes, most: dict[str, int]
) -> None:
    limit = most.get("max_files") or 65_000 // len(clip)

    async def all_at_once(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            sending = [client.post("/v1/files", files={"file": ("a", clip)}) for _ in range(50)]
            return await asyncio.gather(*sending)

    with serving(tmp_path, **most) as url:
        replies = asyncio.run(all_at_once(url))
        kept = httpx.get(url + "/v1/files").json()["data"]
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 403}
    assert len(kept) == statuses.count(200)
    assert 1 <= len(kept) <= limit
    assert len(left(tmp_path)) == 2 * len(kept)


def test_a_store_that_is_full_asks_to_come_back(tmp_path: Path, clip: bytes) -> None:
    with gateway(tmp_path, max_store_bytes=100) as client:
        upload(client, clip)
        reply = upload(client, clip)
        assert code(reply, 503) == "store_full" and reply.headers["retry-after"] == "60"


def test_a_file_is_measured_while_it_comes_whatever_its_length_is_said_to_be(
    tmp_path: Path, clip: bytes
) -> None:
    from dataclasses import replace

    media = replace(GatewaySettings(folder=tmp_path).media, max_bytes=3_000_000)
    sent = 0

    def endless(boundary: str) -> Any:
        nonlocal sent
        yield (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        ).encode()
        for _ in range(4000):
            sent += 1 << 16
            yield bytes(1 << 16)

    with serving(tmp_path, media=media) as url:
        headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
        try:
            reply = httpx.post(url + "/v1/files", content=endless("xyz"), headers=headers)
            assert code(reply, 413) == "too_large"
        except httpx.WriteError:  # it hung up before all was sent
            pass
        assert sent < 100_000_000
        assert httpx.get(url + "/v1/files").json()["data"] == []
        assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\clips\\a.mp4", "a.mp4"),
        ("a\0b\r\nX-Evil: 1.mp4", "a b  X-Evil: 1.mp4"),
        ("\u202egpj.mp4", "gpj.mp4"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("ж" * 900, "ж" * 200),
        ("\udcff.mp4", ".mp4".strip(".")),
    ],
)
def test_names_are_shown_and_never_used(given: str, expected: str) -> None:
    assert shown(given) == expected


def test_a_name_that_climbs_stays_text(tmp_path: Path, clip: bytes) -> None:
    with gateway(tmp_path / "s") as client:
        reply = upload(client, clip, "../../../evil.mp4").json()
        assert reply["filename"] == "evil.mp4"
        again = client.get(f"/v1/files/{reply['id']}/content")
        assert again.status_code == 200
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--xyz",
        b"--xyz--\r\n",
        b"garbage",
        b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nx\r\n--xyz--\r\n',
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        b"\r\n--xyz--\r\n",
        b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
        + b"x" * 9999
        + b"\r\n--xyz--\r\n",
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 30 + b"--xyz--\r\n",
        b"--xyz\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"--xyz\r\nContent-Disposition: " + b"x" * 100_000,
    ],
)
def test_a_broken_form_is_refused_and_leaves_nothing(tmp_path: Path, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    with gateway(tmp_path) as client:
        reply = client.post("/v1/files", content=body, headers=headers)
        assert code(reply, 400) == "invalid_request"
        assert client.post("/v1/files", json={}).status_code == 415
    assert left(tmp_path) == []


def test_a_wrong_purpose_or_expiry_is_refused(tmp_path: Path, clip: bytes) -> None:
    with gateway(tmp_path) as client:
        for fields in (
            {"purpose": "a b"},
            {"purpose": ""},
            {"expires_after[anchor]": "later"},
            {"expires_after[seconds]": "-5"},
            {"expires_after[seconds]": "1"},
            {"expires_after[seconds]": "٣٦٠٠"},
        ):
            reply = client.post("/v1/files", files={"file": ("a", clip)}, data=fields)
            assert code(reply, 400) == "invalid_request", fields
    assert left(tmp_path) == []


def test_the_folder_of_uploads_is_for_its_owner_alone(tmp_path: Path) -> None:
    create_app(Scripted(), GatewaySettings(folder=tmp_path / "new"))
    for name in ("uploads", "locks", "requests"):
        assert (tmp_path / "new" / name).stat().st_mode & 0o077 == 0
