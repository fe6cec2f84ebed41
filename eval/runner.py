"""Lets an engine answer a question file, clip by clip, and writes down what it said.

A run can be killed at any moment and goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from avqa_llm.answer import Answer
from avqa_llm.errors import MediaError
from avqa_llm.labels import to_label
from avqa_llm.media import Clip
from eval.floors import fit_floor
from eval.report import run_table
from eval.results import commit, summarise, versions
from eval.samples import RESULTS, SAMPLES, RunError, Sample, append, open_run, write_json
from instruct_data.sources.music_avqa import Annotations, Row, read_annotations

ROUNDING = 1e-4  # of a softmax in half precision


class Engine(Protocol):
    """What the runner needs of an engine."""

    def read(self, path: Path) -> Clip:
        """Decode a file the way the model wants it. Raises MediaError."""

    def answer(self, clip: Clip, questions: Sequence[str]) -> list[Answer]:
        """Answer all questions about one clip, each on its own."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run."""

    annotations: Path
    fit: Path
    media: Path
    out: Path
    model: str = "tiny"
    mute: bool = False
    blank: bool = False
    limit: int | None = None
    """Only the first so many questions of the file."""


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval run`."""
    fields = {name: getattr(args, name) for name in Job.__dataclass_fields__}
    print(run_table(evaluate(Job(**fields), load_local)))
    print(f"\nWritten to {args.out / RESULTS} and {args.out / SAMPLES}")


def load_local(model: str) -> Engine:
    """Load a model on this machine."""
    from avqa_llm.engine import LocalEngine

    return LocalEngine.load(model)


def evaluate(job: Job, load: Callable[[str], Engine]) -> dict[str, Any]:
    """Answer what is not answered yet, write `results.json`, and return its content.

    `load` makes the engine, and is called only if there is something left to answer. Raises
    AnnotationError for the question files, RunError for the folders.
    """
    annotations, fitted_on = read_annotations(job.annotations), read_annotations(job.fit)
    if not job.media.is_dir():
        raise RunError(f"{job.media} is not a folder; --media holds VIDEO_ID.mp4 of each clip")
    rows = annotations.rows[: job.limit]
    setting = {
        "annotations_sha256": annotations.sha256,
        "model": job.model,
        "mute": job.mute,
        "blank": job.blank,
    }
    answered = open_run(job.out, setting)
    missing = _answer_rest(job, rows, answered, load)
    scored = [row for row in rows if row.number in answered]
    if not scored:
        first, why = next(iter(missing.items()))
        raise RunError(
            f"none of the {len(missing)} clips could be read from {job.media}; {first}: {why}"
        )
    samples = [answered[row.number] for row in scored]
    results = summarise(samples, scored, fit_floor(fitted_on.rows))
    results["provenance"] = _provenance(job, (annotations, fitted_on), samples, rows, missing)
    write_json(job.out / RESULTS, results)
    return results


def _answer_rest(
    job: Job, rows: Sequence[Row], answered: dict[int, Sample], load: Callable[[str], Engine]
) -> dict[str, str]:
    """Answer the open questions into `answered`; return the clips that could not be, and why."""
    by_video: dict[str, list[Row]] = {}
    for row in rows:
        by_video.setdefault(row.video_id, []).append(row)
    missing: dict[str, str] = {}
    engine: Engine | None = None
    with (job.out / SAMPLES).open("a", encoding="utf-8", newline="\n") as file:
        for video_id, asked in tqdm(by_video.items(), desc="clips", unit="clip", disable=None):
            open_rows = [row for row in asked if row.number not in answered]
            path = job.media / f"{video_id}.mp4"
            if not open_rows:
                continue
            if not path.is_file():
                missing[video_id] = f"there is no {path.name}"
                continue
            engine = engine or load(job.model)
            try:
                samples = _ask(engine, path, open_rows, job)
            except MediaError as error:
                missing[video_id] = str(error)
                continue
            append(file, samples)
            answered |= {sample.row: sample for sample in samples}
    return missing


def _ask(engine: Engine, path: Path, rows: Sequence[Row], job: Job) -> list[Sample]:
    """Ask all open questions about one clip. Raises MediaError if it cannot be read."""
    start = time.perf_counter()
    clip = engine.read(path)
    clip = clip.muted() if job.mute else clip
    clip = clip.blanked() if job.blank else clip
    answers = engine.answer(clip, [row.question for row in rows])
    if len(answers) != len(rows):
        raise RuntimeError(f"{len(answers)} answers to {len(rows)} questions about {path}")
    for answer in answers:
        if (job.mute and answer.consumed.sound) or (job.blank and answer.consumed.picture):
            raise RuntimeError(f"the engine consumed what was taken away from {path}")
        if not -ROUNDING <= answer.probability <= 1 + ROUNDING:
            raise RuntimeError(f"probability {answer.probability} about {path} is outside 0..1")
    seconds = (time.perf_counter() - start) / len(rows)
    return [_sample(row, answer, seconds) for row, answer in zip(rows, answers, strict=True)]


def _sample(row: Row, answer: Answer, seconds: float) -> Sample:
    return Sample(
        row=row.number,
        video_id=row.video_id,
        question_id=row.question_id,
        template=row.template,
        type=row.type,
        question=row.question,
        gold=row.gold,
        answer=answer.answer,
        label=to_label(answer.answer),
        engine_label=answer.label,
        probability=min(max(float(answer.probability), 0.0), 1.0),
        consumed=answer.consumed,
        warnings=answer.warnings,
        seconds=round(seconds, 6),
    )


def _provenance(
    job: Job,
    files: tuple[Annotations, Annotations],
    samples: Sequence[Sample],
    rows: Sequence[Row],
    missing: dict[str, str],
) -> dict[str, Any]:
    annotations, fitted_on = files
    return {
        "annotations": {"file": annotations.path.name, "sha256": annotations.sha256},
        "fit": {"file": fitted_on.path.name, "sha256": fitted_on.sha256},
        "model": job.model,
        "mute": job.mute,
        "blank": job.blank,
        "limit": job.limit,
        "commit": commit(),
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(sum(sample.seconds for sample in samples), 3),
        "clips": len({sample.video_id for sample in samples}),
        "questions": len(samples),
        "missing_clips": missing,
        "missing_questions": len(rows) - len(samples),
    }
