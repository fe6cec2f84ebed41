"""What the page refuses to start with, and who may name what."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.__main__ import allowed, launching, main, parser
from app.guard import MOST_BYTES, Guard
from app.models import options_of
from app.voice import Voice
from avqa_llm.errors import AVQAError

pytest.importorskip("gradio", reason="the extra `app` is not installed")


def how(tmp_path: Path, *line: str) -> dict[str, Any]:
    return launching(parser().parse_args(line), tmp_path)


def test_only_this_machine_by_default(tmp_path: Path) -> None:
    found = how(tmp_path)
    assert found["server_name"] == "127.0.0.1" and found["share"] is False
    assert found["max_file_size"] == 200 * 10**6
    assert "allowed_paths" not in found


@pytest.mark.parametrize("line", [("--share",), ("--host", "0.0.0.0")])
def test_strangers_need_a_password(
    tmp_path: Path, line: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AVQAError, match="--auth FILE"):
        how(tmp_path, *line)
    secrets = tmp_path / "who"
    secrets.write_text("ann:p:w\n\nbob:x\n")
    found = how(tmp_path, *line, "--auth", str(secrets))
    assert found["auth"] == [("ann", "p:w"), ("bob", "x")]
    assert main(line) == 2  # before any model is loaded
    assert "--auth FILE" in capsys.readouterr().err


def test_faults_of_the_command_line_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("nobody\n")
    for path in (tmp_path / "bad", tmp_path / "gone"):
        with pytest.raises(AVQAError, match="--auth"):
            allowed(path)
    with pytest.raises(AVQAError, match="NAME=DIRECTORY"):
        options_of([], ["nonsense"], base_url="")
    assert options_of([], ["a=/b=c"], base_url="").adapters == {"a": Path("/b=c")}


def test_the_tool_protocol_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "mcp" else real(name)
    )
    with pytest.raises(AVQAError, match=r"pip install 'gradio\[mcp\]'"):
        how(tmp_path, "--mcp")


def test_voice_without_a_model_says_what_is_missing() -> None:
    voice = Voice()
    assert not voice.is_there
    with pytest.raises(AVQAError, match="--whisper MODEL"):
        asyncio.run(voice.text("a.wav"))


# -- the guard -----------------------------------------------------------------------------------


def through(uploads: Path, body: bytes, path: str = "/gradio_api/queue/join") -> tuple[int, bytes]:
    """Status, and the body that the page behind the guard got."""
    got: list[bytes] = []
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        got.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path}
    asyncio.run(Guard(inner, uploads=uploads)(scope, receive, send))
    return sent[0]["status"], got[0] if got else b""


def test_the_guard_lets_uploads_pass_and_takes_links_out(tmp_path: Path) -> None:
    file = {"path": str(tmp_path / "a" / "b.mp4"), "url": "http://evil/b.mp4", "size": 3}
    status, body = through(tmp_path, json.dumps({"data": [{"files": [file]}]}).encode())
    assert status == 200
    assert json.loads(body)["data"][0]["files"] == [{**file, "url": None}]
    assert through(tmp_path, b'{"data": [null, "x"]}') == (200, b'{"data": [null, "x"]}')
    assert through(tmp_path, b"username=a&password=b")[0] == 200
    assert through(tmp_path, b"")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "relative.mp4", "http://evil/a.mp4", "file:///etc/passwd", 7, ["x"], "a\0b"],
)
def test_the_guard_refuses_other_files_wherever_they_stand(tmp_path: Path, path: object) -> None:
    for data in (
        {"data": [{"files": [{"path": path}]}]},
        {"event_data": {"value": {"files": [{"path": path}]}}},
        [[[[{"a": {"path": path}}]]]],
    ):
        status, got = through(tmp_path, json.dumps(data).encode())
        assert (status, got) == (400, b"")


def test_the_guard_refuses_what_is_too_large_or_too_deep(tmp_path: Path) -> None:
    assert through(tmp_path, b"[" * 100_000 + b'"path"')[0] == 400
    assert through(tmp_path, b"[" * 200 + b"]" * 200)[0] == 400
    assert through(tmp_path, b" " * (MOST_BYTES + 1))[0] == 413
    assert through(tmp_path, b"x" * (MOST_BYTES + 1), "/gradio_api/upload")[0] == 200
