"""The folder of a run: answers are appended chunk by chunk, and a chunk counts when it is whole.

After the lines of a chunk, one line in `chunks.jsonl` says how long the other files are then.
A run that was killed cuts them back to the last such line and goes on from there, so that its
files end up as those of a run that was not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from eval.samples import (
    PROBES,
    SAMPLES,
    SETTING,
    ProbeSample,
    RunError,
    Sample,
    read_json,
    write_json,
)

CHUNKS, CONTROL, LOCK = "chunks.jsonl", "control.jsonl", ".lock"
if sys.platform == "win32":
    fcntl = None  # nothing keeps a second process out there
else:
    import fcntl

FILES = (SAMPLES, PROBES, CONTROL)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """Of how many questions a modality was in the clip, and reached the model."""

    there: int = 0
    consumed: int = 0
    unproven: int = 0
    """Where the engine could not tell."""
    unread: int = 0
    """Where the file has the stream, and reading it gave nothing. Not among `there`."""

    def __add__(self, other: Delivered) -> Delivered:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Delivered(**sums)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A clip that could not be read."""

    why: str
    size: int | None
    """Bytes of the file; None where there is none. Another size is another try."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A chunk that was answered."""

    number: int
    samples: Sequence[Sample] = ()
    probes: Sequence[ProbeSample] = ()
    control: Sequence[Mapping[str, Any]] = ()
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Questions that a probe could not ask: probe, reason, how many."""
    missing: Mapping[str, Missing] = field(default_factory=dict)
    sound: Delivered = Delivered()
    picture: Delivered = Delivered()


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is written down about a chunk that is whole."""

    number: int
    ends: Mapping[str, int]
    """Length of each file after it, in bytes."""
    answered: int
    left_out: Mapping[str, Mapping[str, int]]
    missing: Mapping[str, Missing]
    sound: Delivered
    picture: Delivered

    @classmethod
    def from_line(cls, line: bytes) -> Mark:
        raw = json.loads(line)
        if set(raw["ends"]) != set(FILES):
            raise ValueError(f"it names the files {sorted(raw['ends'])}")
        raw["missing"] = {name: Missing(**one) for name, one in raw["missing"].items()}
        raw["sound"], raw["picture"] = Delivered(**raw["sound"]), Delivered(**raw["picture"])
        return cls(**raw)


class Journal:
    """A run folder that is open for writing, by one process at a time."""

    def __init__(self, out: Path, marks: list[Mark], lock: IO[bytes]) -> None:
        self.out, self.marks, self._lock = out, marks, lock

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @classmethod
    def open(
        cls, out: Path, setting: Mapping[str, Any], *, size: Callable[[str], int | None] | None
    ) -> Journal:
        """Make or reopen a folder, cut back to its last whole chunk.

        Args:
            out: the folder.
            setting: what the answers depend on.
            size: bytes of a clip's file now. A chunk that missed a clip which has changed since
                is taken back, with all after it. None: no chunk is.

        Raises:
            RunError: the folder holds answers of another setting, or of nobody knows what, is in
                use, or cannot be written.
        """
        lock = None
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = _locked(out)
            if (out / SETTING).exists() and _answers(out):
                check_setting(out / SETTING, setting)
            elif _answers(out):
                raise RunError(f"{out} holds a {SAMPLES} of no run: choose another --out")
            write_json(out / SETTING, setting)
            journal = cls(out, kept_marks(out, size), lock)
            journal._cut_back()
        except BaseException as error:
            if lock is not None:
                lock.close()
            if isinstance(error, OSError):
                raise RunError(f"cannot write to {out}: {error.strerror}") from error
            raise
        return journal

    def _cut_back(self) -> None:
        for name in FILES:
            end = self.marks[-1].ends[name] if self.marks else 0
            path = self.out / name
            path.touch()
            if path.stat().st_size < end:
                raise RunError(f"{path} is shorter than {CHUNKS} says: choose another --out")
            os.truncate(path, end)
        _write_aside(self.out / CHUNKS, "".join(_line(mark) for mark in self.marks))

    def add(self, done: Done) -> None:
        """Write a chunk down; only its last line makes it count."""
        lines = {
            SAMPLES: "".join(sample.to_line() for sample in done.samples),
            PROBES: "".join(probe.to_line() for probe in done.probes),
            CONTROL: "".join(json.dumps(row) + "\n" for row in done.control),
        }
        mark = Mark(
            number=done.number,
            ends={},
            answered=len(done.samples),
            left_out=done.left_out,
            missing=done.missing,
            sound=done.sound,
            picture=done.picture,
        )
        self._append(mark, {name: text.encode() for name, text in lines.items()})

    def copy(self, other: Path, mark: Mark, starts: Mapping[str, int]) -> None:
        """Take a chunk over from another folder, where its lines start at `starts`."""
        lines = {}
        for name in FILES:
            with (other / name).open("rb") as file:
                file.seek(starts[name])
                lines[name] = file.read(mark.ends[name] - starts[name])
            wanted = mark.ends[name] - starts[name]
            if len(lines[name]) != wanted or (lines[name] and lines[name][-1:] != b"\n"):
                raise RunError(f"{other / name} is shorter than {CHUNKS} says: copy it again")
        if lines[SAMPLES].count(b"\n") != mark.answered:
            raise RunError(f"{other / SAMPLES} is not what {CHUNKS} says: copy it again")
        self._append(mark, lines)

    def _append(self, mark: Mark, lines: Mapping[str, bytes]) -> None:
        ends = {}
        for name, text in lines.items():
            with (self.out / name).open("ab") as file:
                file.write(text)
                ends[name] = file.tell()
        mark = replace(mark, ends=ends)
        with (self.out / CHUNKS).open("ab") as file:
            file.write(_line(mark).encode())
        self.marks.append(mark)


def kept_marks(out: Path, size: Callable[[str], int | None] | None) -> list[Mark]:
    """The whole chunks of a folder, up to the first that is worth another try (see `open`)."""
    marks: list[Mark] = []
    if not (out / CHUNKS).exists():
        return marks
    for number, line in enumerate((out / CHUNKS).read_bytes().split(b"\n")[:-1], 1):
        try:
            mark = Mark.from_line(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{out / CHUNKS}, line {number} is not ours: {error!r}") from error
        if size and any(size(name) != one.size for name, one in mark.missing.items()):
            break
        marks.append(mark)
    return marks


def read_control(out: Path) -> list[dict[str, Any]]:
    """The rows of the controls of a finished run."""
    path = out / CONTROL
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


def check_setting(known: Path, setting: Mapping[str, Any]) -> None:
    """Raise RunError where a folder holds answers of another setting."""
    before = read_json(known)
    for key in (*setting, *before):
        if before.get(key) != setting.get(key):
            raise RunError(
                f"{known.parent} holds a run with {key} {before.get(key)!r}, and this one has "
                f"{setting.get(key)!r}; choose another --out"
            )


def _answers(out: Path) -> bool:
    return any((out / name).exists() and (out / name).stat().st_size for name in (SAMPLES, CHUNKS))


def _locked(out: Path) -> IO[bytes]:
    """The folder's lock, held until it is closed or the process ends."""
    lock = (out / LOCK).open("ab")
    if fcntl is None:
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise RunError(f"another process is writing to {out}: wait for it") from error
    return lock


def _line(mark: Mark) -> str:
    return json.dumps(asdict(mark)) + "\n"


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
