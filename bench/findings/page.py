"""The page of all findings, from the committed JSON files alone: `docs/findings.md` and its plots.

Sentences about a row are made of its interval and its seeds, and say no more than these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.findings.draw import forest
from bench.findings.figures import is_beside_zero, is_told, of_seeds

Summary = dict[str, Any]
ASKED = {
    "full": "with sound and picture",
    "no sound": "without the sound",
    "no picture": "without the picture",
}
PAGE, FOLDER = "findings.md", "findings"

HEAD = """# Findings: what the field claims, tried here

Written by `python -m bench.findings`; not to be edited by hand.

**What this is.** The test bed is synthetic and tiny: drawn musicians (Bandstand), clips of ten
seconds, a language model of a few million parameters, bridges trained for minutes. It shows what a
mechanism does where everything else is equal and every answer is known; it says nothing about real
videos or large models. A claim that is not seen here may hold there, and the other way round.

**How to read it.** Accuracy is that of the canonical scorer, in percent, with 95 % intervals that
draw whole clips. Δ is the paired difference to the first row on the same questions. A sentence
calls a row better or worse only where the interval excludes zero and a permutation test over clips
agrees (p < 0.05 after Holm's correction for all rows of the claim). Intervals hold for these
trained weights; each seed is other weights and another order of clips, so what each seed gave
stands beside them. *With these seeds* means that other clips would not change the verdict and
other seeds might: Student's 95 % interval over the differences of the seeds holds zero. The floor
is the most frequent answer of each template in training.
"""


def write_page(docs: Path, order: Sequence[str], shipped: str) -> Path | None:
    """Write page and plots from the figures in `docs/findings`; None where there are none.

    `order`: names of claims; others follow in the order of their names. `shipped`: fingerprint of
    the frozen parts that a run would have now; figures on others say so.
    """
    found = read_summaries(docs / FOLDER, order)
    if not found:
        return None
    blocks = [HEAD, "\n".join(_short(found, shipped))]
    blocks += [_claim(number, one, shipped) for number, one in enumerate(found, 1)]
    for one in found:
        _put(docs / FOLDER / f"{one['name']}.svg", forest(one))
    _put(docs / PAGE, "\n".join(blocks))
    return docs / PAGE


def read_summaries(folder: Path, order: Sequence[str]) -> list[Summary]:
    """The figures that are there, in this order."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    names = [name for name in order if name in found]
    return [found[name] for name in [*names, *sorted(set(found) - set(names))]]


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.writing")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _short(found: Sequence[Summary], shipped: str) -> Iterator[str]:
    """A line for each row of each claim; those on older parts say so."""
    yield from ("## In short", "")
    yield _line(["claim", "row", "against", "Δ [95 %]", "Δ of each seed", ""])
    yield _line(["---"] * 6)
    for number, one in enumerate(found, 1):
        claim = f"{number}. {one['title']}"
        claim += "" if one["frozen"] == shipped else " (older parts and recipe)"
        for row, asked, difference in _compared(one):
            seeds = ", ".join(f"{100 * value:+.2f}" for value in difference["seeds"])
            cells = [claim, row + asked, one["rows"][0]["name"], _signed(difference), seeds]
            alone = ", one seed" if len(difference["seeds"]) == 1 else ""
            yield _line([*cells, verdict(difference) + alone])
            claim = ""
    yield ""


def _claim(number: int, one: Summary, shipped: str) -> str:
    lines = [f"## {number}. {one['title']}", ""]
    lines += [f"**The field.** {one['says']}", "", f"**Here.** {one['tries']}", ""]
    lines += [_made(one), ""]
    for condition in one["rows"][0]["conditions"]:
        if len(one["rows"][0]["conditions"]) > 1:
            lines += [f"Asked {ASKED[condition]}:", ""]
        lines += [*_table(one, condition), ""]
    lines += [f"![{one['title']}]({FOLDER}/{one['name']}.svg)", ""]
    lines += [f"- {said}" for said in sentences(one)]
    lines += ["", *_runs(one, shipped)]
    return "\n".join(lines) + "\n"


def _made(one: Summary) -> str:
    seeds = len(one["seeds"])
    said = (
        f"{_count(seeds, 'seed')} a row, {one['questions']} questions about {one['clips']} unseen"
        f" clips in wordings that training never used; blind floor {_percent(one['floor'])}."
    )
    if one["ask"] == "open":
        said += " Free answers."
    if one["trial"]:
        said += f" **A trial, not the plan:** every row with `{'`, `'.join(one['trial'])}`."
    return said


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(one: Summary, condition: str) -> list[str]:
    parts = one["parts"]
    hedges = one["ask"] == "open"
    head = ["", "accuracy [95 %]", "seeds", "Δ [95 %]", *parts]
    head += ["hedges [95 %]", "empty"] if hedges else []
    lines = [_line([*head, "steps", "processor s"]), _line(["---"] * (len(head) + 2))]
    for row in one["rows"]:
        figures = row["conditions"][condition]
        cells = [row["name"], _estimate(figures["overall"]), _spread(figures["seeds"])]
        cells.append(_signed(figures.get("difference")))
        differences = (figures.get("difference") or {}).get("parts", {})
        for part in parts:
            told = f" ({_signed(differences[part])})" if part in differences else ""
            cells.append(_estimate(figures["parts"][part]) + told)
        cells += [_estimate(figures["hedging"]), _percent(figures["empty"])] if hedges else []
        least = "at least " if row["resumed"] else ""
        lines.append(_line([*cells, str(row["steps"]), f"{least}{row['processor_s']:.0f}"]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _estimate(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "none asked"
    if figures["low"] is None:
        return _percent(figures["accuracy"])
    bounds = f"[{_percent(figures['low'])}, {_percent(figures['high'])}]"
    return f"{_percent(figures['accuracy'])} {bounds}"


def _signed(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "reference"
    said = f"{100 * figures['value']:+.2f}"
    if figures["low"] is None:
        return said
    return f"{said} [{100 * figures['low']:+.2f}, {100 * figures['high']:+.2f}]"


def _spread(seeds: Sequence[float]) -> str:
    if len(seeds) == 1:
        return "one"
    return f"{_percent(min(seeds))} to {_percent(max(seeds))}"


def sentences(one: Summary) -> Iterator[str]:
    """What the intervals say of each row against the first, and nothing else."""
    for row, asked, difference in _compared(one):
        yield f"*{row}* against *{one['rows'][0]['name']}*{asked}: {said_of(difference)}"


def _compared(one: Summary) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each row but the first: its name, what it was asked without, its difference to the first."""
    for row in one["rows"][1:]:
        for condition, figures in row["conditions"].items():
            asked = "" if condition == "full" else f" ({ASKED[condition]})"
            yield row["name"], asked, figures["difference"]


def verdict(difference: dict[str, Any]) -> str:
    """One difference in two words or a few."""
    if not is_beside_zero(difference):
        return "no difference beyond its interval"
    if not is_told(difference):
        return "not told apart"
    word, seeds = _word(difference), difference["seeds"]
    if _same(difference) < len(seeds):
        return f"{word}, but so with {_same(difference)} of {len(seeds)} seeds only"
    others = of_seeds(difference)
    return f"{word} with these seeds" if others and others[0] * others[1] <= 0 else word


def _word(difference: dict[str, Any]) -> str:
    return "better" if difference["value"] > 0 else "worse"


def _same(difference: dict[str, Any]) -> int:
    """Seeds whose difference has the sign of all of them together."""
    return sum((value > 0) == (difference["value"] > 0) for value in difference["seeds"])


def said_of(difference: dict[str, Any]) -> str:
    """One difference in words."""
    seeds, same = len(difference["seeds"]), _same(difference)
    figures = f"{_signed(difference)} points"
    if not is_beside_zero(difference):
        return f"{verdict(difference)}, {figures}."
    if not is_told(difference):
        p = f"p = {difference['p']:.3f}"
        return f"{verdict(difference)}, {figures}: the test over clips does not confirm it ({p})."
    said = f"{_word(difference)} by {abs(100 * difference['value']):.2f} points, {figures}"
    others = of_seeds(difference)
    if others is None:
        return f"{said}; one seed, so nothing is known of what another would give."
    agree = (
        f"with all {seeds} seeds" if same == seeds else f"but so with {same} of {seeds} seeds only"
    )
    return (
        f"{said}; {agree}, whose own interval is [{100 * others[0]:+.2f}, {100 * others[1]:+.2f}]."
    )


def _shortened(commit: str) -> str:
    """A commit by its first letters, and whether files differed from it."""
    name, dash, dirty = commit.partition("-")
    return f"{name[:10]}{dash}{dirty}"


def _runs(one: Summary, shipped: str) -> Iterator[str]:
    """Which recipe and which runs each row is."""
    frozen = f"language model and encoders `{one['frozen']}`"
    if one["frozen"] != shipped:
        frozen += (
            f" (not those that ship now, `{shipped}`; the history has these, and the recipe as it"
            " was, at the commits below)"
        )
    yield f"Recipe `{one['recipe']}`, {frozen}, seeds {', '.join(map(str, one['seeds']))}. Rows:"
    yield ""
    for row in one["rows"]:
        made = [f"`--set {change}`" for change in row["set"]]
        made += [f"{side} pooled" for side in row["pool"]]
        made += [f"seconds shuffled: {row['shuffle']}"] if row["shuffle"] else []
        made += [f"rows of {stage}: {name}" for stage, name in row["rows"].items()]
        what = "; ".join(made) or "as the recipe has it"
        runs = f"runs {', '.join(row['runs'])} at {', '.join(map(_shortened, row['commits']))}"
        yield f"- *{row['name']}*: {what}; {runs}"
    yield ""
    numbers = ",".join(map(str, one["seeds"]))
    yield f"Again: `python -m bench.findings --only {one['name']} --seeds {numbers}`"
