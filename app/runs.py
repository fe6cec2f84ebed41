"""Finished runs of `python -m eval`, read as files that anybody may have written.

A run is a folder with `results.json`, straight below the folder of runs. Names lead nowhere else,
sizes are limited, and a report is shown in a frame that may run its script and reach nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.markup import Html, join, share, tag
from avqa_llm.errors import AVQAError

RESULTS, REPORT = "results.json", "report.html"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_RUNS = 200
LARGEST_RESULTS = 16 * 2**20
LARGEST_REPORT = 8 * 2**20
"""Bytes that are sent to a browser; `report.html` can always be opened as a file."""
REACHES_NOTHING = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">"
    '<base href="about:srcdoc">'
)
"""Put before a report. Its own rules hold as well. With the base its links to its own sections
stay inside of it; without, they would lead to the page around it."""


class EvaluationError(AVQAError):
    """A run that cannot be shown, started or compared."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a list says of a finished run."""

    name: str
    benchmark: str
    model: str
    accuracy: float
    """0..1."""
    interval: tuple[float, float] | None
    """Its 95 % interval; None with a single clip."""
    questions: int
    clips: int
    floor: float | None
    """Of blind guessing; None where it was not fitted."""
    valid: bool
    says: str
    """What failed, or what could not be proven."""


def folder_of(runs: Path, name: str) -> Path:
    """The folder of a run by its name, whether it is there or not.

    Raises:
        EvaluationError: the name could lead out of the folder of runs.
    """
    if not NAME.fullmatch(name):
        raise EvaluationError(
            f"{name[:70]!r} is no name of a run: up to 64 letters, digits, dots, dashes and "
            "underscores, the first a letter or digit"
        )
    folder = runs / name
    if folder.is_symlink():
        raise EvaluationError(f"the run {name!r} is a link to elsewhere: copy it here")
    return folder


def finished(runs: Path) -> list[str]:
    """Names of finished runs, the latest first."""
    if not runs.is_dir():
        return []
    found = []
    for path in runs.iterdir():
        results = path / RESULTS
        if NAME.fullmatch(path.name) and not path.is_symlink() and results.is_file():
            found.append((results.stat().st_mtime, path.name))
    return [name for _, name in sorted(found, reverse=True)[:MOST_RUNS]]


def read_run(runs: Path, name: str) -> Run:
    """A finished run.

    Raises:
        EvaluationError: it is not there, too large, broken, or lacks what a list says.
    """
    results = _results(folder_of(runs, name) / RESULTS)
    try:
        overall, made = results["overall"], results["provenance"]
        integrity, floor = results["integrity"], results["floor"]
        return Run(
            name=name,
            benchmark=str(results["benchmark"])[:80],
            model=str(made["model"])[:200],
            accuracy=_part(overall["accuracy"]),
            interval=_interval(overall["low"], overall["high"]),
            questions=int(overall["n"]),
            clips=int(overall["videos"]),
            floor=_part(floor["overall"]) if floor else None,
            valid=integrity["valid"] is True,
            says=_says(integrity),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EvaluationError(
            f"the results of the run {name!r} lack what is needed ({type(error).__name__}: "
            f"{error}): write them again with `python -m eval run` or `score`"
        ) from error


def _results(path: Path) -> Mapping[str, Any]:
    text = _read(path, LARGEST_RESULTS)
    try:
        results = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path.parent.name}/{path.name} is no JSON ({error})") from error
    if not isinstance(results, dict):
        raise EvaluationError(f"{path.parent.name}/{path.name} holds no results")
    return results


def _read(path: Path, largest: int) -> str:
    try:
        if path.is_symlink() or not path.is_file():
            raise EvaluationError(f"{path.parent.name} has no {path.name}: finish the run first")
        if path.stat().st_size > largest:
            raise EvaluationError(
                f"{path.parent.name}/{path.name} has {path.stat().st_size / 2**20:.0f} MB, at "
                f"most {largest / 2**20:.0f} are shown here: open the file itself"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"{path.parent.name}/{path.name} cannot be read ({error.__class__.__name__})"
        ) from error


def _part(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no share")
    return share(number)


def _interval(low: Any, high: Any) -> tuple[float, float] | None:
    return None if low is None or high is None else (_part(low), _part(high))


def _says(integrity: Mapping[str, Any]) -> str:
    state = "unproven" if integrity["valid"] is True else "fail"
    checks = [(name, check) for name, check in integrity["checks"].items()]
    named = [name for name, check in checks if check["state"] == state]
    if state == "fail":
        return f"failed: {', '.join(named) or 'a check'}"[:300]
    return f"not proven: {', '.join(named)}"[:300] if named else f"all {len(checks)} checks passed"


# -- as HTML -----------------------------------------------------------------------------------


def summary(run: Run) -> Html:
    """A run in a few figures, and first whether they can be believed."""
    verdict = "Valid" if run.valid else "INVALID"
    within = "one clip: no interval"
    if run.interval:
        within = "95 % interval {:.1f} to {:.1f}".format(*(100 * end for end in run.interval))
    floor = "not fitted" if run.floor is None else f"{100 * run.floor:.1f} %"
    values = (
        ("Right", f"{100 * run.accuracy:.1f} %", within),
        ("Blind guessing", floor, "what an answer without the clip gets right"),
        ("Asked", f"{run.questions:,} questions", f"about {run.clips:,} clips"),
    )
    rows = (
        tag("div", tag("dt", name), tag("dd", tag("strong", value), " ", tag("small", more)))
        for name, value, more in values
    )
    light = tag(
        "p",
        tag("span", class_="av-lamp", aria_hidden="true"),
        tag("strong", verdict),
        " ",
        tag("span", run.says, class_="av-soft"),
        class_=f"av-light {'av-yes' if run.valid else 'av-no'}",
    )
    title = tag("h4", f"{run.model} on {run.benchmark}")
    return tag(
        "section", title, light, tag("dl", *rows, class_="av-values"), class_="av-panel av-run"
    )


def report_frame(runs: Path, name: str) -> Html:
    """The report of a run in a frame of its own: no origin, no network, no forms.

    Raises:
        EvaluationError: there is none, or it is too large.
    """
    report = _read(folder_of(runs, name) / REPORT, LARGEST_REPORT)
    return tag(
        "iframe",
        srcdoc=REACHES_NOTHING + report,
        sandbox="allow-scripts",
        referrerpolicy="no-referrer",
        title=f"Report of the run {name}",
        class_="av-report",
    )


def problem(error: AVQAError) -> Html:
    """An error as a sentence on the page."""
    return tag("p", str(error), class_="av-panel av-problem", role="alert")


def printed(text: str) -> Html:
    """A table as it was printed."""
    return tag("div", join([tag("pre", text, tabindex=0)]), class_="av-panel av-printed")
