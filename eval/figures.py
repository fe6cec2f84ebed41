"""How figures are printed: percentages with two decimals, intervals, verdicts."""

from __future__ import annotations

from collections.abc import Callable
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
    """The clips that are in no figure, by the provenance of a run; empty where all were there."""
    clips = made["missing_clips"]
    if not clips:
        return []
    named = [f"  {clip}: {why}" for clip, why in list(clips.items())[:NAMED_MISSING]]
    more = len(clips) - len(named)
    return [
        f"MISSING: {len(clips)} clips with {made['missing_questions']} questions are not in "
        "these figures:",
        *named,
        *([f"  and {more} more, all in {RESULTS}"] if more else []),
    ]


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
