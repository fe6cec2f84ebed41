"""A vLLM server of our own: started, warmed up, watched, started again when it dies, stopped.

It listens on the loopback and answers only those who know its key, which is made anew for each
server and travels in the environment. A thread of ours starts it and stays: the server is told
to end when that thread ends, so it does not outlive this process even if that is killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch

from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.folders import user_cache
from avqa_llm.serving.contract import RetryableError
from avqa_llm.serving.vllm_client import VLLMClient, Wish
from avqa_llm.serving.vllm_command import VLLMSettings, command, environment, hidden_size
from avqa_llm.serving.vllm_env import check, find_python

__all__ = ["VLLMProcess", "VLLMSettings"]

LOOKS_EVERY_S, SILENT_S = 5.0, 120.0
"""How often its health is asked for, and how long it may say nothing before it is killed."""
PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Before it is started again: after the first death, the second in a row, and so on."""
STEADY_S = 120.0
"""A server that ran so long did not die in a row with the one before."""
ENDS_WITHIN_S = 30.0
LOG_LINES, LOG_BYTES = 25, 64 << 20
"""Lines of the log that an error shows; bytes from which a log begins anew."""


class VLLMProcess:
    """Runs a server. All methods may be called from any thread."""

    def __init__(self, settings: VLLMSettings) -> None:
        """Choose port, key and environment; nothing is started yet.

        Raises:
            AVQAError: there is no environment that can serve; says the command that mends it.
        """
        env = check(find_python(settings.python))
        if env.problems or env.python is None:
            raise AVQAError("vLLM cannot be started: " + "; ".join(env.problems))
        self.settings, self.env = settings, env
        self.port = settings.port or _free_port()
        self.log = settings.log or user_cache() / f"vllm-{self.port}.log"
        self.state, self.why, self.restarts = "stopped", "it was not started", 0
        self._key = os.environ.get("AVQA_VLLM_KEY") or secrets.token_urlsafe(32)
        self._adapters = dict(settings.adapters)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopping, self._settled = threading.Event(), threading.Event()
        self._adapting = threading.Lock()
        self.client = VLLMClient(
            f"http://127.0.0.1:{self.port}", key=self._key, one_adapter=env.cpu
        )

    @property
    def adapters(self) -> dict[str, Path]:
        """Names and folders of what is served beside the base."""
        return dict(self._adapters)

    @property
    def pid(self) -> int | None:
        """Of the server's first process."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server, and wait until it answers and is warm.

        Raises:
            AVQAError: it died or did not answer in time; with the end of its log.
        """
        if self._thread is not None:
            raise AVQAError("this vLLM was started before; make another VLLMProcess")
        self._thread = threading.Thread(target=self._keep, name="vllm-keeper", daemon=True)
        self._thread.start()
        self._settled.wait()
        if self.state != "ok":
            self.stop()
            raise AVQAError(f"vLLM did not start: {self.why}")

    def stop(self) -> None:
        """End the server with all its processes. Does no harm twice."""
        self._stopping.set()
        if (process := self._process) is not None:  # whoever waits for its answer is freed
            _signal(process, signal.SIGTERM)
        if self._thread is not None:
            self._thread.join(timeout=ENDS_WITHIN_S + 10)
        self.client.close()
        if self.state != "failed":
            self.state, self.why = "stopped", "it was stopped"

    # -- adapters ------------------------------------------------------------------------------

    def add_adapter(self, name: str, folder: Path) -> None:
        """Serve another LoRA adapter from now on, after restarts too.

        Raises:
            CheckpointError: vLLM refuses it, with its reason; or the name is taken.
            RetryableError: the server is away.
        """
        with self._adapting:
            if name in self._adapters or name == self.settings.base_name:
                raise CheckpointError(f"vLLM serves a model named {name!r} already")
            try:
                self.client.load_adapter(name, folder.resolve())
            except RetryableError:
                raise
            except AVQAError as error:
                raise CheckpointError(f"vLLM does not take {folder} as adapter: {error}") from error
            self._adapters[name] = folder

    def remove_adapter(self, name: str) -> None:
        """Serve an adapter no longer. Raises AVQAError where there is none of that name."""
        with self._adapting:
            if name not in self._adapters:
                raise AVQAError(f"vLLM serves no adapter named {name!r}")
            self.client.unload_adapter(name)
            del self._adapters[name]

    # -- the keeper's thread ----------------------------------------------------------------------

    def _keep(self) -> None:
        deaths = 0
        try:
            while not self._stopping.wait(PAUSES_S[min(deaths, len(PAUSES_S) - 1)]):
                self.state, self.why = ("restarting" if deaths else "starting"), "it is starting"
                since = time.monotonic()
                if self._run():
                    self.state, self.why = "ok", ""
                    self._settled.set()
                    self._watch()
                if self._stopping.is_set():
                    break
                if not self._settled.is_set():  # it never ran: trying again would not help
                    self.state = "failed"
                    break
                self.state, self.restarts = "restarting", self.restarts + 1
                self._end()
                deaths = 1 if time.monotonic() - since > STEADY_S else deaths + 1
        except Exception as error:
            self.state, self.why = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            self._end()
            self._settled.set()

    def _run(self) -> bool:
        """Start it, and wait until it is warm. False: it died, was silent, or has to end."""
        settings = replace(self.settings, adapters=dict(self._adapters))
        try:
            line = command(settings, python=_of(self.env.python), port=self.port, cpu=self.env.cpu)
        except AVQAError as error:
            self.why = str(error)
            return False
        with self._open_log() as log:
            self._process = process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(settings, key=self._key, cpu=self.env.cpu),
                start_new_session=True,
            )
        end = time.monotonic() + self.settings.starts_within_s
        while time.monotonic() < end and not self._stopping.wait(0.5):
            if process.poll() is not None:
                self.why = f"it ended with status {process.returncode}.{self._tail()}"
                return False
            if self.client.healthy(timeout_s=5):
                return self._warm(process, end)
        self.why = f"no answer within {self.settings.starts_within_s:.0f} s.{self._tail()}"
        return False

    def _warm(self, process: subprocess.Popen[bytes], end: float) -> bool:
        """Ask everything once: the first request of a kind may compile for minutes."""
        if self.settings.native:
            return True
        while True:
            try:
                self._ask_all()
                return True
            except AVQAError as error:
                over = process.poll() is not None or time.monotonic() > end
                if not isinstance(error, RetryableError) or over or self._stopping.wait(1):
                    self.why = f"{error}.{self._tail()}"
                    return False

    def _ask_all(self) -> None:
        width = hidden_size(self.settings.base)
        self.client.models()
        for name in (self.settings.base_name, *self._adapters):
            for more in ({"top": 1}, {"wanted": (1, 2)}):
                zeros = torch.zeros(20, width)
                self.client.complete(Wish(model=name, embeds_LE=zeros, most=2, **more))

    def _watch(self) -> None:
        """Return when it has died, has been silent for long, or has to end."""
        heard = looked = time.monotonic()
        process = self._process
        while process is not None and not self._stopping.wait(0.2):
            if process.poll() is not None:
                self.why = f"it ended with status {process.returncode}; it is started again"
                return
            now = time.monotonic()
            if now - looked < LOOKS_EVERY_S:
                continue
            if self.client.healthy(timeout_s=LOOKS_EVERY_S):
                heard = time.monotonic()
            elif now - heard > SILENT_S:
                self.why = f"it said nothing for {SILENT_S:.0f} s; it is started again"
                return
            looked = time.monotonic()

    def _end(self) -> None:
        """End all that is left of it: workers may outlive the first process."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)
        _signal(process, signal.SIGKILL)
        process.wait()

    # -- its log --------------------------------------------------------------------------------

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        anew = self.restarts == 0 or self.log.stat().st_size > LOG_BYTES
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND)
        return os.fdopen(os.open(self.log, flags, 0o600), "wb")

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return f" (its log {self.log} cannot be read)"
        return f" The end of {self.log}:\n" + "\n".join(line[:300] for line in lines)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To its whole group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _of(python: Path | None) -> Path:
    assert python is not None, "checked when this was made"
    return python


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
