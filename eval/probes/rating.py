"""Whether answers followed a change: one entry of `probes` in results.json.

Where the right answer stays the same, a question *should stay*: it is

- steady: it gets the label that it got before, right or wrong;
- flighty: it gets another one.

Where the right answer is another one, it *should change*: it is

- faithful: it gets another label than before, the one that is right now;
- stubborn: it gets the label that it got before, even if that happens to be right now: whoever
  always says "no" follows no change;
- flighty: it gets a third one.

Either is *silent* with `no_answer` before and after.

Where the right answer cannot be known, what it rests on is gone or upset: the *same answer* as
before then comes from elsewhere. `no_answer` is never counted as the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from avqa_llm.labels import NO_ANSWER
from eval.probes import Probe
from eval.samples import ProbeSample, RunError, Sample
from eval.statistics import accuracy

Pair = tuple[ProbeSample, Sample]


def rate(
    probe: Probe,
    probed: Sequence[ProbeSample],
    before: Mapping[int, Sample],
    left_out: Mapping[str, int],
    *,
    scenes: bool = False,
) -> dict[str, Any]:
    """Rate the answers after one change. Counts are numbers of questions, accuracies 0..1.

    `before` has the answers to the unchanged questions by row; `scenes` says that the truth
    after the change came from scenes. `accuracy` is against what is right after the change,
    `before` the accuracy before the change on the same questions.

    Raises:
        RunError: an answer belongs to another probe, or to a row that was not answered before.
    """
    pairs = [_pair(probe, sample, before) for sample in probed]
    known = [(after, was) for after, was in pairs if after.expected is not None]
    stay = [(after, was) for after, was in known if after.expected == was.gold]
    change = [(after, was) for after, was in known if after.expected != was.gold]
    unknown = [(after, was) for after, was in pairs if after.expected is None]
    return {
        "about": probe.about,
        "family": probe.family,
        "sweep": asdict(probe.sweep) if probe.sweep else None,
        "exact": scenes and probe.from_scene,
        "n": len(pairs),
        "accuracy": _accuracy(known),
        "before": sum(was.correct for _, was in known) / len(known) if known else None,
        "should_stay": _stayed(stay),
        "should_change": _changed(change),
        "unknown": {
            "n": len(unknown),
            "same_answer": sum(after.label == was.label != NO_ANSWER for after, was in unknown),
        },
        "left_out": dict(left_out),
    }


def _pair(probe: Probe, after: ProbeSample, before: Mapping[int, Sample]) -> Pair:
    if after.probe != probe.name:
        raise RunError(
            f"an answer of row {after.row} after {after.probe!r} is among those after "
            f"{probe.name!r}: rate each probe by itself"
        )
    if after.row not in before:
        raise RunError(
            f"row {after.row} was asked after {probe.name!r} but is not among the answers before "
            "the change: run it again with another --out"
        )
    return after, before[after.row]


def _stayed(pairs: Sequence[Pair]) -> dict[str, int]:
    silent, same = _unmoved(pairs)
    flighty = len(pairs) - same - silent
    return {"n": len(pairs), "steady": same, "flighty": flighty, "silent": silent}


def _changed(pairs: Sequence[Pair]) -> dict[str, int]:
    silent, same = _unmoved(pairs)
    faithful = sum(after.label == after.expected != was.label for after, was in pairs)
    return {
        "n": len(pairs),
        "faithful": faithful,
        "stubborn": same,
        "flighty": len(pairs) - faithful - same - silent,
        "silent": silent,
    }


def _unmoved(pairs: Sequence[Pair]) -> tuple[int, int]:
    """How many have no answer before and after, and how many the same answer."""
    labels = [after.label for after, was in pairs if after.label == was.label]
    silent = labels.count(NO_ANSWER)
    return silent, len(labels) - silent


def _accuracy(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    if not pairs:
        return None
    estimate = accuracy(
        [after.label == after.expected for after, _ in pairs], [was.video_id for _, was in pairs]
    )
    low, high = (None if math.isnan(edge) else edge for edge in (estimate.low, estimate.high))
    return {
        "accuracy": estimate.value,
        "low": low,
        "high": high,
        "n": estimate.n,
        "videos": estimate.videos,
    }
