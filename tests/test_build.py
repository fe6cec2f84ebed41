"""A set that is built says of itself what an independent count of its records says."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from avqa_llm.errors import AnnotationError, AVQAError, RecipeError
from instruct_data import build as build_module
from instruct_data import report as report_module
from instruct_data.augment import AUGMENTATIONS
from instruct_data.bandstand.write import SetConfig, write_set
from instruct_data.build import add_commands, build_set
from instruct_data.mixing import (
    Augment,
    BuildRecipe,
    Dialogues,
    Modalities,
    Part,
    read_build_recipe,
)
from instruct_data.records import Clip, Record, Turn, read_records
from instruct_data.sources import SOURCES, Source
from instruct_data.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT.parent / "shared/data"))
VAL = DATA / "music-avqa/avqa-val.json"
TWO = {text for text, one in TEMPLATES.items() if one.answers in ("yes-no", "place")}


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take seconds; test_build_report.py draws them."""
    monkeypatch.setattr(report_module, "draw", lambda folder, report: [])


@pytest.fixture(scope="module")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "band"
    write_set(out, SetConfig(clips=40, seed=3))
    return out


@pytest.fixture
def val() -> Part:
    if not VAL.is_file():
        pytest.skip(f"{VAL} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    return Part(name="music-avqa", path=str(VAL), split="val")


def band_part(folder: Path, **keys: Any) -> Part:
    return Part(name="bandstand", path=str(folder), split="train", **keys)


def built(tmp_path: Path, *parts: Part, **keys: Any) -> tuple[dict[str, Any], list[Record]]:
    """Build into a new folder; the report as written, and the records as read back."""
    out = tmp_path / f"set-{len(list(tmp_path.iterdir()))}"
    options = {name: keys.pop(name) for name in ("force_overlap",) if name in keys}
    build_set(BuildRecipe(out=str(out), seed=keys.pop("seed", 5), sources=parts, **keys), **options)
    report = json.loads((out / "report.json").read_text())
    assert report["sha256"] == hashlib.sha256((out / "records.jsonl").read_bytes()).hexdigest()
    assert not list(tmp_path.glob("*.writing*")) and not list(out.glob("spool*"))
    return report, list(read_records(out / "records.jsonl"))


def answers_of(records: list[Record]) -> dict[str, Counter[str]]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for turn in record.turns:
            if turn.template and turn.label:
                counts[turn.template][turn.label] += 1
    return counts


def floor_of(records: list[Record]) -> float:
    counts = answers_of(records)
    return sum(max(c.values()) for c in counts.values()) / sum(c.total() for c in counts.values())


def meaning(record: Record) -> list[tuple[Any, ...]]:
    """What a record asks of which clip, whatever the words."""
    return [
        (record.clip.video, record.clip.mirrored, turn.template, turn.slots, turn.label)
        for turn in record.turns
    ]


# --- the whole, on real rows --------------------------------------------------------------------


def test_a_whole_set_of_real_and_drawn_rows(tmp_path: Path, val: Part, band: Path) -> None:
    parts = (
        replace(val, modalities=Modalities(sound=0.1, picture=0.1)),
        band_part(band, negatives=2, modalities=Modalities(sound=0.15, picture=0.15)),
    )
    augment = Augment(mirror=0.3, reverse=0.2, swap=0.5)
    keys = {"rephrase": 0.7, "sentences": 0.3, "captions": 0.5, "augment": augment}
    dialogues = Dialogues(share=0.2, turns=3)
    report, records = built(tmp_path, *parts, balance=1.0, dialogues=dialogues, **keys)

    questions = [turn for one in records if one.kind != "caption" for turn in one.turns]
    captions = [one for one in records if one.kind == "caption"]
    assert report["records"] == len(records) and report["questions"] == len(questions)
    assert report["records_by"]["kind"] == Counter(one.kind for one in records)
    assert report["questions_by"]["answer"] == Counter(turn.label for turn in questions)
    assert report["questions_by"]["type"] == Counter(turn.type for turn in questions)
    assert len({one.id for one in records}) == len(records)
    # What was read and added is either there or accounted for.
    read = sum(part["read"] for part in report["inputs"])
    dropped = sum(row["records"] for row in report["dropped"])
    added = sum("negative" in entry for one in records for entry in one.provenance)
    trimmed_negatives = 80 - added
    assert 0 <= trimmed_negatives <= dropped
    assert len(questions) + len(captions) == read + 80 - dropped
    assert 8 <= len(captions) <= 32
    # The floor, counted anew.
    assert report["floor"]["after"]["share"] == pytest.approx(floor_of(records), abs=1e-6)
    assert report["floor"]["before"]["share"] > report["floor"]["after"]["share"] + 0.03
    for template, answers in answers_of(records).items():
        limit = 0.6 if template in TWO else 0.5
        assert max(answers.values()) <= limit * answers.total() + 1e-9, template
        written = report["floor"]["templates"][template]["after"]
        assert written["share"] == pytest.approx(max(answers.values()) / answers.total(), abs=1e-6)


def test_the_floor_of_the_real_file_as_it_is(tmp_path: Path, val: Part) -> None:
    report, records = built(tmp_path, val)
    rows = json.loads(VAL.read_text())
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["question_content"].strip()][row["anser"]] += 1
    right = sum(max(answers.values()) for answers in counts.values())
    assert len(records) == len(rows) == 4568
    assert report["floor"]["before"] == report["floor"]["after"]
    assert report["floor"]["after"]["right"] == right and report["dropped"] == []
    assert report["inputs"][0]["files"][0]["sha256"] == hashlib.sha256(VAL.read_bytes()).hexdigest()
    licence = SOURCES["music-avqa"].licence
    assert report["licences"] == {licence: {"records": 4568, "sources": ["music-avqa"]}}


def test_the_dial(tmp_path: Path, val: Part) -> None:
    reports = {dial: built(tmp_path, val, balance=dial) for dial in (0.0, 0.5, 1.0)}
    floors = [floor_of(records) for _, records in reports.values()]
    assert floors[0] > floors[1] + 0.02 and floors[1] > floors[2] + 0.02
    before = answers_of(reports[0.0][1])
    for dial, (report, records) in reports.items():
        dropped = {
            text: row["dropped"]
            for text, row in report["floor"]["templates"].items()
            if row["dropped"]
        }
        assert sum(dropped.values()) == 4568 - len(records)
        after = answers_of(records)
        for text, answers in before.items():
            now = max(answers.values()) / answers.total()
            target = 0.6 if text in TWO else 0.5
            limit = now - dial * max(0.0, now - target)
            left = after[text]
            assert max(left.values()) <= limit * left.total() + 1e-6
            # Not one question more than needed is taken, and from one answer only.
            if text in dropped:
                top = max(answers, key=lambda label: answers[label])
                assert answers - left == Counter({top: dropped[text]})
                assert left[top] + 1 > limit * (left.total() + 1)


# --- modalities ---------------------------------------------------------------------------------


def needs(turn: Turn) -> str | None:
    return TEMPLATES[turn.template].modality if turn.template else None


def test_sound_only_asks_what_can_be_heard(tmp_path: Path, val: Part) -> None:
    part = replace(val, modalities=Modalities(joint=0.75, sound=0.1, picture=0.15))
    report, records = built(tmp_path, part)
    sound = [one for one in records if not one.clip.picture]
    picture = [one for one in records if not one.clip.sound]
    assert len(sound) == round(0.1 * 4568) and len(picture) == round(0.15 * 4568)
    assert {needs(turn) for one in sound for turn in one.turns} == {"Audio"}
    assert {needs(turn) for one in picture for turn in one.turns} == {"Visual"}
    assert not [one for one in records if not one.clip.sound and not one.clip.picture]
    assert report["records_by"]["given_with"]["sound"] == len(sound)
    assert report["shortfalls"] == []


def test_a_share_that_cannot_be_reached_is_said(tmp_path: Path, val: Part) -> None:
    report, records = built(tmp_path, replace(val, modalities=Modalities(sound=0.9)))
    sound = [one for one in records if not one.clip.picture]
    assert len(sound) == sum(needs(one.turns[0]) == "Audio" for one in records) < 2000
    (line,) = report["shortfalls"]
    assert str(len(sound)) in line and str(round(0.9 * 4568)) in line


def test_without_a_template_only_the_recipe_can_say(tmp_path: Path) -> None:
    rows = [{"video": f"c{n}.mp4", "q": f"What is number {n}?", "a": "Drums."} for n in range(20)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows))
    part = Part(name="conversations", path=str(path), split="train", modalities=Modalities(sound=1))
    _, joint = built(tmp_path, part)
    assert all(one.clip.picture and one.clip.sound for one in joint)
    _, heard = built(tmp_path, replace(part, without_template=("joint", "sound")))
    assert all(one.clip.sound and not one.clip.picture for one in heard) and len(heard) == 20


# --- dialogues, words, augmentation ---------------------------------------------------------------


def test_dialogues_lose_nothing_and_stay_with_one_clip(tmp_path: Path, band: Path) -> None:
    mix = band_part(band, modalities=Modalities(sound=0.2, picture=0.2))
    _, single = built(tmp_path, mix)
    report, merged = built(tmp_path, mix, dialogues=Dialogues(share=0.5, turns=4))
    dialogues = [one for one in merged if one.kind == "dialogue"]
    assert {len(one.turns) for one in dialogues} == {2, 3, 4}
    in_dialogues = sum(len(one.turns) for one in dialogues)
    assert abs(in_dialogues - report["questions"] / 2) <= 2
    asked = Counter(row for one in single for row in meaning(one))
    assert asked == Counter(row for one in merged for row in meaning(one))
    clip_of = {one.provenance[0]: one.clip for one in single}
    for one in dialogues:
        sources = [entry.partition(";")[0] for entry in one.provenance[:-1]]
        assert len(sources) == len(one.turns)
        assert {repr(clip_of[source]) for source in sources} == {repr(one.clip)}
        assert len({turn.question for turn in one.turns}) == len(one.turns)
        if not one.clip.sound:
            assert {needs(turn) for turn in one.turns} == {"Visual"}


def test_dialogues_that_cannot_be_had_are_said(tmp_path: Path, val: Part) -> None:
    report, records = built(tmp_path, val, dialogues=Dialogues(share=1.0, turns=2))
    per_clip = Counter(turn[0] for one in records for turn in meaning(one))
    assert sum(len(one.turns) for one in records) == 4568
    assert min(per_clip.values()) == 1
    assert any("dialogues: 4568 questions wanted" in line for line in report["shortfalls"])


def test_words_change_and_what_is_asked_does_not(tmp_path: Path, band: Path) -> None:
    part = band_part(band)
    _, plain = built(tmp_path, part, captions=0.0)
    report, worded = built(tmp_path, part, captions=0.0, rephrase=0.5, sentences=0.25)
    assert [meaning(one) for one in plain] == [meaning(one) for one in worded]
    n = len(plain)
    changed = sum(
        a.turns[0].question != b.turns[0].question for a, b in zip(plain, worded, strict=True)
    )
    said = sum(a.turns[0].answer != b.turns[0].answer for a, b in zip(plain, worded, strict=True))
    assert 0.4 < changed / n < 0.6 and 0.17 < said / n < 0.33
    assert report["questions_by"]["wording"]["other words"] == changed
    _, none = built(tmp_path, part, captions=0.0, rephrase=0.0, sentences=1.0)
    assert all(len(one.turns[0].answer.split()) > 1 for one in none)


def test_augmentation_replaces_where_it_is_safe(tmp_path: Path, val: Part) -> None:
    part = replace(val, limit=600)
    _, plain = built(tmp_path, part)
    report, changed = built(tmp_path, part, augment=Augment(mirror=1.0, swap=1.0))
    assert [one.id for one in changed] == [one.id for one in plain] and len(plain) == 600
    assert all(one.clip.mirrored for one in changed)
    swapped = [one for one in changed if "swapped" in one.provenance]
    assert len(swapped) == report["augmented"]["swap"]["done"] > 10
    assert report["augmented"]["swap"]["refused"] == 600 - len(swapped)
    before = {one.id: one for one in plain}
    for one in swapped:
        expected = AUGMENTATIONS["swap"](AUGMENTATIONS["mirror"](before[one.id]))
        assert meaning(one) == meaning(expected) and one.turns[0].label == "no"


def test_negatives_are_about_what_the_truth_lacks(tmp_path: Path, band: Path) -> None:
    report, records = built(tmp_path, band_part(band, negatives=4), captions=0.0)
    truth = {row["video_id"]: row for row in json.loads((band / "truth.json").read_text())}
    added = [one for one in records if ":absent-" in one.id]
    assert len(added) == 4 * len(truth) == 160
    for one in added:
        (turn,) = one.turns
        key = "start_s" if turn.template == "Is there a <Object> sound?" else "x"
        players = truth[one.clip.video]["players"]
        assert turn.slots[0] not in {p["instrument"] for p in players if p[key] is not None}
        assert (turn.label, turn.answer) == ("no", "no")
    asked = Counter(row[:4] for one in records for row in meaning(one))
    assert max(asked[row[:4]] for one in added for row in meaning(one)) == 1
    assert Counter(one.turns[0].type for one in added) == {
        "Audio Counting": 80,
        "Visual Counting": 80,
    }
    assert report["questions_by"]["step"]["negative"] == 160


# --- chance -----------------------------------------------------------------------------------


def test_the_seed_decides_and_nothing_else_does(tmp_path: Path, band: Path, val: Part) -> None:
    keys: dict[str, Any] = {
        "rephrase": 0.5,
        "sentences": 0.5,
        "balance": 0.5,
        "dialogues": Dialogues(share=0.3),
        "augment": Augment(mirror=0.5),
    }
    parts = (band_part(band, share=0.6, negatives=1), replace(val, limit=300))
    one, _ = built(tmp_path, *parts, **keys)
    same, _ = built(tmp_path, *parts, **keys)
    other, _ = built(tmp_path, *parts, **keys, seed=6)
    assert one == same and one["sha256"] != other["sha256"]


def test_another_source_does_not_redraw_the_first(tmp_path: Path, band: Path, val: Part) -> None:
    part = band_part(band, share=0.5)
    keys: dict[str, Any] = {"rephrase": 0.5, "augment": Augment(mirror=0.5)}
    report, alone = built(tmp_path, part, **keys)
    _, mixed = built(tmp_path, replace(val, limit=100), part, **keys)
    assert alone == [one for one in mixed if one.source == "bandstand"]
    assert 0.4 < len(alone) / report["inputs"][0]["read"] < 0.6


# --- mistakes -----------------------------------------------------------------------------------


def question_file(path: Path, *videos: str, **fields: Any) -> str:
    """A question file of v1's shape: one question about each video."""
    row = {
        "type": '["Visual", "Counting"]',
        "question_content": "Is there a <Object> in the entire video?",
        "templ_values": '["flute"]',
        "question_deleted": 0,
        "anser": "yes",
    }
    rows = [
        {**row, **fields, "video_id": video, "question_id": n} for n, video in enumerate(videos)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


def test_what_is_for_evaluation_only_is_refused(tmp_path: Path) -> None:
    part = Part(name="music-avqa-r", path="r.json", split="test")
    with pytest.raises(RecipeError, match="music-avqa-r.*evaluation only"):
        build_set(BuildRecipe(out=str(tmp_path / "set"), seed=1, sources=(part,)))


def test_a_recipe_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    good = {"out": "o", "seed": 1, "sources": [{"name": "avqa", "path": "p", "split": "train"}]}
    source = good["sources"][0]  # type: ignore[index]
    faults: list[tuple[dict[str, Any], str]] = [
        ({"rephase": 0.5}, "did you mean 'rephrase'"),
        ({"balance": 1.5}, "balance is 1.5"),
        ({"sources": []}, "sources is empty"),
        ({"sources": [{**source, "name": "music-avq"}]}, "did you mean 'music-avqa'"),
        ({"sources": [{**source, "share": 0.5, "limit": 3}]}, "share and a limit"),
        ({"sources": [{**source, "negatives": 1}]}, "known of bandstand clips only"),
        ({"sources": [{**source, "without_template": ["ear"]}]}, "should list some of"),
        ({"sources": [{**source, "modalities": {"sound": 0.7, "picture": 0.7}}]}, "sum to 1"),
        ({"sources": [{**source, "name": "fortisavqa"}]}, "evaluation only"),
        ({"dialogues": {"share": 0.1, "turns": 1}}, "turns is 1"),
        ({"augment": {"mirror": -1}}, "mirror is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"evaluation": [{"name": "avqa", "path": "p"}]}, "'split' is missing"),
    ]
    path = tmp_path / "recipe.yaml"
    for keys, said in faults:
        path.write_text(yaml.safe_dump({**good, **keys}))
        with pytest.raises(RecipeError, match=said):
            read_build_recipe(path)
    path.write_text("a: [")
    with pytest.raises(RecipeError, match="is no YAML"):
        read_build_recipe(path)
    with pytest.raises(RecipeError, match="absent.yaml"):
        read_build_recipe(tmp_path / "absent.yaml")


def test_the_example_can_be_read() -> None:
    recipe = read_build_recipe(ROOT / "instruct_data/recipes/example.yaml")
    assert {part.name for part in recipe.sources} == {"music-avqa", "bandstand"}


def test_a_file_that_is_absent_or_listed_twice(tmp_path: Path) -> None:
    gone = Part(name="music-avqa", path=str(tmp_path / "gone.json"), split="train")
    recipe = BuildRecipe(out=str(tmp_path / "set"), seed=1, sources=(gone,))
    with pytest.raises(AnnotationError, match=r"gone\.json"):
        build_set(recipe)
    twice = replace(gone, path=question_file(tmp_path / "a.json", "v1", "v2"))
    with pytest.raises(RecipeError, match="music-avqa:train:1 comes twice"):
        build_set(replace(recipe, sources=(twice, twice)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["build", *words])
    return int(args.run(args))


def test_the_command_and_a_folder_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = question_file(tmp_path / "train.json", *(f"v{n}" for n in range(6)))
    source = {"name": "music-avqa", "path": train, "split": "train"}
    path, out = tmp_path / "recipe.yaml", tmp_path / "set"
    path.write_text(yaml.safe_dump({"out": "unused", "seed": 4, "sources": [source]}))
    assert command(str(path), "--out", str(out)) == 0
    assert "6 records with 6 questions" in capsys.readouterr().out
    saved = read_build_recipe(out / "recipe.yaml")
    assert saved == replace(read_build_recipe(path), out=str(out))
    with pytest.raises(AVQAError, match="--replace"):
        command(str(path), "--out", str(out))
    (tmp_path / "set.writing").mkdir()
    (tmp_path / "set.writing/spool.jsonl").write_text("left by a build that was killed")
    question_file(tmp_path / "train.json", "v1", "v2")
    assert command(str(path), "--out", str(out), "--replace") == 0
    assert len(list(read_records(out / "records.jsonl"))) == 2
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(AVQAError, match="thesis.txt"):
        command(str(path), "--out", str(out), "--replace")
    assert (out / "thesis.txt").exists()


# --- size ---------------------------------------------------------------------------------------


def long_records(path: Path, split: str) -> Iterator[Record]:
    """20,000 records of 2 KB, one at a time."""
    template = "Is there a <Object> sound?"
    for n in range(20_000):
        turn = Turn(
            question=f"Is there a flute sound? {'x' * 2000}",
            answer="yes",
            label=("yes", "no")[n % 3 == 0],
            template=template,
            slots=("flute",),
        )
        yield Record(
            id=f"long:{n}",
            kind="question",
            clip=Clip(video=f"v{n // 4}"),
            turns=(turn,),
            source="long",
            split=split,
            licence="none",
            provenance=(f"row {n}",),
        )


def test_a_set_may_be_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(
        name="long", read=long_records, licence="none", evaluation_only=False, what="long records"
    )
    monkeypatch.setitem(SOURCES, "long", source)
    # Distinct questions are kept once; these are all one.
    part = Part(name="long", path=str(tmp_path), split="train", modalities=Modalities(sound=0.2))
    recipe = BuildRecipe(
        out=str(tmp_path / "set"),
        seed=1,
        sources=(part,),
        balance=1.0,
        dialogues=Dialogues(share=0.3),
    )
    build_set(replace(recipe, sources=(replace(part, limit=10),), out=str(tmp_path / "warm")))
    tracemalloc.start()
    try:
        report = build_set(recipe)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (tmp_path / "set" / build_module.RECORDS).stat().st_size
    assert report["questions"] > 15_000 and size > 30_000_000
    assert peak < 16_000_000, f"{peak} bytes for a file of {size}"
