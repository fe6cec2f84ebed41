"""`python -m eval headline`: every figure of a model on Bandstand, in one table.

OUT/sets/          the four sets (`eval.sets`)
OUT/RUN/           a run each: full, muted, blanked, reworded, biased, hard (`eval.runner`)
OUT/headline.md    the table
OUT/headline.json  the same, with what it was computed from

Nothing is scored here: figures come from the `results.json` of the runs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eval.benchmarks.bandstand import prepared
from eval.benchmarks.family import BANDSTAND, BANDSTAND_BIASED, BANDSTAND_HARD, BANDSTAND_R
from eval.engines.load import EngineSpec
from eval.figures import Results, bounds, percent, verdict
from eval.job import Job
from eval.samples import write_json
from eval.sets import make_sets, sizes

PAGE, DATA, SETS = "headline.md", "headline.json", "sets"
RUNS: dict[str, tuple[str, dict[str, bool]]] = {
    "full": (BANDSTAND, {}),
    "muted": (BANDSTAND, {"mute": True}),
    "blanked": (BANDSTAND, {"blank": True}),
    "reworded": (BANDSTAND_R, {}),
    "biased": (BANDSTAND_BIASED, {}),
    "hard": (BANDSTAND_HARD, {}),
}
"""Of each run, what it is about and what it leaves out."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure; shares are 0..1."""

    what: str
    run: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Questions."""
    videos: int | None = None
    floor: float | None = None
    """What is reached blindly on the same questions."""


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from avqa_llm.devices import prepare_cpu
    from eval.start import engine_of

    prepare_cpu()
    found = headline(
        args.out, engine_of(args), seed=args.seed, clips=args.clips, workers=args.workers
    )
    print(f"\n{page(found)}\nWritten to {args.out / PAGE} and {args.out / DATA}")


def headline(
    out: Path, spec: EngineSpec, *, seed: int, clips: int, workers: int = 1
) -> dict[str, Any]:
    """Make the sets, run what is not finished, and write both files; returns the content of one.

    Raises:
        AVQAError: of a set, of the model, or of a run; `out` holds one of another model.
    """
    started = time.monotonic()
    steps = 1 + len(RUNS)
    print(f"[1/{steps}] the sets, in {out / SETS}", flush=True)
    weights = spec.weights()  # a model that is not there is told before anything is made
    make_sets(
        out / SETS,
        list(dict.fromkeys(name for name, _ in RUNS.values())),
        clips=sizes(clips),
        seed=seed,
        media=True,
        workers=workers,
        keep=True,
    )
    seconds = {SETS: round(time.monotonic() - started, 1)}
    results: dict[str, Results] = {}
    for number, (name, (benchmark, without)) in enumerate(RUNS.items(), 2):
        before = time.monotonic()
        said = f"{benchmark}{', '.join(['', *without])}"
        print(f"[{number}/{steps}] {name}: {said}, in {out / name}", flush=True)
        job = job_of(out, name, spec, weights)
        results[name] = _evaluate(job, spec, workers)
        seconds[name] = round(time.monotonic() - before, 1)
    found = {
        "model": spec.model,
        "weights": weights or None,
        "seed": seed,
        "rows": [asdict(row) for row in rows(results)],
        "runs": {name: _about(one, seconds[name]) for name, one in results.items()},
        "seconds": round(time.monotonic() - started, 1),
        "seconds_of_sets": seconds[SETS],
        "versions": results["full"]["provenance"]["versions"],
        "commit": results["full"]["provenance"]["commit"],
        "date": results["full"]["provenance"]["date"],
    }
    write_json(out / DATA, found)
    aside = out / f"{PAGE}.part"
    aside.write_text(page(found), encoding="utf-8")
    os.replace(aside, out / PAGE)
    return found


def job_of(out: Path, name: str, spec: EngineSpec, weights: str) -> Job:
    """The job of a run of `RUNS`."""
    benchmark, without = RUNS[name]
    made = prepared(benchmark, out / SETS / benchmark)
    job = Job(
        benchmark=benchmark,
        annotations=made.annotations,
        media=made.media,
        fit=made.fit,
        out=out / name,
        model=spec.model,
        weights=weights,
        server=spec.asked_as() if spec.served else {},
        mode=spec.mode,
        evidence=False,
    )
    return replace(job, **without)  # type: ignore[arg-type]


def _evaluate(job: Job, spec: EngineSpec, workers: int) -> Results:
    from eval.runner import evaluate
    from eval.start import asked

    return evaluate(job, asked(spec, job).load, workers=1 if spec.alone else workers)


def _about(results: Results, seconds: float) -> dict[str, Any]:
    """What the table's reader may want to know of a run."""
    made = results["provenance"]
    return {
        "benchmark": results["benchmark"],
        "says": verdict(results),
        "valid": results["integrity"]["valid"],
        "clips": made["clips"],
        "questions": made["questions"],
        "missing_clips": len(made["missing_clips"]),
        "no_answer": results["no_answer"],
        "files": made["files"],
        "fit": made["fit"],
        "command": made["command"],
        "seconds": seconds,
    }


# -- the table -------------------------------------------------------------------------------


def rows(results: Mapping[str, Results]) -> list[Row]:
    """The figures of all runs, in the order of the table."""
    return list(_rows(results))


def _rows(results: Mapping[str, Results]) -> Iterator[Row]:
    full, reworded = results["full"], results["reworded"]
    yield _whole("overall", "full", full)
    for name in full["types"]:
        yield _part(name, "full", full, "types", name)
    yield _whole("sound only", "blanked", results["blanked"])
    yield _whole("picture only", "muted", results["muted"])
    yield Row(what="blind floor", run="full", value=full["floor"]["overall"])
    yield _whole("all wordings: overall", "reworded", reworded)
    for name in ("head", "tail"):
        if name in reworded["groups"]:
            yield _part(f"all wordings: {name}", "reworded", reworded, "groups", name)
    found = reworded["rephrase"]
    if found:
        share = found["all_right"]
        yield _row(f"right in all of its wordings ({found['wordings']:.1f})", "reworded", share)
        if "25" in found["worst_of_k"]:
            yield Row(what="right in 25 of 25", run="reworded", value=found["worst_of_k"]["25"])
    yield _whole("one-sided questions (biased)", "biased", results["biased"])
    for name in ("prior-agreeing", "prior-disagreeing"):
        if name in results["biased"]["groups"]:
            yield _part(f"one-sided: {name}", "biased", results["biased"], "groups", name)
    yield _whole("hard: 60 s, crowded, noisy", "hard", results["hard"])
    error = full["calibration"] and full["calibration"]["ece"]
    yield Row(what="calibration error (ECE, 15 bins)", run="full", value=error)


def _whole(what: str, run: str, results: Results) -> Row:
    return _row(what, run, results["overall"], results["floor"]["overall"])


def _part(what: str, run: str, results: Results, part: str, name: str) -> Row:
    return _row(what, run, results[part][name], results["floor"][part][name])


def _row(what: str, run: str, share: Mapping[str, Any], floor: float | None = None) -> Row:
    return Row(
        what=what,
        run=run,
        value=share["accuracy"],
        floor=floor,
        **{name: share[name] for name in ("low", "high", "n", "videos")},
    )


def page(found: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    weights = f", weights {found['weights']}" if found["weights"] else ""
    lines = [
        f"# {found['model']} on Bandstand",
        "",
        f"Percent right, with 95 % intervals that draw whole clips. Seed {found['seed']}{weights}; "
        f"commit {found['commit']}.",
        "",
        "| | percent | 95 % interval | questions | clips | blind floor | run |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        interval = "" if row["n"] is None else bounds(row)
        floor = "" if row["floor"] is None else percent(row["floor"])
        cells = (percent(row["value"]), interval, row["n"] or "", row["videos"] or "", floor)
        lines.append(f"| {row['what']} | {' | '.join(map(str, cells))} | {row['run']} |")
    lines += ["", *(f"- {name}: {_says(one)}" for name, one in found["runs"].items()), ""]
    return "\n".join(lines)


def _says(about: Mapping[str, Any]) -> str:
    lost = f"; MISSING: {about['missing_clips']} clips" if about["missing_clips"] else ""
    return f"{about['benchmark']}, {about['clips']} clips; {about['says']}{lost}"
