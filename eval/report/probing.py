"""The section on probes: what the answers do when the clip or the question is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.report.accuracy import PLOT, Results
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
from eval.report.svg import stacked, track
from eval.report.words import NONE, bounds, count, estimate, known, listed, percent, sentence

STAY = ("steady", "flighty", "silent")
CHANGE = ("faithful", "stubborn", "flighty", "silent")
NEAR = 0.1
"""A floor that lies further below the lowest value is not drawn into a sweep."""


ABOUT_PROBES = (
    "Clip or question is changed, and the question asked again. Steady: the answer stays, as it "
    "should. Faithful: it changes to what is right now. Stubborn: it stays. Flighty: it becomes "
    "something that it should not. Silent: no answer before and after. Where what an answer rests "
    "on is gone, the right one cannot be known; the same answer as before then comes from "
    "elsewhere."
)
OUTCOMES = Legend(
    marks=(
        ("part steady", "steady or faithful"),
        ("part stubborn", "stubborn, or the same answer from elsewhere"),
        ("part flighty", "flighty"),
        ("part silent", "silent"),
        ("before", "right before"),
        ("dot a", "right after"),
    )
)
SWEPT = Legend(
    marks=(
        ("dot a", "right after"),
        ("line before", "right before, on the same questions"),
        ("line floor", "blind floor"),
    )
)


def sections(results: Results) -> Iterator[Section]:
    """The section, where something was probed."""
    if results.get("probes"):
        yield probes(results["probes"], (results.get("floor") or {}).get("overall"))


def probes(found: Mapping[str, Mapping[str, Any]], floor: float | None) -> Section:
    """What the answers do when the clip or the question is changed."""
    blocks: list[Block] = [Say(text=ABOUT_PROBES), *_exact(found), OUTCOMES]
    changes = {name: probe for name, probe in found.items() if not probe.get("sweep")}
    if changes:
        blocks.append(_rated("Answers after a change", changes))
    sweeps = {name: probe for name, probe in found.items() if probe.get("sweep")}
    if sweeps:
        figures = tuple(_sweeps(sweeps, floor))
        if figures:
            blocks += [SWEPT, Figures(figures=figures)]
        blocks.append(_rated("Answers as clips get worse", sweeps, folded=bool(figures)))
    if left_out := tuple(_left_out(found)):
        head = columns(("change", "name"), "left out", ("because", "words"))
        caption = "Questions left out of a probe"
        blocks.append(Table(caption=caption, columns=head, rows=left_out, folded=True))
    return Section(key="probes", title="Probes", blocks=tuple(blocks))


def _exact(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Say]:
    exact = [name for name, probe in found.items() if probe.get("exact")]
    others = [name for name in found if name not in exact]
    if exact:
        which = listed(exact)
        if len(others) < len(exact):
            which = f"all but {listed(others)}" if others else "all of them"
        yield Say(text=f"The truth after the change is known exactly for {which}.")


def _rated(caption: str, found: Mapping[str, Mapping[str, Any]], *, folded: bool = False) -> Table:
    head = columns(
        ("change", "name"),
        ("answer should stay", "words"),
        ("answer should change", "words"),
        ("answer cannot be known", "words"),
        Column(title="right, before and after", kind="words", drawn=PLOT.drawn),
        "n",
    )
    rows = tuple(_probe(name, probe) for name, probe in found.items())
    return Table(caption=caption, columns=head, rows=rows, folded=folded)


def _probe(name: str, probe: Mapping[str, Any]) -> tuple[Cell, ...]:
    after, before = probe.get("accuracy"), probe.get("before")
    way = Cell(text=NONE)
    if after and after.get("accuracy") is not None:
        said = f"{percent(before)} → {estimate(after)}"
        way = Cell(text=said, drawn=track([after], before=before, says=said))
    return (
        Cell(text=name, note=probe.get("about", ""), chosen={"probe": name}),
        _parts(probe.get("should_stay"), STAY),
        _parts(probe.get("should_change"), CHANGE),
        _unknown(probe.get("unknown")),
        way,
        Cell(text=count(probe["n"])),
    )


def _parts(outcome: Mapping[str, int] | None, names: Sequence[str]) -> Cell:
    """A bar of outcomes."""
    if not outcome or not outcome.get("n"):
        return Cell(text=NONE)
    n = outcome["n"]
    counts = [(name, outcome.get(name, 0)) for name in names]  # older results have no `silent`
    said = ", ".join(f"{percent(number / n)} {name}" for name, number in counts if number)
    said = f"{said}, n {count(n)}"
    return Cell(text=said, drawn=stacked(counts, says=said))


def _unknown(outcome: Mapping[str, int] | None) -> Cell:
    """What the answer rests on is gone: how often is it given all the same?"""
    if not outcome or not outcome.get("n"):
        return Cell(text=NONE)
    n, same = outcome["n"], outcome["same_answer"]
    said = f"{percent(same / n)} same answer, n {count(n)}"
    return Cell(text=said, drawn=stacked((("stubborn", same), ("other", n - same)), says=said))


def _left_out(found: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Cell, ...]]:
    for name, probe in found.items():
        for reason, number in (probe.get("left_out") or {}).items():
            yield Cell(text=name), Cell(text=count(number)), Cell(text=reason)


def _sweeps(found: Mapping[str, Mapping[str, Any]], floor: float | None) -> Iterator[Figure]:
    """Probes that do one thing in several strengths, each as a line."""
    families: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for probe in found.values():
        if (probe.get("accuracy") or {}).get("accuracy") is not None:
            families[probe["sweep"]["of"]].append(probe)
    for title, family in families.items():
        if len(family) > 1:
            yield _sweep(title, _in_order(family), floor)


def _in_order(family: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """From the weakest change to the strongest, as probed; in both directions, by direction."""
    if any(probe["sweep"]["at"] < 0 for probe in family):
        return sorted(family, key=lambda probe: probe["sweep"]["at"])
    return family


def _sweep(title: str, family: Sequence[Mapping[str, Any]], floor: float | None) -> Figure:
    after = [probe["accuracy"] for probe in family]
    shown = [f"{probe['sweep']['at']:g}" for probe in family]
    line = Line(
        points=[(place, one["accuracy"]) for place, one in enumerate(after)],
        ranges=[bounds(one) for one in after],
        dots=True,
    )
    before = [(place, probe["before"]) for place, probe in enumerate(family)]
    x = steps(family[0]["sweep"].get("unit") or title, [*enumerate(shown)])
    lines = [Line(points=before, kind="before"), line]
    values = [share for one in after for share in known(one)] + [share for _, share in before]
    if floor is not None and floor > min(values) - NEAR:
        lines.insert(0, Line(points=((x.low, floor), (x.high, floor)), kind="floor"))
        values.append(floor)
    said = ", ".join(
        f"{place}: {percent(one['accuracy'])}" for place, one in zip(shown, after, strict=True)
    )
    drawn = chart(lines, x=x, y=shares("right, %", values), says=f"{title}. {said}")
    return Figure(title=sentence(title).rstrip("."), drawn=drawn)
