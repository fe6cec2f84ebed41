"""The plan: claims, and for each the rows that are trained and asked to try it.

A row is the base recipe with some values of its own (`set`, as `avqa train --set`), perhaps with
changed tokens (`pool`, `shuffle`: see `changes`) or training rows (`rows`). Rows that come to the
same setting are one run, whatever claims they stand in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from avqa_llm.errors import RecipeError

PLAN = Path(__file__).with_name("plan.yaml")
CONDITIONS = ("full", "no sound", "no picture")
UNTOLD = ("out", "work", "world", "card", "half", "threads", "sets")
"""Keys of a recipe that its weights do not depend on; of `sets` those that rows come from count."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant. Compared with the first row of its claim."""

    name: str
    set: dict = field(default_factory=dict)
    """Values of the recipe, by their dotted keys."""
    pool: tuple[str, ...] = ()
    shuffle: str = ""
    rows: dict = field(default_factory=dict)
    """By stage, a name of `changes.ROWS`."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the field says, and the rows that try it."""

    name: str
    """One word: of files and of `--only`."""
    title: str
    says: str
    """What is claimed, and by whom."""
    tries: str
    """How it is tried here, and what that leaves open."""
    rows: tuple[Row, ...]
    set: dict = field(default_factory=dict)
    """For all rows; a row's own come after."""
    conditions: tuple[str, ...] = ("full",)
    """What the clips are asked with, see `CONDITIONS`; a row is compared in each."""
    parts: tuple[str, ...] = ()
    """Question types that are shown apart."""
    prior: bool = False
    """Show apart the questions whose answer is the usual one in training, and the others."""
    ask: Literal["closed", "open"] = "closed"
    """`closed`: the 42 answers by likelihood. `open`: free text, whose hedges are counted."""


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The clips that every run is asked about: rendered as arrays, of the split `test`."""

    clips: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole of it."""

    recipe: str
    """Of all rows, from the top of the checkout."""
    test: TestSet
    claims: tuple[Claim, ...]
    set: tuple[str, ...] = ()
    """`KEY=VALUE` for every row, after all others: a trial, not the plan."""

    def chosen(self, only: Sequence[str]) -> tuple[Claim, ...]:
        """The claims of these names; all where none is named. Raises RecipeError."""
        names = [claim.name for claim in self.claims]
        for name in only:
            if name not in names:
                raise RecipeError(f"--only {name}: choose from {', '.join(names)}")
        return tuple(claim for claim in self.claims if not only or claim.name in only)

    def runs(self, claim: Claim, seeds: Sequence[int]) -> list[Run]:
        """Rows of a claim with each seed, row by row."""
        return [Run(plan=self, claim=claim, row=row, seed=n) for row in claim.rows for n in seeds]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A row with a seed: what one process trains and asks."""

    plan: Plan
    claim: Claim
    row: Row
    seed: int

    @property
    def own(self) -> list[str]:
        """What `avqa train --set` would be given for the row and its claim."""
        values = {**self.claim.set, **self.row.set}
        return [f"{key}={json.dumps(value)}" for key, value in values.items()]

    @property
    def changes(self) -> list[str]:
        """All that it would be given: those of a trial as well."""
        return [*self.own, *self.plan.set]

    @cached_property
    def recipe(self) -> Any:
        """The checked recipe. Raises RecipeError."""
        from avqa_llm.training.recipe import read_recipe

        recipe = read_recipe(Path(self.plan.recipe), self.changes)
        for name in ("align", "instruct", "prefer"):
            stage = getattr(recipe, name)
            if stage is not None:
                seeded = dataclasses.replace(stage.loop, seed=self.seed)
                recipe = dataclasses.replace(
                    recipe, **{name: dataclasses.replace(stage, loop=seeded)}
                )
        return recipe

    @property
    def steps(self) -> int:
        """Of all stages."""
        stages = (self.recipe.align, self.recipe.instruct, self.recipe.prefer)
        return sum(stage.loop.steps for stage in stages if stage)

    @cached_property
    def begun(self) -> Run:
        """The run whose instructions it goes on from: its own but for preferences."""
        row, claim = (
            dataclasses.replace(one, set={k: v for k, v in one.set.items() if k != "prefer"})
            for one in (self.row, self.claim)
        )
        return dataclasses.replace(self, row=row, claim=claim)

    @cached_property
    def key(self) -> str:
        """What tells this setting from all others: where its results lie."""
        from avqa_llm.training.run import plain

        recipe = plain(dataclasses.asdict(self.recipe))
        told = {
            "recipe": {name: value for name, value in recipe.items() if name not in UNTOLD},
            "sets": [one for one in recipe.get("sets", []) if one["name"] in self._sets()],
            "pool": sorted(self.row.pool),
            "shuffle": self.row.shuffle,
            "rows": self.row.rows,
            "parts": parts_key(self.recipe),
            "test": dataclasses.asdict(self.plan.test),
            "ask": self.claim.ask,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def align_key(self) -> str:
        """What tells this run's aligned bridge from all others: runs that differ later share it."""
        from avqa_llm.training.run import plain

        recipe = plain(dataclasses.asdict(self.recipe))
        told = {
            "recipe": {name: recipe[name] for name in ("base", "bridge", "align")},
            "sets": [one for one in recipe["sets"] if one["name"] == recipe["align"]["features"]],
            "pool": sorted(self.row.pool),
            "shuffle": self.row.shuffle,
            "rows": self.row.rows.get("align"),
            "parts": parts_key(self.recipe),
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    def _sets(self) -> set[str]:
        stages = (self.recipe.align, self.recipe.instruct, self.recipe.prefer)
        return {stage.features for stage in stages if stage}


RUN = "run.json"


def folder_of(out: Path, run: Run) -> Path:
    """Where a run's results lie."""
    return out / "runs" / run.key


def aligned_folder(out: Path, run: Run) -> Path | None:
    """Where its aligned bridge lies, which other runs may share; None: it aligns nothing."""
    return out / "aligned" / run.align_key if run.recipe.align else None


def is_aligned(out: Path, run: Run) -> bool:
    """Whether its aligned bridge is there, or none is wanted."""
    folder = aligned_folder(out, run)
    return folder is None or (folder / "align.json").exists()


def is_begun(out: Path, run: Run) -> bool:
    """Whether all is there that it shares with runs that begin alike.

    That is what was instructed, and the records that are then written of the clips of pairs.
    """
    instructed = (folder_of(out, run.begun) / "instruct.json").exists()
    return instructed and (run.recipe.prefer is None or records_file(out, run).exists())


def records_file(out: Path, run: Run) -> Path:
    """What the instructed model writes down of the clips of a run's pairs: one for each set."""
    pairs = f"{run.recipe.prefer.rows} {run.recipe.prefer.features}"
    digest = hashlib.sha256(pairs.encode()).hexdigest()[:12]
    return folder_of(out, run.begun) / f"records-{digest}.json"


def samples_file(folder: Path, condition: str) -> Path:
    """Answers of a run under a condition."""
    return folder / f"samples-{condition.replace(' ', '-')}.jsonl"


def files_of(run: Run, out: Path) -> list[Path]:
    """What is there when a run is trained, and asked under all conditions of its claim."""
    folder = folder_of(out, run)
    return [samples_file(folder, name) for name in run.claim.conditions] + [folder / RUN]


def parts_key(recipe: Any, *names: str) -> str:
    """A fingerprint of the frozen parts that a recipe names, of their files where they are here.

    `names`: of the blocks `llm`, `picture`, `sound`; all where none is named.
    """
    base = recipe.base
    if base is None:
        raise RecipeError("the recipe of a plan starts from `base`: every row has a fresh bridge")
    sources = {
        "llm": (base.llm, base.llm_revision),
        "picture": (base.picture.source, base.picture.revision),
        "sound": (base.sound.source, base.sound.revision),
    }
    found = [_fingerprint(*sources[name]) for name in names or sources]
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:12]


@lru_cache
def _fingerprint(source: str, revision: str | None) -> str:
    if not Path(source).is_dir():
        return f"{source}@{revision}"
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(source).rglob("*") if path.is_file()):
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()


def read_plan(path: Path, changes: Sequence[str] = (), test_clips: int | None = None) -> Plan:
    """Read and check a plan.

    Args:
        path: of the YAML file.
        changes: `KEY=VALUE` for every row, for a trial.
        test_clips: other than the plan says, for a trial.

    Raises:
        RecipeError: names the place and what is known there.
    """
    import yaml

    from avqa_llm.training.recipe import build
    from bench.findings.changes import ROWS, Change

    try:
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"plan {path} cannot be read: {error}") from error
    plan: Plan = build(Plan, row, str(path))
    test = plan.test if test_clips is None else dataclasses.replace(plan.test, clips=test_clips)
    plan = dataclasses.replace(plan, set=(*plan.set, *changes), test=test)
    for claim in plan.claims:
        place = f"{path}: {claim.name}"
        names = [one.name for one in claim.rows]
        if len(names) < 2 or len(set(names)) < len(names):
            raise RecipeError(f"{place}: needs at least two rows, each with a name of its own")
        for condition in claim.conditions:
            if condition not in CONDITIONS:
                raise RecipeError(f"{place}: {condition!r} is none of {', '.join(CONDITIONS)}")
        for one in claim.rows:
            Change(pool=one.pool, shuffle=one.shuffle)
            for stage, name in one.rows.items():
                if name not in ROWS or stage not in ("align", "instruct"):
                    raise RecipeError(
                        f"{place}, {one.name}: rows {stage}: {name}; stages are align and"
                        f" instruct, names {', '.join(ROWS)}"
                    )
    return plan
