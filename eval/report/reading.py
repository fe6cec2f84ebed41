"""Reads what a report is made of: `results.json`, `samples.jsonl` and `probes.jsonl` of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.finished import read_finished
from eval.samples import ProbeSample, RunError, Sample, read_probes


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    name: str
    """Of its folder; with the folder above where two runs share one name."""
    folder: Path
    results: dict[str, Any]
    samples: tuple[Sample, ...]
    probes: tuple[ProbeSample, ...]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the figures come from."""
        provenance: dict[str, Any] = self.results["provenance"]
        return provenance


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read finished runs. Raises RunError for a folder that holds none, or that comes twice."""
    if not folders:
        raise RunError("no run to report on: name at least one folder")
    whole = [folder.resolve() for folder in folders]
    for folder in whole:
        if whole.count(folder) > 1:
            raise RunError(f"{folder} is named twice: compare different runs")
    names = _names(whole)
    return [_read(folder, name) for folder, name in zip(whole, names, strict=True)]


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    depth = 1
    while True:
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _read(folder: Path, name: str) -> Run:
    results, samples = read_finished(folder)
    return Run(
        name=name,
        folder=folder,
        results=results,
        samples=tuple(samples),
        probes=tuple(read_probes(folder)),
    )
