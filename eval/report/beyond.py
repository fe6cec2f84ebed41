"""Sections beyond the run itself: other runs, published results, where the figures come from."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eval.compare import Comparison, Difference, compare
from eval.figures import from_file
from eval.report.accuracy import PLOT
from eval.report.content import Block, Cell, Code, Legend, Say, Section, Table, columns
from eval.report.dependence import differences
from eval.report.reading import Run
from eval.report.svg import track
from eval.report.words import NONE, count, estimate, interval, many, percent, points, standing
from eval.samples import RunError

if TYPE_CHECKING:
    from eval.published import Published

# --- other runs -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Against:
    """A run beside the first one."""

    run: Run
    found: Comparison | None
    """None where the two cannot be compared."""
    says: str
    """The verdict, or why there is none."""


def against(runs: Sequence[Run]) -> list[Against]:
    """Compare each run with the first."""
    compared = []
    for run in runs[1:]:
        names = (runs[0].name, run.name)
        try:
            found = compare(runs[0].samples, run.samples, names=names)
        except RunError as error:
            says = f"{run.name} is not compared with {runs[0].name}: {error}."
            compared.append(Against(run=run, found=None, says=says))
            continue
        says = f"{found.overall.verdict}."
        if standing(run.results).startswith("INVALID"):
            says = f"{run.name} is INVALID; {says}"
        compared.append(Against(run=run, found=found, says=says))
    return compared


def side_by_side(runs: Sequence[Run], others: Sequence[Against]) -> Section:
    """Each run against the first, and all of them beside each other."""
    blocks: list[Block] = []
    for other in others:
        loud = other.found is None or standing(other.run.results).startswith("INVALID")
        blocks.append(Say(text=other.says, loud=loud))
        if other.found is not None:
            blocks += _compared(runs[0], other.run, other.found)
    blocks.append(_beside(runs))
    return Section(key="differences", title="Differences", blocks=tuple(blocks))


def _compared(first: Run, run: Run, found: Comparison) -> Iterator[Block]:
    values = {name: _points(one) for name, one in found.types.items()}
    values["Overall"] = _points(found.overall)
    title = f"{run.name} minus {first.name}, in points"
    yield Legend(
        marks=(("dot a", "difference"), ("range a", "95 % interval"), ("floor", "no difference"))
    )
    yield differences(title, "type", values)
    alone = (f"only {first.name} right", f"only {run.name} right")
    head = columns(("type", "name"), ("verdict", "words"), *alone)
    rows = tuple(
        (
            Cell(text=name),
            Cell(text=one.verdict),
            Cell(text=count(one.only_first)),
            Cell(text=count(one.only_second)),
        )
        for name, one in {**found.types, "Overall": found.overall}.items()
    )
    caption = f"{run.name} against {first.name}, in words"
    yield Table(caption=caption, columns=head, rows=rows, folded=True)
    unpaired = found.only_in_first + found.only_in_second
    if unpaired:
        yield Say(
            text=f"{many(unpaired, 'question')} answered by one of the two only: not compared."
        )


def _points(one: Difference) -> dict[str, Any]:
    figures = asdict(one.estimate)
    if one.estimate.low != one.estimate.low:  # NaN: a single clip
        figures |= {"low": None, "high": None}
    return figures


def _beside(runs: Sequence[Run]) -> Table:
    names = {name: None for run in runs for name in (*run.results["types"], *run.results["groups"])}
    head = columns(("", "name"), *(run.name for run in runs))
    rows = [(Cell(text="standing"), *(Cell(text=standing(run.results)) for run in runs))]
    rows.append((Cell(text="Overall"), *(_figure(run.results["overall"]) for run in runs)))
    for name in names:
        found = [{**run.results["types"], **run.results["groups"]}.get(name) for run in runs]
        rows.append((Cell(text=name), *(_figure(one) for one in found)))
    for name, key in (("gain over the floor", "gain_over_floor"), ("no answer", "no_answer")):
        shown = points if key == "gain_over_floor" else count
        rows.append((Cell(text=name), *(Cell(text=shown(run.results.get(key))) for run in runs)))
    return Table(caption="Side by side", columns=head, rows=tuple(rows))


def _figure(figures: Mapping[str, Any] | None) -> Cell:
    if not figures:
        return Cell(text=NONE)
    note = f"{interval(figures)}, n {count(figures['n'])}"
    return Cell(text=percent(figures["accuracy"]), note=note)


# --- published results ----------------------------------------------------------------------


def leaderboard(run: Run) -> Section | None:
    """The run among published results; None where none is published."""
    from eval.published import published

    others = published(run.results["benchmark"])
    if not others:
        return None
    overall = run.results["overall"]
    floor = (run.results.get("floor") or {}).get("overall")
    ours = (
        Cell(text=f"this run: {run.provenance.get('model') or run.name}"),
        Cell(drawn=track([overall], floor=floor, says=estimate(overall))),
        Cell(text=percent(overall["accuracy"]), note=interval(overall)),
        *(Cell(text=text) for text in ("this run", "canonical", "")),
    )
    rows = [(one.overall / 100, _published(one)) for one in others]
    rows = sorted([*rows, (overall["accuracy"], ours)], key=lambda item: -item[0])
    ranked = tuple(cells for _, cells in rows)
    head = columns(("method", "name"), PLOT, "overall", ("on", "short"), ("rule", "short"))
    head += columns(("source", "words"))
    legend = Legend(
        marks=(
            ("dot a", "this run"),
            ("dot b", "published"),
            ("dot hollow", "published, with a note that says what keeps it from being compared"),
            ("floor", "blind floor of this run"),
        )
    )
    said = (
        "Published figures as their authors give them, on their own rows and under their own "
        "rules. This run stands among them with its interval."
    )
    table = Table(
        caption="Overall, in percent, best first",
        columns=head,
        rows=ranked,
        marked=ranked.index(ours),
    )
    blocks = (Say(text=said), legend, table)
    return Section(key="published", title="Published results", blocks=blocks)


def _published(one: Published) -> tuple[Cell, ...]:
    share, mark = one.overall / 100, "hollow" if one.note else "b"
    figures = {"accuracy": share, "low": None, "high": None, "mark": mark}
    link = re.search(r"https://\S+", one.source)
    return (
        Cell(text=one.method, note=one.note),
        Cell(drawn=track([figures], says=percent(share))),
        Cell(text=percent(share), note=f"n {count(one.rows)}" if one.rows else ""),
        Cell(text=one.split_or_sample),
        Cell(text=one.rule or NONE),
        Cell(text=one.source, link=link[0] if link else ""),
    )


# --- provenance -----------------------------------------------------------------------------


def provenance(runs: Sequence[Run]) -> Section:
    """Where the figures come from, and how to get them again."""
    blocks: list[Block] = []
    for run in runs:
        caption = "Where the figures come from" + (f": {run.name}" if len(runs) > 1 else "")
        head = columns(("what", "name"), ("value", "words"))
        rows = tuple((Cell(text=name), Cell(text=value)) for name, value in _facts(run.provenance))
        blocks.append(Table(caption=caption, columns=head, rows=rows))
        missing = run.provenance.get("missing_clips") or {}
        if missing:
            head = columns(("clip", "name"), ("why", "words"))
            rows = tuple((Cell(text=name), Cell(text=str(why))) for name, why in missing.items())
            clips = many(len(missing), "clip")
            caption = f"{clips} missing or broken"
            if from_file(run.provenance):
                caption = f"{clips} with questions that have no prediction"
            blocks.append(Table(caption=caption, columns=head, rows=rows, folded=True))
    blocks.append(Say(text="To get these figures again:"))
    blocks.append(Code(text="\n".join(command(run) for run in runs)))
    return Section(key="provenance", title="Provenance", blocks=tuple(blocks))


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("benchmark", "version", "model", "engine", "mode", "commit", "date"):
        if found.get(name):
            yield name, str(found[name])
    for title, key in (("questions", "files"), ("floor fitted on", "fit"), ("train file", "train")):
        for name, digest in (found.get(key) or {}).items():
            yield f"{title}: {name}", f"sha256 {digest}"
    yield (
        "size",
        f"{count(found.get('questions'))} questions about {count(found.get('clips'))} clips",
    )
    for name in ("limit", "subset", "mute", "blank", "media"):
        if found.get(name):
            yield name, str(found[name])
    if (found.get("shard") or [1, 1])[1] > 1:
        yield "shard", "/".join(map(str, found["shard"]))
    if found.get("seconds"):
        yield "time", f"{found['seconds']:.0f} s"
    for number, oddity in enumerate(found.get("oddities") or (), 1):
        yield f"oddity {number}", str(oddity)
    if found.get("overlap"):
        yield "overlap with the train file", _plain(found["overlap"])
    versions = found.get("versions") or {}
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)


def _plain(found: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}: {value if isinstance(value, int | str) else json.dumps(value)}"
        for name, value in found.items()
    )


def command(run: Run) -> str:
    """The command that makes such a run."""
    found = run.provenance
    if found.get("command"):
        return str(found["command"])
    parts = ["python -m eval score --benchmark", shlex.quote(str(run.results["benchmark"]))]
    named = (("annotations", "files"), ("fit", "fit"), ("train", "train"), ("parent", "parent"))
    for option, key in named:
        there = found.get(key) or ()
        names = [there] if isinstance(there, str) else list(there)
        parts += [f"--{option} {shlex.quote(name)}" for name in names[:1]]
    given = next(iter(found.get("predictions") or ()), "PREDICTIONS.jsonl")
    parts += [f"--predictions {shlex.quote(given)}"]
    parts += ["--partial"] if found.get("missing_questions") else []
    return " ".join([*parts, "--out RUN"])
