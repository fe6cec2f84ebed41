"""Build a set of instruction data from a recipe: `python -m instruct_data build RECIPE.yaml`.

Two passes, so that a set may be larger than memory: the first reads the sources into a spool
file and keeps a few numbers of each record, from which it is decided what stays and what becomes
of it; the second writes the records. The folder appears under its name when it is complete.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avqa_llm.errors import AnnotationError, AVQAError, RecipeError
from avqa_llm.folders import sha256_of
from instruct_data.balance import Negatives, Trim, balance
from instruct_data.mixing import (
    MODALITIES,
    PICTURE,
    SOUND,
    Array,
    BuildRecipe,
    Draws,
    Part,
    can_be_given,
    check_sources,
    divide,
    draws,
    finished,
    merged,
    pick_dialogues,
    read_build_recipe,
)
from instruct_data.overlap import HeldOut, Hit, figures, find, place, read_held_out, refuse
from instruct_data.records import RECORD, Record, dump, write_records
from instruct_data.report import Tally, floors, input_files, write_report

RECORDS, RECIPE, REPORT = "records.jsonl", "recipe.yaml", "report.json"
SPOOL, REPLACED = "spool.jsonl", "replaced"
OURS = {
    *(RECORDS, RECIPE, REPORT, SPOOL, f"{RECORDS}.writing"),
    *("report.md", "floor.png", "answers.png"),
}
"""All that a build writes: a folder with anything else in it is never deleted."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `build` to the door."""
    parser = commands.add_parser("build", help="mix sources to a set of instruction data")
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    parser.add_argument("--out", type=Path, metavar="DIR", help="instead of the recipe's `out`")
    parser.add_argument("--replace", action="store_true", help="replace a set that is there")
    parser.add_argument(
        "--force-overlap",
        action="store_true",
        help="build although test files have the same videos; the report says so",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out `build`."""
    recipe = read_build_recipe(args.recipe)
    if args.out is not None:
        recipe = replace(recipe, out=str(args.out))
    report = build_set(recipe, force_overlap=args.force_overlap, replace_old=args.replace)
    before, after = report["floor"]["before"]["share"], report["floor"]["after"]["share"]
    print(f"{report['records']} records with {report['questions']} questions in {recipe.out}")
    if before is not None and after is not None:
        print(f"blind floor {100 * before:.2f} % before balancing, {100 * after:.2f} % in the set")
    left_out = sum(row["records"] for row in report["dropped"])
    print(f"{left_out} records left out; {Path(recipe.out) / 'report.md'} says why")
    for line in report["shortfalls"]:
        print(f"not reached: {line}")
    return 0


def build_set(
    recipe: BuildRecipe, *, force_overlap: bool = False, replace_old: bool = False
) -> dict[str, Any]:
    """Build a set; returns what report.json says. The same recipe gives the same records.

    Raises:
        RecipeError: a source is unknown or for evaluation only, or nothing is left.
        OverlapError: a record has the video of a test file.
        AnnotationError: a source or a test file is missing or malformed.
        AVQAError: the folder is there already.
    """
    check_sources(recipe)
    out = Path(recipe.out)
    if out.exists() and not replace_old:
        raise AVQAError(f"{out} exists; name another folder with --out, or give --replace")
    aside = out.with_name(f"{out.name}.writing")
    for folder in (out, aside):
        _refuse_foreign(folder)
    if aside.exists():  # what a build that was killed has left
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    try:
        report = _build(recipe, aside, force_overlap)
    except BaseException:
        shutil.rmtree(aside)
        raise
    if out.exists():
        out.rename(aside / REPLACED)  # is still there if the next line is never reached
    aside.rename(out)
    shutil.rmtree(out / REPLACED, ignore_errors=True)
    return report


def _refuse_foreign(folder: Path) -> None:
    """What is not ours is not deleted, whatever the options say."""
    if not folder.exists():
        return
    foreign = not folder.is_dir() or sorted({path.name for path in folder.iterdir()} - OURS)
    if foreign:
        named = f"holds {foreign[0]!r}, which" if isinstance(foreign, list) else "is a file, which"
        raise AVQAError(f"{folder} {named} no build has written; name another folder with --out")


def _build(recipe: BuildRecipe, folder: Path, force_overlap: bool) -> dict[str, Any]:
    import yaml

    saved = yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False)
    (folder / RECIPE).write_text(saved, encoding="utf-8")
    first = FirstPass(recipe, folder / SPOOL, read_held_out(recipe.evaluation))
    first.read_all()
    plan = first.decide(force_overlap=force_overlap)
    tally = Tally()
    write_records(folder / RECORDS, _second_pass(recipe, folder / SPOOL, plan, tally))
    (folder / SPOOL).unlink()
    report = {
        **tally.as_json(),
        "sha256": sha256_of(folder / RECORDS),
        "seed": recipe.seed,
        "balance": recipe.balance,
        "inputs": first.inputs(),
        "dropped": [{"why": why, "records": n} for why, n in sorted(first.dropped.items()) if n],
        "augmented": plan.augmented,
        "shortfalls": plan.shortfalls,
        "floor": floors(tally.answers, plan.trims),
        "overlap": figures(first.held_out, plan.overlapping),
        "overlap_forced": force_overlap,
    }
    write_report(folder, report)
    return report


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


# --- first pass -------------------------------------------------------------------------------

DONE, REFUSED = 1, 8
"""What came of an augmentation that was drawn; three of them fit in a byte."""


@dataclass(kw_only=True)
class Columns:
    """A few numbers of each of N records, in the order of the spool."""

    offset: array[int] = field(default_factory=lambda: array("q"))
    part: array[int] = field(default_factory=lambda: array("i"))
    template: array[int] = field(default_factory=lambda: array("i"))
    """Index of the template and of the label of a single question; -1 where there is none."""
    label: array[int] = field(default_factory=lambda: array("i"))
    group: array[int] = field(default_factory=lambda: array("i"))
    """Which single questions are about the same clip; -1 for what is no single question."""
    question: array[int] = field(default_factory=lambda: array("i"))
    outcome: array[int] = field(default_factory=lambda: array("b"))
    """`DONE` or `REFUSED`, shifted by the place of the augmentation in `Augment`."""
    by_ear: array[int] = field(default_factory=lambda: array("b"))
    by_eye: array[int] = field(default_factory=lambda: array("b"))
    limit: array[float] = field(default_factory=lambda: array("d"))
    modality: array[float] = field(default_factory=lambda: array("d"))
    balance: array[float] = field(default_factory=lambda: array("d"))
    dialogue: array[float] = field(default_factory=lambda: array("d"))

    def __getitem__(self, name: str) -> Array:
        """A column as an array of its own."""
        return np.array(getattr(self, name))


@dataclass(kw_only=True)
class Plan:
    """What becomes of the records of the spool."""

    offset_N: Array
    keep_N: Array
    modality_N: Array
    """Index in `MODALITIES`; 0 also leaves a record as its source restricts it."""
    dialogues: list[list[int]]
    trims: list[Trim]
    augmented: dict[str, dict[str, int]]
    shortfalls: list[str]
    overlapping: list[tuple[str, str, tuple[Hit, ...]]]


class FirstPass:
    """Reads the sources into the spool, and decides."""

    def __init__(self, recipe: BuildRecipe, spool: Path, held_out: list[HeldOut]) -> None:
        self.recipe, self.spool, self.held_out = recipe, spool, held_out
        self.augment: dict[str, float] = dataclasses.asdict(recipe.augment)
        self.columns = Columns()
        self.templates: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.groups: dict[Any, int] = {}
        self.questions: dict[str, int] = {}
        self.ids: set[str] = set()
        self.hits: dict[int, tuple[Hit, ...]] = {}
        self.beyond_limit: set[int] = set()
        self.read = [0] * len(recipe.sources)
        self.dropped: Counter[str] = Counter()

    def read_all(self) -> None:
        """Read every source into the spool."""
        with self.spool.open("w+b") as file:
            for at, part in enumerate(self.recipe.sources):
                self._read_part(at, part, file)

    def _read_part(self, at: int, part: Part, file: BinaryIO) -> None:
        from tqdm import tqdm

        from instruct_data.sources import SOURCES

        first = len(self.columns.offset)
        rows = SOURCES[part.name].read(Path(part.path), part.split)
        for record in tqdm(rows, desc=f"reading {part.name}", unit=" records", disable=None):
            self.read[at] += 1
            self._admit(at, part, record, file)
        if not self.read[at]:
            raise RecipeError(f"source {part.name}: {part.path} has no records")
        if part.name == "music-avqa-v2":  # the only source with rows that are no records
            from instruct_data.sources.music_avqa import left_out, read_annotations

            missing = left_out(read_annotations(Path(part.path)))
            self.dropped[f"source {part.name}: sound of another clip"] += len(missing)
        self._limit(part, first)
        if part.negatives:
            self._add_negatives(at, part, first, file)

    def _admit(self, at: int, part: Part, record: Record, file: BinaryIO) -> None:
        draw = draws(self.recipe.seed, record.id)
        if part.share is not None and draw.share >= part.share:
            self.dropped[f"share of source {part.name}"] += 1
        elif record.kind == "caption" and draw.caption >= self.recipe.captions:
            self.dropped["share of captions"] += 1
        else:
            self._add(at, record, draw, file)

    def _limit(self, part: Part, first: int) -> None:
        """Keep the records with the smallest draws, where a source has a limit."""
        draw = np.array(self.columns.limit[first:])
        if part.limit is not None and len(draw) > part.limit:
            beyond = np.argsort(draw, kind="stable")[part.limit :] + first
            self.beyond_limit.update(beyond.tolist())
            self.dropped[f"limit of source {part.name}"] += len(beyond)

    def _add_negatives(self, at: int, part: Part, first: int, file: BinaryIO) -> None:
        negatives = Negatives(Path(part.path), part.negatives, self.recipe.seed)
        for index in range(first, len(self.columns.offset)):
            if index not in self.beyond_limit:
                file.seek(self.columns.offset[index])
                negatives.see(RECORD.validate_json(file.readline()))
        file.seek(0, 2)
        for record in negatives.records():
            self._add(at, record, draws(self.recipe.seed, record.id), file)

    def _add(self, at: int, record: Record, draw: Draws, file: BinaryIO) -> None:
        """Take a record into the spool, unless a test file has it and asks to leave it out."""
        hits = find(self.held_out, record)
        for hit in hits:
            entry = self.held_out[hit.file].entry
            if entry.drop:
                self.dropped[f"video in test file {entry.name} {entry.path}"] += 1
                return
        if not record.turns:
            raise AnnotationError(f"record {place(record)} has no turns; take it out of its file")
        if record.id in self.ids:
            raise RecipeError(
                f"record {record.id} comes twice; list a file once, and give two files of one "
                "source different splits"
            )
        self.ids.add(record.id)
        if hits:
            self.hits[len(self.columns.offset)] = hits
        record, outcome = self._augmented(record, draw)
        self.columns.outcome.append(outcome)
        self._note(at, record, draw, file.tell())
        file.write(dump(record))

    def _augmented(self, record: Record, draw: Draws) -> tuple[Record, int]:
        """The record changed as drawn, and what came of it as `Columns.outcome` has it."""
        from instruct_data.augment import AUGMENTATIONS, UnsafeAugmentation

        outcome = 0
        for at, (name, share) in enumerate(self.augment.items()):
            if record.kind == "caption" or getattr(draw, name) >= share:
                continue
            try:
                record = AUGMENTATIONS[name](record)
                outcome |= DONE << at
            except UnsafeAugmentation:
                outcome |= REFUSED << at
        return record, outcome

    def _note(self, at: int, record: Record, draw: Draws, offset: int) -> None:
        columns, part = self.columns, self.recipe.sources[at]
        single = record.kind == "question" and len(record.turns) == 1
        turn = record.turns[0]
        template = turn.template if single else None
        label = turn.label if single else None
        clip = (at, record.licence, record.clip) if single else None
        columns.offset.append(offset)
        columns.part.append(at)
        columns.template.append(_number(self.templates, template))
        columns.label.append(_number(self.labels, label))
        columns.group.append(_number(self.groups, clip))
        columns.question.append(_number(self.questions, turn.question.casefold()))
        by_ear, by_eye = can_be_given(record, part)
        columns.by_ear.append(by_ear)
        columns.by_eye.append(by_eye)
        for name in ("limit", "modality", "balance", "dialogue"):
            getattr(columns, name).append(getattr(draw, name))

    def inputs(self) -> list[dict[str, Any]]:
        """What was read: sources and test files, with the hashes of their files."""
        from instruct_data.sources import SOURCES

        parts = [
            {"name": part.name, "path": part.path, "split": part.split, "read": read}
            | {"licence": SOURCES[part.name].licence, "files": input_files(Path(part.path))}
            for part, read in zip(self.recipe.sources, self.read, strict=True)
        ]
        tests = [
            {"name": file.entry.name, "path": file.entry.path, "split": file.entry.split}
            | {"read": file.rows, "licence": SOURCES[file.entry.name].licence}
            | {"files": input_files(Path(file.entry.path)), "for": "overlap only"}
            for file in self.held_out
        ]
        return parts + tests

    # --- decisions ---

    def decide(self, *, force_overlap: bool) -> Plan:
        """What stays and what becomes of it. Raises OverlapError, unless that is forced."""
        columns, shortfalls = self.columns, list[str]()
        keep_N = np.ones(len(columns.offset), bool)
        keep_N[list(self.beyond_limit)] = False
        if not force_overlap:
            self._refuse_overlap(keep_N)
        keep_N, trims = self._balanced(keep_N)
        if not keep_N.any():
            raise RecipeError("nothing is left of the sources: every record is dropped")
        overlapping = list(self._overlapping(keep_N))
        modality_N = self._modalities(keep_N, shortfalls)
        return Plan(
            offset_N=columns["offset"],
            keep_N=keep_N,
            modality_N=modality_N,
            dialogues=self._dialogues(keep_N, modality_N, shortfalls),
            trims=trims,
            augmented=self._outcomes(keep_N),
            shortfalls=shortfalls,
            overlapping=overlapping,
        )

    def _balanced(self, keep_N: Array) -> tuple[Array, list[Trim]]:
        columns, names = self.columns, (list(self.templates), list(self.labels))
        template_N = np.where(keep_N, columns["template"], -1)
        balanced_N, trims = balance(
            template_N, columns["label"], columns["balance"], names, self.recipe.balance
        )
        for trim in trims:
            self.dropped[f"balance: {trim.answer!r} to {trim.template}"] += trim.dropped
        return keep_N & balanced_N, trims

    def _outcomes(self, keep_N: Array) -> dict[str, dict[str, int]]:
        outcome_N = self.columns["outcome"][keep_N]
        return {
            name: {
                "done": int(np.count_nonzero(outcome_N & DONE << at)),
                "refused": int(np.count_nonzero(outcome_N & REFUSED << at)),
            }
            for at, name in enumerate(self.augment)
        }

    def _refuse_overlap(self, used_N: Array) -> None:
        """Before balancing, which may by chance drop the row that tells of a leak."""
        used = [index for index in self.hits if used_N[index]]
        if used:
            refuse(self.held_out, self._spooled(used[0]), self.hits[used[0]], len(used))

    def _overlapping(self, keep_N: Array) -> Iterator[tuple[str, str, tuple[Hit, ...]]]:
        for index, hits in self.hits.items():
            if keep_N[index]:
                record = self._spooled(index)
                yield place(record), record.clip.video, hits

    def _spooled(self, index: int) -> Record:
        with self.spool.open("rb") as file:
            file.seek(self.columns.offset[index])
            return RECORD.validate_json(file.readline())

    def _modalities(self, keep_N: Array, shortfalls: list[str]) -> Array:
        columns = self.columns
        by_ear_N, by_eye_N = columns["by_ear"] > 0, columns["by_eye"] > 0
        modality_N = np.zeros(len(keep_N), np.int8)
        for at, part in enumerate(self.recipe.sources):
            mine = np.flatnonzero(keep_N & (columns["part"] == at))
            chosen = divide(
                part.modalities, by_ear_N[mine], by_eye_N[mine], columns["modality"][mine]
            )
            modality_N[mine] = chosen
            for name in (SOUND, PICTURE):
                wanted = round(getattr(part.modalities, name) * len(mine))
                got = int((chosen == MODALITIES.index(name)).sum())
                if got < wanted:
                    shortfalls.append(
                        f"source {part.name}: {wanted} records with {name} only wanted, but only "
                        f"{got} can be answered so"
                    )
        return modality_N

    def _dialogues(
        self, keep_N: Array, modality_N: Array, shortfalls: list[str]
    ) -> list[list[int]]:
        columns, settings = self.columns, self.recipe.dialogues
        fit = np.flatnonzero(keep_N & (columns["group"] >= 0))
        groups = columns["group"][fit] * len(MODALITIES) + modality_N[fit]
        questions, draw = columns["question"][fit], columns["dialogue"][fit]
        picked = pick_dialogues(settings, groups, questions, draw, self.recipe.seed)
        wanted, got = round(settings.share * len(fit)), sum(map(len, picked))
        if got < wanted - 1:
            shortfalls.append(
                f"dialogues: {wanted} questions wanted, but only {got} are about a clip that "
                "another question with the same sound and picture is about"
            )
        return [[int(fit[at]) for at in members] for members in picked]


def _number(known: dict[Any, int], value: Any) -> int:
    """A value's number, given in the order of appearance; -1 for None."""
    return -1 if value is None else known.setdefault(value, len(known))


# --- second pass ------------------------------------------------------------------------------


def _second_pass(recipe: BuildRecipe, spool: Path, plan: Plan, tally: Tally) -> Iterator[Record]:
    """The records of the set, each counted as it passes."""
    from tqdm import tqdm

    first = {min(members): members for members in plan.dialogues}
    others = {at for members in plan.dialogues for at in members} - first.keys()
    kept = np.flatnonzero(plan.keep_N).tolist()
    with spool.open("rb") as file:
        for index in tqdm(kept, desc="writing", unit=" records", disable=None):
            if index in others:
                continue
            done = []
            for at in first.get(index, [index]):
                file.seek(int(plan.offset_N[at]))
                record = RECORD.validate_json(file.readline())
                done.append(finished(recipe, record, MODALITIES[plan.modality_N[at]]))
            record = merged(done) if len(done) > 1 else done[0]
            # What was done is said in a few words; what follows a colon is about this record only.
            steps = [step.partition(":")[0] for one in done for step in one.provenance[1:]]
            tally.add(record, steps)
            yield record
