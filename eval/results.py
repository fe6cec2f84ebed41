"""From answers to `results.json`: everything of it but integrity and provenance."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.labels import NO_ANSWER
from eval.benchmarks.base import Benchmark, Question, QuestionSet
from eval.benchmarks.family import BANDSTANDS
from eval.bias import bias, confusion, rephrase
from eval.calibration import calibration, uncalibrated
from eval.floors import LEVELS, Floor, ordered_types
from eval.groups import Context, masks
from eval.hedging import hedging
from eval.modalities import Blind, modalities
from eval.samples import ProbeSample, RunError, Sample
from eval.statistics import Estimate, estimates, paired_difference

PACKAGES = ("avqa-llm", "torch", "transformers", "peft", "numpy", "av")
ROOT = Path(__file__).resolve().parent.parent
LEVEL = "template"
"""Of the floor that results are held against."""
GROUPS_OF_ANY = (
    *("Audio", "Visual", "Audio-Visual"),
    *("video-disjoint", "prior-agreeing", "prior-disagreeing"),
)
"""Of questions that belong to no benchmark."""

_Masks = Mapping[str, np.ndarray]


def summarise(
    samples: Sequence[Sample],
    questions: Sequence[Question],
    *,
    benchmark: Benchmark | None,
    floor: Floor | None,
    fit: QuestionSet | None,
    seen: frozenset[str] | None,
    probes: Sequence[ProbeSample] = (),
    left_out: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Score the answers to `questions`, which are those of the samples by row.

    Every sample counts: one without an answer is wrong. The floor is scored on the same
    questions. Accuracies are 0..1.

    Args:
        samples: one for each question.
        questions: in any order.
        benchmark: says by which groups results are broken down.
        floor: the blind floor; None where there is nothing to fit it on.
        fit: what the floor was fitted on.
        seen: the clips of the fit and train files.
        probes: answers after changes.
        left_out: for each probe, how often it could not be applied, by reason.

    Raises:
        RunError: samples and questions are not each other's, or a group's key is missing.
    """
    from eval.scoring import spread

    pairs = matched(samples, questions)
    samples, questions = [one for one, _ in pairs], [one for _, one in pairs]
    context = Context(floor=floor, seen=seen)
    names = benchmark.groups if benchmark else GROUPS_OF_ANY
    groups, not_computed = masks(names, questions, context)
    blind = _blind(floor, questions)
    # The readers of Bandstand refuse a set without its truth.
    scenes = benchmark is not None and benchmark.name in BANDSTANDS
    return {
        "benchmark": benchmark.name if benchmark else None,
        **_accuracies(samples, questions, groups, blind),
        "not_computed": not_computed | uncalibrated(samples),
        **_against_floor(samples, questions, groups, blind, fit),
        "hedging": _hedging(samples),
        "no_answer": sum(sample.label == NO_ANSWER for sample in samples),
        "relabelled": _relabelled(samples),
        "rephrase": _rephrase(pairs),
        "calibration": calibration(samples),
        "bias": bias(pairs),
        "confusion": confusion(samples),
        "scorers": spread(samples, questions),
        "modalities": modalities(samples, probes, blind.get(LEVEL)),
        "probes": _probes(samples, probes, left_out or {}, scenes),
    }


def _hedging(samples: Sequence[Sample]) -> dict[str, Any]:
    """The share of answers that commit themselves to nothing, and by which rule how many."""
    found = hedging(samples)
    return {"share": shown(found.share), "kinds": found.kinds}


def matched(
    samples: Sequence[Sample], questions: Sequence[Question]
) -> list[tuple[Sample, Question]]:
    """Each sample with its question, by row. Raises RunError where one has no other."""
    by_row = {question.number: question for question in questions}
    if not samples:
        raise RunError("no answers to score")
    if len(by_row) < len(questions):
        raise RunError(f"{len(questions)} questions have only {len(by_row)} different rows")
    pairs = []
    for sample in samples:
        question = by_row.pop(sample.row, None)
        if question is None:
            raise RunError(f"row {sample.row} is answered twice, or is not among the questions")
        if (sample.video_id, sample.gold) != (question.video_id, question.gold):
            raise RunError(
                f"row {sample.row} was answered about {sample.video_id} with gold answer "
                f"{sample.gold!r}; the question file has {question.video_id} with "
                f"{question.gold!r}: it is not the file that was answered"
            )
        pairs.append((sample, question))
    for row in by_row:
        raise RunError(f"row {row} is not answered, and {len(by_row) - 1} other rows are not")
    return pairs


# -- accuracies ------------------------------------------------------------------------------


def _accuracies(
    samples: Sequence[Sample], questions: Sequence[Question], groups: _Masks, blind: Blind
) -> dict[str, Any]:
    """`overall`, `types`, `groups` and `templates`, whose intervals share their resamples."""
    types, templates = _by_type(questions), _by_template(questions)
    parts = [np.ones(len(samples), bool), *types.values(), *groups.values(), *templates.values()]
    correct_Q = np.array([sample.correct for sample in samples], float)
    found = iter(estimates(correct_Q, [sample.video_id for sample in samples], parts))
    floor_Q = blind.get(LEVEL)
    return {
        "overall": shown(next(found)),
        "types": {name: shown(next(found)) for name in types},
        "groups": {name: shown(next(found)) for name in groups},
        "templates": {
            name: {
                **shown(next(found)),
                "floor": None if floor_Q is None else float(floor_Q[mask_Q].mean()),
            }
            for name, mask_Q in templates.items()
        },
    }


def _by_type(questions: Sequence[Question]) -> dict[str, np.ndarray]:
    names = np.array([question.type for question in questions], object)
    return {name: names == name for name in ordered_types(names.tolist())}


def _by_template(questions: Sequence[Question]) -> dict[str, np.ndarray]:
    names = np.array([question.template for question in questions], object)
    return {name: names == name for name in dict.fromkeys(names.tolist()) if name is not None}


def shown(estimate: Estimate) -> dict[str, Any]:
    """An estimate as `results.json` holds it."""
    return {
        "accuracy": estimate.value,
        **interval(estimate),
        "n": estimate.n,
        "videos": estimate.videos,
    }


def interval(estimate: Estimate) -> dict[str, float | None]:
    """The bounds as JSON can hold them: null where there is no interval."""
    bounds = {"low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(bound) else bound for name, bound in bounds.items()}


# -- the floor -------------------------------------------------------------------------------


def _blind(floor: Floor | None, questions: Sequence[Question]) -> Blind:
    """Whether the floor answers each question rightly, at each level; empty without a floor."""
    if floor is None:
        return {}
    return {
        level: np.array([floor.answer(one, level) == one.gold for one in questions], float)
        for level in LEVELS
    }


def _against_floor(
    samples: Sequence[Sample],
    questions: Sequence[Question],
    groups: _Masks,
    blind: Blind,
    fit: QuestionSet | None,
) -> dict[str, Any]:
    """`floor`, and the gain over it: paired with the floor's own answers."""
    if not blind:
        return {"floor": None, "gain_over_floor": None, "gain_interval": None}
    floor_Q = blind[LEVEL]
    gain = paired_difference(
        [sample.correct for sample in samples], floor_Q, [sample.video_id for sample in samples]
    )
    bounds = interval(gain)
    types = _by_type(questions)
    return {
        "floor": {
            "level": LEVEL,
            "overall": float(floor_Q.mean()),
            "types": {name: float(floor_Q[mask_Q].mean()) for name, mask_Q in types.items()},
            "groups": {name: float(floor_Q[mask_Q].mean()) for name, mask_Q in groups.items()},
            "levels": {level: float(right_Q.mean()) for level, right_Q in blind.items()},
            "fitted_on": None if fit is None else len(fit.questions),
        },
        "gain_over_floor": gain.value,
        "gain_interval": None if bounds["low"] is None else [bounds["low"], bounds["high"]],
    }


# -- the rest --------------------------------------------------------------------------------


def _relabelled(samples: Sequence[Sample]) -> int | None:
    """How often the scorer reads a text differently than the engine did; None: no engine said."""
    said = [sample for sample in samples if sample.engine_label is not None]
    return sum(sample.label != sample.engine_label for sample in said) if said else None


def _rephrase(pairs: Sequence[tuple[Sample, Question]]) -> dict[str, Any] | None:
    found = rephrase(pairs)
    if found is None:
        return None
    worst = {k: estimate.value for k, estimate in found["worst_of_k"].items()}
    rates = {name: shown(found[name]) for name in ("all_right", "flip_rate")}
    return {**found, **rates, "worst_of_k": worst}


def _probes(
    samples: Sequence[Sample],
    probes: Sequence[ProbeSample],
    left_out: Mapping[str, Mapping[str, int]],
    scenes: bool,
) -> dict[str, Any] | None:
    """One entry for each probe that was tried, in the order of `PROBES`."""
    tried: dict[str, list[ProbeSample]] = {name: [] for name in left_out}
    for probed in probes:
        tried.setdefault(probed.probe, []).append(probed)
    if not tried:
        return None
    from eval.probes import PROBES
    from eval.probes.rating import rate

    for name in tried:
        if name not in PROBES:
            raise RunError(f"there is no probe {name!r}; there are {', '.join(PROBES)}")
    before = {sample.row: sample for sample in samples}
    return {
        name: rate(probe, tried[name], before, left_out.get(name, {}), scenes=scenes)
        for name, probe in PROBES.items()
        if name in tried
    }


# -- where it was made -----------------------------------------------------------------------


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
