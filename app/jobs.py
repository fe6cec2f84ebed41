"""Runs `python -m eval` beside the page: one small run at a time, watched and stopped."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.runs import RESULTS, EvaluationError, folder_of

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ("bandstand", "bandstand-r", "bandstand-biased", "bandstand-hard")
"""Those that are made here; the others need files of their authors."""
MOST_CLIPS = 40
MOST_QUESTIONS = 2000
ASKING_S = 120.0
"""A report or a comparison may take so long."""
LEAVING_S = 8.0
"""An interrupted run may take so long to write down how far it came."""
LONGEST_LINE = 400
TERMINAL = (24, 100)
"""Lines and columns; a bar needs room to be drawn."""
_BAR = re.compile(r"(\d{1,3})%\|[^|]*\|\s*")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")


@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """What to run. Raises EvaluationError where it is not small or not known."""

    name: str
    benchmark: str = "bandstand"
    model: str = "tiny"
    clips: int = 4
    questions: int = 100

    def __post_init__(self) -> None:
        if self.benchmark not in BENCHMARKS:
            raise EvaluationError(
                f"benchmark {self.benchmark!r} cannot be started here: {', '.join(BENCHMARKS)}"
            )
        for what, count, most in (
            ("clips", self.clips, MOST_CLIPS),
            ("questions", self.questions, MOST_QUESTIONS),
        ):
            if not 1 <= count <= most:
                raise EvaluationError(
                    f"{count} {what}: from 1 to {most} here; use `python -m eval run` for more"
                )

    def arguments(self, runs: Path) -> list[str]:
        """Of `python -m eval`."""
        return [
            *("run", "--benchmark", self.benchmark, "--model", self.model),
            *("--clips", str(self.clips), "--subset", str(self.questions), "--workers", "1"),
            *("--out", str(folder_of(runs, self.name))),
        ]


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run is."""

    name: str
    running: bool
    part: float | None
    """0..1 of what it is doing now; None where it does not say."""
    line: str
    """What it said last."""
    status: int | None
    """Exit status once it is over: 0 done, 130 interrupted."""


class Runner:
    """Starts one run at a time.

    Args:
        runs: the folder of runs.
        models: what may be asked for: presets or model directories.
    """

    def __init__(self, runs: Path, models: Sequence[str] = ("tiny",)) -> None:
        self.runs, self.models = runs.resolve(), tuple(models)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._name, self._line, self._part = "", "", None
        atexit.register(self.stop)

    _part: float | None

    def start(self, wanted: SmallRun) -> None:
        """Start a run; one that was interrupted goes on where it was.

        Raises:
            EvaluationError: another one runs, the model is not offered, or the run is finished.
        """
        if wanted.model not in self.models:
            raise EvaluationError(
                f"model {wanted.model!r} is not offered here: {', '.join(self.models)}"
            )
        if (folder_of(self.runs, wanted.name) / RESULTS).exists():
            raise EvaluationError(f"the run {wanted.name!r} is finished: give another name")
        with self._lock:
            if self._process and self._process.poll() is None:
                raise EvaluationError(f"{self._name!r} still runs: wait for it, or stop it")
            self.runs.mkdir(parents=True, exist_ok=True)
            # A terminal of its own: only there progress is drawn.
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *TERMINAL, 0, 0))
            try:
                self._process = subprocess.Popen(
                    _command(wanted.arguments(self.runs)),
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    start_new_session=True,
                )
            except OSError:
                os.close(ours)
                raise
            finally:
                os.close(theirs)
            self._name, self._line, self._part = wanted.name, "starting", None
            threading.Thread(target=self._listen, args=(ours,), daemon=True).start()

    def state(self) -> State | None:
        """How far the last run is; None before the first one."""
        process = self._process
        if process is None:
            return None
        status = process.poll()
        return State(
            name=self._name,
            running=status is None,
            part=self._part,
            line=self._line,
            status=status,
        )

    def stop(self) -> bool:
        """Interrupt the run, if one runs; it keeps what it has. Returns whether one ran."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        _signal(process, signal.SIGINT)
        try:
            process.wait(LEAVING_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()
        return True

    def _listen(self, terminal: int) -> None:
        """Keep the last line that was said, until the other end closes."""
        rest = ""
        with contextlib.suppress(OSError):  # that is how a closed terminal reads
            while data := os.read(terminal, 4096):
                rest += data.decode("utf-8", "replace")
                *lines, rest = re.split(r"[\r\n]+", rest)
                rest = rest[-LONGEST_LINE:]
                for line in (*lines, rest):  # a bar has no end of line
                    self._say(line)
        os.close(terminal)

    def _say(self, line: str) -> None:
        line = _CONTROL.sub("", line).strip()[:LONGEST_LINE]
        if line:
            bar = _BAR.search(line)
            self._part = min(100, int(bar[1])) / 100 if bar else None
            self._line = _BAR.sub("", line)


def ask(arguments: Sequence[str]) -> str:
    """What `python -m eval` prints.

    Raises:
        EvaluationError: its own sentence, or that it took too long.
    """
    try:
        done = subprocess.run(
            _command(arguments), cwd=ROOT, capture_output=True, text=True, timeout=ASKING_S
        )
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(
            f"`python -m eval {arguments[0]}` took more than {ASKING_S:.0f} s: run it by hand"
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise EvaluationError(said[-1].removeprefix("python -m eval: ")[:LONGEST_LINE])
    return done.stdout


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "eval", *arguments]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
