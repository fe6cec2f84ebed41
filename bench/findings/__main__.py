"""`python -m bench.findings`: try the claims of the field, and write what came out.

Trains and asks what the plan wants and is not done yet, a process a run, and writes the figures to
`docs/findings/` and the page to `docs/findings.md`. Killed at any moment, it goes on where it was.
With `--set` or `--test-clips` it is a trial: page and figures then go below `--out`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from avqa_llm.errors import AVQAError
from bench.findings.plan import (
    PLAN,
    Claim,
    Plan,
    Run,
    aligned_folder,
    files_of,
    folder_of,
    is_aligned,
    is_begun,
    parts_key,
    read_plan,
)

OUT, DOCS = Path("runs/findings"), Path("docs")


def main(words: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 a run failed, 2 a fault of the input."""
    args = _parser().parse_args(words)
    try:
        return _main(args)
    except AVQAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.findings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="CLAIM", action="append", default=[], help="repeatable")
    parser.add_argument("--seeds", type=_seeds, default=(0,), help="with commas (default: 0)")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, its cost, and stop")
    parser.add_argument("--page", action="store_true", help="the page anew from committed figures")
    parser.add_argument("--plan", metavar="FILE", type=Path, default=PLAN)
    parser.add_argument("--out", metavar="DIR", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--docs", metavar="DIR", type=Path, help=f"default: {DOCS}")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="a trial: for every row"
    )
    parser.add_argument("--test-clips", metavar="N", type=int, help="a trial: of the test set")
    parser.add_argument("--one", metavar="CLAIM/ROW", help=argparse.SUPPRESS)
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: write whole numbers as 0,1,2") from error


def _main(args: argparse.Namespace) -> int:
    from bench.findings.page import write_page

    plan = read_plan(args.plan, args.set, args.test_clips)
    out, trial = args.out, bool(args.set or args.test_clips)
    docs = args.docs or (out / "trial" if trial else DOCS)
    order = [claim.name for claim in plan.claims]
    shipped = parts_key(plan.runs(plan.claims[0], [0])[0].recipe)
    if args.page:
        print(f"written: {write_page(docs, order, shipped)}")
        return 0
    if args.one:
        return _one(plan, args.one, args.seeds[0], out)
    claims = plan.chosen(args.only)
    if args.dry_run:
        print("\n".join(planned(plan, claims, args.seeds, out, docs)))
        return 0
    failed = _all(args, plan, claims, out)
    _write_figures(plan, claims, args.seeds, out, docs)
    if page := write_page(docs, order, shipped):
        print(f"written: {page}")
    return 1 if failed else 0


def _one(plan: Plan, name: str, seed: int, out: Path) -> int:
    """What a child process does."""
    from bench.findings.train import carry_out

    claim_name, _, row = name.partition("/")
    (claim,) = plan.chosen([claim_name])
    (run,) = [run for run in plan.runs(claim, [seed]) if run.row.name == row]
    carry_out(run, out)
    return 0


# -- what is to be done ------------------------------------------------------------------------


def due(plan: Plan, claims: Sequence[Claim], seeds: Sequence[int], out: Path) -> list[Run]:
    """Runs that are not done, seed by seed; those that come to one setting once."""
    runs = [run for n in seeds for claim in claims for run in plan.runs(claim, [n])]
    waiting, asked = [], set()
    for run in runs:
        wanted = set(files_of(run, out))
        missing = {path for path in wanted if not path.exists()}
        if missing - asked:
            waiting.append(run)
        asked |= wanted
    return waiting


def planned(
    plan: Plan, claims: Sequence[Claim], seeds: Sequence[int], out: Path, docs: Path
) -> list[str]:
    """Lines about what would be done, with the time that it would take."""
    waiting = {(run.key, run.claim.name) for run in due(plan, claims, seeds, out)}
    per_step, per_asking = _costs(out, docs)
    lines, total = [f"recipe {plan.recipe}, {plan.test.clips} test clips, results in {out}"], 0.0
    for claim in claims:
        lines.append(f"{claim.name}: {claim.title}; asked {', '.join(claim.conditions)}")
        for run in plan.runs(claim, seeds):
            is_due = (run.key, claim.name) in waiting
            state = "to do" if is_due else "done, or another claim does it"
            said = f"  {run.row.name}, seed {run.seed}: {run.steps} steps, run {run.key}, {state}"
            if is_due and per_step is not None:
                seconds = run.steps * per_step + len(claim.conditions) * per_asking
                total += seconds
                said += f", about {seconds / 60:.1f} min of one core"
            lines.append(said)
    if per_step is None:
        lines.append(f"{len(waiting)} runs; no time can be said before a first one is done")
    else:
        lines.append(
            f"{len(waiting)} runs, about {total / 3600:.1f} h of one core by the median of finished"
            f" runs ({per_step:.2f} s a step, {per_asking:.0f} s a condition), data not counted"
        )
    return lines


def _costs(out: Path, docs: Path) -> tuple[float | None, float]:
    """Processor seconds a step and a condition: of finished runs, else of committed figures."""
    steps, asking = [], [0.0]
    for path in out.glob("runs/*/run.json"):
        note = json.loads(path.read_text(encoding="utf-8"))
        steps.append(note["processor_s"] / note["steps"])
        asking.append(note["asked_s"])
    if not steps:
        for path in (docs / "findings").glob("*.json"):
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            steps += [row["processor_s"] / row["steps"] for row in rows]
    return (median(steps) if steps else None), median(asking[1:] or asking)


# -- doing it ----------------------------------------------------------------------------------


def _all(args: argparse.Namespace, plan: Plan, claims: Sequence[Claim], out: Path) -> list[str]:
    """Carry out what is due, at most `--jobs` at a time; returns what failed."""
    from bench.findings.data import prepare

    waiting = due(plan, claims, args.seeds, out)
    needs = {(str(r.recipe.sets), r.recipe.instruct.rows): r for r in waiting}
    for run in needs.values():
        prepare(run, out)
    alive: list[tuple[Run, subprocess.Popen[bytes]]] = []
    failed: list[str] = []
    number = 0
    while waiting or alive:
        ready = next(
            (run for run in waiting if _is_free(run, [one for one, _ in alive], out)), None
        )
        if ready is not None and len(alive) < max(1, args.jobs):
            waiting.remove(ready)
            number += 1
            folder = folder_of(out, ready)
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{ready.claim.name}/{ready.row.name}"
            print(f"{number}: {name}, seed {ready.seed}: {folder / 'log.txt'}", flush=True)
            with (folder / "log.txt").open("ab") as log:
                process = subprocess.Popen(_command(args, name, ready.seed), stdout=log, stderr=log)
            alive.append((ready, process))
            continue
        time.sleep(0.2)
        for run, process in [one for one in alive if one[1].poll() is not None]:
            alive.remove((run, process))
            if process.returncode:
                failed.append(f"{run.claim.name}/{run.row.name}, seed {run.seed}")
                print(f"failed: {failed[-1]}, see {folder_of(out, run) / 'log.txt'}", flush=True)
    return failed


def _is_free(run: Run, alive: Sequence[Run], out: Path) -> bool:
    """Whether no process is at work on what this run would make."""
    if any(run.key == other.key for other in alive):
        return False
    if any(run.begun.key == other.begun.key for other in alive) and not is_begun(out, run):
        return False
    aligning = {aligned_folder(out, other) for other in alive if not is_aligned(out, other)}
    return is_aligned(out, run) or aligned_folder(out, run) not in aligning


def _command(args: argparse.Namespace, name: str, seed: int) -> list[str]:
    command = [sys.executable, "-m", "bench.findings", "--one", name, "--seeds", str(seed)]
    command += ["--plan", str(args.plan), "--out", str(args.out)]
    command += [word for change in args.set for word in ("--set", change)]
    return command + (["--test-clips", str(args.test_clips)] if args.test_clips else [])


def _write_figures(
    plan: Plan, claims: Sequence[Claim], seeds: Sequence[int], out: Path, docs: Path
) -> None:
    from bench.findings.figures import summary
    from bench.findings.page import FOLDER
    from eval.samples import write_json

    for claim in claims:
        found = summary(plan, claim, seeds, out)
        if found is None:
            print(f"{claim.name}: no seed with which all rows are done, so no figures")
            continue
        (docs / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(docs / FOLDER / f"{claim.name}.json", found)


if __name__ == "__main__":
    sys.exit(main())
