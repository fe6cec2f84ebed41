"""Prints results as tables, computed from the files of finished runs only. Figures in percent."""

from __future__ import annotations

import argparse

from eval.beside import side_by_side
from eval.figures import (
    NAME,
    STATES,
    Results,
    bounds,
    figure,
    missing,
    part_of,
    percent,
    signed,
    verdict,
)

__all__ = ["run", "run_table", "side_by_side"]


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval table`."""
    print(side_by_side(args.runs))


def run_table(results: Results) -> str:
    """The table of one run, from the content of its `results.json`."""
    made = results["provenance"]
    parts = (
        [verdict(results), *missing(made)],
        [_setting(made), *_files(made)],
        _accuracies(results),
        _notes(results),
        _checks(results),
        _rules(results),
        _wordings(results),
        _modalities(results),
        _probes(results),
    )
    return "\n\n".join("\n".join(part) for part in parts if part)


def _setting(made: Results) -> str:
    how = [word for word in (made["engine"], made["mode"]) if word]
    model = f"{made['model']} ({', '.join(how)})" if how else made["model"]
    part = f"{made['questions']} of {made['asked']}"
    said = f"{model} on {made['benchmark']}: {part} questions, {made['clips']} clips; in percent"
    return "; ".join([said, *part_of(made)])


def _files(made: Results) -> list[str]:
    fitted = made["fit"]
    return [
        f"questions: {_hashes(made['files'])}{', ' + made['version'] if made['version'] else ''}",
        f"blind floor: {'fitted on ' + _hashes(fitted) if fitted else 'none, for want of --fit'}",
    ]


def _hashes(files: dict[str, str]) -> str:
    return ", ".join(f"{name} (sha256 {sha256[:12]})" for name, sha256 in files.items())


def _accuracies(results: Results) -> list[str]:
    floor = results["floor"] or {"overall": None, "types": {}, "groups": {}}
    head = f"{'':<{NAME}}{'accuracy':>10}{'95 % interval':>19}{'questions':>11}{'clips':>8}"
    lines = [
        f"{head}{'floor':>9}{'gain':>9}",
        _one("Overall", results["overall"], floor["overall"]),
    ]
    for title in ("types", "groups"):
        if results[title]:
            lines.append("")
        for name, figures in results[title].items():
            lines.append(_one(name, figures, floor[title].get(name)))
    lines += [f"{name:<{NAME}}  {why}" for name, why in results["not_computed"].items()]
    return lines


def _one(name: str, figures: Results, floor: float | None) -> str:
    gain = None if floor is None else figures["accuracy"] - floor
    return (
        f"{name:<{NAME}}{percent(figures['accuracy']):>10}{bounds(figures):>19}"
        f"{figures['n']:>11}{figures['videos']:>8}{percent(floor):>9}{signed(gain):>9}"
    )


def _notes(results: Results) -> list[str]:
    lines = ["Intervals draw whole clips.", *_about_floor(results)]
    n = results["overall"]["n"]
    lines.append(f"No answer: {results['no_answer']} of {n}, counted as wrong.")
    hedges = results.get("hedging", {}).get("share")
    if hedges and hedges["accuracy"]:
        share = f"{percent(hedges['accuracy'])} {bounds(hedges)}"
        lines.append(f"Answers that commit themselves to nothing: {share}.")
    if results["relabelled"]:
        lines.append(
            f"The scorer reads {results['relabelled']} texts differently than the engine did."
        )
    found = results["calibration"]
    if found:
        risks = ", ".join(
            f"{percent(share)} at {float(risk):.0%} risk"
            for risk, share in found["coverage_at_risk"].items()
        )
        lines.append(f"Calibration error (15 bins): {percent(found['ece'])}. Coverage: {risks}.")
    return [*lines, _leaning(results["bias"])]


def _about_floor(results: Results) -> list[str]:
    if results["floor"] is None:
        return []
    low, high = results["gain_interval"] or (None, None)
    levels = ", ".join(
        f"{name} {percent(share)}" for name, share in results["floor"]["levels"].items()
    )
    return [
        f"Gain over the blind floor: {signed(results['gain_over_floor'])} "
        f"{bounds({'low': low, 'high': high}, signed)}, paired with the floor's own answers.",
        f"The floor at each level: {levels}.",
    ]


def _leaning(bias: Results) -> str:
    said = f"Answers are {percent(bias['mean_distance'])} away from the gold distribution"
    rate = bias["yes_rate"]
    if rate:
        said += f"; of yes-no questions, {percent(rate['predicted'])} get yes, "
        said += f"{percent(rate['gold'])} should"
    return f"{said}."


def _checks(results: Results) -> list[str]:
    checks = results["integrity"]["checks"]
    return ["Integrity", *(_check(name, check) for name, check in checks.items())]


def _check(name: str, check: Results) -> str:
    return f"  {STATES.get(check['state'], check['state']):<12}{name}: {check['says']}"


def _rules(results: Results) -> list[str]:
    """What published scoring rules make of the same answers."""
    lines = ["The same answers by published rules (only the canonical one counts here)"]
    for name, found in results["scorers"].items():
        said = percent(found["accuracy"]) if found["accuracy"] is not None else found["says"]
        left = f" of the {found['n']} that it does not leave out" if found["dropped"] else ""
        lines.append(f"  {name:<{NAME - 2}}{said:>10}{left if found['n'] else ''}")
    return lines


def _wordings(results: Results) -> list[str]:
    found = results["rephrase"]
    if not found:
        return []
    worst = ", ".join(
        f"{percent(share['accuracy'] if isinstance(share, dict) else share)} of {k}"
        for k, share in found["worst_of_k"].items()
    )
    return [
        f"Wordings: {found['questions']} questions in {found['wordings']:.1f} wordings each",
        f"  all right {figure(found['all_right'])}, answer flips {figure(found['flip_rate'])}",
        *([f"  worst wording: {worst}"] if worst else []),
    ]


def _modalities(results: Results) -> list[str]:
    found = results["modalities"]
    if not found:
        return []
    lines = [f"What sound and picture add, on {found['n']} questions"]
    for name, value in found.items():
        if name == "n" or value is None:
            continue
        differs = isinstance(value, dict)
        said = f"{signed(value['value'])} {bounds(value, signed)}" if differs else None
        lines.append(f"  {name:<{NAME - 2}}{said or percent(value)}")
    return lines


def _probes(results: Results) -> list[str]:
    if not results["probes"]:
        return []
    columns = ("asked", "before", "after", "steady", "faithful", "stubborn", "silent", "left out")
    lines = [f"{'Probes':<20}" + "".join(f"{column:>10}" for column in columns)]
    for name, found in results["probes"].items():
        after, stay, change = found["accuracy"], found["should_stay"], found["should_change"]
        cells = (
            str(found["n"]),
            percent(found["before"]),
            percent(after["accuracy"] if after else None),
            _share(stay, "steady"),
            _share(change, "faithful"),
            _share(change, "stubborn"),
            _share(_together(stay, change), "silent"),
            str(sum(found["left_out"].values())),
        )
        lines.append(f"{name:<20}" + "".join(f"{cell:>10}" for cell in cells))
    return [
        *lines,
        "steady: of the answers that should stay; faithful, stubborn: of those that should change;",
        "silent: of both, no answer before and after",
    ]


def _share(counts: Results | None, name: str) -> str:
    return percent(counts.get(name, 0) / counts["n"]) if counts and counts["n"] else "-"


def _together(*parts: Results | None) -> Results:
    """Counts of both; older results have no `silent`."""
    return {name: sum((part or {}).get(name, 0) for part in parts) for name in ("n", "silent")}
