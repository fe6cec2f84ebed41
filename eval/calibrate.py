"""Teach a model how sure it may be: fit the calibration of `avqa_llm.calibrator` on labelled clips.

The model answers questions that it never learned from; a logistic regression with a slight ridge
says from the signs of each answer whether it is right. Weights are not negative: what was written
with more certainty never makes an answer less sure. How good that is, is said of clips that were
left out of the fit (cross-validation over videos).

Shapes: Q questions, S signs.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avqa_llm.answer import Answer
from avqa_llm.calibrator import SIGNS, Calibration
from avqa_llm.errors import MediaError
from eval.samples import RunError, read_json
from instruct_data.sources.music_avqa import Annotations, Row, read_annotations

if TYPE_CHECKING:
    from avqa_llm.engine import LocalEngine

FOLDS = 10
CLIPS = 8
"""Clips that are read as one batch."""
RIDGE = 1.0
"""Penalty of a weight of 1 per standard deviation, in answers: slight beside hundreds."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Answers that a calibration can be fitted on."""

    signs_QS: np.ndarray
    """In the order of `SIGNS`."""
    probability_Q: np.ndarray
    """Without calibration."""
    rival_Q: np.ndarray
    """Share of the first runner-up in what the answer leaves."""
    correct_Q: np.ndarray
    video_Q: Sequence[str]

    @classmethod
    def of(cls, answers: Sequence[Answer], rows: Sequence[Row]) -> Judged:
        """Answers of an engine without calibration, and the rows they answer."""
        return cls(
            signs_QS=np.array([[answer.signs[name] for name in SIGNS] for answer in answers]),
            probability_Q=np.array([answer.probability for answer in answers], float),
            rival_Q=np.array([answer.signs["rival"] for answer in answers]),
            correct_Q=np.array([a.label == row.gold for a, row in zip(answers, rows, strict=True)]),
            video_Q=[row.video_id for row in rows],
        )


def fit(signs_QS: np.ndarray, correct_Q: np.ndarray) -> Calibration:
    """Bias and weights of the signs that explain best which answers are right.

    Raises:
        RunError: all answers are right, or none is.
    """
    from scipy.optimize import minimize

    if len(set(correct_Q.tolist())) < 2:
        raise RunError(
            f"all {len(correct_Q)} answers are {'right' if correct_Q.all() else 'wrong'}: there is"
            " nothing to learn about when the model errs; ask it more or other clips"
        )
    scale_S = np.maximum(signs_QS.std(0), 1e-6)
    inputs_QS = np.c_[np.ones(len(signs_QS)), signs_QS / scale_S]
    penalty_S = np.r_[0.0, np.full(len(scale_S), RIDGE)]

    def loss(weights_S: np.ndarray) -> tuple[float, np.ndarray]:
        logit_Q = inputs_QS @ weights_S
        right_Q = 1 / (1 + np.exp(-logit_Q.clip(-500, 500)))
        value = np.logaddexp(0, logit_Q).sum() - logit_Q[correct_Q].sum()
        slope_S = inputs_QS.T @ (right_Q - correct_Q) + penalty_S * weights_S
        return float(value + (penalty_S * weights_S**2).sum() / 2), slope_S

    bounds = [(None, None), *[(0.0, None)] * len(scale_S)]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds)
    weights_S = found.x[1:] / scale_S
    # A sign that is the same everywhere (no record, say) tells nothing and must not count later.
    weights_S[signs_QS.std(0) < 1e-6] = 0.0
    weights = {name: round(float(w), 5) for name, w in zip(SIGNS, weights_S, strict=True)}
    return Calibration(bias=round(float(found.x[0]), 5), weights=weights)


def left_out(judged: Judged, *, folds: int = FOLDS) -> np.ndarray:
    """Probabilities (Q,) that calibrations fitted on the other videos give.

    Raises:
        RunError: a single video, or answers that are all right or all wrong.
    """
    videos = sorted(set(judged.video_Q))
    if len(videos) < 2:
        raise RunError("all questions are about one clip: a calibration needs several, 30 or more")
    fold_of = {video: number % folds for number, video in enumerate(videos)}
    fold_Q = np.array([fold_of[video] for video in judged.video_Q])
    chance_Q = np.empty(len(fold_Q))
    for fold in set(fold_Q.tolist()):
        out_Q = fold_Q == fold
        chance_Q[out_Q] = chances(fit(judged.signs_QS[~out_Q], judged.correct_Q[~out_Q]), judged)[
            out_Q
        ]
    return chance_Q


def chances(calibration: Calibration, judged: Judged) -> np.ndarray:
    """Probabilities (Q,) of answers as the engine would give them with this calibration."""
    rows = zip(judged.signs_QS.tolist(), judged.rival_Q.tolist(), strict=True)
    return np.array(
        [calibration.applied(dict(zip(SIGNS, signs, strict=True)), [r])[0] for signs, r in rows]
    )


def figures(judged: Judged, chance_Q: np.ndarray) -> dict[str, dict[str, float]]:
    """ECE and AURC (both: lower is better) of the probabilities as they were and as they are."""
    from eval.calibration import area, risk_coverage
    from eval.statistics import calibration_error

    correct_Q = judged.correct_Q.astype(float)
    return {
        name: {
            "ece": round(calibration_error(one_Q, correct_Q), 4),
            "aurc": round(area(*risk_coverage(one_Q, correct_Q)), 4),
            "mean": round(float(one_Q.mean()), 4),
        }
        for name, one_Q in (("before", judged.probability_Q), ("after", chance_Q))
    }


def ask(engine: LocalEngine, rows: Sequence[Row], files: dict[str, Path]) -> Judged:
    """Let an engine answer the rows whose clips are there and can be read, whole.

    Raises:
        RunError: no clip could be read.
    """
    from tqdm import tqdm

    by_video: dict[str, list[Row]] = {}
    for row in rows:
        by_video.setdefault(row.video_id, []).append(row)
    answers: list[Answer] = []
    answered: list[Row] = []
    videos = list(by_video)
    bar = tqdm(total=len(videos), desc="calibrating", unit="clip", disable=None)
    for at in range(0, len(videos), CLIPS):
        some = dict(_readable(engine, videos[at : at + CLIPS], files))
        own = [(n, row) for n, video in enumerate(some) for row in by_video[video]]
        answers += engine.answer_many(list(some.values()), [(n, r.question) for n, r in own])
        answered += [row for _, row in own]
        bar.update(len(videos[at : at + CLIPS]))
    bar.close()
    if not answers:
        raise RunError(f"none of the {len(videos)} clips could be read")
    return Judged.of(answers, answered)


def _readable(
    engine: LocalEngine, videos: Sequence[str], files: dict[str, Path]
) -> Iterator[tuple[str, Any]]:
    for video in videos:
        try:
            yield video, engine.read(files[video])
        except MediaError as error:
            print(f"left out: {error}")


def refuse_test(asked: Annotations) -> None:
    """Raise RunError where a file is known to hold questions of a test set."""
    from eval.benchmarks.known import recognise

    words = re.split(r"[^a-z0-9]+", asked.path.stem.lower())
    known = recognise(asked.path, asked.sha256)
    names = [*words, *(re.split(r"[^a-z0-9]+", known.place.name.lower()) if known else ())]
    why = ""
    if "test" in names:
        why = "its name says test"
    elif any(row.subset for row in asked.rows):
        why = "head and tail are parts of a test set"
    elif any(re.match(r"test\d+h?_", row.video_id) for row in asked.rows):
        why = "it asks about Bandstand's test clips"
    if why:
        raise RunError(
            f"{asked.path} belongs to a test set ({why}): probabilities that were fitted on it"
            " would look better there than they are; use the validation questions"
        )


def save(folder: Path, calibration: Calibration | None) -> None:
    """Put a calibration into a model's `avqa.json`, or take it out; written aside, then renamed."""
    from avqa_llm.model import CONFIG, config_text

    path = folder / CONFIG
    row = read_json(path)
    row.pop("calibration", None)
    if calibration is not None:
        row["calibration"] = calibration.to_json()
    aside = path.with_name(f"{CONFIG}.writing")
    aside.write_text(config_text(row))
    os.replace(aside, path)


def run(args: argparse.Namespace) -> int:
    """`python -m eval calibrate`: ask, fit, say what it gives, and write it into the model.

    Raises:
        RunError: a test set, no clips, a model that is not ours, or nothing to learn from.
    """
    from avqa_llm.devices import prepare_cpu
    from avqa_llm.presets import find_model
    from eval.media import find_media

    folder = find_model(args.model)
    if args.remove:
        save(folder, None)
        print(f"{folder} has no calibration any more")
        return 0
    if args.annotations is None or args.media is None:
        raise RunError("calibrate needs --annotations FILE and --media DIR (or --remove alone)")
    asked = read_annotations(args.annotations)
    refuse_test(asked)
    files = find_media(args.media)
    rows = _rows(asked, files, args.limit, args.media)
    prepare_cpu()
    judged = ask(_engine(folder), rows, files)
    found = figures(judged, left_out(judged))
    calibration = fit(judged.signs_QS, judged.correct_Q)
    facts = {
        "annotations": asked.path.name,
        "sha256": asked.sha256,
        "questions": len(judged.correct_Q),
        "videos": len(set(judged.video_Q)),
        "accuracy": round(float(judged.correct_Q.mean()), 4),
        **found,
    }
    calibration = Calibration(bias=calibration.bias, weights=calibration.weights, fitted=facts)
    for line in _said(facts, calibration):
        print(line)
    if args.dry_run:
        print("nothing was written (--dry-run)")
        return 0
    save(folder, calibration)
    print(f"written into {folder / 'avqa.json'}")
    return 0


def _rows(asked: Annotations, files: dict[str, Path], limit: int, media: Path) -> list[Row]:
    """Questions about clips that are there as they are, of the first so many."""
    plain = [row for row in asked.rows if not (row.deleted or row.mirrored or row.sound_of)]
    there = list(dict.fromkeys(row.video_id for row in plain if row.video_id in files))[:limit]
    if not there:
        raise RunError(f"{media} holds none of the clips of {asked.path}")
    chosen = set(there)
    return [row for row in plain if row.video_id in chosen]


def _engine(folder: Path) -> LocalEngine:
    from dataclasses import replace

    from avqa_llm.engine import LocalEngine
    from avqa_llm.omni.model import is_omni

    if is_omni(folder):
        raise RunError(
            f"{folder} is a model that sees and hears by itself: it writes no steps, and cannot be"
            " calibrated here"
        )
    engine = LocalEngine.load(folder)
    engine.model.config = replace(engine.model.config, calibration=None)
    return engine


def _said(facts: dict[str, Any], calibration: Calibration) -> Iterator[str]:
    yield (
        f"{facts['questions']} questions about {facts['videos']} clips,"
        f" {100 * facts['accuracy']:.1f} % answered right"
    )
    for name, words in (("before", "as it was"), ("after", "calibrated, on clips left out")):
        one = facts[name]
        yield (
            f"  {words:30} ECE {100 * one['ece']:5.2f}   AURC {100 * one['aurc']:5.2f}"
            f"   mean probability {100 * one['mean']:.1f} %"
        )
    weights = ", ".join(f"{name} {value:g}" for name, value in calibration.weights.items())
    yield f"  bias {calibration.bias:g}, {weights}"
