"""How figures are printed: percentages with two decimals, intervals, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eval.samples import RESULTS

NAMED_MISSING = 5
STATES = {"pass": "pass", "fail": "FAIL", "warn": "warning", "unproven": "not proven"}
NAME = 36
"""Width of a table's first column."""
Results = dict[str, Any]
"""The content of a `results.json`."""


def verdict(results: Results) -> str:
    """The first line: can the figures be believed?"""
    checks = results["integrity"]["checks"]
    failed = [check["says"] for check in checks.values() if check["state"] == "fail"]
    if not results["integrity"]["valid"]:
        return f"INVALID: {'; '.join(failed) or 'a check failed'}"
    unproven = [name for name, check in checks.items() if check["state"] == "unproven"]
    said = f"valid: none of {len(checks)} checks failed"
    return f"{said}; not proven: {', '.join(unproven)}" if unproven else said


def missing(made: Results) -> list[str]:
    """What is in no figure, by the provenance of a run; empty where all was there."""
    clips, questions = made["missing_clips"], made["missing_questions"]
    if not clips and not questions:
        return []
    if not clips:
        return [f"MISSING: {questions} questions are not in these figures"]
    named = [f"  {clip}: {why}" for clip, why in list(clips.items())[:NAMED_MISSING]]
    more = len(clips) - len(named)
    return [
        f"MISSING: {_lost(made)} are not in these figures:",
        *named,
        *([f"  and {more} more, all in {RESULTS}"] if more else []),
    ]


def _lost(made: Results) -> str:
    clips, questions = len(made["missing_clips"]), made["missing_questions"]
    if from_file(made):
        return f"{questions} questions about {clips} clips have no prediction and"
    return f"{clips} clips with {questions} questions"


def from_file(made: Mapping[str, Any]) -> bool:
    """Whether a predictions file was scored: no clip was read then."""
    return "media" in made and made["media"] is None


def part_of(made: Mapping[str, Any]) -> list[str]:
    """How a run was narrowed: fewer questions, or a sense taken away. Empty for a whole one."""
    said = []
    limit, asked = made.get("limit"), made.get("asked")
    if limit and (asked is None or made.get("subset") or asked >= limit):
        said.append(f"first {made['limit']} questions only")
    if made.get("subset"):
        said.append(f"only {made['subset']} questions, drawn by type")
    which, of = made.get("shard") or (1, 1)
    if of > 1:
        said.append(f"part {which} of {of} only")
    words = (("mute", "muted: without sound"), ("blank", "blanked: without picture"))
    return [*said, *(word for key, word in words if made.get(key))]


def figure(figures: Results | None) -> str:
    """An estimate of `results.json` with its interval."""
    return f"{percent(figures['accuracy'])} {bounds(figures)}" if figures else "-"


def percent(share: float | None) -> str:
    """A share, 0..1, in percent."""
    return "-" if share is None else f"{100 * share:.2f}"


def signed(share: float | None) -> str:
    """A difference, -1..1, in points, with its sign."""
    return "-" if share is None else f"{100 * share:+.2f}"


def bounds(figures: Results, shown: Callable[[float], str] = percent) -> str:
    """The interval of what has `low` and `high`; a single clip has none."""
    if figures["low"] is None:
        return "[one clip]"
    return f"[{shown(figures['low'])}, {shown(figures['high'])}]"
