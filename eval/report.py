"""Prints results as tables, computed from the files of finished runs only. Figures in percent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.results import interval
from eval.samples import RESULTS, RunError, Sample, read_json, read_samples
from eval.statistics import paired_difference
from instruct_data.sources.music_avqa import TYPES

NAMED_MISSING = 5


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval table`."""
    print(side_by_side(args.runs))


# --- one run --------------------------------------------------------------------------------


def run_table(results: dict[str, Any]) -> str:
    """The table of one run, from the content of its `results.json`."""
    floor, made = results["floor"], results["provenance"]
    lines = [
        f"{_setting(made)} on {made['annotations']['file']} "
        f"(sha256 {made['annotations']['sha256'][:12]}); in percent",
        "",
        f"{'':<26}{'accuracy':>10}{'95 % interval':>19}{'questions':>11}{'floor':>8}{'gain':>8}",
        _one("Overall", results["overall"], floor["overall"]),
    ]
    for name, figures in results["types"].items():
        lines.append(_one(name, figures, floor["types"][name]))
    lines += [
        "",
        f"Intervals draw whole videos; there are {made['clips']}. The floor answers blindly what "
        f"is most frequent",
        f"for the template in {made['fit']['file']} (sha256 {made['fit']['sha256'][:12]}).",
        f"No answer in {results['no_answer']} of {made['questions']}, counted as wrong. "
        f"Calibration error {_percent(results['ece'])} (15 bins).",
        f"Sound reached the model for {_percent(results['consumed']['sound'])} % of the questions, "
        f"picture for {_percent(results['consumed']['picture'])} %.",
    ]
    if results["relabelled"]:
        lines.append(
            f"The scorer reads {results['relabelled']} texts differently than the engine did."
        )
    return "\n".join([*lines, *_missing(made)])


def _one(name: str, figures: dict[str, Any], floor: float) -> str:
    return (
        f"{name:<26}{_percent(figures['accuracy']):>10}{_bounds(figures):>19}{figures['n']:>11}"
        f"{_percent(floor):>8}{_signed(figures['accuracy'] - floor):>8}"
    )


def _setting(made: dict[str, Any]) -> str:
    taken = [word for word, key in (("muted", "mute"), ("blanked", "blank")) if made[key]]
    return ", ".join([f"model {made['model']}", *taken])


def _missing(made: dict[str, Any]) -> list[str]:
    missing = made["missing_clips"]
    if not missing:
        return []
    named = [f"  {clip}: {why}" for clip, why in list(missing.items())[:NAMED_MISSING]]
    more = len(missing) - len(named)
    return [
        "",
        f"MISSING: {len(missing)} clips with {made['missing_questions']} questions are not in "
        "these figures:",
        *named,
        *([f"  and {more} more, all in {RESULTS}"] if more else []),
    ]


# --- several runs ---------------------------------------------------------------------------


def side_by_side(runs: Sequence[Path]) -> str:
    """Runs as columns, and each one's paired difference to the first.

    Raises RunError for a run that is not finished, or that answered another question file.
    """
    results = [_finished(run) for run in runs]
    names = _names(runs)
    width = max(26, *(len(name) + 2 for name in names))
    lines = [
        "Accuracy in percent, with video-clustered 95 % intervals",
        "",
        _line("", names, width),
    ]
    for name in ("Overall", *TYPES):
        found = [
            each["overall"] if name == "Overall" else each["types"].get(name) for each in results
        ]
        if any(found):
            lines.append(_line(name, [_figure(figures) for figures in found], width))
    for title, shown in _ROWS.items():
        lines.append(_line(title, [shown(each) for each in results], width))
    if len(runs) > 1:
        lines += ["", *_differences(runs, names, results, width)]
    for name, each in zip(names, results, strict=True):
        missing = _missing(each["provenance"])
        lines += ["", f"In {name}:", *missing[1:]] if missing else []
    return "\n".join(lines)


_ROWS = {
    "Blind floor": lambda each: _percent(each["floor"]["overall"]),
    "Gain over the floor": lambda each: _signed(each["gain_over_floor"]),
    "Calibration error": lambda each: _percent(each["ece"]),
    "Questions": lambda each: str(each["overall"]["n"]),
    "No answer": lambda each: str(each["no_answer"]),
    "Sound reached the model": lambda each: _percent(each["consumed"]["sound"]),
    "Picture reached the model": lambda each: _percent(each["consumed"]["picture"]),
}


def _finished(run: Path) -> dict[str, Any]:
    if not (run / RESULTS).is_file():
        raise RunError(f"{run} has no {RESULTS}: finish it with `python -m eval run`")
    return read_json(run / RESULTS)


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths where two are alike."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _differences(
    runs: Sequence[Path], names: Sequence[str], results: Sequence[dict[str, Any]], width: int
) -> list[str]:
    """The second table: accuracy minus the first run's, on the questions that both answered."""
    first = results[0]["provenance"]["annotations"]["sha256"]
    for name, each in zip(names, results, strict=True):
        if each["provenance"]["annotations"]["sha256"] != first:
            raise RunError(
                f"{name} answered another question file than {names[0]}: compare runs on one file"
            )
    samples = [_scored(run, each) for run, each in zip(runs, results, strict=True)]
    pairs = [
        _pairs(answered, samples[0], name)
        for answered, name in zip(samples[1:], names[1:], strict=True)
    ]
    lines = [
        f"Difference to {names[0]}, paired on the same questions, with video-clustered intervals",
        "",
        _line("", ["", *names[1:]], width),
    ]
    for name in ("Overall", *TYPES):
        cells = [_difference(both, name) for both in pairs]
        if any(cells):
            lines.append(_line(name, ["", *cells], width))
    common = ["", *(str(len(both)) for both in pairs)]
    return [*lines, _line("Questions in common", common, width)]


def _scored(run: Path, results: dict[str, Any]) -> list[Sample]:
    """The answers that the results were computed from."""
    limit = results["provenance"]["limit"]
    samples = [sample for sample in read_samples(run) if limit is None or sample.row <= limit]
    if len(samples) != results["provenance"]["questions"]:
        raise RunError(
            f"{run} has {len(samples)} answers but results of "
            f"{results['provenance']['questions']}: finish it with `python -m eval run`"
        )
    return samples


def _pairs(
    samples: Sequence[Sample], reference: Sequence[Sample], name: str
) -> list[tuple[Sample, Sample]]:
    by_row = {sample.row: sample for sample in reference}
    pairs = [(sample, by_row[sample.row]) for sample in samples if sample.row in by_row]
    if not pairs:
        raise RunError(f"{name} has no question in common with the first run")
    return pairs


def _difference(pairs: Sequence[tuple[Sample, Sample]], name: str) -> str:
    chosen = [pair for pair in pairs if name in ("Overall", pair[0].type)]
    if not chosen:
        return ""
    estimate = paired_difference(
        [sample.correct for sample, _ in chosen],
        [reference.correct for _, reference in chosen],
        [sample.video_id for sample, _ in chosen],
    )
    return f"{_signed(estimate.value)} {_bounds(interval(estimate), _signed)}"


# --- figures --------------------------------------------------------------------------------


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return (f"{name:<26}" + "".join(f"{cell:<{width}}" for cell in cells)).rstrip()


def _figure(figures: dict[str, Any] | None) -> str:
    return f"{_percent(figures['accuracy'])} {_bounds(figures)}" if figures else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"


def _bounds(figures: dict[str, Any], shown: Any = _percent) -> str:
    if figures["low"] is None:
        return "[one video]"
    return f"[{shown(figures['low'])}, {shown(figures['high'])}]"
