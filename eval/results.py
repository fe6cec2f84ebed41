"""From answers to `results.json`: accuracies with intervals, floor, calibration, provenance."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from avqa_llm.labels import NO_ANSWER
from eval.floors import Floor, score_floor
from eval.samples import Sample
from eval.statistics import Estimate, accuracy, calibration_error
from instruct_data.sources.music_avqa import TYPES, Row

PACKAGES = ("avqa-llm", "torch", "transformers", "peft", "numpy", "av")
ROOT = Path(__file__).resolve().parent.parent


def summarise(samples: Sequence[Sample], rows: Sequence[Row], floor: Floor) -> dict[str, Any]:
    """Return everything of `results.json` but its provenance; accuracies are 0..1.

    `rows` are those of the samples, in the same order. Every sample counts: one without an
    answer is wrong. The floor is scored on the same questions.
    """
    blind = score_floor(floor, rows)
    overall = _accuracy(samples)
    return {
        "overall": overall,
        "types": {
            name: _accuracy([sample for sample in samples if sample.type == name])
            for name in TYPES
            if name in blind.types
        },
        "floor": asdict(blind),
        "gain_over_floor": overall["accuracy"] - blind.overall,
        "no_answer": sum(sample.label == NO_ANSWER for sample in samples),
        "relabelled": sum(sample.label != sample.engine_label for sample in samples),
        "ece": calibration_error(
            [sample.probability for sample in samples], [sample.correct for sample in samples]
        ),
        "consumed": {
            "sound": sum(sample.consumed.sound for sample in samples) / len(samples),
            "picture": sum(sample.consumed.picture for sample in samples) / len(samples),
        },
    }


def _accuracy(samples: Sequence[Sample]) -> dict[str, Any]:
    estimate = accuracy(
        [sample.correct for sample in samples], [sample.video_id for sample in samples]
    )
    return {"accuracy": estimate.value, **interval(estimate), "n": estimate.n}


def interval(estimate: Estimate) -> dict[str, float | None]:
    """The bounds as JSON can hold them: null where there is no interval."""
    bounds = {"low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(bound) else bound for name, bound in bounds.items()}


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that can change a figure; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str | None:
    """The checkout's commit, with `-dirty` when files differ from it; None outside of git."""
    if not (ROOT / ".git").exists():
        return None
    # Without the optional locks: describing a checkout must not write to it.
    command = ["git", "--no-optional-locks", "-C", str(ROOT), "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
