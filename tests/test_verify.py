"""What is on disk: found, missing, empty, cut, without sound; on small files made here."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.errors import AVQAError
from instruct_data import verify as module
from instruct_data.verify import Report, buckets, clip_name, find_media, verify
from tests.media_files import Picture, Sound, at_rate, make_media

DATA = Path(
    os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[1] / "../shared/data")
)
ROW: dict[str, Any] = {
    "question_id": 1,
    "type": '["Audio", "Counting"]',
    "question_content": "How many musical instruments were heard throughout the video?",
    "templ_values": "[]",
    "question_deleted": 0,
    "anser": "two",
}


def questions(path: Path, *clips: str) -> Path:
    path.write_text(json.dumps([ROW | {"video_id": clip} for clip in clips]))
    return path


def clip(path: Path, picture_s: float = 12.0, sound_s: float | None = 12.0, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = None if sound_s is None else Sound(seconds=sound_s, rate_hz=8000, **more)
    return make_media(path, Picture(times_s=at_rate(2, picture_s)), sound)


def run(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    module.add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["verify", *map(str, argv)])
    return int(args.run(args))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of each kind, as a half-finished download leaves them."""
    folder = tmp_path_factory.mktemp("data") / "music-avqa"
    whole = clip(folder / "videos/real/00000001.mp4")
    clip(folder / "videos/00000002.mkv")
    clip(folder / "videos/00000003.mp4", sound_s=None)
    (folder / "videos/00000004.mp4").write_bytes(b"")
    clip(folder / "videos/00000005.mp4", sound_s=9.0)
    clip(folder / "videos/00000006.AVI", picture_s=4.0, sound_s=None)
    (folder / "videos/00000007.mp4").write_bytes(whole.read_bytes()[:3000])
    (folder / "videos/00000008.mp4").write_text("<html>quota exceeded</html>")
    (folder / "videos/loose_end.mp4").symlink_to(folder / "gone.mp4")
    questions(
        folder / "avqa-test.json",
        *(f"0000000{number}" for number in (1, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
        "loose_end",
        "va00000010",
    )
    return folder


def checked(report: Report, file: str) -> module.Checked:
    return next(each for each in report.checked if each.file == file)


def test_what_is_there_what_is_missing_and_what_is_wrong(folder: Path) -> None:
    report = verify(folder)
    (named,) = report.named
    assert (named.rows, len(named.clips)) == (12, 11)
    assert report.found(named.clips)[1:] == ([], ["00000009", "va00000010"])
    assert report.faults() == {
        "zero bytes": ["videos/00000004.mp4"],
        "unreadable": ["videos/00000007.mp4", "videos/00000008.mp4", "videos/loose_end.mp4"],
        "no sound": ["videos/00000003.mp4", "videos/00000006.AVI"],
        "sound ends early": ["videos/00000005.mp4"],
        "short": ["videos/00000006.AVI"],
    }
    assert not report.is_whole()
    good = checked(report, "videos/real/00000001.mp4")
    assert good.has_picture and good.has_sound and good.error is None
    assert good.picture_s == pytest.approx(12.0, abs=0.6)
    assert "cut short" in str(checked(report, "videos/00000007.mp4").error)
    assert "text file" in str(checked(report, "videos/00000008.mp4").error)


def test_the_command_says_it_and_ends_with_status_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = questions(tmp_path / "many.json", *(f"{number:08}" for number in range(1, 31)))
    out = tmp_path / "out" / "report.json"
    assert run(folder, "--annotations", many, folder / "avqa-test.json", "--out", out) == 1
    said = capsys.readouterr().out
    assert "many.json: 30 rows, 30 clips named, 8 found, 22 missing" in said
    assert "avqa-test.json: 12 rows, 11 clips named, 9 found, 2 missing" in said
    assert "missing: 00000009, 00000010" in said and "00000018 and 12 more" in said
    assert "1 files of zero bytes: videos/00000004.mp4" in said
    assert "2 clips without a sound track: videos/00000003.mp4" in said
    # At two frames a second; MP4 does not say how long the last of them is shown.
    assert "length (documented: 60 s): shortest 3.5 s" in said
    assert "below 10 s: 1, 10 to 30 s: 4" in said
    report = json.loads(out.read_text())
    assert report["annotations"][0]["missing"] == [f"{n:08}" for n in range(9, 31)]
    assert len(report["annotations"][0]["sha256"]) == 64
    assert report["faults"]["sound ends early"] == ["videos/00000005.mp4"]
    assert len(report["files"]) == 9


def test_a_header_without_the_ends_of_its_streams_is_said_not_guessed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder) == 1
    said = capsys.readouterr().out
    assert "1 headers do not say where sound and picture end: videos/00000002.mkv" in said


def test_a_whole_folder_has_status_0(tmp_path: Path) -> None:
    clip(tmp_path / "music-avqa-v2" / "ciAuN83h20Y.mp4")
    questions(tmp_path / "music-avqa-v2" / "test_balance.json", "ciAuN83h20Y")
    assert run(tmp_path / "music-avqa-v2") == 0
    assert run(tmp_path / "music-avqa-v2", "--deep") == 0


def test_deep_finds_what_no_header_tells(tmp_path: Path) -> None:
    clip(tmp_path / "quiet.mp4", volume=0.0)
    clip(tmp_path / "late.mkv", sound_s=8.0)
    # The index at the front still promises what the second half held.
    front = make_media(
        tmp_path / "front.mp4",
        Picture(times_s=at_rate(2, 12.0)),
        Sound(seconds=12.0, rate_hz=8000),
        mux={"movflags": "faststart"},
    )
    data = front.read_bytes()
    front.write_bytes(data[: len(data) * 2 // 3])
    questions(tmp_path / "test.json", "quiet", "late", "front")
    assert set(verify(tmp_path).faults()) == set()
    deep = verify(tmp_path, deep=True).faults()
    assert deep["silent"] == ["quiet.mp4"]
    assert deep["sound ends early"] == ["late.mkv"]
    assert deep["cut"] == ["front.mp4"]


def test_a_mirrored_clip_counts_when_its_original_is_there(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    clip(tmp_path / "b_flip.mp4")
    questions(tmp_path / "test.json", "a_flip", "b_flip", "b", "c_flip")
    report = verify(tmp_path)
    assert report.found(report.named[0].clips) == (["b_flip"], ["a_flip", "b"], ["c_flip"])
    assert [each.file for each in report.checked] == ["a.mp4", "b_flip.mp4"]


def test_a_clip_that_lends_its_sound_is_named_too(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    row = ROW | {"video_id": "a", "unmatch_audio": "b"}
    (tmp_path / "test.json").write_text(json.dumps([row, ROW | {"video_id": "a"}]))
    report = verify(tmp_path)
    assert report.found(report.named[0].clips) == (["a"], [], ["b"])


def test_two_files_of_one_name_are_said_and_both_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "x" / "a.mp4")
    (tmp_path / "a.webm").write_bytes(b"")
    questions(tmp_path / "test.json", "a")
    assert run(tmp_path) == 1
    said = capsys.readouterr().out
    assert "1 clips have more than one file: a" in said
    assert "1 files of zero bytes: a.webm" in said


def test_a_check_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        clip(tmp_path / f"{name}.mp4")
    questions(tmp_path / "test.json", *"abc")
    out, looked = tmp_path / "report.json", []
    real = module.check

    def stopped(path: Path, file: str, *, deep: bool) -> module.Checked:
        looked.append(file)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return real(path, file, deep=deep)

    monkeypatch.setattr(module, "check", stopped)
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, out=out)
    assert looked == ["a.mp4", "b.mp4", "c.mp4"] and not out.exists()
    with (tmp_path / "report.json.checked.jsonl").open("a") as journal:
        journal.write('{"file": "c.mp4", "size"')  # what a kill leaves of a line
    (tmp_path / "a.mp4").write_bytes(b"")  # and this one was touched meanwhile
    report = verify(tmp_path, out=out)
    assert looked[3:] == ["a.mp4", "c.mp4"]
    assert report.faults() == {"zero bytes": ["a.mp4"]}
    assert verify(tmp_path, out=out).faults() == report.faults() and len(looked) == 5
    verify(tmp_path, out=out, deep=True)  # a probe does not stand for a decoding
    assert looked[5:] == ["a.mp4", "b.mp4", "c.mp4"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    clip(tmp_path / "disk" / "a.mp4")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "videos").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "data")
    assert find_media(tmp_path / "data") == {"a": ["videos/a.mp4"]}


def test_other_sources_are_read_by_their_readers(tmp_path: Path) -> None:
    rows = [
        {"video_id": "v_one", "q": "What is seen?", "a": "A dog."},
        {"video_id": "v_one", "q": "And heard?", "a": "It barks."},
        {"video_id": "v_two", "q": "What is seen?", "a": "A cat."},
    ]
    folder = tmp_path / "videoinstruct"
    clip(folder / "v_one.mp4", picture_s=4.0, sound_s=4.0)
    (folder / "VideoInstruct100K.json").write_text(json.dumps(rows))
    report = verify(folder)
    assert report.source == "conversations" and report.named[0].rows == 3
    assert report.found(report.named[0].clips) == (["v_one"], [], ["v_two"])
    assert report.faults() == {}  # 4 s is short for MUSIC-AVQA only


@pytest.mark.parametrize(
    ("video", "name"),
    [("00000093", "00000093"), ("x/y/v_a.mp4", "v_a"), ("a.b", "a.b"), ("A.MKV", "A")],
)
def test_the_name_of_a_clip(video: str, name: str) -> None:
    assert clip_name(video) == name


def test_lengths_fall_into_one_bucket_each() -> None:
    counted = buckets([9.99, 10.0, 30.0, 58.9, 59.0, 60.0, 61.0, 200.0])
    assert list(counted.values()) == [1, 1, 2, 2, 2]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(AVQAError, match="is no folder"):
        verify(tmp_path / "absent")
    with pytest.raises(AVQAError, match="holds no question file"):
        verify(tmp_path)
    (tmp_path / "test.json").write_text("{}")
    with pytest.raises(AVQAError, match=r"test\.json"):
        verify(tmp_path)
    questions(tmp_path / "test.json", "a")
    with pytest.raises(AVQAError, match="no reader 'musik'"):
        verify(tmp_path, source="musik")


def test_the_real_question_file(tmp_path: Path) -> None:
    path = DATA / "music-avqa" / "avqa-test.json"
    if not path.exists():
        pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    clip(tmp_path / "00000093.mp4")
    report = verify(tmp_path, annotations=[path])
    (named,) = report.named
    assert named.rows == 9129
    found, _, missing = report.found(named.clips)
    assert found == ["00000093"] and len(missing) == len(named.clips) - 1
