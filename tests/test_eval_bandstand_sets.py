"""Bandstand as a benchmark: made once; each wording has the truth, template and slots it asks."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AVQAError
from avqa_llm.folders import user_cache
from eval.benchmarks import bandstand, overlap, read_benchmark
from eval.benchmarks.bandstand import Prepared, prepare
from eval.floors import fit_floor, score_floor
from instruct_data.bandstand import write as writing
from instruct_data.bandstand.write import SetConfig, write_set
from instruct_data.rephrase_set import read_questions, write_reworded
from instruct_data.templates import TEMPLATES
from instruct_data.wordings import fill_wording, split

CLIPS = 12


@pytest.fixture(scope="module")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set without media, with the rewordings of its questions."""
    out = tmp_path_factory.mktemp("band")
    write_set(out, SetConfig(clips=CLIPS, seed=3, split="test", held_out=True))
    write_reworded(out, read_questions(out / "avqa.json"), times=25, seed=3, training=True)
    return out


@pytest.fixture
def copy(band: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(band, tmp_path / "set"))


def change(path: Path, number: int, **fields: Any) -> None:
    """Change fields of a row; one that becomes None is taken out."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    row = rows[number - 1] | fields
    rows[number - 1] = {key: value for key, value in row.items() if value is not None}
    path.write_text(json.dumps(rows), encoding="utf-8")


def refused(name: str, path: Path) -> str:
    with pytest.raises(AVQAError) as error:
        read_benchmark(name, path)
    return str(error.value)


# -- reading ---------------------------------------------------------------------------------


def test_a_folder_stands_for_its_questions_with_the_truth(band: Path) -> None:
    asked = read_benchmark("bandstand", band)
    assert asked.questions == read_benchmark("bandstand", band / "avqa.json").questions
    assert set(asked.sha256) == {"avqa.json", "truth.json"} and asked.oddities == ()
    assert len(asked.scenes) == CLIPS
    for one in asked.questions:
        assert asked.scenes[one.video_id].video_id == one.video_id
        assert len(one.slots) == len(TEMPLATES[one.template or ""].slots)


def test_reworded_questions_are_lent_their_slots(band: Path) -> None:
    plain = read_benchmark("bandstand", band)
    reworded = read_benchmark("bandstand", band / "avqa-reworded.json")
    assert set(reworded.sha256) == {"avqa-reworded.json", "avqa.json", "truth.json"}
    for one, other in zip(plain.questions, reworded.questions, strict=True):
        assert (one.template, one.slots, one.gold) == (other.template, other.slots, other.gold)
        assert one.question != other.question and one.original == other.original


def test_each_wording_is_joined_with_slots_subset_and_part_of_the_bank(band: Path) -> None:
    asked = read_benchmark("bandstand-r", band)
    by_id = {one.question_id: one for one in read_benchmark("bandstand", band).questions}
    head = len(json.loads((band / "avqa-test-head.json").read_text(encoding="utf-8")))
    assert 0 < sum(one.subset == "head" for one in asked.questions) == head < len(asked.questions)
    wordings = Counter(one.original for one in asked.questions)
    assert len(wordings) == len(by_id) and max(wordings.values()) == 25
    checked = Counter[bool]()
    for one in asked.questions:
        plain = by_id[one.question_id]
        assert (one.template, one.slots, one.gold) == (plain.template, plain.slots, plain.gold)
        assert one.template is not None and one.held_out is not None
        if not one.slots:  # the others say some slots in two ways
            checked[one.held_out] += 1
            bank = split(one.template)[one.held_out]
            assert one.question in {fill_wording(wording, ()) for wording in bank}
    assert min(checked[True], checked[False]) > 50


def test_head_alone_and_tail_alone(band: Path) -> None:
    for part in ("head", "tail"):
        asked = read_benchmark("bandstand-r", band / f"avqa-test-{part}.json")
        assert {one.subset for one in asked.questions} == {part}
        assert f"avqa-test-{part}.json" in asked.sha256 and len(asked.scenes) == CLIPS
    joined = read_benchmark("bandstand-r", band)
    assert len(joined.sha256) == 5


def test_files_of_two_sets_are_not_joined(copy: Path) -> None:
    number = len(json.loads((copy / "avqa.json").read_text(encoding="utf-8")))
    change(copy / "avqa.json", number, question_id=10_000)
    message = refused("bandstand-r", copy)
    assert "field 'question_id'" in message and "not of one set" in message
    assert f"avqa-reworded.json, row {number}" in refused("bandstand", copy / "avqa-reworded.json")
    change(copy / "avqa.json", 2, video_id="test9_000000")
    assert "avqa.json, row 2, field 'video_id': test9_000000 is not" in refused("bandstand", copy)


def test_what_is_missing_is_named(copy: Path) -> None:
    headtail = copy / "avqa-test-headtail.json"
    change(headtail, 3, wording=None)
    assert "row 3, field 'wording': is missing" in refused("bandstand-r", copy)
    change(copy / "avqa-test-head.json", 1, wording="unseen")
    message = refused("bandstand-r", copy / "avqa-test-head.json")
    assert "row 1, field 'wording': 'unseen' is none of held-out, training" in message
    change(copy / "truth.json", 1, place=None)
    assert "truth.json, row 1, field 'place'" in refused("bandstand", copy)
    (copy / "truth.json").unlink()
    assert "has no truth.json" in refused("bandstand", copy / "avqa-reworded.json")


def test_slots_need_the_plain_questions_beside(copy: Path) -> None:
    (copy / "avqa.json").unlink()
    for name, file in (("bandstand-r", "avqa-test-tail.json"), ("bandstand", "avqa-reworded.json")):
        message = refused(name, copy / file)
        assert "avqa.json, which does, is not in" in message and "put it there" in message


@pytest.mark.parametrize("name", ["bandstand-biased", "bandstand-hard"])
def test_biased_and_hard_sets_are_read_as_such(tmp_path: Path, name: str) -> None:
    tested, _ = bandstand.configs(name, clips=8, seed=3, media="none")
    bandstand.write(name, tmp_path, tested, None)
    asked = read_benchmark(name, tmp_path / "avqa-reworded.json")
    assert asked.benchmark == name and asked.oddities == () and len(asked.scenes) == 8
    hard = name == "bandstand-hard"
    assert {scene.seconds for scene in asked.scenes.values()} == {60.0 if hard else 10.0}
    assert {"h_" in video_id for video_id in asked.scenes} == {hard}
    # Also a set that is only plain, and files of a mixed one, are Bandstand.
    assert read_benchmark("bandstand", tmp_path).scenes == asked.scenes


def test_a_plain_set_is_not_taken_for_a_hard_one(band: Path) -> None:
    message = refused("bandstand-hard", band)
    assert "row 1, field 'video_id': test3_000000 is no hard clip" in message


def test_biased_questions_have_a_higher_floor(tmp_path: Path) -> None:
    """Counted on the very questions: an upper bound, but the same one for both."""
    floors = {}
    for name in ("bandstand", "bandstand-biased"):
        tested, _ = bandstand.configs(name, clips=150, seed=3, media="none")
        bandstand.write(name, tmp_path / name, tested, None)
        questions = read_benchmark(name, tmp_path / name).questions
        floors[name] = score_floor(fit_floor(questions), questions).overall
    assert floors["bandstand-biased"] > floors["bandstand"] + 0.05


# -- making ----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bandstand, "FIT_CLIPS", 20)
    monkeypatch.setattr(bandstand, "_cores", lambda: 1)
    monkeypatch.setattr(bandstand, "HEIGHT", 36)
    monkeypatch.setattr(bandstand, "FPS", 1.0)
    return tmp_path / "cache" / "benchmarks"


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a set may be used, not made."""

    def made(*_: object) -> None:
        raise AssertionError("the set is made again")

    monkeypatch.setattr(writing, "write_set", made)


def test_a_set_is_made_once_and_goes_on_where_it_was(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video, drawn = writing.write_video, list[str]()

    def stopped(scene: Any, path: Path, **how: Any) -> None:
        if len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append(path.name)
        write_video(scene, path, **how)

    monkeypatch.setattr(writing, "write_video", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare("bandstand-r", clips=3, seed=5)
    folder = cache / "bandstand-r-3-seed5"
    assert len(list((folder / "videos").glob("*.mp4"))) == 1
    assert not (folder / "ready.json").exists()
    first = next((folder / "videos").glob("*.mp4"))
    before = first.stat().st_mtime_ns

    monkeypatch.setattr(writing, "write_video", write_video)
    made = prepare("bandstand-r", clips=3, seed=5)
    assert first.stat().st_mtime_ns == before
    assert made == Prepared(
        annotations=folder, media=folder / "videos", fit=folder / "fit" / "avqa.json"
    )
    asked = read_benchmark("bandstand-r", made.annotations)
    assert {f"{name}.mp4" for name in asked.scenes} == {path.name for path in made.media.iterdir()}
    assert all(scene.split == "test" for scene in asked.scenes.values())
    assert {one.held_out for one in asked.questions} == {True, False}
    fit = read_benchmark("bandstand-r", made.fit, like=asked)
    assert len({one.video_id for one in fit.questions}) == 20
    assert all(one.template and one.video_id.startswith("train") for one in fit.questions)
    assert overlap(asked, fit)["shared_videos"] == 0

    no_work(monkeypatch)
    assert prepare("bandstand-r", clips=3, seed=5) == made


def test_bandstand_asks_in_held_out_wordings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare("bandstand", clips=1, seed=0)
    asked = read_benchmark("bandstand", made.annotations)
    for one in asked.questions:
        if not one.slots and one.template:
            assert one.question in split(one.template)[1]
    # A set of an older version is not taken for one of this.
    monkeypatch.setattr(bandstand, "FIT_CLIPS", 2)
    (made.media / "stray.mp4").write_bytes(b"")
    again = read_benchmark("bandstand", prepare("bandstand", clips=1, seed=0).fit)
    assert len(again.scenes) == 2 and not (made.media / "stray.mp4").exists()


def test_a_second_process_waits_for_the_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl", reason="this system has no such locks")
    prepare("bandstand", clips=1, seed=0)
    no_work(monkeypatch)
    second = threading.Thread(target=prepare, args=("bandstand",), kwargs={"clips": 1, "seed": 0})
    with bandstand._alone(cache / "bandstand-1-seed0"):
        second.start()
        second.join(0.3)
        assert second.is_alive()
    second.join(10)
    assert not second.is_alive()


def test_mistakes_are_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AVQAError, match="instruct_data get music-avqa-r"):
        prepare("music-avqa-r", clips=1, seed=0)
    with pytest.raises(AVQAError, match="at least one clip"):
        prepare("bandstand", clips=0, seed=0)
    with pytest.raises(AVQAError, match="--seed -1"):
        prepare("bandstand", clips=1, seed=-1)
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    with pytest.raises(AVQAError, match="set AVQA_CACHE to another folder"):
        prepare("bandstand", clips=1, seed=0)


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVQA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bandstand.sets_folder() == tmp_path / "avqa-llm" / "benchmarks"
    monkeypatch.setenv("AVQA_CACHE", str(tmp_path / "own"))
    assert user_cache() == tmp_path / "own"
