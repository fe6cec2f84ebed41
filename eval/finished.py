"""Reads a finished run: its results, and the answers that they were computed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.samples import RESULTS, RunError, Sample, read_json, read_samples

NEEDED: Mapping[str, Sequence[str]] = {
    "benchmark": (),
    "overall": ("accuracy", "low", "high", "n", "videos"),
    "types": (),
    "groups": (),
    "provenance": (),
}
"""What no page or table does without: keys of `results.json`, and what is needed below them."""


def read_finished(
    run: Path, *, needed: Mapping[str, Sequence[str]] = NEEDED
) -> tuple[dict[str, Any], list[Sample]]:
    """The results of a run and its answers.

    Raises:
        RunError: a file is broken, the results lack a key, or they are of other answers than
            those that are there now: the run was started again and not finished.
    """
    results = read_json(run / RESULTS)
    lacking = [key for key in needed if key not in results]
    lacking += _below(results, needed)
    if not isinstance(results.get("provenance", {}), dict):
        lacking.append("provenance")
    if lacking:
        raise RunError(
            f"{run / RESULTS} has no {', '.join(map(repr, lacking))}: write it again with "
            "`python -m eval run` or `score`"
        )
    samples = read_samples(run)
    counted = results["provenance"].get("questions", results["overall"]["n"])
    if len(samples) != counted:
        raise RunError(
            f"{run} has {len(samples)} answers but results of {counted}: finish it with `python "
            "-m eval run`"
        )
    return results, samples


def _below(results: Mapping[str, Any], needed: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for key, parts in needed.items():
        found = results.get(key)
        there = found if isinstance(found, Mapping) else {}
        if key in results:
            yield from (f"{key}.{part}" for part in parts if part not in there)
