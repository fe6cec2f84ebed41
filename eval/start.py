"""`python -m eval run`: from options to a job."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from eval.engines.load import ORACLE, SERVER, EngineSpec
from eval.job import Job
from eval.runner import evaluate
from eval.samples import RESULTS, SAMPLES, RunError
from eval.tables import run_table

MADE_HERE = ("bandstand", "bandstand-r", "bandstand-biased", "bandstand-hard")
SEED = 61


def run(args: argparse.Namespace) -> None:
    """Carry out the command."""
    from avqa_llm.devices import prepare_cpu

    prepare_cpu()
    spec = engine_of(args)
    job = job_of(args, spec)
    results = evaluate(job, asked(spec, job).load, workers=1 if spec.alone else args.workers)
    print(run_table(results))
    print(f"\nWritten to {args.out / RESULTS} and {args.out / SAMPLES}")
    print(f"A page to read: python -m eval report {args.out}")


def engine_of(args: argparse.Namespace) -> EngineSpec:
    """The engine that the options name. Nothing is loaded yet."""
    served = args.model.startswith(SERVER)
    return EngineSpec(
        model=args.model,
        mode=args.mode or ("generate" if served else "rank"),
        features=str(args.features) if args.features else None,
        base_url=args.base_url,
        server={
            "key_env": args.api_key_env,
            "concurrency": args.concurrency,
            "retries": args.retries,
            "per_minute": args.per_minute,
            "timeout_s": args.timeout,
            "frames": args.frames,
            "max_side": args.max_side,
            "picture": args.picture,
            "sound": args.sound,
            "most_tokens": args.most_tokens,
        },
    )


def asked(spec: EngineSpec, job: Job) -> EngineSpec:
    """The engine for a job: an oracle is told where the truth of its clips lies.

    Raises RunError where it cannot know the truth.
    """
    if spec.model != ORACLE:
        return spec
    if job.benchmark not in MADE_HERE:
        raise RunError(
            f"--model {ORACLE} answers from a truth that {job.benchmark} has not: choose one of "
            f"{', '.join(MADE_HERE)}, or write ./{ORACLE} for a model directory of that name"
        )
    if job.probes:
        raise RunError(
            f"--model {ORACLE} knows the truth of clips as they are: leave out --probes, which "
            "change them"
        )
    return replace(spec, truth=(job.benchmark, str(job.annotations)))


def job_of(args: argparse.Namespace, spec: EngineSpec) -> Job:
    """The job, with Bandstand made where no files are named."""
    annotations, media, fit = args.annotations, args.media, args.fit
    made = annotations is None or media is None
    if made:
        annotations, media, fit = _made(args)
    return Job(
        benchmark=args.benchmark,
        annotations=annotations,
        media=media,
        out=args.out,
        fit=fit,
        train=args.train,
        parent=args.parent,
        model=spec.model,
        weights=spec.weights(),
        server=spec.asked_as() if spec.served else {},
        mode=spec.mode,
        probes=probes_of(args.probes),
        mute=args.mute,
        blank=args.blank,
        limit=args.limit,
        subset=args.subset,
        shard=args.shard,
        made_clips=args.clips if made else None,
        evidence=args.evidence,
    )


def _made(args: argparse.Namespace) -> tuple[Path, Path, Path]:
    if args.benchmark not in MADE_HERE:
        raise RunError(
            f"{args.benchmark} needs --annotations and --media; `python -m eval benchmarks` says "
            "how to get them"
        )
    if args.annotations or args.media:
        raise RunError("name both --annotations and --media, or neither of them")
    from eval.benchmarks.bandstand import prepare

    made = prepare(args.benchmark, clips=args.clips, seed=SEED)
    return made.annotations, made.media, args.fit or made.fit


def probes_of(text: str) -> tuple[str, ...]:
    """Names with commas, or `all`. Raises RunError that lists them for one that is unknown."""
    from eval.probes import PROBES

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == ("all",):
        return tuple(PROBES)
    for name in names:
        if name not in PROBES:
            raise RunError(f"there is no probe {name!r}: choose from all, {', '.join(PROBES)}")
    return tuple(dict.fromkeys(names))
