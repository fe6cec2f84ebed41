"""What a run is asked to do, and in which pieces it does it.

Clips are handled in chunks: what is encoded, answered and written down together. Chunks depend
on the questions alone, so a run that was stopped, or shared among machines, comes to the same
answers as one that was not.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmarks.base import Question
from eval.control import CLIPS, QUESTIONS
from eval.samples import RunError

CHUNK_CLIPS = 8
CONTROLS = 96
"""So many questions of a run, or up to twice as many, carry its controls; of a small run fewer."""
JOB = "job.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run."""

    benchmark: str
    annotations: Path
    media: Path
    out: Path
    fit: Path | None = None
    """Where the blind floor counts answers."""
    train: Path | None = None
    """What the model was trained on, for the overlap."""
    parent: Path | None = None
    """The v1 test file that lends R and Fortis their templates."""
    model: str = "tiny"
    weights: str = ""
    """What tells the model's weights from others under the same name."""
    server: Mapping[str, Any] = field(default_factory=dict)
    """How a model behind a server is asked, as far as answers depend on it."""
    mode: str = "rank"
    """`rank`: the closed answers by likelihood; `generate`: free text, then the scorer."""
    probes: tuple[str, ...] = ()
    mute: bool = False
    blank: bool = False
    limit: int | None = None
    """Only the first so many questions of the file."""
    subset: int | None = None
    """Only so many, drawn so that each type keeps its share."""
    shard: tuple[int, int] = (1, 1)
    """Which part of how many: every so-manieth chunk."""
    made_clips: int | None = None
    """Of how many clips a Bandstand set was made for this run; None: its files were named."""
    evidence: bool = True
    """Whether the answers' evidence is written down, for the report."""

    def command(self) -> str:
        """The command line of the run, but for how fast it goes."""
        parts = ["python -m eval run", "--benchmark", self.benchmark]
        parts += ["--model", shlex.quote(self.model)]
        parts += ["--clips", str(self.made_clips)] if self.made_clips else []
        named: tuple[str, ...] = ("train", "parent")
        named = named if self.made_clips else ("annotations", "media", "fit", *named)
        options = {name: getattr(self, name) for name in named} | dict(self.server)
        for name, value in options.items():
            if value is not None:
                parts += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
        parts += ["--mode", self.mode]
        parts += ["--probes", _listed(self.probes)] if self.probes else []
        for name in ("limit", "subset"):
            parts += [f"--{name}", str(number)] if (number := getattr(self, name)) else []
        parts += ["--shard", "/".join(map(str, self.shard))] if self.shard[1] > 1 else []
        parts += [f"--{name}" for name in ("mute", "blank") if getattr(self, name)]
        parts += [] if self.evidence else ["--no-evidence"]
        return " ".join([*parts, "--out", "RUN"])

    def about(self) -> dict[str, Any]:
        """What provenance says of it."""
        names = ("benchmark", "model", "mode", "limit", "subset", "mute", "blank")
        return {
            **{name: getattr(self, name) for name in names},
            "weights": self.weights or None,
            "engine": "openai" if self.server else "local",
            "server": dict(self.server),
            "probes": list(self.probes),
            "shard": list(self.shard),
            "media": str(self.media.resolve()),
            "command": self.command(),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain types; paths become whole."""
        return {
            name: str(value.resolve()) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Job:
        """Raises TypeError or KeyError where it is none of ours."""
        paths = {
            name: None if raw[name] is None else Path(raw[name])
            for name in ("annotations", "media", "out", "fit", "train", "parent")
        }
        return cls(**(raw | paths | {"probes": tuple(raw["probes"]), "shard": tuple(raw["shard"])}))


def _listed(probes: tuple[str, ...]) -> str:
    from eval.probes import PROBES

    return "all" if set(probes) == set(PROBES) else ",".join(probes)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A clip as it is shown: its picture, and the sound that is heard with it."""

    video_id: str
    sound_of: str | None
    questions: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Clips that are handled together."""

    number: int
    units: tuple[Unit, ...]
    control: bool
    """Whether the controls of the run are asked about its clips."""

    @property
    def size(self) -> int:
        """Questions in it."""
        return sum(len(unit.questions) for unit in self.units)


def select(questions: Sequence[Question], job: Job) -> list[Question]:
    """The questions of a job, in the order of the file."""
    chosen = list(questions[: job.limit])
    if job.subset is None or job.subset >= len(chosen):
        return chosen
    return _stratified(chosen, job.subset)


def _stratified(questions: Sequence[Question], wanted: int) -> list[Question]:
    """`wanted` questions, each type by its share (largest remainder), the same ones every time."""
    by_type: defaultdict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_type[question.type].append(question)
    exact = {name: wanted * len(rows) / len(questions) for name, rows in by_type.items()}
    quota = {name: int(share) for name, share in exact.items()}
    short = wanted - sum(quota.values())
    for name in sorted(exact, key=lambda name: (quota[name] - exact[name], name))[:short]:
        quota[name] += 1
    kept = {
        question.number
        for name, rows in by_type.items()
        for question in sorted(rows, key=_lot)[: quota[name]]
    }
    return [question for question in questions if question.number in kept]


def _lot(question: Question) -> bytes:
    return hashlib.sha256(f"{question.number} {question.video_id}".encode()).digest()


def plan(questions: Sequence[Question], shard: tuple[int, int] = (1, 1)) -> list[Chunk]:
    """Chunks of about `CHUNK_CLIPS` clips, of even size, in the order in which clips first appear.

    With a shard (i, n) only chunks i, i + n, ...; they are the chunks of the whole run.

    Raises:
        RunError: there are fewer chunks than shards.
    """
    by_unit: dict[tuple[str, str | None], list[Question]] = {}
    for question in questions:
        by_unit.setdefault((question.video_id, question.sound_of), []).append(question)
    units = [
        Unit(video_id=video, sound_of=sound, questions=tuple(rows))
        for (video, sound), rows in by_unit.items()
    ]
    n = -(-len(units) // CHUNK_CLIPS)
    cuts = [len(units) * k // n for k in range(n + 1)]
    every = max(1, n * CLIPS * QUESTIONS // CONTROLS)
    chunks = [
        Chunk(number=k, units=tuple(units[cuts[k] : cuts[k + 1]]), control=k % every == 0)
        for k in range(n)
    ]
    which, of = shard
    if of > n:
        raise RunError(f"{len(units)} clips make {n} pieces, fewer than {of} shards: use fewer")
    return chunks[which - 1 :: of]
