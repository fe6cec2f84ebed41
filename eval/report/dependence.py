"""Sections on what the accuracy hangs on: the senses, the wording, the scoring rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.report.accuracy import PLOT, Results, spoken
from eval.report.charts import Line, chart, shares, steps
from eval.report.content import (
    Block,
    Cell,
    Column,
    Figure,
    Figures,
    Legend,
    Say,
    Section,
    Table,
    columns,
)
from eval.report.svg import Scale, around_zero, axis, track
from eval.report.words import bounds, count, estimate, interval, known, many, percent, points


def sections(results: Results) -> Iterator[Section]:
    """The sections that the results have figures for."""
    if results.get("modalities"):
        yield modalities(results)
    if results.get("rephrase"):
        yield rephrase(results)
    if results.get("scorers"):
        yield scorers(results)


# --- modalities -----------------------------------------------------------------------------


def modalities(results: Results) -> Section:
    """What is right with one of the senses taken away, and what each adds."""
    found = results["modalities"]
    floor = found.get("floor")
    rows = []
    for name in ("question only", "sound only", "picture only", "full"):
        if found.get(name) is not None:
            figures = _as_estimate(found[name])
            drawn = track([figures], floor=floor, says=_short(figures))
            over = "over the floor" if name == "full" else f"{name} over the floor"
            gain = found.get(over) or {"value": None}
            cells = (Cell(text=name), Cell(drawn=drawn), Cell(text=_short(figures)))
            rows.append((*cells, Cell(text=points(gain["value"]), note=_bounds(gain))))
    head = columns(("given", "name"), PLOT, "right", "gain")
    of = f", {many(found['n'], 'question')}" if found.get("n") else ""
    caption = f"Right answers by what was given{of}"
    said = Say(
        text="The same questions, asked again with sound, picture or both taken away. What is "
        "lost with a sense is what the model gets out of it."
    )
    legend = Legend(marks=(("dot a", "right"), ("floor", "blind floor")))
    blocks: list[Block] = [said, legend, Table(caption=caption, columns=head, rows=tuple(rows))]
    adds = {name: found[name] for name in ("sound adds", "picture adds") if found.get(name)}
    if adds:
        blocks.append(differences("What each adds, in points", "", adds))
    return Section(key="modalities", title="What it listens to", blocks=tuple(blocks))


def _bounds(figures: Mapping[str, Any]) -> str:
    return interval(figures, signed=True) if bounds(figures) else ""


def _as_estimate(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {"accuracy": value, "low": None, "high": None}


def _short(figures: Mapping[str, Any]) -> str:
    return percent(figures["accuracy"]) if figures["low"] is None else estimate(figures)


def differences(caption: str, title: str, values: Mapping[str, Mapping[str, Any]]) -> Table:
    """Signed differences around zero, with their intervals."""
    scale = around_zero([one for value in values.values() for one in known(value)])
    head = columns(
        (title, "name"),
        Column(title="points", kind="plot", drawn=axis(scale, signed=True)),
        "points",
        "n",
    )
    rows = [_difference(name, value, scale) for name, value in values.items()]
    if all(value.get("n") is None for value in values.values()):
        head, rows = head[:-1], [cells[:-1] for cells in rows]
    return Table(caption=caption, columns=head, rows=tuple(rows))


def _difference(name: str, value: Mapping[str, Any], scale: Scale) -> tuple[Cell, ...]:
    bounds_ = interval(value, signed=True)
    says = f"{points(value['value'])} points {bounds_}"
    return (
        Cell(text=name),
        Cell(drawn=track([value], says=says, floor=0.0, scale=scale)),
        Cell(text=points(value["value"]), note=bounds_),
        Cell(text=count(value.get("n"))),
    )


# --- wordings and rules ---------------------------------------------------------------------


def rephrase(results: Results) -> Section:
    """Is the same question, in other words, answered the same?"""
    found = results["rephrase"]
    rows = []
    for name, key in (("all wordings right", "all_right"), ("answer flips", "flip_rate")):
        if found.get(key):
            figures = found[key]
            drawn = track([figures], says=spoken(figures))
            shown = Cell(text=percent(figures["accuracy"]), note=interval(figures))
            rows.append((Cell(text=name), Cell(drawn=drawn), shown))
    head = columns(("", "name"), PLOT, "of the questions")
    blocks: list[Block] = [
        Say(
            text=f"{many(found['questions'], 'question')} in {found['wordings']:.2f} wordings each "
            "on average. A question flips when its wordings do not all get one answer."
        ),
        Table(caption="Consistency over wordings", columns=head, rows=tuple(rows)),
    ]
    if found.get("worst_of_k"):
        blocks += _worst(found["worst_of_k"])
    return Section(key="rephrase", title="Wordings", blocks=tuple(blocks))


def _worst(worst: Mapping[str, Any]) -> Iterator[Block]:
    """A question with k wordings counts as right if all of them are."""
    of = sorted((int(k), _as_estimate(value)) for k, value in worst.items())
    said = ", ".join(f"{_short(figures)} of {k}" for k, figures in of)
    if len(of) > 1:
        line = Line(
            points=[(place, figures["accuracy"]) for place, (_, figures) in enumerate(of)],
            ranges=[bounds(figures) for _, figures in of],
            dots=True,
        )
        drawn = chart(
            [line],
            x=steps(
                "wordings that all have to be right", [(n, str(k)) for n, (k, _) in enumerate(of)]
            ),
            y=shares("right, %", [share for _, figures in of for share in known(figures)]),
            says=f"Right in all of k wordings: {said}",
        )
        yield Figures(figures=(Figure(title="Worst of k wordings", drawn=drawn),))
    head = columns(("wordings", "name"), "all right", "n")
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(text=str(k)),
            Cell(
                text=percent(figures["accuracy"]), note=interval(figures) if bounds(figures) else ""
            ),
            Cell(text=count(figures.get("n"))),
        )
        for k, figures in of
    ]
    if all(figures.get("n") is None for _, figures in of):
        head, rows = head[:-1], [cells[:-1] for cells in rows]
    caption = "Worst of k wordings, over the questions that have so many"
    yield Table(caption=caption, columns=head, rows=tuple(rows), folded=len(of) > 1)


def scorers(results: Results) -> Section:
    """What other rules of matching make of the same answers."""
    found: Mapping[str, Mapping[str, Any]] = results["scorers"]
    ours = results["overall"]["accuracy"]
    ranked: Sequence[tuple[str, Any]] = sorted(
        found.items(), key=lambda item: item[1]["accuracy"] or 0.0
    )
    rows = tuple(_rule(name, rule, ours) for name, rule in ranked)
    head = columns(("rule", "name"), PLOT, "right", "to ours", "counted", "left out")
    table = Table(caption="One set of answers under each rule", columns=head, rows=rows)
    applied = [rule["accuracy"] for rule in found.values() if rule["accuracy"] is not None]
    if not applied:
        return Section(key="scorers", title="Scoring rules", blocks=(table,))
    said = (
        f"The same answers, matched by the rules of published work: {percent(min(applied))} to "
        f"{percent(max(applied))}. Only the canonical rule is used elsewhere in this report."
    )
    return Section(key="scorers", title="Scoring rules", blocks=(Say(text=said), table))


def _rule(name: str, rule: Mapping[str, Any], ours: float) -> tuple[Cell, ...]:
    figures = {**rule, "low": None, "high": None, "mark": "a" if name == "canonical" else "b"}
    away = None if rule["accuracy"] is None else rule["accuracy"] - ours
    return (
        Cell(text=name, note=str(rule.get("says", ""))),
        Cell(drawn=track([figures], says=percent(rule["accuracy"]))),
        Cell(text=percent(rule["accuracy"])),
        Cell(text=points(away)),
        Cell(text=count(rule["n"])),
        Cell(text=count(rule["dropped"])),
    )
