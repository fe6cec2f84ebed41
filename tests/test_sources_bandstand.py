"""Bandstand sets as records: questions that say what the files say, descriptions that are true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AnnotationError
from instruct_data.bandstand.record import level_word, rate_word
from instruct_data.bandstand.scene import INSTRUMENTS, Player, Scene
from instruct_data.bandstand.write import SetConfig, write_set
from instruct_data.records import Record
from instruct_data.sources.bandstand import read as read_set
from instruct_data.sources.captions import LOUDNESS, PACE, PROMPTS
from instruct_data.templates import TEMPLATES, fill


def refused(path: Path, split: str) -> str:
    with pytest.raises(AnnotationError) as error:
        list(read_set(path, split))
    return str(error.value)


@pytest.fixture(scope="module")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of 60 clips without media."""
    out = tmp_path_factory.mktemp("band")
    write_set(out, SetConfig(clips=60, seed=7, split="val"))
    return out


@pytest.fixture(scope="module")
def band_records(band: Path) -> list[Record]:
    return list(read_set(band, "val"))


def scenes_of(folder: Path) -> list[Scene]:
    rows = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    return [Scene.from_json(row) for row in rows]


def captions_of(folder: Path, made: list[Record]) -> list[tuple[Scene, str]]:
    described = {r.clip.video: r.turns[0].answer for r in made if r.kind == "caption"}
    return [(scene, described[scene.video_id]) for scene in scenes_of(folder)]


def test_every_question_of_a_set_and_a_description_a_clip(
    band: Path, band_records: list[Record]
) -> None:
    rows = json.loads((band / "avqa.json").read_text(encoding="utf-8"))
    questions = [record for record in band_records if record.kind == "question"]
    assert len(band_records) == len(rows) + 60
    assert len({record.id for record in band_records}) == len(band_records)
    for record, row in zip(questions, rows, strict=True):
        (turn,) = record.turns
        assert record.clip.video == row["video_id"]
        assert (turn.template, turn.label) == (row["question_content"], row["anser"])
        assert turn.question == fill(row["question_content"], turn.slots)
        assert turn.type == " ".join(TEMPLATES[row["question_content"]].type)
        assert "_" not in turn.answer
    assert {record.split for record in band_records} == {"val"}


def named_in(text: str) -> set[str]:
    """Instruments that a text names."""
    return {kind for kind in INSTRUMENTS if re.search(rf"\b{kind.replace('_', ' ')}\b", text)}


def test_descriptions_name_what_is_there_and_nothing_else(
    band: Path, band_records: list[Record]
) -> None:
    for scene, text in captions_of(band, band_records):
        assert named_in(text) == {player.instrument for player in scene.players}
        assert ("indoor" in text, "outdoor" in text) == (
            scene.place == "indoor",
            scene.place == "outdoor",
        )
        speaks = re.search(r"narrator (?:speaks|is heard from)|There is a voiceover", text)
        assert bool(speaks) == (scene.voiceover is not None)


def true_times(scene: Scene) -> set[str]:
    times = [0.0, scene.seconds]
    for player in scene.players:
        times += [player.start_s or 0.0, player.end_s or 0.0, *(player.moves_s or ())]
    if scene.voiceover:
        times += [scene.voiceover.start_s, scene.voiceover.end_s]
    return {f"{time:.1f}" for time in times}


def test_every_time_in_a_description_is_in_the_truth(
    band: Path, band_records: list[Record]
) -> None:
    count = 0
    for scene, text in captions_of(band, band_records):
        said = re.findall(r"\d+\.\d", text)
        count += len(said)
        assert set(said) <= true_times(scene)
    assert count > 60


def test_each_player_is_described_as_it_plays(band: Path, band_records: list[Record]) -> None:
    """Of instruments that occur once: one sentence about it, with its own loudness and pace."""
    checked = silent = 0
    for scene, text in captions_of(band, band_records):
        sentences = re.split(r"(?<=\.) (?=[A-Z])", text)
        stage = next(s for s in sentences if "icture" in s.split(":")[0] or "see" in s.lower())
        for player in single(scene):
            about = [s for s in sentences if s != stage and player.instrument in named_in(s)]
            assert len(about) == 1, text
            if player.audible:
                loud = LOUDNESS[int(level_word(player)[1:])]
                fast = PACE[int(rate_word(player)[1:])]
                assert f" {loud} and {fast}" in about[0]
                assert ("outside the picture" in about[0]) == (not player.visible)
                checked += 1
            else:
                assert not any(f" {word} and " in about[0] for word in LOUDNESS)
                assert "sound" in about[0] or "heard" in about[0] or "silent" in about[0]
                assert ("movement" in about[0] or "moves" in about[0]) == bool(player.moves_s)
                silent += 1
    assert checked > 50 and silent > 10


def single(scene: Scene) -> list[Player]:
    kinds = [player.instrument for player in scene.players]
    return [player for player in scene.players if kinds.count(player.instrument) == 1]


def test_players_stand_where_the_description_puts_them(
    band: Path, band_records: list[Record]
) -> None:
    for scene, text in captions_of(band, band_records):
        for side, where in (("left", "on the left"), ("right", "on the right")):
            there = any(player.side == side for player in scene.seen)
            assert (where in text) == there
        assert ("in the middle" in text) == any(p.side == "middle" for p in scene.seen)
        first = [text.index(p.instrument.replace("_", " ")) for p in single(scene) if p.visible]
        assert first == sorted(first)


def test_descriptions_vary_and_are_the_same_again(band: Path, band_records: list[Record]) -> None:
    captions = [record for record in band_records if record.kind == "caption"]
    assert {record.turns[0].question for record in captions} == set(PROMPTS)
    assert list(read_set(band, "")) == band_records


def test_only_a_folder_is_a_set(band: Path) -> None:
    assert "is no folder" in refused(band / "truth.json", "val")


def copied(band: Path, to: Path) -> Path:
    for name in ("truth.json", "avqa.json", "instruct.jsonl"):
        (to / name).write_bytes((band / name).read_bytes())
    return to


def test_a_set_of_another_split_is_refused(band: Path) -> None:
    assert "field 'split': the clip is of 'val', not of 'train'" in refused(band, "train")


def test_files_of_two_sets_are_refused(band: Path, tmp_path: Path) -> None:
    copied(band, tmp_path)
    lines = (tmp_path / "instruct.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "instruct.jsonl").write_text("".join(lines[:-1]))
    assert "instruct.jsonl ends before" in refused(tmp_path, "val")
    (tmp_path / "instruct.jsonl").write_text("".join([*lines, lines[0]]))
    assert "more than the 60 clips" in refused(tmp_path, "val")
    (tmp_path / "instruct.jsonl").write_text("".join(lines))
    rows = json.loads((tmp_path / "avqa.json").read_text())
    (tmp_path / "avqa.json").write_text(json.dumps(rows[1:]))
    assert "asks other things" in refused(tmp_path, "val")
    rows[0]["video_id"] = "x"
    (tmp_path / "avqa.json").write_text(json.dumps(rows))
    assert "row 1, field 'video_id': x is not in truth.json" in refused(tmp_path, "val")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda scene: scene.pop("place"), "field 'place': is missing"),
        (lambda scene: scene["players"][0].pop("pan"), "field 'players[0].pan': is missing"),
        (lambda scene: scene["players"][0].update(hat=1), "field 'players[0].hat': is no field"),
        (lambda scene: scene.update(video_id="../x"), "field 'video_id'"),
        (lambda scene: scene.update(players=3), "field 'players': should be a list"),
    ],
)
def test_a_fault_of_the_truth_is_named(band: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    copied(band, tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text())
    spoil(truth[1])
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    message = refused(tmp_path, "val")
    assert f"{tmp_path / 'truth.json'}, row 2, {said}" in message
