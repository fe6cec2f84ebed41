"""`python -m eval run` beside the loop of the released scripts.

    python -m bench.evaluation [--clips 100] [--questions 33] [--loop 100]

The loop is what the published evaluation scripts of the field do: for each question the clip is
decoded, encoded and read anew, and one question is answered at a time, on all cores. It is timed
on some questions, one of each clip in turn, before and after ours; the whole run is timed from
its start to `results.json`, controls, evidence and the loading of the model included, nothing
cached before. Both answer with the same weights in the same precision, and their answers are
compared before the times are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from eval.benchmarks import read_benchmark
from eval.benchmarks.bandstand import prepare
from eval.engines.load import EngineSpec
from eval.job import Job
from eval.runner import evaluate, find_media
from eval.samples import read_samples

SEED = 71


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--questions", type=int, default=33, help="about each clip")
    parser.add_argument("--loop", type=int, default=100, help="questions that the loop is timed on")
    args = parser.parse_args()
    made = prepare("bandstand-r", clips=args.clips, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        rows = some_of_each(made.annotations, args.questions)
        asked = Path(folder) / "avqa-test-head.json"
        asked.write_text(json.dumps(rows))
        timed = [rows[k * len(rows) // args.loop] for k in range(args.loop)]
        media = find_media(made.media)
        half = len(timed) // 2
        seconds, labels = loop(timed[:half], media)
        started = time.perf_counter()
        out = Path(folder) / "run"
        job = Job(benchmark="music-avqa-r", annotations=asked, media=made.media, out=out)
        evaluate(job, EngineSpec(model="tiny").load, workers=os.cpu_count() or 1)
        ours = (time.perf_counter() - started) / len(rows)
        more, rest = loop(timed[half:], media)
        answers = {(s.video_id, s.question): s.label for s in read_samples(out)}
    seconds += more
    told = zip(timed, labels + rest, strict=True)
    same = sum(answers[row["video_id"], row["question_content"]] == label for row, label in told)
    each = statistics.median(seconds)
    print(f"{len(rows)} questions about {args.clips} clips, {os.cpu_count()} cores")
    print(f"same answers: {same} of {len(timed)}")
    print(
        f"loop: median {each:.4f} s a question ({min(seconds):.4f} to {max(seconds):.4f}, "
        f"n = {len(seconds)})"
    )
    print(f"eval run: {ours:.4f} s a question over the whole run")
    print(f"ratio: {each / ours:.1f}")


def some_of_each(annotations: Path, n: int) -> list[dict[str, Any]]:
    """The first `n` rows of each clip, as files of MUSIC-AVQA-R have them."""
    taken: dict[str, int] = {}
    rows = []
    for question in read_benchmark("bandstand-r", annotations).questions:
        at = taken.setdefault(question.video_id, 0)
        if at < n:
            taken[question.video_id] += 1
            rows.append(
                {
                    "video_id": question.video_id,
                    "question_id": question.number,
                    "type": json.dumps(question.type.rsplit(" ", 1)),
                    "question_content": question.question,
                    "anser": question.gold,
                }
            )
    return rows


def loop(rows: list[dict[str, Any]], media: dict[str, Path]) -> tuple[list[float], list[str]]:
    """Answer each row from its file, with nothing kept; seconds and labels."""
    import torch

    from avqa_llm.devices import prepare_cpu
    from avqa_llm.engine import LocalEngine

    prepare_cpu(os.cpu_count())
    engine = LocalEngine.load("tiny")
    seconds, labels = [], []
    for row in rows:
        started = time.perf_counter()
        with torch.no_grad():
            tokens = engine.model.encode(engine.read(media[row["video_id"]]))
        (answer,) = engine.ask(engine.digest([tokens]), [(0, row["question_content"])])
        seconds.append(time.perf_counter() - started)
        labels.append(answer.label)
    return seconds, labels


if __name__ == "__main__":
    main()
