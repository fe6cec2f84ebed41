"""What a model leans to: answer distributions, yes-rate, confusions, and other wordings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.benchmarks.base import Key, Question
from eval.samples import Sample
from eval.statistics import Estimate, estimates

WORST_OF = (2, 5, 10, 25)
POLAR = ("yes", "no")

Pairs = Sequence[tuple[Sample, Question]]


def bias(pairs: Pairs) -> dict[str, Any]:
    """The `bias` of `results.json`: predicted and gold answers by template.

    A question without a template counts under its type. `no_answer` is a category of its own.
    """
    gold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    predicted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sample, question in pairs:
        name = question.template or question.type
        gold[name][question.gold] += 1
        predicted[name][sample.label] += 1
    apart = {name: distance(counts, predicted[name]) for name, counts in gold.items()}
    templates = {
        name: {
            "n": counts.total(),
            "distance": apart[name],
            "gold": dict(counts.most_common()),
            "predicted": dict(predicted[name].most_common()),
        }
        for name, counts in gold.items()
    }
    return {
        "templates": templates,
        "mean_distance": sum(apart[name] * gold[name].total() for name in gold) / len(pairs),
        "yes_rate": _yes_rate(pairs),
    }


def distance(one: Counter[str], other: Counter[str]) -> float:
    """Total variation distance of two answer distributions, 0..1."""
    n_one, n_other = one.total(), other.total()
    labels = sorted(one.keys() | other.keys())  # a set's order would change the last digit
    return sum(abs(one[k] / n_one - other[k] / n_other) for k in labels) / 2


def _yes_rate(pairs: Pairs) -> dict[str, Any] | None:
    """Share of "yes" among questions whose gold answer is yes or no."""
    polar = [(sample.label, question.gold) for sample, question in pairs if question.gold in POLAR]
    if not polar:
        return None
    return {
        "n": len(polar),
        "predicted": sum(label == "yes" for label, _ in polar) / len(polar),
        "gold": sum(gold == "yes" for _, gold in polar) / len(polar),
    }


def confusion(samples: Sequence[Sample]) -> list[list[Any]]:
    """`[gold, predicted, n]`, the most frequent first; right answers are among them."""
    counts = Counter((sample.gold, sample.label) for sample in samples)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [[gold, label, n] for (gold, label), n in ordered]


# -- wordings --------------------------------------------------------------------------------


def rephrase(pairs: Pairs) -> dict[str, Any] | None:
    """The `rephrase` of `results.json`, in estimates; None where every question is asked once.

    Each question counts once, however often it is reworded. `worst_of_k` is over the questions
    with at least k wordings, so its k may be about different questions.
    """
    groups = _wordings(pairs)
    if not groups:
        return None
    videos = [group[0].video_id for group in groups]
    right_O = np.array([sum(sample.correct for sample in group) for group in groups])
    n_O = np.array([len(group) for group in groups])
    flips_O = np.array([len({sample.label for sample in group}) > 1 for group in groups])
    everything = [np.ones(len(groups), bool)]
    return {
        "questions": len(groups),
        "wordings": float(n_O.mean()),
        "all_right": estimates(right_O == n_O, videos, everything)[0],
        "flip_rate": estimates(flips_O, videos, everything)[0],
        "worst_of_k": _worst_of(right_O, n_O, videos),
    }


def _wordings(pairs: Pairs) -> list[list[Sample]]:
    """The answers to each question that is asked in two wordings or more, each wording once.

    An id that stands for two gold answers, or two templates, stands for two questions.
    """
    groups: defaultdict[tuple[Key, str, str | None], dict[str, Sample]] = defaultdict(dict)
    for sample, question in pairs:
        key = (question.original, question.gold, question.template)
        groups[key].setdefault(question.question, sample)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def _worst_of(right_O: np.ndarray, n_O: np.ndarray, videos: Sequence[str]) -> dict[str, Estimate]:
    """Accuracy when the worst of k wordings counts, by k; k that no question has are left out."""
    found: dict[str, Estimate] = {}
    for k in WORST_OF:
        enough_O = n_O >= k
        if enough_O.any():
            found[str(k)] = estimates(all_k_right(right_O, n_O, k), videos, [enough_O])[0]
    return found


def all_k_right(right_O: np.ndarray, n_O: np.ndarray, k: int) -> np.ndarray:
    """Probability that k of n wordings, drawn without replacement, are all answered rightly.

    C(right, k) / C(n, k), (O,): the expected accuracy of the worst of k. Where n < k, it is 0.
    """
    place_K = np.arange(k)
    left_OK = np.clip(right_O[:, None] - place_K, 0, None)
    return np.prod(left_OK / np.maximum(n_O[:, None] - place_K, 1), axis=1)
