"""Reads a Bandstand set: the questions of each clip, and a description written from its truth.

A set is a folder that `python -m instruct_data bandstand` wrote. Its questions are the templates,
filled; `instruct_data.rephrase` words them otherwise.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avqa_llm.errors import AnnotationError
from instruct_data.bandstand.scene import Player, Scene, Voiceover
from instruct_data.records import Clip, Record, Turn
from instruct_data.sources.captions import caption
from instruct_data.sources.fields import Fields, provenance, read_list, read_rows
from instruct_data.sources.music_avqa import Annotations, Row, read_annotations, spoken

NAME = "bandstand"
LICENCE = "Apache-2.0"
"""Of the generator, which is part of this project."""

FILES = ("truth.json", "avqa.json", "instruct.jsonl")
_INSTRUCT = (
    "video_id",
    "record",
    "record_without_sound",
    "record_without_picture",
    "events",
    "questions",
)


def read(path: Path, split: str) -> Iterator[Record]:
    """The records of each clip in turn: its questions, then its description (`caption`).

    With an empty `split` the clips' own is taken.

    Raises:
        AnnotationError: the folder is no Bandstand set, its files are not of one set, or its
            clips are of another split; names file, row and field.
    """
    if not path.is_dir():
        raise AnnotationError(f"{path} is no folder: name the folder with {', '.join(FILES)}")
    scenes, sha256 = read_scenes(path / "truth.json", split)
    annotations = read_annotations(path / "avqa.json")
    by_clip = _by_clip(annotations, scenes)
    return _records(path, scenes, annotations, by_clip, sha256)


def read_scenes(path: Path, split: str = "") -> tuple[list[Scene], str]:
    """The scenes of a `truth.json`, and the file's sha-256. Raises AnnotationError as `read`."""
    truth, sha256 = read_list(path)
    return [_scene(Fields(path, number, row), split) for number, row in enumerate(truth, 1)], sha256


def _records(
    path: Path,
    scenes: list[Scene],
    annotations: Annotations,
    by_clip: Mapping[str, list[Row]],
    sha256: str,
) -> Iterator[Record]:
    instructed, _ = read_rows(path / "instruct.jsonl")
    number = 0
    for number, scene in enumerate(scenes, 1):
        rows = by_clip.get(scene.video_id, [])
        line = next(instructed, None)
        if line is None:
            raise _not_one_set(path, f"instruct.jsonl ends before the clip {scene.video_id}")
        _refuse_other_questions(path, line, scene, rows)
        for row in rows:
            yield _question(
                scene, row, provenance(annotations.path, annotations.sha256, row.number)
            )
        yield _caption(scene, provenance(path / "truth.json", sha256, number))
    if next(instructed, None) is not None:
        raise _not_one_set(path, f"instruct.jsonl has more than the {number} clips of truth.json")


def _question(scene: Scene, row: Row, origin: str) -> Record:
    turn = Turn(
        question=row.question,
        answer=spoken(row.gold),
        label=row.gold,
        template=row.template,
        slots=row.slots,
        type=row.type,
    )
    return _of_scene(scene, str(row.question_id), "question", turn, origin)


def _caption(scene: Scene, origin: str) -> Record:
    asked, described = caption(scene)
    return _of_scene(scene, "caption", "caption", Turn(question=asked, answer=described), origin)


def _of_scene(scene: Scene, name: str, kind: Any, turn: Turn, origin: str) -> Record:
    return Record(
        id=f"{NAME}:{scene.split}:{scene.video_id}:{name}",
        kind=kind,
        clip=Clip(video=scene.video_id),
        turns=(turn,),
        source=NAME,
        split=scene.split,
        licence=LICENCE,
        provenance=(origin,),
    )


# -- the files -----------------------------------------------------------------------------


def _scene(row: Fields, split: str) -> Scene:
    """A scene out of a row of truth.json, whose fields are checked by name first."""
    _fields_of(Scene, row, row.raw, "")
    row.file_name("video_id")
    players = row.raw["players"]
    if not isinstance(players, list):
        raise row.wrong("players", "should be a list")
    for place, player in enumerate(players):
        _fields_of(Player, row, player, f"players[{place}].")
    if row.raw["voiceover"] is not None:
        _fields_of(Voiceover, row, row.raw["voiceover"], "voiceover.")
    scene = Scene.from_json(dict(row.raw))
    if split and scene.split != split:
        why = f"the clip is of {scene.split!r}, not of {split!r}: name that split, or none"
        raise row.wrong("split", why)
    return scene


def _fields_of(kind: Any, row: Fields, given: object, place: str) -> None:
    """Refuse an object that lacks a field of the dataclass, or has one that it does not know."""
    if not isinstance(given, Mapping):
        raise row.wrong(place.rstrip("."), "should be an object")
    names = [field.name for field in dataclasses.fields(kind)]
    for name in names:
        if name not in given:
            raise row.wrong(f"{place}{name}", "is missing: the file is of another version")
    for name in given:
        if name not in names:
            raise row.wrong(f"{place}{name}", "is no field of a scene")


def _by_clip(annotations: Annotations, scenes: list[Scene]) -> dict[str, list[Row]]:
    there = {scene.video_id for scene in scenes}
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in annotations.rows:
        if row.video_id not in there:
            raise AnnotationError(
                f"{annotations.path}, row {row.number}, field 'video_id': {row.video_id} is not in "
                "truth.json: the files are not of one set, write it anew"
            )
        rows[row.video_id].append(row)
    return rows


def _refuse_other_questions(path: Path, line: Fields, scene: Scene, rows: list[Row]) -> None:
    """Refuse a clip whose line in instruct.jsonl does not ask what its rows in avqa.json ask."""
    line.only(*_INSTRUCT)
    if line.text("video_id") != scene.video_id:
        raise _not_one_set(path, f"line {line.number} is not about {scene.video_id}")
    questions = line.raw.get("questions")
    if not isinstance(questions, list) or not all(isinstance(one, Mapping) for one in questions):
        raise line.wrong("questions", "should be a list of objects")
    names = ("question_id", "template", "answer")
    asked = [tuple(one.get(name) for name in names) for one in questions]
    if asked != [(row.question_id, row.template, row.gold) for row in rows]:
        why = f"line {line.number} asks other things about {scene.video_id} than avqa.json"
        raise _not_one_set(path, why)


def _not_one_set(path: Path, why: str) -> AnnotationError:
    return AnnotationError(f"{path}: the files are not of one set, write it anew: {why}")
