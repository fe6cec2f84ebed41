"""Does the model know when it knows? Reliability, and accuracy when unsure answers are withheld.

Sources: Guo et al. 2017, section 3 (reliability diagram, ECE); Geifman & El-Yaniv 2017, section 2
(selective risk and coverage).

Shapes: Q questions, C places on the curve: different confidences, the highest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.samples import Sample
from eval.statistics import calibration_error

BINS = 15
RISKS = (0.01, 0.05, 0.1)
POINTS = 200
"""At most so many places of the curve are written down."""


def calibration(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """The `calibration` of `results.json`; None where any answer has no probability.

    Raises ValueError for probabilities outside 0..1 and without samples.
    """
    confidences = [sample.probability for sample in samples]
    confidence_Q = np.array([value for value in confidences if value is not None])
    if len(confidence_Q) < len(samples):
        return None
    correct_Q = np.array([sample.correct for sample in samples], float)
    error = calibration_error(confidence_Q, correct_Q, bins=BINS)
    coverage_C, risk_C = risk_coverage(confidence_Q, correct_Q)
    return {
        "ece": error,
        "bins": reliability(confidence_Q, correct_Q),
        "risk_coverage": _thinned(coverage_C, risk_C),
        "coverage_at_risk": {str(risk): coverage_at(risk, coverage_C, risk_C) for risk in RISKS},
        "aurc": area(coverage_C, risk_C),
    }


def uncalibrated(samples: Sequence[Sample]) -> dict[str, str]:
    """Why there is no `calibration`, where some answers have a probability and others none."""
    without = sum(sample.probability is None for sample in samples)
    if without in (0, len(samples)):
        return {}
    return {"calibration": f"{without} of {len(samples)} answers have no probability"}


def reliability(
    confidence_Q: np.ndarray, correct_Q: np.ndarray, *, bins: int = BINS
) -> list[dict[str, Any]]:
    """Mean confidence and accuracy in bins of equal width; empty bins are left out."""
    # As in `calibration_error`: open below and closed above, but for the first.
    bin_Q = np.clip(np.ceil(confidence_Q * bins).astype(int) - 1, 0, bins - 1)
    n_B = np.bincount(bin_Q, minlength=bins)
    confidence_B = np.bincount(bin_Q, weights=confidence_Q, minlength=bins)
    right_B = np.bincount(bin_Q, weights=correct_Q, minlength=bins)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "n": int(n_B[b]),
            "confidence": float(confidence_B[b] / n_B[b]),
            "accuracy": float(right_B[b] / n_B[b]),
        }
        for b in range(bins)
        if n_B[b]
    ]


def risk_coverage(confidence_Q: np.ndarray, correct_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and risk, both (C,), where only the most confident answers are given.

    Coverage is the share of questions that are answered, risk the share of wrong ones among
    them. Answers of equal confidence enter together: no threshold can tell them apart.
    """
    order_Q = np.argsort(-confidence_Q, kind="stable")
    wrong_Q = np.cumsum(1 - correct_Q[order_Q])
    sorted_Q = confidence_Q[order_Q]
    last_C = np.flatnonzero(np.append(sorted_Q[1:] != sorted_Q[:-1], True))
    answered_C = last_C + 1
    return answered_C / len(confidence_Q), wrong_Q[last_C] / answered_C


def area(coverage_C: np.ndarray, risk_C: np.ndarray) -> float:
    """Area under the risk-coverage curve (AURC), 0..1, lower is better.

    The mean over questions of the risk of answering all that is at least as confident; without
    equal confidences, the mean of the risks of the 1, 2, … most confident answers.
    """
    return float(np.sum(np.diff(coverage_C, prepend=0.0) * risk_C))


def coverage_at(risk: float, coverage_C: np.ndarray, risk_C: np.ndarray) -> float:
    """The largest coverage whose risk is at most `risk`; 0 where there is none."""
    fine_C = risk_C <= risk
    return float(coverage_C[fine_C].max()) if fine_C.any() else 0.0


def _thinned(coverage_C: np.ndarray, risk_C: np.ndarray) -> list[list[float]]:
    """Places evenly along the curve, with both of its ends."""
    kept = np.unique(np.linspace(0, len(coverage_C) - 1, POINTS).round().astype(int))
    return [[float(coverage_C[place]), float(risk_C[place])] for place in kept]
