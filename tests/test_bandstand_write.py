"""A set on disk must say what its scenes say: annotations, arrays and mp4 files alike."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from avqa_llm.errors import AVQAError
from avqa_llm.media import PerSecond, read_clip
from instruct_data.__main__ import main
from instruct_data.bandstand.record import event_record
from instruct_data.bandstand.scene import Scene, sample_scene
from instruct_data.bandstand.sound import k_weighted_level_db
from instruct_data.bandstand.write import SetConfig, pair_times, write_set
from instruct_data.sources.music_avqa import read_annotations
from instruct_data.templates import TEMPLATES, fill

SMALL: dict[str, Any] = {"seconds": 6.0, "height": 72, "fps": 5.0}


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of 30 clips without media."""
    out = tmp_path_factory.mktemp("plain")
    write_set(out, SetConfig(clips=30, seed=3, split="test"))
    return out


# -- annotations -------------------------------------------------------------------------------


def test_truth_gives_back_every_scene(plain: Path) -> None:
    scenes = [Scene.from_json(row) for row in read(plain / "truth.json")]
    assert scenes == [sample_scene(3, i, split="test") for i in range(30)]


def test_annotations_have_the_schema_of_v1(plain: Path) -> None:
    for row in read(plain / "avqa.json"):
        assert list(row) == [
            "video_id",
            "question_id",
            "type",
            "question_content",
            "templ_values",
            "question_deleted",
            "anser",
        ]
        template = TEMPLATES[row["question_content"]]
        assert json.loads(row["type"]) == [template.modality, template.kind]
        assert fill(template.text, json.loads(row["templ_values"]))
        assert isinstance(row["question_id"], int) and row["question_deleted"] == 0


def test_reworded_rows_ask_the_same_and_name_the_template(plain: Path) -> None:
    originals, reworded = read(plain / "avqa.json"), read(plain / "avqa-reworded.json")
    assert len(originals) == len(reworded) > 200
    for one, other in zip(originals, reworded, strict=True):
        assert other["template"] == one["question_content"]
        assert json.loads(other["templ_values"]) == [] and "<" not in other["question_content"]
        same = ("video_id", "question_id", "type", "question_deleted", "anser")
        assert all(one[key] == other[key] for key in same)
    assert [row["question_id"] for row in originals] == list(range(len(originals)))


@pytest.mark.parametrize("name", ["avqa.json", "avqa-reworded.json"])
def test_the_benchmark_reader_takes_both_files(plain: Path, name: str) -> None:
    rows = read_annotations(plain / name).rows
    assert [row.gold for row in rows] == [row["anser"] for row in read(plain / "avqa.json")]
    assert {row.template for row in rows} <= set(TEMPLATES)


def test_instruction_rows_hold_the_record_and_the_same_questions(plain: Path) -> None:
    lines = (plain / "instruct.jsonl").read_text(encoding="utf-8").splitlines()
    clips = [json.loads(line) for line in lines]
    scenes = [Scene.from_json(row) for row in read(plain / "truth.json")]
    for clip, scene in zip(clips, scenes, strict=True):
        assert clip["video_id"] == scene.video_id and clip["record"] == event_record(scene)
        for player in scene.players:
            assert (player.instrument in clip["record_without_picture"]) == any(
                p.instrument == player.instrument for p in scene.heard
            )
    asked = [question for clip in clips for question in clip["questions"]]
    rows = read(plain / "avqa-reworded.json")
    for question, row in zip(asked, rows, strict=True):
        assert (question["question"], question["answer"], question["template"]) == (
            row["question_content"],
            row["anser"],
            row["template"],
        )
        assert all(set(place) == {"x", "start_s", "end_s"} for place in question["evidence"])


# -- media -------------------------------------------------------------------------------------


def quiet_solo() -> Scene:
    """One player sounds, a while after the beginning, and nobody talks."""
    for seed in range(1000):
        scene = sample_scene(seed, split="test")
        player = scene.heard[0]
        late = player.start_s is not None and 1.0 < player.start_s < 6.0
        loud = player.level_db is not None and player.level_db > -26
        if len(scene.heard) == 1 and late and loud and not scene.voiceover and scene.look % 2:
            return scene
    raise AssertionError("no such scene in a thousand")


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Path]:
    """The same clip as mp4 and as arrays."""
    scene, out = quiet_solo(), tmp_path_factory.mktemp("solo")
    for media in ("mp4", "arrays"):
        write_set(out, SetConfig(clips=1, seed=scene.seed, split="test", media=media, fps=10.0))
    return scene, out


def test_an_mp4_has_picture_and_stereo_sound_of_full_length(solo: tuple[Scene, Path]) -> None:
    scene, out = solo
    clip = read_clip(out / "videos" / f"{scene.video_id}.mp4")
    assert abs(clip.duration_s - 10.0) < 0.06 and not clip.notes
    assert clip.frames_THWC.shape[1:] == (216, 384, 3) and len(clip.frames_THWC) == 10
    assert clip.sound_rate_hz == 44100 and clip.sound_CS.shape[0] == 2
    assert abs(clip.sound_CS.shape[1] / 44100 - 10.0) < 0.06
    assert not clip.is_silent


def test_the_player_is_heard_when_truth_says_so(solo: tuple[Scene, Path]) -> None:
    scene, out = solo
    sound_CS = read_clip(out / "videos" / f"{scene.video_id}.mp4").sound_CS
    hop = 441
    power = (sound_CS[:, : sound_CS.shape[1] // hop * hop].reshape(2, -1, hop) ** 2).mean((0, 2))
    onset_s = int(np.argmax(power > power.max() / 200)) * hop / 44100
    start_s = scene.heard[0].start_s
    assert start_s is not None and abs(onset_s - start_s) < 0.15


def test_arrays_and_mp4_show_and_sound_alike(solo: tuple[Scene, Path]) -> None:
    scene, out = solo
    arrays = load_file(out / "arrays-00000.safetensors")
    clip = read_clip(out / "videos" / f"{scene.video_id}.mp4", sampling=PerSecond(pair_gap_s=0.2))
    np.testing.assert_allclose(clip.frame_times_s, pair_times(10.0), atol=1e-3)
    small = np.stack(
        [cv2.resize(f, (128, 72), interpolation=cv2.INTER_AREA) for f in clip.frames_THWC]
    )
    difference = np.abs(small.astype(float) - arrays["frames_NTHWC"][0])
    assert difference.mean(axis=(1, 2, 3)).max() < 8
    sound_CS = arrays["sound_NCS"][0].astype(np.float32) / 32767
    assert sound_CS.shape == (2, 160000)
    levels = [k_weighted_level_db(s, 16000) for s in (sound_CS, clip.sound_at(16000))]
    assert abs(levels[0] - levels[1]) < 1


def test_arrays_have_the_shapes_of_their_names(tmp_path: Path) -> None:
    write_set(tmp_path, SetConfig(clips=2, seed=1, media="arrays", seconds=6.0))
    arrays = load_file(tmp_path / "arrays-00000.safetensors")
    assert arrays["frames_NTHWC"].shape == (2, 12, 72, 128, 3)
    assert arrays["frames_NTHWC"].dtype == np.uint8
    assert arrays["sound_NCS"].shape == (2, 2, 96000) and arrays["sound_NCS"].dtype == np.int16
    assert all(np.abs(sound).max() > 300 for sound in arrays["sound_NCS"])


def test_a_frame_rate_that_is_no_whole_number_keeps_time(tmp_path: Path) -> None:
    write_set(tmp_path, SetConfig(clips=1, seed=1, media="mp4", **{**SMALL, "fps": 2.5}))
    (path,) = (tmp_path / "videos").iterdir()
    clip = read_clip(path, sampling=PerSecond(fps=2.5, offset_s=0.0))
    np.testing.assert_allclose(clip.frame_times_s[:15], np.arange(15) / 2.5, atol=1e-3)


# -- the same, killed, resumed, grown ----------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_a_stopped_set_goes_on(tmp_path: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    for media in ("mp4", "arrays"):
        write_set(once, SetConfig(clips=2, seed=9, media=media, **SMALL))
        write_set(again, SetConfig(clips=1, seed=9, media=media, **SMALL))
        assert hashes(once) != hashes(again)
        write_set(again, SetConfig(clips=2, seed=9, media=media, **SMALL))
        assert hashes(once) == hashes(again)
    assert sorted(path.name for path in (once / "videos").iterdir()) == [
        "train9_000000.mp4",
        "train9_000001.mp4",
    ]
    names = {"truth.json", "avqa.json", "avqa-reworded.json", "instruct.jsonl", "videos"}
    assert {path.name for path in once.iterdir()} == names | {"arrays-00000.safetensors"}


def test_a_folder_with_other_scenes_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, SetConfig(clips=2, seed=1))
    before = hashes(tmp_path)
    with pytest.raises(AVQAError, match="holds another set"):
        write_set(tmp_path, SetConfig(clips=2, seed=2, media="arrays"))
    assert hashes(tmp_path) == before


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    options = ["--clips", "1", "--seed", "1", "--seconds", "300", "--media", "mp4"]
    writer = subprocess.Popen(
        [sys.executable, "-m", "instruct_data", "bandstand", str(tmp_path), *options],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.DEVNULL,
    )
    while writer.poll() is None and not list(tmp_path.glob("videos/*")):
        time.sleep(0.02)
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    assert not list(tmp_path.glob("videos/*.mp4"))
    assert len(read(tmp_path / "truth.json")) == 1 and read(tmp_path / "avqa-reworded.json")


def test_questions_for_readers_go_with_no_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, of = tmp_path / "out", ["--clips", "3", "--seed", "1", "--of-records"]
    assert main(["bandstand", str(out), *of, "--media", "arrays"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--of-records" in error and not out.exists()
    assert main(["bandstand", str(out), *of]) == 0
    assert main(["bandstand", str(tmp_path / "heard"), *of[:-1]]) == 0
    assert len(read(out / "avqa.json")) > len(read(tmp_path / "heard" / "avqa.json"))


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("--split", "dev", "train, val, test"),
        ("--seconds", "5", "6 to 600"),
        ("--bias", "1.5", "from 0"),
        ("--clips", "0", "at least one clip"),
        ("--seed", "-1", "zero or a positive"),
        ("--height", "101", "even number"),
        ("--fps", "0", "1 to 120"),
        ("--workers", "0", "at least one"),
    ],
)
def test_a_users_mistake_is_one_line(
    option: str, value: str, way_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status = main(["bandstand", str(out), "--clips", "1", "--seed", "1", option, value])
    error = capsys.readouterr().err
    assert status == 2 and not out.exists()
    assert error.count("\n") == 1 and option in error and value in error and way_out in error
