"""Sections on what the answers lean to: calibration, bias, confusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.report.accuracy import PLOT, Results
from eval.report.charts import QUARTERS, Axis, Line, chart, heat_map, shares
from eval.report.content import Beside, Block, Cell, Figure, Figures, Say, Section, Table, columns
from eval.report.svg import bar
from eval.report.words import NONE, count, listed, many, percent

LABELS_ON_THE_MAP, CONFUSIONS, TEMPLATES = 10, 15, 8


def sections(results: Results) -> Iterator[Section]:
    """The sections that the results have figures for."""
    if results.get("calibration"):
        yield calibration(results["calibration"])
    if results.get("bias"):
        yield bias(results["bias"])
    if any(gold != given for gold, given, _ in results.get("confusion") or ()):
        yield confusion(results["confusion"])


# --- calibration ----------------------------------------------------------------------------


def calibration(found: Mapping[str, Any]) -> Section:
    """Do probabilities mean what they say, and what is left when doubtful answers are held back?"""
    coverage = {float(risk): share for risk, share in found["coverage_at_risk"].items()}
    held = [f"{percent(share)} at {100 * risk:g} %" for risk, share in sorted(coverage.items())]
    said = f"Expected calibration error {percent(found['ece'])}."
    if held:
        said += f" Share of the questions that can be answered at a given risk: {listed(held)}."
    bins = [one for one in found["bins"] if one["n"]]
    head = columns(("probability", "name"), "mean", "right", "n")
    rows = tuple(
        (
            Cell(text=f"{100 * one['low']:.0f}–{100 * one['high']:.0f} %"),
            Cell(text=percent(one["confidence"])),
            Cell(text=percent(one["accuracy"])),
            Cell(text=count(one["n"])),
        )
        for one in bins
    )
    table = Table(caption="Reliability in figures", columns=head, rows=rows, folded=True)
    figures = Figures(figures=(_reliability(bins), _risk(found)))
    return Section(key="calibration", title="Calibration", blocks=(Say(text=said), figures, table))


def _reliability(bins: Sequence[Mapping[str, Any]]) -> Figure:
    most = max((one["n"] for one in bins), default=1)
    lines = [
        Line(points=((0, 0), (1, 1)), kind="ideal"),
        Line(
            points=[(one["confidence"], one["accuracy"]) for one in bins],
            sizes=[2.5 + 7 * (one["n"] / most) ** 0.5 for one in bins],
            dots=True,
            joined=False,
        ),
    ]
    said = ", ".join(
        f"at {percent(one['confidence'])} {percent(one['accuracy'])} right" for one in bins
    )
    drawn = chart(
        lines,
        x=Axis(title="probability said, %"),
        y=Axis(title="right, %"),
        says=f"Reliability: {said}",
    )
    says = "On the dashed line a probability is the share that is right. Bigger: more questions."
    return Figure(title="Reliability", drawn=drawn, says=says)


def _risk(found: Mapping[str, Any]) -> Figure:
    curve = [(coverage, risk) for coverage, risk in found["risk_coverage"]]
    y = shares("wrong among them, %", [0.0, *(risk for _, risk in curve)])
    aurc = found.get("aurc")
    area = "" if aurc is None else f" Area under the curve: {aurc:.4f}."
    drawn = chart(
        [Line(points=curve)],
        x=Axis(title="answered, the surest first, %", ticks=QUARTERS),
        y=y,
        says=f"Risk over coverage, from {percent(curve[0][1])} to {percent(curve[-1][1])}"
        if curve
        else "Risk over coverage: no point",
    )
    return Figure(title="Risk over coverage", drawn=drawn, says=f"Lower is better.{area}")


# --- bias -----------------------------------------------------------------------------------


def bias(found: Mapping[str, Any]) -> Section:
    """Are some answers given more often than they are right?"""
    ranked = sorted(
        found["templates"].items(), key=lambda item: -item[1]["distance"] * item[1]["n"]
    )
    said = f"Mean distance per template {percent(found['mean_distance'])}: that share of the "
    said += "answers would have to be others for each answer to be as frequent as it should be."
    blocks: list[Block] = [Say(text=said)]
    yes = found.get("yes_rate")
    if yes:
        blocks.append(
            Say(
                text=f"Yes is said to {percent(yes['predicted'])} of {count(yes['n'])} yes-or-no "
                f"questions; it is right for {percent(yes['gold'])}."
            )
        )
    caption = "Distance between given and right answers, the most answers displaced first"
    first, rest = ranked[:TEMPLATES], ranked[TEMPLATES:]
    blocks.append(_distances(caption, first))
    if rest:
        blocks.append(_distances(f"{many(len(rest), 'more template')}", rest, folded=True))
    return Section(key="bias", title="Bias", blocks=tuple(blocks))


def _distances(
    caption: str, templates: Sequence[tuple[str, Mapping[str, Any]]], folded: bool = False
) -> Table:
    rows = []
    for name, one in templates:
        drawn = bar(one["distance"], says=f"distance {percent(one['distance'])}")
        leaning = Cell(text=_leaning(one))
        figures = (Cell(text=percent(one["distance"])), leaning, Cell(text=count(one["n"])))
        rows.append((Cell(text=name, chosen={"template": name}), Cell(drawn=drawn), *figures))
    head = columns(("template", "name"), PLOT, "distance", ("most over-used answer", "words"), "n")
    return Table(caption=caption, columns=head, rows=tuple(rows), folded=folded)


def _leaning(one: Mapping[str, Any]) -> str:
    gold, given = Counter(one["gold"]), Counter(one["predicted"])
    over = {label: number - gold[label] for label, number in given.items()}
    label = max(over, key=lambda name: over[name], default="")
    if not label or over[label] <= 0:
        return NONE
    return f"{label}: {many(given[label], 'time')}, right {many(gold[label], 'time')}"


# --- confusion ------------------------------------------------------------------------------


def confusion(found: Sequence[Sequence[Any]]) -> Section:
    """What is taken for what."""
    counts = {(gold, given): n for gold, given, n in found if gold != given}
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    involved: Counter[str] = Counter()
    for (gold, given), n in ranked:
        involved[gold] += n
        involved[given] += n
    labels = sorted(label for label, _ in involved.most_common(LABELS_ON_THE_MAP))
    wrong = sum(counts.values())
    on_map = sum(n for pair, n in ranked if set(pair) <= set(labels))
    said = f"Gold downwards, answer across: the {len(labels)} answers most often confused; "
    said += f"{percent(on_map / wrong)} of {many(wrong, 'wrong answer')} lie here."
    drawn = heat_map(counts, labels, says=f"Map of confusions. {_most(ranked)}")
    rows = tuple(
        (
            Cell(text=gold, chosen={"gold": gold, "label": given}),
            Cell(text=given),
            Cell(text=count(n)),
            Cell(text=percent(n / wrong)),
        )
        for (gold, given), n in ranked[:CONFUSIONS]
    )
    head = columns(("gold", "name"), ("answered", "words"), "times", "of all errors")
    table = Table(caption="Most frequent confusions", columns=head, rows=rows)
    figure = Figure(title="Map of confusions", drawn=drawn, says=said)
    beside = Beside(figure=figure, table=table)
    return Section(key="confusion", title="Confusions", blocks=(beside,))


def _most(ranked: Sequence[tuple[tuple[str, str], int]]) -> str:
    return "; ".join(f"{gold} answered {given}: {n}" for (gold, given), n in ranked[:5])
