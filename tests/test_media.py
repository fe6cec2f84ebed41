"""Media: every kind of file becomes a clip that says what it is, or an error that says why not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import wave
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from avqa_llm.errors import AVQAError, MediaError, RecipeError
from avqa_llm.media import (
    Keyframes,
    MediaLimits,
    MotionAdaptive,
    PerSecond,
    Sampling,
    Uniform,
    probe,
    read_clip,
)
from tests.media_files import (
    Picture,
    Sound,
    at_rate,
    make_media,
    number_of,
    numbered_frame,
    numbers,
    said,
)

THREE_SECONDS = Picture(times_s=at_rate(25, 3))
VARIABLE = Picture(times_s=(0, 0.04, 0.08, 0.5, 0.51, 0.7, 1.9, 2.0, 2.6))
DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
FASTSTART = {"movflags": "faststart"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Three seconds of numbered frames with sound, a keyframe every second."""
    return make_media(folder / "plain.mp4", THREE_SECONDS, Sound(seconds=3))


# Which frames


def test_frames_are_those_a_player_would_show(plain: Path) -> None:
    clip = read_clip(plain)
    assert numbers(clip) == [12, 37, 62]
    assert clip.frame_times_s == pytest.approx([0.48, 1.48, 2.48])
    assert clip.frames_THWC.dtype == np.uint8 and clip.frames_THWC.shape == (3, 48, 64, 3)
    assert clip.duration_s == pytest.approx(3.0, abs=0.05) and clip.notes == ()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (PerSecond(fps=2), [6, 18, 31, 43, 56, 68]),
        (PerSecond(pair_gap_s=0.2), [12, 17, 37, 42, 62, 67]),
        (PerSecond(pair_gap_s=0.7), [12, 30, 37, 55, 62, 74]),
        (PerSecond(fps=0.1), [37]),
        (Uniform(frames=3), [12, 37, 62]),
        (Uniform(frames=1), [37]),
        (Keyframes(), [0, 25, 50]),
    ],
    ids=str,
)
def test_sampling(plain: Path, sampling: Sampling, expected: list[int]) -> None:
    assert numbers(read_clip(plain, sampling=sampling)) == expected


def test_variable_frame_rate_gives_true_times(folder: Path) -> None:
    clip = read_clip(make_media(folder / "vfr.mp4", VARIABLE), sampling=PerSecond(fps=2))
    assert clip.frame_times_s == pytest.approx([0.08, 0.7, 0.7, 0.7, 2.0])
    assert numbers(clip) == [2, 5, 5, 5, 7]


def test_keyframes_too_far_apart_decode_everything_and_say_so(folder: Path) -> None:
    picture = Picture(times_s=at_rate(25, 3), keyframe_every=75)
    clip = read_clip(make_media(folder / "long-gop.mp4", picture), sampling=Keyframes())
    assert numbers(clip) == [12, 37, 62] and said(clip, "every frame was decoded")


def test_motion_adaptive_looks_where_the_picture_changes(folder: Path) -> None:
    with av.open(str(folder / "move.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(100):  # one second of motion, from 2 s on
            picture = numbered_frame(k if 50 <= k < 75 else 0, (64, 48))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        out.mux(stream.encode(None))
    times = read_clip(folder / "move.mp4", sampling=MotionAdaptive(frames=20)).frame_times_s
    assert len(set(times)) == 20 and (np.diff(times) > 0).all()
    assert ((times >= 2) & (times <= 3)).sum() >= 14
    assert (times < 2).any() and (times > 3).any(), "calm parts must be seen too"


@pytest.mark.parametrize(
    "make", [lambda: Uniform(frames=0), lambda: PerSecond(fps=0), lambda: Keyframes(every_s=0)]
)
def test_impossible_sampling_is_refused(make: object) -> None:
    with pytest.raises(RecipeError, match="must be"):
        make()  # type: ignore[operator]


# The clock


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_picture_that_starts_late(folder: Path, suffix: str) -> None:
    picture = Picture(times_s=at_rate(25, 3, start_s=1.0))
    path = make_media(folder / f"late.{suffix}", picture, Sound(seconds=3))
    clip = read_clip(path, sampling=PerSecond(fps=2))
    assert clip.picture_span_s == pytest.approx((1.0, 4.0))
    assert clip.frame_times_s[:4] == pytest.approx([1.0, 1.0, 1.24, 1.72])
    assert numbers(clip)[:4] == [0, 0, 6, 18]
    assert said(clip, "the sound starts 1.0 s before the picture")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late_is_heard_at_its_time(folder: Path, suffix: str) -> None:
    path = make_media(folder / f"late-sound.{suffix}", THREE_SECONDS, Sound(seconds=2, start_s=1.0))
    clip = read_clip(path)
    onset = int(np.argmax(np.abs(clip.sound_CS[0]) > 0.2)) / clip.sound_rate_hz
    assert onset == pytest.approx(1.0, abs=0.03)
    assert clip.sound_span_s[0] == pytest.approx(1.0, abs=0.07)
    assert said(clip, "before the sound")


def test_sound_shorter_and_longer_than_picture(folder: Path) -> None:
    short = read_clip(make_media(folder / "s.mp4", THREE_SECONDS, Sound(seconds=1)))
    assert said(short, "the sound ends 2.0 s before the picture") and len(short.frames_THWC) == 3
    long = read_clip(make_media(folder / "l.mp4", THREE_SECONDS, Sound(seconds=6)))
    assert said(long, "the picture ends 3.0 s before the sound")
    assert said(long, "3 wanted times lie after the last frame")
    assert len(long.frames_THWC) == 3 and long.duration_s == pytest.approx(6, abs=0.1)


# Sound


def test_a_gap_in_the_sound_stays_a_gap(folder: Path) -> None:
    sound = Sound(seconds=2, gap_s=0.5, codec="pcm_s16le")
    clip = read_clip(make_media(folder / "gap.mkv", None, sound))
    assert clip.duration_s == pytest.approx(2.5, abs=0.01) and said(clip, "gaps of 0.50 s")
    assert np.abs(clip.sound_CS[0, 17000:23000]).max() == 0 < np.abs(clip.sound_CS[0, -9000:]).max()


def test_no_sound(folder: Path) -> None:
    clip = read_clip(make_media(folder / "mute.mp4", THREE_SECONDS))
    assert not clip.has_sound and not clip.is_silent and clip.sound_rate_hz == 0
    assert said(clip, "no sound track") and clip.sound_at(16000, 1).shape == (1, 0)


def test_silence_is_not_the_same_as_no_sound(folder: Path) -> None:
    clip = read_clip(make_media(folder / "q.mp4", THREE_SECONDS, Sound(seconds=3, volume=0)))
    assert clip.has_sound and clip.is_silent and said(clip, "silent (peak below -60 dBFS")


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 44100),
        ("b.wav", "pcm_u8", 8000),
        ("c.wav", "pcm_f32le", 44100),
        ("a.mp3", "libmp3lame", 44100),
        ("a.m4a", "aac", 44100),
        ("a.flac", "flac", 44100),
        ("a.ogg", "libopus", 48000),
    ],
)
def test_sound_files(folder: Path, name: str, codec: str, rate: int) -> None:
    clip = read_clip(make_media(folder / name, None, Sound(seconds=1.5, codec=codec, rate_hz=rate)))
    assert not clip.has_picture and said(clip, "no picture") and clip.sound_rate_hz == rate
    assert clip.duration_s == pytest.approx(1.5, abs=0.03)
    assert np.abs(clip.sound_CS[:, rate // 2 : rate]).max() == pytest.approx(0.5, abs=0.05)


def test_wave_samples_are_exact(folder: Path) -> None:
    samples = np.array([[0, 32767, -32768, 1], [5, -5, 100, -100]], "<i2")
    with wave.open(str(folder / "exact.wav"), "wb") as out:
        out.setparams((2, 2, 8000, 0, "NONE", ""))
        out.writeframes(samples.T.tobytes())
    assert np.array_equal(read_clip(folder / "exact.wav").sound_CS, samples / np.float32(32768))


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_channels_and_resampling(folder: Path, layout: str, channels: int) -> None:
    sound = Sound(seconds=1, rate_hz=48000, layout=layout, codec="pcm_s16le")
    clip = read_clip(make_media(folder / f"{channels}.mkv", THREE_SECONDS, sound))
    assert len(clip.sound_CS) == channels
    for wanted in (1, 2):
        heard = clip.sound_at(16000, wanted)
        assert heard.shape == (wanted, 16000) and heard.dtype == np.float32
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        assert np.abs(heard - tone)[:, 200:-200].max() < 0.01, "same tone, in place"
    with pytest.raises(ValueError, match="1 or 2"):
        clip.sound_at(16000, 7)


def test_cover_art_is_not_a_picture(folder: Path) -> None:
    with av.open(str(folder / "cover.m4a"), "w", format="mp4") as out:
        tune = out.add_stream("aac", rate=44100, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.full((1, 44100), 0.1, np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        art = av.VideoFrame.from_ndarray(numbered_frame(3, (64, 48))).reformat(format="yuvj420p")
        out.mux(cover.encode(art) + cover.encode(None))
        out.mux(tune.encode(frame) + tune.encode(None))
    clip = read_clip(folder / "cover.m4a")
    assert not clip.has_picture and clip.has_sound and said(clip, "cover art")
    assert any(stream.is_cover_art for stream in probe(folder / "cover.m4a").streams)


# Pictures


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(folder: Path, rotation: int) -> None:
    path = make_media(
        folder / f"turn{rotation}.mp4", Picture(times_s=at_rate(25, 1), rotation=rotation)
    )
    frame = read_clip(path).frames_THWC[0]
    assert number_of(np.rot90(frame, -rotation // 90)) == 12
    assert frame.shape == ((48, 64, 3) if rotation == 180 else (64, 48, 3))
    info = probe(path).picture
    assert info is not None and info.rotation == rotation and (info.width, info.height) == (64, 48)


@pytest.mark.parametrize(("size", "pix_fmt"), [((65, 49), "yuv444p"), ((64, 48), "yuv420p10le")])
def test_odd_sizes_and_formats(folder: Path, size: tuple[int, int], pix_fmt: str) -> None:
    picture = Picture(times_s=at_rate(25, 1), size=size, pix_fmt=pix_fmt)
    clip = read_clip(make_media(folder / f"{pix_fmt}.mkv", picture))
    assert clip.frames_THWC.shape == (1, size[1], size[0], 3) and numbers(clip) == [12]


def test_max_side_keeps_the_aspect_and_never_enlarges(plain: Path) -> None:
    assert read_clip(plain, max_side=32).frames_THWC.shape == (3, 24, 32, 3)
    assert read_clip(plain, max_side=999).frames_THWC.shape == (3, 48, 64, 3)


def test_one_frame_clip(folder: Path) -> None:
    path = make_media(folder / "one.mp4", Picture(times_s=(0.0,)))
    clip = read_clip(path)
    assert numbers(clip) == [0] and clip.duration_s == pytest.approx(0.04)
    assert len(read_clip(path, sampling=Uniform(frames=4)).frames_THWC) == 4


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_still_image(folder: Path, suffix: str) -> None:
    path = folder / f"still.{suffix}"
    cv2.imwrite(str(path), numbered_frame(37, (64, 48)))
    for sampling in (PerSecond(), Uniform(frames=8), MotionAdaptive(frames=8), Keyframes()):
        clip = read_clip(path, sampling=sampling)
        assert numbers(clip) == [37] and clip.frame_times_s.tolist() == [0.0]
        assert clip.duration_s == 0.0 and said(clip, "still image")
    assert len(read_clip(path, sampling=PerSecond(pair_gap_s=0.1)).frames_THWC) == 2


def test_8k_picture(folder: Path) -> None:
    path = folder / "8k.png"
    cv2.imwrite(str(path), np.full((4320, 7680, 3), 99, np.uint8))
    assert read_clip(path, max_side=256).frames_THWC.shape == (1, 144, 256, 3)
    for look in (read_clip, probe):
        with pytest.raises(MediaError, match=r"7680x4320.*limit is 1,000,000.*max_pixels"):
            look(path, limits=MediaLimits(max_pixels=1_000_000))


# What is wrong with a file


@pytest.mark.parametrize(
    ("name", "kept"), [("f.mp4", 0.5), ("f.mkv", 0.5), ("f.ts", 0.41), ("f.avi", 0.25)]
)
def test_truncated_file_gives_the_part_that_is_there(folder: Path, name: str, kept: float) -> None:
    picture, sound = Picture(times_s=at_rate(10, 10)), Sound(seconds=10)
    if name == "f.avi":
        picture = replace(picture, codec="mpeg4", options=())
        sound = replace(sound, codec="libmp3lame")
    path = make_media(folder / name, picture, sound, mux=FASTSTART if name == "f.mp4" else {})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    clip = read_clip(path)
    assert 2 < clip.duration_s < 7 and 2 <= len(clip.frames_THWC) <= 7
    assert said(clip, "the file is truncated")
    for number, time_s in zip(numbers(clip), clip.frame_times_s, strict=True):
        assert number == pytest.approx(time_s * 10, abs=1.5)  # streams may start 0.1 s apart


def test_lying_frame_count(folder: Path) -> None:
    path = make_media(folder / "lie.mp4", Picture(times_s=at_rate(10, 10)), mux=FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip = read_clip(path, sampling=Uniform(frames=4))
    assert said(clip, "the container claims 100 frames") and len(clip.frames_THWC) == 4
    assert clip.frame_times_s[-1] < clip.picture_span_s[1] < 8


def test_damage_in_the_middle_is_skipped_with_a_note(folder: Path) -> None:
    path = make_media(folder / "hole.mp4", THREE_SECONDS, mux=FASTSTART)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(data)
    clip = read_clip(path)
    assert len(clip.frames_THWC) == 3 and number_of(clip.frames_THWC[-1]) == 62
    assert said(clip, "cannot be decoded") or said(clip, "damaged")


def test_unreadable_files(plain: Path, folder: Path) -> None:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no film\n" * 99)
    (folder / "cut.mp4").write_bytes(plain.read_bytes()[:5000])
    (folder / "noise.mkv").write_bytes(random.Random(0).randbytes(5000))
    for name, reason in {
        "empty.mp4": "0 bytes",
        "text.mp4": "text file",
        "cut.mp4": "'moov'.*cut short",
        "noise.mkv": "not a media file|neither picture nor sound",
        "missing.mp4": "No such file",
        ".": "directory",
        "nul\0.mp4": "cannot be opened",
    }.items():
        for look in (read_clip, probe) if name != "noise.mkv" else (read_clip,):
            with pytest.raises(MediaError, match=reason):
                look(folder / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
def test_a_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    with pytest.raises(MediaError, match="not a regular file"):
        read_clip(folder / "pipe.mp4")


@pytest.mark.parametrize("prefix", ["http://127.0.0.1:9", "concat:", "file:", "subfile,,start,0,:"])
def test_urls_and_protocols_are_refused(plain: Path, prefix: str) -> None:
    with pytest.raises(MediaError, match="only local files"):
        read_clip(prefix + str(plain))


def test_a_file_named_like_a_protocol_is_only_a_file(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:x.mp4").write_bytes(plain.read_bytes())
    for reader in ("pyav", "decord"):
        assert numbers(read_clip("concat:x.mp4", reader=reader)) == [12, 37, 62]


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "\n\n# a comment first\nfile '{}'\n",
    ],
)
def test_playlists_open_nothing(plain: Path, folder: Path, text: str) -> None:
    for name in ("list.m3u8", "list.mp4", "list.ffconcat"):
        (folder / name).write_text(text.format(plain))
        with pytest.raises(MediaError, match="playlist|text file"):
            read_clip(folder / name)


# Limits


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (MediaLimits(max_bytes=100), "limit is 100;.*max_bytes"),
        (MediaLimits(max_seconds=2), "limit is 2 s;.*max_seconds"),
        (MediaLimits(max_frames=2), "limit is 2;.*max_frames"),
        (MediaLimits(max_picture_bytes=20_000), "limit is 20,000;.*max_picture_bytes"),
        (MediaLimits(timeout_s=0), "timeout_s"),
    ],
)
def test_limits_are_named(plain: Path, limits: MediaLimits, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        read_clip(plain, limits=limits)


def test_length_is_measured_where_the_header_has_none(folder: Path) -> None:
    path = make_media(folder / "long.ts", Picture(times_s=at_rate(10, 5, start_s=2.0)))
    assert read_clip(path).frame_times_s[0] == pytest.approx(0.5), "its own clock starts later"
    with pytest.raises(MediaError, match="max_seconds"):
        read_clip(path, limits=MediaLimits(max_seconds=2))


# decord


@pytest.mark.parametrize("picture", [THREE_SECONDS, VARIABLE], ids=["constant", "variable"])
def test_decord_gives_the_same_frames(folder: Path, picture: Picture) -> None:
    path = make_media(folder / "both.mp4", picture, Sound(seconds=2))
    ours = read_clip(path, sampling=PerSecond(fps=4))
    theirs = read_clip(path, sampling=PerSecond(fps=4), reader="decord")
    assert numbers(theirs) == numbers(ours)
    assert theirs.frame_times_s == pytest.approx(ours.frame_times_s, abs=1e-6)
    assert np.abs(theirs.frames_THWC.astype(int) - ours.frames_THWC).mean() < 2
    assert np.array_equal(theirs.sound_CS, ours.sound_CS)


def test_decord_is_killed_at_the_deadline(plain: Path) -> None:
    start = time.monotonic()
    with pytest.raises(MediaError, match="timeout_s"):
        read_clip(plain, reader="decord", limits=MediaLimits(timeout_s=0.15))
    assert time.monotonic() - start < 5


def test_decord_leaves_rotated_pictures_to_pyav(folder: Path) -> None:
    path = make_media(folder / "r.mp4", Picture(times_s=at_rate(25, 1), rotation=90))
    clip = read_clip(path, reader="decord")
    assert number_of(np.rot90(clip.frames_THWC[0], -1)) == 12 and said(clip, "PyAV was used")


def test_missing_decord_says_how_to_get_it(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MediaError, match="pip install decord2"):
        read_clip(plain, reader="decord")
    with pytest.raises(MediaError, match="pyav, decord"):
        read_clip(plain, reader="opencv")


# The whole


def test_what_if_clips(plain: Path) -> None:
    clip = read_clip(plain)
    muted, blank = clip.muted(), clip.blanked()
    assert not muted.has_sound and muted.has_picture and muted.duration_s == clip.duration_s
    assert blank.has_sound and not blank.has_picture and len(blank.frame_times_s) == 0
    assert said(muted, "sound was taken away") and said(blank, "picture was taken away")


def test_probe(plain: Path) -> None:
    info = probe(plain)
    assert "mp4" in info.container and info.duration_s == pytest.approx(3, abs=0.1)
    assert info.picture is not None and info.sound is not None
    assert (info.picture.codec, info.picture.width, info.picture.frames) == ("h264", 64, 75)
    assert info.picture.fps == pytest.approx(25, abs=0.1) and info.picture.start_s == 0
    assert (info.sound.codec, info.sound.rate_hz, info.sound.channels) == ("aac", 16000, 1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_no_damage_leads_to_another_exception(folder: Path, suffix: str) -> None:
    source = make_media(
        folder / f"fuzz.{suffix}", Picture(times_s=at_rate(10, 2)), Sound(seconds=2), mux=FASTSTART
    )
    data, dice, clips = source.read_bytes(), random.Random(5), 0
    for _ in range(20):
        broken = bytearray(data)
        for _ in range(dice.choice([1, 5, 50])):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        source.write_bytes(broken[: dice.randrange(len(data) // 2, 2 * len(data))])
        start = time.monotonic()
        try:
            clip = read_clip(source, sampling=dice.choice([PerSecond(), Uniform(frames=5)]))
            clips += len(clip.frames_THWC) == len(clip.frame_times_s)
        except AVQAError:
            pass
        assert time.monotonic() - start < 10
    assert clips > 5


def test_import_is_light() -> None:
    code = "import sys, avqa_llm.media; print({'av', 'cv2', 'scipy', 'decord'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.skipif(not (DATA / "clips").is_dir(), reason=f"no real clips in {DATA}")
def test_real_clips() -> None:
    video = read_clip(DATA / "clips" / "demo_1.mp4", max_side=224)
    assert len(video.frames_THWC) == 32 and video.frames_THWC.shape[2] == 224
    assert video.is_silent and video.sound_rate_hz == 44100
    speech = read_clip(DATA / "clips" / "spoken_question.wav")
    assert speech.sound_rate_hz == 16000 and not speech.is_silent and not speech.has_picture
