"""The processes of many machines: Ray Data deals the files out to a pool of actors.

Each actor loads the encoders once and writes shards of its own into the shared folder; only
names and outcomes travel. A batch that Ray repeats after a failure finds what is there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avqa_llm.encoders.store_info import StoreInfo, create
from avqa_llm.errors import AVQAError
from avqa_llm.featuring.files import Job
from avqa_llm.featuring.work import Outcome, Plan, Worker

BATCH = 64
"""Most files of one batch, each of which ends with a shard."""


class Actor:
    """A worker as Ray Data calls it."""

    def __init__(self, plan: Plan) -> None:
        from avqa_llm.devices import prepare_cpu

        prepare_cpu(plan.threads or 1)
        self.worker = Worker.of(plan)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode the files of a batch; returns their outcomes."""
        outcomes: list[Outcome] = []
        self.worker.writer.store.refresh()
        self.worker.run([Job.from_json(job) for job in batch["job"]], outcomes.append)
        rows = [asdict(outcome) for outcome in outcomes]
        return {key: [row[key] for row in rows] for key in asdict(Outcome(name=""))}


def run_ray(
    plan: Plan, jobs: Sequence[Job], workers: int, report: Callable[[Outcome], object]
) -> None:
    """Encode files on a Ray cluster (RAY_ADDRESS), or on this machine where there is none.

    Raises:
        AVQAError: ray is not installed, or gave up.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise AVQAError(
            f"--engine ray needs Ray Data ({error}): pip install 'ray[data]', or leave --engine out"
        ) from error
    create(Path(plan.out), StoreInfo.of(*plan.encoders(), dtype=plan.dtype))  # or say why not
    started = not ray.is_initialized()
    if started:
        here: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **here)
    try:
        _stream(ray, plan, jobs, workers, report)
    except ray.exceptions.RayError as error:
        raise AVQAError(
            f"ray gave up: {_last_line(error)}. What was written stays; run again to go on"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _stream(
    ray: Any, plan: Plan, jobs: Sequence[Job], workers: int, report: Callable[[Outcome], object]
) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the bar of the command says enough
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = max(1, min(BATCH, -(-len(jobs) // (2 * workers))))
    rows = [{"job": job.to_json()} for job in jobs]
    dealt = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(jobs) // size)))
    done = dealt.map_batches(
        Actor,
        fn_constructor_kwargs={"plan": plan},
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    for row in done.iter_rows():
        report(Outcome(**{key: _plain(value) for key, value in row.items()}))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
