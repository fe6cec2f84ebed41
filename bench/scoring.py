"""Scoring MUSIC-AVQA-R's 211,572 predictions: all groups, 1,000 clustered resamples.

    python -m bench.scoring [--questions N] [--repeat N]

Questions and predictions are made up, in R's shape: 6,399 clips, about 33 questions a clip in 23
wordings each, head and tail, real and synthetic clips, the 33 templates. The naive way is a fresh
bootstrap for each group, which is what a script without shared resamples does. Memory is the
highest resident set so far, of the whole process, before the naive way starts.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from avqa_llm.answer import Alternative, Consumed
from avqa_llm.labels import COUNT_LABELS, INSTRUMENT_LABELS, NO_ANSWER
from eval.benchmarks.base import Benchmark, Question, QuestionSet
from eval.floors import fit_floor
from eval.groups import GROUPS, Context, masks
from eval.results import summarise
from eval.samples import SAMPLES, Sample, read_samples
from eval.statistics import RESAMPLES, SEED
from instruct_data.sources.music_avqa import TYPES

CLIPS, WORDINGS, QUESTIONS = 6399, 23, 211_572
SYNTHETIC = 0.2
_PREFIXES = ("va", "sa", "vv", "esa", "eva", "evv")
_FAMILIES = (("yes", "no"), COUNT_LABELS[:8], INSTRUMENT_LABELS, ("left", "middle", "right"))
_T = TypeVar("_T")

ALL_GROUPS = Benchmark(
    name="R-shaped",
    title="made up, in the shape of MUSIC-AVQA-R",
    read=lambda path: QuestionSet(benchmark="R-shaped", path=path, sha256={}, questions=()),
    groups=tuple(GROUPS),
    data_sets=(),
    source="bench.scoring",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the predictions, time every step, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.scoring", description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args(argv)
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores, "
        f"{platform.machine()}; {args.questions} questions, median of {args.repeat} with spread"
    )
    questions = make_questions(args.questions, np.random.default_rng(0))
    fit = QuestionSet(
        benchmark="R-shaped",
        path=Path("fit"),
        sha256={},
        questions=tuple(make_questions(9129, np.random.default_rng(1))),
    )
    with tempfile.TemporaryDirectory() as folder:
        samples = through_the_file(questions, Path(folder))
    seen = frozenset(question.video_id for question in questions[::50])
    floor = fit_floor(fit.questions)
    print(f"peak before scoring: {peak_gib():.2f} GiB")
    results, seconds = timed(
        args.repeat,
        lambda: summarise(
            samples, questions, benchmark=ALL_GROUPS, floor=floor, fit=fit, seen=seen
        ),
    )
    print(f"summarise, everything of results.json: {shown(seconds)}; peak {peak_gib():.2f} GiB")
    beside_naive(samples, questions, results, Context(floor=floor, seen=seen), args.repeat)
    return 0


def through_the_file(questions: Sequence[Question], folder: Path) -> list[Sample]:
    """Write the predictions as a run does, and read them back, timing both."""
    start = time.perf_counter()
    with (folder / SAMPLES).open("w", encoding="utf-8", newline="\n") as file:
        for sample in make_samples(questions, np.random.default_rng(2)):
            file.write(sample.to_line())
    size = (folder / SAMPLES).stat().st_size / 2**20
    print(f"making and writing {SAMPLES}: {time.perf_counter() - start:.1f} s, {size:.0f} MiB")
    start = time.perf_counter()
    samples = read_samples(folder)
    print(f"reading it: {time.perf_counter() - start:.1f} s")
    return samples


# -- the naive way ---------------------------------------------------------------------------


def beside_naive(
    samples: Sequence[Sample],
    questions: Sequence[Question],
    results: dict[str, Any],
    context: Context,
    repeat: int,
) -> None:
    """Intervals of all groups in both ways: compare what comes out, then the times."""
    from eval.statistics import estimates

    found, _ = masks(tuple(GROUPS), questions, context)
    types = np.array([question.type for question in questions])
    templates = np.array([question.template for question in questions])
    parts = {"overall": np.ones(len(samples), bool), **found}
    parts |= {name: types == name for name in results["types"]}
    parts |= {name: templates == name for name in results["templates"]}
    correct = np.array([sample.correct for sample in samples], float)
    videos = [sample.video_id for sample in samples]
    ours, our_seconds = timed(repeat, lambda: estimates(correct, videos, list(parts.values())))
    names = np.array(videos)
    theirs, their_seconds = timed(
        1, lambda: [naive(correct[mask], names[mask]) for mask in parts.values()]
    )
    apart = max(abs(one.value - mean) for one, (mean, _, _) in zip(ours, theirs, strict=True))
    shift = max(
        max(abs(one.low - low), abs(one.high - high)) / (high - low)
        for one, (_, low, high) in zip(ours, theirs, strict=True)
    )
    print(
        f"{len(parts)} groups, {RESAMPLES} resamples: accuracies differ by at most {apart:.1e}, "
        f"bounds by at most {shift:.0%} of an interval (other draws)"
    )
    if apart > 1e-9 or shift > 0.25:
        sys.exit("the two ways do not come to the same figures: no times are compared")
    print(
        f"shared resamples: {shown(our_seconds)}; a fresh bootstrap for each group: "
        f"{shown(their_seconds)}; ratio {their_seconds[0] / statistics.median(our_seconds):.1f}"
    )


def naive(correct_Q: np.ndarray, video_Q: np.ndarray) -> tuple[float, float, float]:
    """Mean and interval from resampling the videos of one group, one resample at a time."""
    video_of_Q = np.unique(video_Q, return_inverse=True)[1]
    sum_V = np.bincount(video_of_Q, weights=correct_Q)
    count_V = np.bincount(video_of_Q).astype(float)
    rng, means = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        drawn_V = rng.integers(len(sum_V), size=len(sum_V))
        means.append(sum_V[drawn_V].sum() / count_V[drawn_V].sum())
    low, high = np.percentile(means, (2.5, 97.5))
    return float(correct_Q.mean()), float(low), float(high)


# -- made-up data ----------------------------------------------------------------------------


def make_questions(n: int, rng: np.random.Generator) -> list[Question]:
    """`n` questions, `WORDINGS` in a row about the same thing."""
    clips = [clip_name(at, rng) for at in range(CLIPS)]
    questions: list[Question] = []
    for original in range(-(-n // WORDINGS)):
        at = original if original < CLIPS else int(rng.integers(CLIPS))
        template = int(rng.integers(33))
        labels = _FAMILIES[template % len(_FAMILIES)]
        rank = min(int(rng.geometric(0.5)) - 1, len(labels) - 1)
        for wording in range(min(WORDINGS, n - len(questions))):
            questions.append(
                Question(
                    number=len(questions) + 1,
                    video_id=clips[at],
                    question_id=original,
                    type=TYPES[template % len(TYPES)],
                    question=f"Which answer to question {original} is right, wording {wording}",
                    gold=labels[rank],
                    template=f"template {template}",
                    subset="head" if rank == 0 else "tail",
                    held_out=wording % 3 == 0,
                )
            )
    return questions


def clip_name(at: int, rng: np.random.Generator) -> str:
    prefix = _PREFIXES[at % len(_PREFIXES)] if rng.random() < SYNTHETIC else ""
    return f"{prefix}{at:08d}"


def make_samples(questions: Sequence[Question], rng: np.random.Generator) -> list[Sample]:
    """A prediction for each question, right in about two of three; what is said varies."""
    consumed = Consumed(sound=True, picture=True, sound_tokens=60, picture_tokens=490)
    samples = []
    for question in questions:
        family = next(labels for labels in _FAMILIES if question.gold in labels)
        right, sure = rng.random() < 0.66, round(float(rng.random()), 6)
        label = question.gold if right else family[int(rng.integers(len(family)))]
        silent = rng.random() < 0.01
        samples.append(
            Sample(
                row=question.number,
                video_id=question.video_id,
                question_id=question.question_id,
                template=question.template,
                type=question.type,
                question=question.question,
                gold=question.gold,
                answer="I do not know." if silent else f"The answer is {label}.",
                label=NO_ANSWER if silent else label,
                engine_label=label,
                probability=sure,
                alternatives=(Alternative(label=family[0], probability=round(1 - sure, 6)),),
                consumed=consumed,
                seconds=0.01,
            )
        )
    return samples


# -- measuring -------------------------------------------------------------------------------


def timed(repeat: int, work: Callable[[], _T]) -> tuple[_T, list[float]]:
    """The last result, and the seconds of each repetition."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, seconds


def shown(seconds: Sequence[float]) -> str:
    """Median and spread."""
    median = statistics.median(seconds)
    spread = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
    return f"{median:.2f} s{spread}"


def peak_gib() -> float:
    """The highest resident set of this process so far; Linux counts it in KiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    sys.exit(main())
