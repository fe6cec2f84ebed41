"""From the answers of a claim's rows to its figures: everything the page says, as plain JSON.

Each row is compared with the claim's first one on the same questions (`eval.compare`). With
several seeds a question counts once a seed, and intervals draw whole clips with all of it, so they
say what other clips would change. What another seed would change stands beside them: the figures
of each seed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.findings.plan import (
    RUN,
    Claim,
    Plan,
    Run,
    files_of,
    folder_of,
    parts_key,
    samples_file,
)
from eval.compare import LEVEL, Difference, compare, holm
from eval.hedging import hedging
from eval.results import interval, shown
from eval.samples import Sample
from eval.statistics import Estimate, estimates

APART = 10_000_000
"""Between the row numbers of two seeds."""
HEAD, TAIL = "head", "tail"
Seeds = dict[int, list[Sample]]


def summary(plan: Plan, claim: Claim, seeds: Sequence[int], out: Path) -> dict[str, Any] | None:
    """Figures of a claim, over the seeds with which all of its rows are done; None without any."""
    whole = [
        n
        for n in seeds
        if all(path.exists() for run in plan.runs(claim, [n]) for path in files_of(run, out))
    ]
    if not whole:
        return None
    usual = _usual(plan.runs(claim, whole)[0], out)
    found = {
        condition: [_answers(plan, claim, row.name, whole, condition, out) for row in claim.rows]
        for condition in claim.conditions
    }
    if claim.prior:
        found = {k: [_by_prior(row, usual) for row in rows] for k, rows in found.items()}
    rows = [
        {
            "name": row.name,
            **_made(plan, claim, row.name, whole, out),
            "conditions": {
                condition: _figures(claim, found[condition][n], found[condition][0], n)
                for condition in claim.conditions
            },
        }
        for n, row in enumerate(claim.rows)
    ]
    _correct(rows)
    full = next(iter(found.values()))[0][whole[0]]
    blind = [_is_usual(sample, usual) for sample in full]
    return {
        "name": claim.name,
        "title": claim.title,
        "says": claim.says,
        "tries": claim.tries,
        "recipe": plan.recipe,
        "frozen": parts_key(plan.runs(claim, whole)[0].recipe),
        "trial": list(plan.set),
        "ask": claim.ask,
        "parts": list(_parts(claim)),
        "seeds": whole,
        "clips": len({sample.video_id for sample in full}),
        "questions": len(full),
        "floor": float(np.mean(blind)),
        "rows": rows,
    }


def _parts(claim: Claim) -> tuple[str, ...]:
    return (HEAD, TAIL) if claim.prior else claim.parts


def _run(plan: Plan, claim: Claim, name: str, seed: int) -> Run:
    return next(run for run in plan.runs(claim, [seed]) if run.row.name == name)


def _answers(
    plan: Plan, claim: Claim, name: str, seeds: Sequence[int], condition: str, out: Path
) -> Seeds:
    found = {}
    for n in seeds:
        path = samples_file(folder_of(out, _run(plan, claim, name, n)), condition)
        found[n] = [Sample.from_line(line) for line in path.read_bytes().splitlines()]
    return found


def _usual(run: Run, out: Path) -> dict[str, str]:
    """The most frequent answer of each template in the training set: the blind floor."""
    from avqa_llm.training.rows import read_rows
    from avqa_llm.training.validation import usual_answers
    from bench.findings.data import Shared

    set_name = run.recipe.instruct.features
    return usual_answers(read_rows(Shared.of(out, run).data / set_name / "instruct.jsonl"))


def _by_prior(row: Seeds, usual: dict[str, str]) -> Seeds:
    """Answers whose type is whether the training set usually gives the right one."""
    return {
        n: [
            dataclasses.replace(one, type=HEAD if _is_usual(one, usual) else TAIL)
            for one in samples
        ]
        for n, samples in row.items()
    }


def _is_usual(sample: Sample, usual: dict[str, str]) -> bool:
    return usual.get(sample.template or "") == sample.gold


def _together(row: Seeds) -> list[Sample]:
    """All seeds as one run: a question a seed, clips as they are."""
    return [
        dataclasses.replace(sample, row=sample.row + APART * place)
        for place, n in enumerate(sorted(row))
        for sample in row[n]
    ]


def _made(plan: Plan, claim: Claim, name: str, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """What a row was, and what it cost a seed; from the files of its runs."""
    runs = [_run(plan, claim, name, n) for n in seeds]
    notes = [json.loads((folder_of(out, run) / RUN).read_text()) for run in runs]
    fields = ("pool", "shuffle", "rows", "steps")
    return {
        "set": runs[0].own,
        **{field: notes[0][field] for field in fields},
        "runs": [run.key for run in runs],
        "commits": sorted({note["commit"] or "unknown" for note in notes}),
        "processor_s": float(np.mean([note["processor_s"] for note in notes])),
        "resumed": any(note["resumed"] for note in notes),
    }


def _figures(claim: Claim, row: Seeds, reference: Seeds, number: int) -> dict[str, Any]:
    samples = _together(row)
    parts = _parts(claim)
    masks = [np.ones(len(samples), bool)]
    masks += [np.array([sample.type == part for sample in samples]) for part in parts]
    kept = [mask for mask in masks if mask.any()]
    right = np.array([sample.correct for sample in samples], float)
    values = iter(estimates(right, [sample.video_id for sample in samples], kept))
    found = [shown(next(values)) if mask.any() else None for mask in masks]
    figures: dict[str, Any] = {
        "overall": found[0],
        "parts": dict(zip(parts, found[1:], strict=True)),
        "seeds": [_share(row[n]) for n in sorted(row)],
    }
    if claim.ask == "open":
        figures["hedging"] = shown(hedging(samples).share)
        figures["empty"] = float(np.mean([not sample.answer.strip() for sample in samples]))
    if number:
        comparison = compare(_together(reference), samples)
        figures["difference"] = {
            **_difference(comparison.overall),
            "seeds": [_share(row[n]) - _share(reference[n]) for n in sorted(row)],
            "parts": {
                part: _difference(comparison.types[part])
                for part in parts
                if part in comparison.types
            },
        }
    return figures


def _share(samples: Sequence[Sample]) -> float:
    return float(np.mean([sample.correct for sample in samples]))


def _difference(found: Difference) -> dict[str, Any]:
    estimate: Estimate = found.estimate
    p = found.p if found.p_holm is None else found.p_holm
    return {"value": estimate.value, **interval(estimate), "p": p}


def _correct(rows: Sequence[dict[str, Any]]) -> None:
    """Holm's correction (1979) of the overall differences, for all rows and conditions at once."""
    tested = [
        figures["difference"]
        for row in rows
        for figures in row["conditions"].values()
        if figures.get("difference") and figures["difference"]["p"] is not None
    ]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["p"] = p


def is_beside_zero(difference: dict[str, Any]) -> bool:
    """Whether the interval excludes zero."""
    low, high = difference["low"], difference["high"]
    return low is not None and (low > 0 or high < 0)


def is_told(difference: dict[str, Any]) -> bool:
    """Whether interval and test both say that there is a difference."""
    p = difference["p"]
    return p is not None and p < LEVEL and is_beside_zero(difference)


def of_seeds(difference: dict[str, Any]) -> tuple[float, float] | None:
    """Student's 95 % interval of what other seeds would give; None with one seed.

    Over the differences of the seeds, each of other weights and another order of clips.
    """
    from scipy.stats import t

    seeds = difference["seeds"]
    if len(seeds) < 2:
        return None
    half = float(t.ppf(0.975, len(seeds) - 1) * np.std(seeds, ddof=1) / len(seeds) ** 0.5)
    middle = float(np.mean(seeds))
    return middle - half, middle + half
