"""Mined preference pairs: a model's own wrong answers against the right ones.

What a model would really say is the best rejected answer for it (on-policy negatives). Each
question of a set is asked about its clip; a wrong answer, and wrong runners-up that the model
thinks likely, become the rejected side of a pair.

Pairs are appended as they are found. `OUT.state.json` says how far the work is, and which
bytes of OUT are whole: a run that was killed takes off the rest and goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from avqa_llm.errors import MediaError
from avqa_llm.labels import LABELS
from instruct_data.exports.media import media_path, unsayable
from instruct_data.known_answers import Answers, NoPair, plain
from instruct_data.pairs import Pair, dump_pair
from instruct_data.preference import Asked, PreferenceError, clear, differs
from instruct_data.records import Clip, Record, read_records
from instruct_data.sentences import spoken

if TYPE_CHECKING:
    from avqa_llm.answer import Answer
    from avqa_llm.media import Clip as Media

EMPTY = Answers()  # what other clips' answers are does not matter here


class Engine(Protocol):
    """What mining needs of an engine."""

    def read(self, path: Path) -> Media:
        """Decode a file the way the model wants it. Raises MediaError."""

    def answer(self, clip: Media, questions: Sequence[str]) -> list[Answer]:
        """Answer all questions about one clip, each on its own."""


@dataclass(frozen=True, kw_only=True)
class MineConfig:
    """What to mine."""

    records: Path
    media: Path
    """Folder with VIDEO.mp4 of each clip."""
    out: Path
    model: str = "tiny"
    """A preset or a model directory."""
    samples: int = 1
    """Most rejected answers of one question."""
    threshold: float = 0.1
    """Least probability (0..1) that the model gives a wrong runner-up."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise PreferenceError(f"--samples {self.samples}: at least one answer a question")
        if not 0 <= self.threshold <= 1:
            raise PreferenceError(f"--threshold {self.threshold:g}: a probability from 0 to 1")
        if not self.media.is_dir():
            raise PreferenceError(f"--media {self.media} is no folder; it holds VIDEO.mp4 files")


@dataclass(kw_only=True)
class State:
    """How far a run is."""

    setting: dict[str, Any]
    clips: int = 0
    """Clips (runs of records about the same clip) that are done."""
    size: int = 0
    """Bytes of OUT that belong to them."""
    counts: Counter[str]
    """What became of the turns, in words."""


def mine(config: MineConfig, load: Callable[[str], Engine]) -> Counter[str]:
    """Mine what is left to mine, and return what became of all turns.

    `load` makes the engine, and is called only if there is a question to ask.

    Raises:
        PreferenceError: OUT belongs to another run, or no clip could be read at all.
        AnnotationError: a line of the records is none.
    """
    state = _continued(config)
    engine: Engine | None = None
    with config.out.open("ab") as file:
        for clip, records in itertools.islice(_by_clip(config), state.clips, None):
            asked = list(_askable(records, state.counts))
            if asked and (path := _path(clip, config.media, len(asked), state.counts)):
                engine = engine or load(config.model)
                for pair in _ask(engine, path, asked, config, state.counts):
                    file.write(dump_pair(pair))
            file.flush()
            state.clips, state.size = state.clips + 1, file.tell()
            _write_state(config.out, state)
    if state.counts["asked"] == 0:
        why = "; ".join(f"{n} {what}" for what, n in state.counts.items() if n)
        raise PreferenceError(f"no question of {config.records} could be asked: {why or 'empty'}")
    return state.counts


def _by_clip(config: MineConfig) -> Iterator[tuple[Clip, list[Record]]]:
    """Neighbouring records about the same clip, which is read once for all of them."""
    from tqdm import tqdm

    records = tqdm(read_records(config.records), desc="records", disable=None)
    for clip, group in itertools.groupby(records, key=lambda record: record.clip):
        yield clip, list(group)


def _askable(records: Sequence[Record], counts: Counter[str]) -> Iterator[Asked]:
    """Turns whose answer can be judged, each by itself."""
    for record in records:
        for number, turn in enumerate(record.turns):
            if turn.label not in LABELS:
                counts["have no label to judge an answer by"] += 1
            elif number and turn.template is None:
                counts["follow up on an earlier question"] += 1
            else:
                yield Asked(record=record, number=number, answers=EMPTY)


def _path(clip: Clip, media: Path, turns: int, counts: Counter[str]) -> Path | None:
    if why := unsayable(clip):
        counts[f"are about a clip that is {why}"] += turns
        return None
    path = Path(media_path(clip, media))
    if not path.is_file():
        counts["have no file"] += turns
        return None
    return path


def _ask(
    engine: Engine, path: Path, asked: list[Asked], config: MineConfig, counts: Counter[str]
) -> Iterator[Pair]:
    """Ask all questions about one clip; wrong answers become pairs."""
    wanted = asked[0].record.clip
    try:
        clip = engine.read(path)
    except MediaError:
        counts["have a file that cannot be read"] += len(asked)
        return
    clip = clip if wanted.sound else clip.muted()
    clip = clip if wanted.picture else clip.blanked()
    answers = engine.answer(clip, [each.turn.question for each in asked])
    for each, answer in zip(asked, answers, strict=True):
        used = answer.consumed
        if used is None or wanted.sound > used.sound or wanted.picture > used.picture:
            counts["did not reach the model with sound and picture"] += 1
            continue
        counts["asked"] += 1
        counts["answered right"] += answer.label == each.turn.label
        pairs = list(_pairs(each, answer, config))
        counts["gave pairs"] += bool(pairs)
        counts["pairs"] += len(pairs)
        yield from pairs


def _pairs(asked: Asked, answer: Answer, config: MineConfig) -> Iterator[Pair]:
    """The model's wrong answers, likeliest first. The question was asked without its history."""
    said = [(answer.answer, answer.label, answer.probability)]
    said += [
        (spoken(other.label), other.label, other.probability)
        for other in answer.alternatives
        if other.probability >= config.threshold
    ]
    bare = plain(answer.answer) == plain(answer.label)
    chosen = _chosen(asked, bare=bare)
    made = 0
    for text, label, probability in said:
        if chosen is None or made == config.samples:
            return
        if label == asked.turn.label or not differs(asked.turn, chosen, text):
            continue
        made += 1
        note = f"{config.model} says so"
        note += "" if probability is None else f" with probability {probability:.2f}"
        yield asked.of(chosen, text, "mined", note, alone=True)


def _chosen(asked: Asked, *, bare: bool) -> str | None:
    """The right answer in the manner of the model: a label's words where it says such."""
    if bare:
        return spoken(asked.turn.label or "")
    rng = np.random.default_rng(zlib.crc32(f"{asked.record.id}/{asked.number}".encode()))
    try:
        return clear(asked.turn, rng)
    except NoPair:
        return None


# -- going on ------------------------------------------------------------------------------------


def _state_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.state.json")


def _continued(config: MineConfig) -> State:
    """The state to go on from; what was written after it is taken off the file."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    setting = {
        "records_sha256": _sha256(config.records),
        "model": config.model,
        "samples": config.samples,
        "threshold": config.threshold,
    }
    known = _state_path(config.out)
    if not known.exists():
        if config.out.exists() and config.out.stat().st_size:
            raise PreferenceError(f"{config.out} holds something else; choose another --out")
        return State(setting=setting, counts=Counter())
    state = _read_state(known)
    for key, value in setting.items():
        if state.setting.get(key) != value:
            before = state.setting.get(key)
            raise PreferenceError(
                f"{config.out} was mined with {key} {before!r}, and this run has {value!r}; "
                "choose another --out"
            )
    if not config.out.exists() or config.out.stat().st_size < state.size:
        raise PreferenceError(
            f"{config.out} has lost pairs since it was mined; remove {known} and start again"
        )
    os.truncate(config.out, state.size)
    return state


def _read_state(path: Path) -> State:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return State(**{**content, "counts": Counter(content["counts"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PreferenceError(
            f"{path} does not say how far the run is; remove it and its file of pairs"
        ) from error


def _write_state(out: Path, state: State) -> None:
    path = _state_path(out)
    writing = path.with_name(f"{path.name}.writing")
    content = {**vars(state), "counts": dict(state.counts)}
    writing.write_text(json.dumps(content), encoding="utf-8")
    os.replace(writing, path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise PreferenceError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


# -- the command ---------------------------------------------------------------------------------


def load_local(model: str) -> Engine:
    """Load a model on this machine."""
    from avqa_llm.engine import LocalEngine

    return LocalEngine.load(model)


def run_mine(args: argparse.Namespace) -> int:
    """`mine RECORDS --media DIR --model MODEL --out PAIRS`."""
    names = ("records", "media", "out", "model", "samples", "threshold")
    counts = mine(MineConfig(**{name: getattr(args, name) for name in names}), load_local)
    print(
        f"{counts['asked']} questions asked, {counts['answered right']} answered right; "
        f"{counts['pairs']} pairs of {counts['gave pairs']} questions in {args.out}"
    )
    shown = ("asked", "answered right", "pairs", "gave pairs")
    for what, count in counts.items():
        if count and what not in shown:
            print(f"  {count} questions {what}")
    return 0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `mine`."""
    parser = commands.add_parser("mine", help="make preference pairs of a model's wrong answers")
    parser.add_argument("records", type=Path, metavar="RECORDS.jsonl")
    parser.add_argument("--media", type=Path, required=True, help="folder with VIDEO.mp4 files")
    parser.add_argument("--model", default="tiny", help="preset or model directory (tiny)")
    parser.add_argument("--out", type=Path, required=True, metavar="PAIRS.jsonl")
    parser.add_argument(
        "--samples", type=int, default=1, help="most rejected answers of one question (1)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.1, help="least probability of a runner-up (0.1)"
    )
    parser.set_defaults(run=run_mine)
