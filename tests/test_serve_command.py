"""`avqa serve` as a person starts it: ready, asked over HTTP, ended by a signal; and `--check`."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.cli import build_parser, main
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AVQAError
from avqa_llm.serving import command
from avqa_llm.serving.vllm_env import VLLMEnv
from tests.served_world import TINY

DUO = TINY.parents[1] / "app" / "samples" / "duo.mp4"
QUESTION = "Which instrument comes in first?"
NONE = VLLMEnv(python=None, problems=("there is no environment with vLLM: run `make serve-env`",))
ALL = VLLMEnv(python=Path("/vllm/bin/python"), version="0.32.0")


@pytest.fixture(autouse=True)
def _no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "check", lambda python: NONE)


def parsed(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["serve", *words])


def test_a_served_model_is_asked_over_http_and_ends_at_sigterm(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "avqa_llm", "serve", "--engine", "local", "--port", "0"]
    environment = os.environ | {"AVQA_CACHE": str(tmp_path), "PYTHONPATH": str(TINY.parents[1])}
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        said = ""
        while "ready at " not in said:
            said = process.stdout.readline()
            assert said, "it ended before it was ready"
        address = said.split("ready at ")[1].split()[0]
        assert said.rstrip().endswith("with tiny")
        engine = LocalEngine.load("tiny")
        (expected,) = engine.answer(engine.read(DUO), [QUESTION])
        answer = posted(f"{address}/v1/chat/completions", question())
        assert (answer["label"], answer["steps"]) == (expected.label, expected.steps)
        assert answer["consumed"]["sound_tokens"] == 101
        with urllib.request.urlopen(f"{address}/health", timeout=60) as reply:
            assert json.load(reply)["status"] == "ok"
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(60) == 0 and rest.rstrip().endswith("avqa serve: ended")
        assert "curl" in rest and "Traceback" not in rest
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def question() -> dict[str, Any]:
    url = f"data:video/mp4;base64,{base64.b64encode(DUO.read_bytes()).decode()}"
    parts = [
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "text", "text": QUESTION},
    ]
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}]}


def posted(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)["avqa"]


def test_without_vllm_the_local_engine_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check"]) == 0
    out = capsys.readouterr().out
    assert "engine: local (without vLLM: there is no environment with vLLM" in out
    assert "for --engine vllm:" in out and "make serve-env" in out
    assert out.rstrip().endswith("ready: avqa serve --model tiny")


def test_where_vllm_is_wanted_and_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--engine", "vllm", "--model", "nowhere"]) == 1
    out = capsys.readouterr().out
    assert "missing: there is no environment with vLLM: run `make serve-env`" in out
    assert "missing: model 'nowhere' is neither a preset" in out and "not ready" in out
    assert main(["serve", "--engine", "vllm"]) == 2
    assert "make serve-env" in capsys.readouterr().err


def test_a_whole_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "check", lambda python: ALL)
    choice = command.choose(None, None)
    assert choice.engine == "vllm" and "vLLM 0.32.0 at /vllm/bin/python" in choice.why
    assert command.choose("local", None).engine == "local"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), "anybody there could ask"),
        (("--keys", "nowhere.txt"), "--keys nowhere.txt is no file"),
        (("--adapter", "nothing"), "write NAME=DIR"),
        (("--adapter", "a=b", "--adapter", "a=c"), "given twice"),
        (("stray",), "'stray' is no option of `avqa serve`"),
        (("--", "--tensor-parallel-size", "2"), "options of vLLM need --engine vllm"),
        (("--host", "256.0.0.1"), "--host 256.0.0.1"),
    ],
)
def test_faults_are_one_line_and_the_way_out(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--engine", "local", "--port", "0", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_a_busy_port_is_known_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AVQAError, match="cannot be had.*choose another --port"):
            command.run(parsed("--engine", "local", "--port", str(port)))


def test_a_new_key_fits_the_file_of_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from avqa_llm.serving.guards import Keys
    from avqa_llm.serving.new_key import main as make

    file = tmp_path / "keys.txt"
    assert make([str(file), "anna"]) == 0
    key = capsys.readouterr().out.strip()
    assert file.stat().st_mode & 0o777 == 0o600 and key not in file.read_text()
    assert Keys(file).has(key) and not Keys(file).has(key + "x")
    assert make([]) == 2


def test_replies_do_not_wait_for_acknowledgements() -> None:
    """Without TCP_NODELAY every streamed piece comes 40 ms late."""

    async def flag() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            seen.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with command._bound("127.0.0.1", 0) as listener:
            server = await asyncio.start_server(accepted, sock=listener)
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await asyncio.wait_for(seen, 10)
            writer.close()
            server.close()
        return found

    assert asyncio.run(flag())
