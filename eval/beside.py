"""Several finished runs beside each other, and each one against the first. Figures in percent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from eval import finished
from eval.compare import Comparison, Difference, compare
from eval.figures import NAME, STATES, Results, bounds, figure, missing, percent, signed, verdict
from eval.floors import ordered_types
from eval.results import interval
from eval.samples import RESULTS, RunError, Sample

NEEDED = {
    **finished.NEEDED,
    **dict.fromkeys(("floor", "gain_over_floor", "calibration", "no_answer"), ()),
    "integrity": ("valid", "checks"),
    "provenance": ("files", "missing_clips", "missing_questions"),
}
"""Of `results.json`."""


def side_by_side(runs: Sequence[Path]) -> str:
    """Runs as columns, and each one's paired difference to the first.

    Raises RunError for a run that is not finished, or that answered another question file.
    """
    found = [_finished(run) for run in runs]
    results = [each for each, _ in found]
    names = _names(runs)
    width = max(26, *(len(name) + 2 for name in names))
    lines = [
        "Accuracy in percent, with video-clustered 95 % intervals",
        "",
        _line("", names, width),
    ]
    lines.append(_line("Overall", [figure(each["overall"]) for each in results], width))
    for part in ("types", "groups"):
        for name in _together(each[part] for each in results):
            lines.append(_line(name, [figure(each[part].get(name)) for each in results], width))
    for title, shown in _ROWS.items():
        lines.append(_line(title, [shown(each) for each in results], width))
    if len(runs) > 1:
        lines += ["", *_differences(names, found)]
    for name, each in zip(names, results, strict=True):
        said = [*([] if each["integrity"]["valid"] else [verdict(each)])]
        said += missing(each["provenance"])
        lines += ["", f"In {name}:", *said] if said else []
    return "\n".join(lines)


_ROWS: dict[str, Callable[[Results], str]] = {
    "Blind floor": lambda each: percent(each["floor"] and each["floor"]["overall"]),
    "Gain over the floor": lambda each: signed(each["gain_over_floor"]),
    "Calibration error": lambda each: percent(each["calibration"] and each["calibration"]["ece"]),
    "Questions": lambda each: str(each["overall"]["n"]),
    "No answer": lambda each: str(each["no_answer"]),
    "Sound delivered": lambda each: _state(each, "sound delivered"),
    "Picture delivered": lambda each: _state(each, "picture delivered"),
    "Integrity": lambda each: "valid" if each["integrity"]["valid"] else "INVALID",
}


def _state(results: Results, name: str) -> str:
    check = results["integrity"]["checks"].get(name)
    return STATES.get(check["state"], check["state"]) if check else STATES["unproven"]


def _together(parts: Iterable[Results]) -> list[str]:
    return ordered_types(name for part in parts for name in part)


def _finished(run: Path) -> tuple[Results, list[Sample]]:
    if not (run / RESULTS).is_file():
        raise RunError(f"{run} has no {RESULTS}: finish it with `python -m eval run`")
    return finished.read_finished(run, needed=NEEDED)


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths where two are alike."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _differences(names: Sequence[str], found: Sequence[tuple[Results, list[Sample]]]) -> list[str]:
    """Each run against the first, on the questions that both answered."""
    first = set(found[0][0]["provenance"]["files"].values())
    for name, (each, _) in zip(names, found, strict=True):
        if first.isdisjoint(each["provenance"]["files"].values()):
            raise RunError(
                f"{name} answered another question file than {names[0]}: compare runs on one file"
            )
    samples = [answered for _, answered in found]
    lines = [
        f"Difference to {names[0]}, paired on the same questions, with video-clustered intervals"
    ]
    for name, answered in zip(names[1:], samples[1:], strict=True):
        lines += [
            "",
            *_against(names[0], name, compare(samples[0], answered, names=(names[0], name))),
        ]
    return lines


def _against(first: str, name: str, found: Comparison) -> list[str]:
    columns = [f"only {first}", f"only {name}"]
    widths = [max(12, len(column) + 2) for column in columns]
    head = f"{'':<{NAME}}{'difference':>11}{'95 % interval':>19}{'p':>8}{'z':>8}"
    rows = {"Overall": found.overall, **found.types}
    lines = [
        f"{name} against {first}: {found.overall.verdict}",
        "",
        head + "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True)),
        *(_compared(kind, one, widths) for kind, one in rows.items()),
        "p: sign flips of whole clips, for types with Holm's correction; z: McNemar, by clips;",
        "only: questions that only this run answers rightly",
    ]
    apart = found.only_in_first + found.only_in_second
    if apart:
        both = found.overall.estimate.n
        lines.append(f"Questions in common: {both}; {apart} are in one of the two runs only")
    return lines


def _compared(name: str, one: Difference, widths: Sequence[int]) -> str:
    p = one.p if one.p_holm is None else one.p_holm
    return (
        f"{name:<{NAME}}{signed(one.estimate.value):>11}"
        f"{bounds(interval(one.estimate), signed):>19}"
        f"{'-' if p is None else f'{p:.4f}':>8}{'-' if one.z is None else f'{one.z:.2f}':>8}"
        f"{one.only_first:>{widths[0]}}{one.only_second:>{widths[1]}}"
    )


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return (f"{name:<{NAME}}" + "".join(f"{cell:<{width}}" for cell in cells)).rstrip()
