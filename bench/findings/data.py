"""What all runs share: rendered sets, and the features of their clips. Each is made once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avqa_llm.training.assemble import Place
from bench.findings.plan import Run, TestSet, parts_key
from eval.benchmarks.bandstand import TRUTH
from eval.samples import write_json
from instruct_data.bandstand.write import SHARD

HEDGED, PAIRS, SHARE, BETWEEN = "hedged.jsonl", "pairs.jsonl", 0.8, ";"
"""What ADPO is tried on: rows of which this share hedges, and pairs about other clips. Between two
answers stands what the language model writes in its records; it never wrote *or*, and LoRA does
not teach it to (3.6 % after 150 steps)."""


@dataclass(frozen=True, kw_only=True)
class Shared(Place):
    """Sets lie side by side; features in a folder of the encoders that they are of (`work`)."""

    sets: Path

    @property
    def data(self) -> Path:
        """Sets that were made for these runs."""
        return self.sets

    @classmethod
    def of(cls, out: Path, run: Run) -> Shared:
        """Where a run finds them, below the folder of all results."""
        encoders = parts_key(run.recipe, "picture", "sound")
        return cls(sets=out / "data", work=out / "encoded" / encoders)


def test_name(test: TestSet) -> str:
    """The folder of the test set below that of all sets."""
    return f"test-{test.clips}-seed{test.seed}"


def prepare(run: Run, out: Path) -> None:
    """Make what a run needs and is not there. Nothing else may do so at the same time.

    Raises:
        AVQAError: a set could not be written, or another one lies in its place.
    """
    from avqa_llm.training.run import make_set

    shared, test = Shared.of(out, run), run.plan.test
    makers: dict[str, tuple[Any, Callable[[], object]]] = {
        wanted.name: (wanted, partial(make_set, wanted, shared.data)) for wanted in run.recipe.sets
    }
    makers[test_name(test)] = (test, partial(_test, shared, test))
    missing = []
    for name, (wanted, make) in makers.items():
        folder, about = shared.data / name, dataclasses.asdict(wanted)
        if not _is_made(folder, about):
            for old in shared.work.parent.glob(f"*/features/{name}"):
                shutil.rmtree(old)  # of other clips
        if not _has(encoded(shared, name), wanted.clips):
            missing.append(name)
            if not _has(folder, wanted.clips, "arrays"):
                _note(folder).unlink(missing_ok=True)
        _once(folder, about, make)
    stages = (run.recipe.instruct, run.recipe.prefer)
    for path in {Path(stage.rows) for stage in stages if stage}:
        if path.name in (HEDGED, PAIRS):
            folder = shared.data / path.parent
            _once(folder / HEDGED, {"share": SHARE, "word": BETWEEN}, partial(write_hedged, folder))
    if missing:
        _encode(run, shared, missing)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.made")


def _is_made(path: Path, about: dict[str, Any]) -> bool:
    """Whether a note beside `path` says that it was made like this."""
    note = _note(path)
    return note.exists() and json.loads(note.read_text(encoding="utf-8")) == about


def _once(path: Path, about: dict[str, Any], make: Callable[[], object]) -> None:
    if _is_made(path, about):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    make()
    write_json(_note(path), about)


def _test(shared: Shared, wanted: TestSet) -> None:
    from instruct_data.bandstand.write import SetConfig, write_set

    config = SetConfig(
        clips=wanted.clips, seed=wanted.seed, split="test", held_out=True, media="arrays"
    )
    write_set(shared.data / test_name(wanted), config)


def write_hedged(folder: Path) -> None:
    """Of a set: rows of the first half of its clips, which hedge; pairs about the second half."""
    from instruct_data.hedged import hedged_pairs, hedged_rows
    from instruct_data.records import write_lines
    from instruct_data.sources.bandstand import read

    lines = (folder / "instruct.jsonl").read_text(encoding="utf-8").splitlines()
    clips = [json.loads(line) for line in lines[: len(lines) // 2]]
    pairs = list(hedged_pairs(read(folder, ""), seed=0, word=BETWEEN))
    count = sum(len(clip["questions"]) for clip in clips)
    said = defaultdict(list)
    for row in hedged_rows(pairs[:count], share=SHARE, seed=0):
        said[row["video"]].append(row["answer"])
    for clip in clips:
        both = zip(clip["questions"], said[clip["video_id"]], strict=True)
        clip["questions"] = [{**question, "answer": answer} for question, answer in both]
    for name, rows in ((HEDGED, clips), (PAIRS, pairs[count:])):
        write_lines(folder / name, (json.dumps(row).encode() + b"\n" for row in rows))


def clips_of(folder: Path) -> list[str]:
    """Ids of the clips of a set, in the order of its features."""
    return [row["video_id"] for row in json.loads((folder / TRUTH).read_text(encoding="utf-8"))]


# -- features ----------------------------------------------------------------------------------


def encoded(shared: Shared, name: str) -> Path:
    """The folder of a set's features."""
    return shared.work / "features" / name


def _has(folder: Path, clips: int, kind: str = "features") -> bool:
    """Whether all shards of a set are there, rendered or encoded."""
    return len(list(folder.glob(f"{kind}-*.safetensors"))) >= -(-clips // SHARD)


def _encode(run: Run, shared: Shared, names: list[str]) -> None:
    from avqa_llm.devices import prepare_training
    from avqa_llm.training.features import encode_arrays
    from bench.findings.train import fresh

    prepare_training(run.recipe.threads, patches=False)
    model = fresh(run)
    for name in names:
        encode_arrays(shared.data / name, encoded(shared, name), model.picture, model.sound)
