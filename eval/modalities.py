"""What sound and picture each add: accuracy against gold with one, the other, or both taken away.

Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.samples import ProbeSample, RunError, Sample
from eval.statistics import Estimate, paired_difference

Blind = Mapping[str, np.ndarray]
"""For each level of the floor, whether it answers each question rightly (Q,)."""

KEPT = {"mute": "picture only", "blank": "sound only", "question-only": "question only"}
"""What each probe leaves."""
ADDS = {"mute": "sound adds", "blank": "picture adds"}
"""What is lost with what each probe takes away."""


def modalities(
    samples: Sequence[Sample], probes: Sequence[ProbeSample], floor_Q: np.ndarray | None
) -> dict[str, Any] | None:
    """The `modalities` of `results.json`; None where neither sound nor picture was taken away.

    All figures are about the questions that each of the probes in `KEPT` was asked about, if it
    was asked at all. `floor_Q` says whether the floor answers the samples rightly. Raises
    RunError for a probe of a row without a sample.
    """
    labels = {name: _labels(probes, name) for name in KEPT}
    labels = {name: by_row for name, by_row in labels.items() if by_row}
    if not labels:
        return None
    position = {sample.row: at for at, sample in enumerate(samples)}
    rows = sorted(set.intersection(*(set(by_row) for by_row in labels.values())))
    unknown = [row for row in rows if row not in position]
    if unknown:
        raise RunError(f"row {unknown[0]} was asked after a change, but not before it")
    if not rows:
        return None
    asked = [samples[position[row]] for row in rows]
    right = {"full": np.array([sample.correct for sample in asked], float)} | {
        KEPT[name]: np.array([by_row[sample.row] == sample.gold for sample in asked], float)
        for name, by_row in labels.items()
    }
    videos = [sample.video_id for sample in asked]
    return {
        "n": len(asked),
        **{name: _mean(right.get(name)) for name in ("full", *sorted(KEPT.values()))},
        **{
            title: _difference(right["full"], right.get(KEPT[name]), videos)
            for name, title in ADDS.items()
        },
        **_over_floor(right, floor_Q, [position[row] for row in rows], videos),
    }


def _labels(probes: Sequence[ProbeSample], name: str) -> dict[int, str]:
    return {probed.row: probed.label for probed in probes if probed.probe == name}


def _over_floor(
    right: Mapping[str, np.ndarray],
    floor_Q: np.ndarray | None,
    places: Sequence[int],
    videos: Sequence[str],
) -> dict[str, Any]:
    """What is reached over the floor with everything, and with each part alone."""
    if floor_Q is None:
        return {"floor": None, "over the floor": None}
    blind = floor_Q[list(places)]
    over = {
        f"{name} over the floor": _difference(values, blind, videos)
        for name, values in right.items()
    }
    return {"floor": float(blind.mean()), "over the floor": over.pop("full over the floor"), **over}


def _mean(right_Q: np.ndarray | None) -> float | None:
    return None if right_Q is None else float(right_Q.mean())


def _difference(
    one: np.ndarray, other: np.ndarray | None, videos: Sequence[str]
) -> dict[str, float | None] | None:
    return None if other is None else signed(paired_difference(one, other, videos))


def signed(estimate: Estimate) -> dict[str, float | None]:
    """A difference as `results.json` holds it: null where there is no interval."""
    bounds = {"low": estimate.low, "high": estimate.high}
    return {
        "value": estimate.value,
        **{name: None if np.isnan(bound) else bound for name, bound in bounds.items()},
    }
