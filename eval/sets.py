"""`python -m eval sets`: every Bandstand set from one seed, and proof that they are the same.

OUT/NAME/            a set: truth, questions, in `fit/` what the blind floor counts, `videos/`
OUT/manifest.json    what each set was made of, and the SHA-256 of each of its files

The hashes of the default seed lie in `sets.json` beside this file: of truth and questions, which
are the same on every machine. Those of clips hold for one version of the video library only, so
the manifest names it and keeps them.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.folders import sha256_of
from eval.benchmarks import bandstand, read_benchmark
from eval.benchmarks.bandstand import FIT, KINDS, PLAIN, READY, TRUTH
from eval.samples import RunError, read_json, write_json

if TYPE_CHECKING:
    from instruct_data.bandstand.write import SetConfig

SEED = 61
MANIFEST, VIDEOS = "manifest.json", "videos"
KEPT = Path(__file__).with_name("sets.json")
NAMED = 3
"""How many files that differ are named; all are counted."""

Manifest = dict[str, Any]
Clips = Mapping[str, int]


def run(args: argparse.Namespace) -> None:
    """Carry out the command. Raises RunError that says in one sentence what differs."""
    names = names_of(args.only)
    manifest = make_sets(
        args.out,
        [name for name in names if not (args.check and (args.out / name / TRUTH).is_file())],
        clips=dict.fromkeys(names, args.clips) if args.clips else sizes(),
        seed=args.seed,
        media=args.media,
        workers=args.workers,
    )
    if args.check:
        print(check(args.out, names, manifest))
        return
    for name in names:
        one = manifest["sets"][name]
        print(f"{args.out / name}: {one['clips']} clips, {one['questions']} questions")


def names_of(only: Sequence[str] | None) -> list[str]:
    """The sets that were named, in their usual order. Raises RunError for one that is not made."""
    for name in only or ():
        if name not in KINDS:
            raise RunError(f"--only {name}: choose from {', '.join(KINDS)}")
    return [name for name in KINDS if not only or name in only]


def sizes(clips: int | None = None) -> dict[str, int]:
    """Clips of each set, in proportion to those of the balanced one (None: as many as kept)."""
    whole = KINDS[bandstand.BANDSTAND].clips
    wanted = whole if clips is None else clips
    return {name: max(1, round(kind.clips * wanted / whole)) for name, kind in KINDS.items()}


# -- making ----------------------------------------------------------------------------------


def make_sets(
    out: Path,
    names: Sequence[str],
    *,
    clips: Clips,
    seed: int = SEED,
    media: bool = False,
    workers: int = 1,
    keep: bool = False,
) -> Manifest:
    """Write the sets and the manifest, and return it.

    Clips that several sets show are written once. With `keep`, a set that the manifest says was
    made of the same stays as it is, unless its questions are not those of this generator.

    Raises:
        AVQAError: a number cannot be, or a folder holds another set or cannot be written.
    """
    manifest = _known(out)
    for name in names:
        tested, fitted = bandstand.configs(
            name,
            clips=clips[name],
            seed=seed,
            workers=min(workers, clips[name]),
            media="mp4" if media else "none",
        )
        folder, of = out / name, bandstand.made_of(tested, fitted)
        there = manifest["sets"].get(name, {})
        if keep and there.get("made_of") == of and not _differing(out, name, there):
            continue
        try:
            _write(name, folder, tested, fitted, _others(out, names, name))
            manifest["sets"][name] = _entry(folder, tested, of)
            manifest["written_by"] = _writers()
            write_json(out / MANIFEST, manifest)
        except OSError as error:
            raise RunError(
                f"cannot write to {folder}: {error.strerror}; name another folder"
            ) from error
    return manifest


def _known(out: Path) -> Manifest:
    if (out / MANIFEST).is_file():
        return read_json(out / MANIFEST)
    return {"sets": {}}


def _others(out: Path, names: Sequence[str], name: str) -> list[Path]:
    """Folders of sets that were made before, in the same call: they may have what this one needs.

    Which files are equal is told by what they are made of, in `_write`.
    """
    return [out / other for other in names[: list(names).index(name)]]


def _write(
    name: str, folder: Path, tested: SetConfig, fitted: SetConfig, others: Sequence[Path]
) -> None:
    """One set; what another one beside it has already is linked, not made again."""
    fit = _share_fit(folder, bandstand.made_of(fitted, fitted), others)
    if tested.media == "mp4":
        wanted = [f"{tested.scene(index).video_id}.mp4" for index in range(tested.clips)]
        for other in others:
            for file in wanted:
                _link(other / VIDEOS / file, folder / VIDEOS / file)
    bandstand.write(name, folder, tested, None if fit else fitted)
    write_json(folder / FIT / READY, bandstand.made_of(fitted, fitted))


def _share_fit(folder: Path, of: Mapping[str, Any], others: Sequence[Path]) -> bool:
    """Take what to fit on from another set, if it is made of the same."""
    for other in others:
        if (other / FIT / READY).is_file() and read_json(other / FIT / READY) == of:
            for path in (other / FIT).iterdir():
                (folder / FIT / path.name).unlink(missing_ok=True)
                _link(path, folder / FIT / path.name)
            return True
    return False


def _link(file: Path, to: Path) -> None:
    """Files are written aside and renamed, so a link never changes with the other set."""
    if not file.is_file() or to.exists():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:  # another disk, or one without links
        aside = to.with_name(f"{to.name}.part")
        shutil.copyfile(file, aside)
        os.replace(aside, to)


def _entry(folder: Path, tested: SetConfig, of: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a set."""
    return {
        "clips": tested.clips,
        "seconds": tested.seconds,
        "questions": len(read_benchmark(bandstand.BANDSTAND, folder / PLAIN).questions),
        "made_of": dict(of),
        "files": hashes(folder),
        "media": {path.name: sha256_of(path) for path in sorted((folder / VIDEOS).glob("*.mp4"))},
    }


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of truth and questions of a set, by path in it."""
    found = [*folder.glob("*.json"), *(folder / FIT).glob("*.json")]
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(found)
        if path.name != READY
    }


def _writers() -> dict[str, str]:
    """What clips were written with: PyAV, and the FFmpeg libraries in it."""
    import av

    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"av": av.__version__, **libraries}


# -- checking --------------------------------------------------------------------------------


def check(out: Path, names: Sequence[str], manifest: Manifest) -> str:
    """Say that all is as it should be.

    Truth and questions are held against the hashes kept in the repository, where these are of
    the same seed and size, else against the manifest; clips against the manifest; gold answers
    against the oracle.

    Raises:
        RunError: in one sentence what differs.
    """
    from eval.engines.oracle import disagreements

    compared, other = 0, []
    for name in names:
        entry = manifest["sets"].get(name)
        compared += len(_known_files(out / name, name, entry))
        other += _differing(out, name, entry)
    if other:
        more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
        raise RunError(
            f"{out} differs from what is kept of it in {', '.join(other[:NAMED])}{more}: the files "
            "were changed, or another version of the generator made them"
        )
    asked = 0
    for name in names:
        found = read_benchmark(name, bandstand.prepared(name, out / name).annotations)
        asked += len(found.questions)
        for line in disagreements(found):
            raise RunError(f"{name}: a gold answer is not what the oracle says: {line}")
    said = f"{compared} files are as kept" if compared else "no hashes are kept of these sets"
    return f"{out}: {said}; the oracle gives the gold answer to all {asked} questions"


def _differing(out: Path, name: str, entry: Mapping[str, Any] | None) -> list[str]:
    """Files of a set that are not there, or not as they are known to be."""
    return [
        f"{name}/{file}"
        for file, sha256 in _known_files(out / name, name, entry).items()
        if not (path := out / name / file).is_file() or sha256_of(path) != sha256
    ]


def _known_files(folder: Path, name: str, entry: Mapping[str, Any] | None) -> dict[str, str]:
    """What is known of a set's files: the repository's hashes before those of the manifest."""
    kept = read_json(KEPT)["sets"].get(name)
    listed = dict(entry["files"]) if entry else {}
    clips = {f"{VIDEOS}/{file}": sha256 for file, sha256 in (entry or {}).get("media", {}).items()}
    if kept is not None and (kept["clips"], kept["seed"]) == _size_and_seed(folder, entry):
        listed = dict(kept["files"])
    return listed | clips


def _size_and_seed(folder: Path, entry: Mapping[str, Any] | None) -> tuple[int, int]:
    if entry is not None:
        return entry["clips"], entry["made_of"]["test"]["seed"]
    from instruct_data.sources.bandstand import read_scenes

    scenes, _ = read_scenes(folder / TRUTH)
    return len(scenes), scenes[0].seed if scenes else -1


def keep(manifest: Manifest) -> None:
    """Write `sets.json` anew, from a manifest of the default seed and sizes.

    `python -c "from eval.sets import *; keep(read_json(Path('OUT/manifest.json')))"`
    """
    sets = {
        name: {
            "clips": entry["clips"],
            "seed": entry["made_of"]["test"]["seed"],
            "questions": entry["questions"],
            "files": entry["files"],
        }
        for name, entry in manifest["sets"].items()
    }
    write_json(KEPT, {"sets": sets})
