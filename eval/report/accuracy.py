"""Sections on how much is right: types, templates, groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.groups import GROUPS
from eval.report.content import (
    Block,
    Cell,
    Column,
    Legend,
    Say,
    Section,
    Table,
    columns,
)
from eval.report.svg import axis, track
from eval.report.words import (
    count,
    estimate,
    interval,
    listed,
    many,
    percent,
    points,
    sentence,
)

Results = Mapping[str, Any]
PLOT = Column(title="percent", kind="plot", drawn=axis())
WITH_FLOOR = Legend(
    marks=(("dot a", "right"), ("range a", "95 % interval"), ("floor", "blind floor"))
)


def sections(results: Results) -> Iterator[Section]:
    """The sections that the results have figures for."""
    yield types(results)
    if results["groups"]:
        yield groups(results)


def spoken(figures: Mapping[str, Any], floor: float | None = None) -> str:
    """A row of a plot in words, for who does not see it."""
    below = f", blind floor {percent(floor)}" if floor is not None else ""
    return f"{estimate(figures)}{below}"


def row(
    name: str,
    figures: Mapping[str, Any],
    floor: float | None,
    *,
    note: str = "",
    chosen: Mapping[str, str] | None = None,
) -> tuple[Cell, ...]:
    """Name, plot, accuracy, interval, floor, gain and number of questions."""
    gain = None if floor is None else figures["accuracy"] - floor
    return (
        Cell(text=name, note=note, chosen=chosen or {}),
        Cell(drawn=track([figures], floor=floor, says=spoken(figures, floor))),
        Cell(text=percent(figures["accuracy"]), note=interval(figures)),
        Cell(text=percent(floor)),
        Cell(text=points(gain)),
        Cell(text=count(figures["n"])),
    )


COLUMNS = columns(
    ("", "name"),
    PLOT,
    "right",
    "floor",
    "gain",
    "n",
)


def _named(title: str) -> tuple[Column, ...]:
    return columns((title, "name"), *COLUMNS[1:])


def types(results: Results) -> Section:
    """Each type beside its floor, with all templates folded away."""
    floors = (results.get("floor") or {}).get("types", {})
    rows = [
        row(name, figures, floors.get(name), chosen={"type": name})
        for name, figures in results["types"].items()
    ]
    whole = row("Overall", results["overall"], (results.get("floor") or {}).get("overall"))
    blocks: list[Block] = [Say(text=_spread_of_types(results)), WITH_FLOOR]
    caption = "Right answers per type, in percent"
    blocks.append(
        Table(caption=caption, columns=_named("type"), rows=(*rows, whole), marked=len(rows))
    )
    if results.get("templates"):
        blocks.append(_templates(results["templates"]))
    return Section(key="types", title="Types", blocks=tuple(blocks))


def _spread_of_types(results: Results) -> str:
    ranked = sorted(results["types"].items(), key=lambda item: item[1]["accuracy"])
    if not ranked:
        return "No question has a type."
    (worst, low), (best, high) = ranked[0], ranked[-1]
    said = f"Best: {best}, {percent(high['accuracy'])}."
    if low["accuracy"] < high["accuracy"]:
        said += f" Worst: {worst}, {percent(low['accuracy'])}."
    floors = (results.get("floor") or {}).get("types", {})
    blind = [
        name
        for name, figures in ranked
        if name in floors and figures["low"] is not None and figures["low"] <= floors[name]
    ]
    if blind:
        said += f" Not above the blind floor: {listed(blind)}."
    return said


def _templates(templates: Mapping[str, Any]) -> Table:
    def gain(item: tuple[str, Any]) -> float:
        floor = item[1].get("floor")
        return float(item[1]["accuracy"] - (floor or 0.0))

    rows = [
        row(name, figures, figures.get("floor"), chosen={"template": name})
        for name, figures in sorted(templates.items(), key=gain)
    ]
    caption = f"All {many(len(rows), 'template')}, the smallest gain over the floor first"
    return Table(caption=caption, columns=_named("template"), rows=tuple(rows), folded=True)


def groups(results: Results) -> Section:
    """Head and tail, real and synthetic, and whatever else the benchmark is split by."""
    floors = (results.get("floor") or {}).get("groups", {})
    rows = [
        row(name, figures, floors.get(name), note=_about(name))
        for name, figures in results["groups"].items()
    ]
    caption = "Right answers per group, in percent"
    blocks: list[Block] = [*_head_tail(results), WITH_FLOOR]
    blocks.append(Table(caption=caption, columns=_named("group"), rows=tuple(rows)))
    for name, why in (results.get("not_computed") or {}).items():
        blocks.append(Say(text=sentence(f"{name} is not computed: {why}")))
    return Section(key="groups", title="Groups", blocks=tuple(blocks))


def _about(name: str) -> str:
    group = GROUPS.get(name)
    return group.about if group else ""


def _head_tail(results: Results) -> Iterator[Say]:
    groups = results["groups"]
    for high, low in (("head", "tail"), ("prior-agreeing", "prior-disagreeing")):
        if groups.get(high) and groups.get(low):
            gap = groups[high]["accuracy"] - groups[low]["accuracy"]
            said = f"{high.capitalize()} minus {low}: {points(gap)} points"
            yield Say(text=f"{said}{_preferred(groups[high], groups[low])}.")
            return


def _preferred(high: Mapping[str, Any], low: Mapping[str, Any]) -> str:
    """What a gap says; nothing is claimed where the intervals overlap."""
    if high["low"] is None or low["low"] is None:
        return ", of too few clips to tell more"
    if high["low"] > low["high"]:
        return ": frequent answers are preferred"
    if high["high"] < low["low"]:
        return ": frequent answers are not preferred"
    return ", with intervals that overlap"
