"""`python -m eval run` beside the loop of the released scripts.

    python -m bench.evaluation [--clips 100] [--questions 33] [--seconds 60] [--loop 60]

Clips are as long as those of MUSIC-AVQA, a minute; `--seconds 10` is what the embedded model was
trained on, and what there is to save is less.

The loop is what the published evaluation scripts of the field do: for each question the clip is
decoded, encoded and given to `generate()` of transformers anew, one question at a time, on all
cores. A second loop does the same with our own engine, one question at a time: what is left of
the ratio then is what batches, one reading a clip and several processes bring. Both are timed on
some questions, spread evenly over the clips, half before and half after ours; the whole run is
timed from its start to `results.json`, controls, evidence and the loading of the model included,
with nothing cached. All answer with the same weights in float32, and their answers are compared
before the times are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.labels import to_label
from avqa_llm.prompt import CLUE, PICTURE, SOUND, spoken
from eval.benchmarks.bandstand import prepare
from eval.engines.load import EngineSpec
from eval.job import Job
from eval.media import find_media
from eval.runner import evaluate
from eval.samples import read_samples

if TYPE_CHECKING:
    from torch import Tensor

    from avqa_llm.engine import LocalEngine

SEED, FPS = 71, 5.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--questions", type=int, default=33, help="about each clip")
    parser.add_argument("--seconds", type=float, default=60, help="length of a clip (60)")
    parser.add_argument("--loop", type=int, default=60, help="questions that loops are timed on")
    args = parser.parse_args()
    made = prepare("bandstand-r", clips=args.clips, seed=SEED, seconds=args.seconds, fps=FPS)
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder)
        rows = some_of_each(made.annotations, asked, args.questions)
        timed = [rows[k * len(rows) // args.loop] for k in range(args.loop)]
        media = find_media(made.media)
        half = len(timed) // 2
        before = loops(timed[:half], media)
        started = time.perf_counter()
        out = asked / "run"
        job = Job(benchmark="bandstand-r", annotations=asked, media=made.media, out=out)
        evaluate(job, EngineSpec(model="tiny").load, workers=os.cpu_count() or 1)
        ours = (time.perf_counter() - started) / len(rows)
        after = loops(timed[half:], media)
        answers = {(s.video_id, s.question): s.label for s in read_samples(out)}
    print(
        f"{len(rows)} questions about {args.clips} clips of {args.seconds:g} s, "
        f"{os.cpu_count()} cores"
    )
    print(f"eval run: {ours:.4f} s a question over the whole run")
    expected = [answers[row["video_id"], row["question_content"]] for row in timed]
    for name in LOOPS:
        seconds = before[name].seconds + after[name].seconds
        labels = before[name].labels + after[name].labels
        same = sum(one == other for one, other in zip(labels, expected, strict=True))
        each = statistics.median(seconds)
        print(
            f"{name}: median {each:.4f} s a question ({min(seconds):.4f} to {max(seconds):.4f}, "
            f"n = {len(seconds)}), same answers as eval run {same} of {len(timed)}"
        )
        print(f"    ratio: {each / ours:.1f}")


def some_of_each(made: Path, folder: Path, n: int) -> list[dict[str, Any]]:
    """Write a set with the first `n` rows of each clip, in the shape of MUSIC-AVQA-R."""
    rows: list[dict[str, Any]] = []
    taken: Counter[str] = Counter()
    for row in json.loads((made / "avqa-test-headtail.json").read_text()):
        taken[row["video_id"]] += 1
        rows += [row] if taken[row["video_id"]] <= n else []
    kept = {json.dumps(row) for row in rows}
    for part in ("head", "tail", "headtail"):
        name = f"avqa-test-{part}.json"
        some = [row for row in json.loads((made / name).read_text()) if json.dumps(row) in kept]
        (folder / name).write_text(json.dumps(some))
    for name in ("truth.json", "avqa.json"):
        shutil.copy(made / name, folder)
    return rows


@dataclass
class Timed:
    """What a loop said, and how long each question took."""

    seconds: list[float]
    labels: list[str]


def loops(rows: list[dict[str, Any]], media: dict[str, Path]) -> dict[str, Timed]:
    """Answer each row from its file with nothing kept, by each loop in turn."""
    from avqa_llm.devices import prepare_cpu
    from avqa_llm.engine import LocalEngine

    prepare_cpu(os.cpu_count())
    engine = LocalEngine.load("tiny")
    found = {name: Timed([], []) for name in LOOPS}
    for row in rows:
        for name, answer in LOOPS.items():
            started = time.perf_counter()
            label = answer(engine, media[row["video_id"]], row["question_content"])
            found[name].seconds.append(time.perf_counter() - started)
            found[name].labels.append(label)
    return found


def with_generate(engine: LocalEngine, path: Path, question: str) -> str:
    """As a script on transformers does it: the record, then the answer, both by `generate()`."""
    import torch

    model, prompt = engine.model, engine.model.prompt
    embed = model.llm.get_input_embeddings()
    with torch.no_grad():
        keys = model.keys([model.encode(engine.read(path))])
        soft, exists, _ = model.clues(keys, [prompt.events])
        n_sound, n_picture = int(keys.sound_there_BQ.sum()), int(keys.picture_there_BQ.sum())
        ids = torch.tensor([prompt.clip(n_sound, n_picture, int(exists.sum()))])
        clip = model.place(
            ids,
            {
                SOUND: (keys.sound_BQE, keys.sound_there_BQ),
                PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
                CLUE: (soft, exists),
            },
        )
        record = _generated(engine, clip, limit=120)
        soft, exists, _ = model.clues(keys, [prompt.text(spoken(question))])
        ids = torch.tensor([prompt.question(question, int(exists.sum()))])
        asked = model.place(ids, {CLUE: (soft, exists)})
        whole = torch.cat([clip, embed(record[None]), asked], dim=1)
        said = prompt.tokenizer.decode(_generated(engine, whole, limit=64)).strip()
    return to_label(said.rsplit(" : ", 1)[-1].lstrip(": "))


def _generated(engine: LocalEngine, embeds: Tensor, *, limit: int) -> Tensor:
    import torch

    done = engine.model.llm.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=engine.model.prompt.eos,
        pad_token_id=engine.model.prompt.tokenizer.pad_token_id,
    )
    return done[0]


def one_by_one(engine: LocalEngine, path: Path, question: str) -> str:
    """With our engine, but each question on its own from the file."""
    import torch

    with torch.no_grad():
        tokens = engine.model.encode(engine.read(path))
    (answer,) = engine.ask(engine.digest([tokens]), [(0, question)])
    return answer.label


LOOPS: dict[str, Callable[[LocalEngine, Path, str], str]] = {
    "loop with generate()": with_generate,
    "loop with our engine": one_by_one,
}


if __name__ == "__main__":
    main()
