"""What a set says of itself: overlap with test files, floors, counts, plots."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruct_data import report as report_module
from instruct_data.balance import blind_floor, surplus
from instruct_data.build import build_set
from instruct_data.mixing import (
    BuildRecipe,
    Dialogues,
    Evaluation,
    Modalities,
    Part,
    divide,
    draws,
    merged,
    pick_dialogues,
)
from instruct_data.overlap import OverlapError, plain_question, video_name
from instruct_data.records import Clip, Record, Turn, read_records
from instruct_data.report import Tally, draw, floors, markdown
from instruct_data.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT.parent / "shared/data"))
SOUND = "Is there a <Object> sound?"
COUNT = "How many <Object> are in the entire video?"


@pytest.fixture
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "draw", lambda folder, report: [])


# --- overlap --------------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("_no_plots")

ROW: dict[str, Any] = {
    "video_id": "00000093",
    "question_id": 12,
    "type": '["Visual", "Counting"]',
    "question_content": "Is there a <Object> in the entire video?",
    "templ_values": '["flute"]',
    "question_deleted": 0,
    "anser": "yes",
}


def question_file(path: Path, *videos: str, **fields: Any) -> str:
    rows = [
        {**ROW, **fields, "video_id": video, "question_id": n} for n, video in enumerate(videos)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


def leaky(tmp_path: Path, **keys: Any) -> BuildRecipe:
    """Three training rows, of which the second has a video of the test file's third row."""
    train = question_file(tmp_path / "train.json", "00000001", "00000002", "00000003")
    test = question_file(tmp_path / "test.json", "00000007", "00000008", "00000002", **keys)
    return BuildRecipe(
        out=str(tmp_path / "set"),
        seed=1,
        sources=(Part(name="music-avqa", path=train, split="train"),),
        evaluation=(Evaluation(name="music-avqa", path=test, split="test"),),
    )


def test_a_planted_test_row_fails_the_build_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(OverlapError) as error:
        build_set(leaky(tmp_path))
    message = str(error.value)
    assert message.startswith("records that overlap with test files: 1.")
    assert "music-avqa:train:2 (train.json sha256:" in message and "row 2)" in message
    assert "music-avqa:test:3 (test.json sha256:" in message and "row 3)" in message
    assert "asks the same question" in message and "--force-overlap" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.json", "train.json"]


def test_a_planted_row_that_balancing_would_drop_fails_the_build_too(tmp_path: Path) -> None:
    for seed in range(4):
        recipe = replace(leaky(tmp_path), seed=seed, balance=1.0)
        train = json.loads((tmp_path / "train.json").read_text())
        no = {**train[0], "video_id": "00000004", "question_id": 9, "anser": "no"}
        (tmp_path / "train.json").write_text(json.dumps([*train, no]))
        with pytest.raises(OverlapError, match="music-avqa:train:2"):
            build_set(recipe)


def test_another_question_about_the_video_overlaps_too(tmp_path: Path) -> None:
    with pytest.raises(OverlapError, match="has its video"):
        build_set(leaky(tmp_path, templ_values='["cello"]'))


def test_an_overlap_that_is_forced_is_in_the_report(tmp_path: Path) -> None:
    report = build_set(leaky(tmp_path), force_overlap=True)
    (file,) = report["overlap"]
    assert report["overlap_forced"] and report["records"] == 3
    assert file["records_with_its_videos"] == file["records_with_its_questions"] == 1
    assert "row 2" in file["first"]["record"] and "row 3" in file["first"]["row"]
    assert "--force-overlap" in (tmp_path / "set/report.md").read_text()


def test_an_overlap_can_be_left_out(tmp_path: Path) -> None:
    recipe = leaky(tmp_path)
    report = build_set(replace(recipe, evaluation=(replace(recipe.evaluation[0], drop=True),)))
    assert report["records"] == 2 and not report["overlap_forced"]
    assert [row["records"] for row in report["dropped"]] == [1]
    assert "test.json" in report["dropped"][0]["why"]


def test_the_same_clip_under_another_source_and_a_mirrored_name(tmp_path: Path) -> None:
    train = question_file(tmp_path / "train.json", "00000001", "00000002_flip")
    filled = {"question_content": "does a FLUTE appear", "templ_values": "[]"}
    test = question_file(tmp_path / "r.json", "00000002", **filled)
    part = Part(name="music-avqa-v2", path=train, split="train")
    test_file = Evaluation(name="music-avqa-r", path=test, split="test")
    recipe = BuildRecipe(
        out=str(tmp_path / "set"), seed=1, sources=(part,), evaluation=(test_file,)
    )
    with pytest.raises(OverlapError, match="00000002.*music-avqa-r:test:1"):
        build_set(recipe)


def test_a_clip_that_is_tested_only_with_another_clips_sound_overlaps_too(tmp_path: Path) -> None:
    """v2 asks of some clips with a swapped sound track; no record can say that, the clip counts."""
    train = question_file(tmp_path / "train.json", "00000001", "00000002")
    rows = json.loads(
        Path(question_file(tmp_path / "test.json", "00000007", "00000002")).read_text()
    )
    rows[1] |= {"unmatch_audio": "00000005", "anser": "no"}
    (tmp_path / "test.json").write_text(json.dumps(rows))
    recipe = BuildRecipe(
        out=str(tmp_path / "set"),
        seed=1,
        sources=(Part(name="music-avqa", path=train, split="train"),),
        evaluation=(
            Evaluation(name="music-avqa-v2", path=str(tmp_path / "test.json"), split="test"),
        ),
    )
    with pytest.raises(OverlapError, match="music-avqa:train:2"):
        build_set(recipe)


@pytest.mark.parametrize("trained", ["avinstruct", "avqa"])
def test_avinstruct_holds_clips_of_avqa(tmp_path: Path, trained: str) -> None:
    clip, question = "-HG3Omg_89c_000030", "What makes the sound?"
    said = [{"from": "human", "value": f"<Q>{question}<Q>"}, {"from": "gpt", "value": "A dog."}]
    lead = {"multi_choice": "", "correct_answer": "", "video": f"{clip}.npy", "audio": ""}
    asked = {"id": 1, "video_name": clip, "video_id": 1, "question_text": question, "answer": 0}
    asked |= {"multi_choice": ["dog", "cat", "cow", "car"], "question_relation": "Both"}
    rows = {
        "avinstruct": {"video_id": clip, **lead, "conversations": said},
        "avqa": {**asked, "question_type": "Which"},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    (tested,) = set(rows) - {trained}
    recipe = BuildRecipe(
        out=str(tmp_path / "set"),
        seed=1,
        sources=(Part(name=trained, path=str(tmp_path / f"{trained}.json"), split="train"),),
        evaluation=(Evaluation(name=tested, path=str(tmp_path / f"{tested}.json"), split="val"),),
    )
    with pytest.raises(OverlapError, match=clip):
        build_set(recipe)


def test_files_of_ones_own_are_compared_with_every_source(tmp_path: Path) -> None:
    rows = [{"video": "clips/00000002.mp4", "q": "Who plays?", "a": "A flautist."}]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    theirs = question_file(tmp_path / "theirs.json", "00000001", "00000002")
    files = {"conversations": str(tmp_path / "own.json"), "music-avqa": theirs}
    for train, test in (("conversations", "music-avqa"), ("music-avqa", "conversations")):
        recipe = BuildRecipe(
            out=str(tmp_path / "set"),
            seed=1,
            sources=(Part(name=train, path=files[train], split="train"),),
            evaluation=(Evaluation(name=test, path=files[test], split="test"),),
        )
        with pytest.raises(OverlapError, match=f"is {train}:.*00000002.*{test}:"):
            build_set(recipe)


def test_official_splits_share_videos(tmp_path: Path) -> None:
    train, test = DATA / "music-avqa/avqa-val.json", DATA / "music-avqa/avqa-test.json"
    for path in (train, test):
        if not path.is_file():
            pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    part = Part(name="music-avqa", path=str(train), split="val")
    test_file = Evaluation(name="music-avqa", path=str(test), split="test", drop=True)
    out = tmp_path / "set"
    build_set(BuildRecipe(out=str(out), seed=1, sources=(part,), evaluation=(test_file,)))
    tested = {row["video_id"] for row in json.loads(test.read_text())}
    wanted = [row for row in json.loads(train.read_text()) if row["video_id"] not in tested]
    records = list(read_records(out / "records.jsonl"))
    assert len(records) == len(wanted) < 4568
    assert not tested & {one.clip.video for one in records}


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("00000093", "00000093"),
        ("00000093_flip", "00000093"),
        ("my/clips/00000093.MP4", "00000093"),
        ("C:\\clips\\a.b.webm", "a.b"),
        ("v1.2_scene", "v1.2_scene"),
        ("00000093.m4v", "00000093"),
        ("a/00000093.mpeg", "00000093"),
        ("flip", "flip"),
    ],
)
def test_names_of_a_video(video: str, name: str) -> None:
    assert video_name(video) == name


def test_questions_are_compared_by_their_words() -> None:
    same = (
        "Is the acoustic_guitar loud?",
        " is the  Acoustic guitar LOUD",
        "Is the acoustic guitar loud\uff1f",
    )
    assert len({plain_question(text) for text in same}) == 1
    assert plain_question("Is the flute loud?") != plain_question("Is the lute loud?")


# --- balance and division ---------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
    st.sampled_from([SOUND, COUNT, "Where is the performance?"]),
    st.floats(0, 1),
)
def test_the_surplus_is_just_enough(numbers: list[int], template: str, dial: float) -> None:
    labels = ["yes", "no", "one", "two", "three", "four"]
    answers = Counter({label: n for label, n in zip(labels, numbers, strict=False) if n})
    extra = surplus(answers, template, dial)
    total, top = answers.total(), max(answers.values(), default=0)
    target = 0.5 if TEMPLATES[template].answers == "count" else 0.6
    if top in (0, total) or top / total <= target:
        assert extra == 0
        return
    limit = top / total - dial * (top / total - target)
    left, rest = top - extra, total - top
    assert 0 <= extra < top or limit / (1 - limit) * rest < 1
    assert left / (left + rest) <= limit + 1e-6
    assert (left + 1) / (left + 1 + rest) > limit - 1e-6


def test_floors_put_back_what_was_taken() -> None:
    from instruct_data.balance import Trim

    after = {SOUND: Counter(yes=6, no=4), COUNT: Counter(one=1, two=1)}
    trim = Trim(template=SOUND, answer="yes", before=16, dropped=10)
    floor = floors(after, [trim])
    assert floor["before"] == {"questions": 22, "right": 17, "share": round(17 / 22, 6)}
    assert floor["after"] == {"questions": 12, "right": 7, "share": round(7 / 12, 6)}
    assert floor["templates"][SOUND]["before"] == {"questions": 20, "answer": "yes", "share": 0.8}
    assert floor["templates"][COUNT]["after"]["answer"] == "one"
    assert after[SOUND]["yes"] == 6
    assert blind_floor({}).share is None


def test_a_record_that_fits_both_is_given_once() -> None:
    fits, draw_N = np.ones(100, bool), np.random.default_rng(0).random(100)
    chosen = divide(Modalities(sound=0.4, picture=0.6), fits, fits, draw_N)
    assert Counter(chosen.tolist()) == {1: 40, 2: 60}
    nothing = divide(Modalities(sound=0.4, picture=0.6), ~fits, ~fits, draw_N)
    assert not nothing.any()


def test_a_question_is_asked_once_in_a_dialogue() -> None:
    group = np.array([0] * 6 + [1] * 2 + [2])
    question = np.array([7, 7, 7, 7, 7, 8, 1, 2, 3])
    picked = pick_dialogues(Dialogues(share=1.0, turns=5), group, question, np.arange(9) / 9, 1)
    assert sorted(map(sorted, picked)) == [[0, 5], [6, 7]]
    assert pick_dialogues(Dialogues(share=1.0), group[:0], question[:0], np.zeros(0), 1) == []
    assert pick_dialogues(Dialogues(share=0.0), group, question, np.arange(9) / 9, 1) == []


def test_draws_are_even_and_of_the_record_alone() -> None:
    table = np.array([draws(1, f"r{n}") for n in range(2000)])
    assert np.all((table >= 0) & (table < 1)) and np.all(abs(table.mean(0) - 0.5) < 0.03)
    correlation = np.corrcoef(table.T) - np.eye(table.shape[1])
    assert np.abs(correlation).max() < 0.1
    assert draws(1, "r7") == draws(1, "r7") != draws(2, "r7")


# --- the report -------------------------------------------------------------------------------


def asked(number: int, label: str = "yes", **clip: Any) -> Record:
    turn = Turn(
        question="Is there a flute sound?",
        answer=label,
        label=label,
        template=SOUND,
        slots=("flute",),
        type="Audio Counting",
    )
    return Record(
        id=f"r{number}",
        kind="question",
        clip=Clip(video="v", **clip),
        turns=(turn,),
        source="bandstand",
        split="train",
        licence="Apache-2.0 | <own>",
        provenance=(f"a.json row {number}", "mirrored"),
    )


def test_only_records_of_one_clip_become_a_dialogue() -> None:
    one = merged([asked(1), asked(2, "no"), asked(3)])
    assert [turn.label for turn in one.turns] == ["yes", "no", "yes"] and one.kind == "dialogue"
    assert one.provenance[:3] == tuple(f"a.json row {n}; mirrored" for n in (1, 2, 3))
    with pytest.raises(ValueError, match="not about the same clip"):
        merged([asked(1), asked(2, sound=False)])


def test_the_report_is_text_that_a_reader_can_trust(tmp_path: Path) -> None:
    tally = Tally()
    tally.add(merged([asked(1), asked(2, "no")]), ["mirrored", "mirrored"])
    open_turn = Turn(question="Describe it.", answer="A flute.")
    reworded = replace(asked(4).turns[0], question="Can you hear a flute?", slots=())
    tally.add(replace(asked(3), kind="caption", turns=(open_turn,)), [])
    tally.add(replace(asked(4), clip=Clip(video="w", sound=False), turns=(reworded, open_turn)), [])
    counts = tally.as_json()
    assert (counts["records"], counts["questions"]) == (3, 4)
    assert counts["records_by"]["kind"] == {"caption": 1, "dialogue": 1, "question": 1}
    assert counts["records_by"]["given_with"] == {"joint": 2, "picture": 1}
    assert counts["questions_by"]["answer"] == {"yes": 2, "(open answer)": 1, "no": 1}
    wording = {"the template's": 2, "other words": 1, "the source's": 1}
    assert counts["questions_by"]["wording"] == wording
    assert counts["questions_by"]["step"] == {"mirrored": 2}
    report = {
        **counts,
        **{"sha256": "0" * 64, "seed": 1, "balance": 0.5, "inputs": [], "shortfalls": []},
        **{"dropped": [{"why": "share", "records": 3}], "overlap": [], "overlap_forced": False},
        **{"augmented": {"swap": {"done": 3, "refused": 4}}},
        "floor": floors(tally.answers, []),
    }
    names = draw(tmp_path, report)
    pytest.importorskip("matplotlib")
    assert names == ["floor.png", "answers.png"]
    assert all((tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for name in names)
    text = markdown({**report, "plots": names})
    assert "3 records with 4 questions" in text and "66.67 % of 3 questions" in text
    assert (
        "| share | 3 |" in text and "| swap | 3 | 4 |" in text and "No test file was named" in text
    )
    # A bar or a slot in a name must not break the table, nor vanish as a tag.
    assert "Apache-2.0 \\| \\<own>" in text and "a \\<Object> sound?" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_without_matplotlib_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (line,) = draw(tmp_path, {})
    assert "matplotlib is not installed" in line and not list(tmp_path.iterdir())
