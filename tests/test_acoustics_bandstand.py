"""Acoustic measures against the truth of Bandstand scenes, and the door `avqa listen`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avqa_llm.acoustics import facts_of, measure
from avqa_llm.cli import main
from avqa_llm.media import Clip
from instruct_data.bandstand.scene import Scene, sample_scene
from instruct_data.bandstand.sound import render_sound
from tests.media_files import Picture, Sound, at_rate, make_media
from tests.sounds import clip_of

SAMPLES = Path(__file__).resolve().parent.parent / "app" / "samples"
RATE = 16000


def heard(scene: Scene) -> Clip:
    return clip_of(render_sound(scene, rate_hz=RATE), RATE)


def solos(count: int) -> list[Scene]:
    """Scenes with one player that sounds and no voice."""
    scenes = (sample_scene(7, index) for index in range(1000))
    wanted = (s for s in scenes if not s.voiceover and sum(p.audible for p in s.players) == 1)
    return [next(wanted) for _ in range(count)]


def momentary(clip: Clip) -> float:
    """The greatest loudness of 0.4 s, which is what a Bandstand level means."""
    windows = [measure(clip, "loudness", at, at + 0.4) for at in np.arange(0, 9.6, 0.1)]
    return max(found.value for found in windows if found.value is not None)


def test_a_lone_player_is_heard_where_it_plays() -> None:
    """Its start and end, its loudness, its side and how often it strikes, in ten scenes."""
    right = {"start": 0, "end": 0, "loudness": 0, "side": 0, "rate": 0}
    scenes = solos(10)
    for scene in scenes:
        (player,) = (p for p in scene.players if p.audible)
        facts = facts_of(heard(scene))
        assert player.start_s is not None and player.end_s is not None
        assert player.level_db is not None and player.rate_hz is not None
        expected = player.rate_hz * (player.end_s - player.start_s)
        first = next(at for at in facts.onsets_s if at > player.start_s - 0.1)
        right["start"] += abs(first - player.start_s) < 0.1
        right["end"] += facts.active[-1].end_s > player.end_s - 0.5
        right["loudness"] += abs(momentary(heard(scene)) - player.level_db) < 1
        balance = measure(heard(scene), "balance", player.start_s, player.end_s).value
        right["side"] += abs(player.pan) < 0.1 or np.sign(balance) == np.sign(player.pan)
        right["rate"] += abs(len(facts.onsets_s) - expected) <= 2 + 0.15 * expected
    assert min(right.values()) >= 9, right


def test_the_louder_of_two_stretches_is_the_one_that_is_louder_in_truth() -> None:
    """Where a second player joins, the loudness of the mixture rises as energies add up."""
    rises = []
    for index in range(400):
        scene = sample_scene(9, index)
        players = sorted((p for p in scene.players if p.audible), key=lambda p: p.start_s or 0.0)
        if scene.voiceover or len(players) != 2:
            continue
        early, late = players
        if late.start_s - early.start_s < 2 or min(early.end_s, late.end_s) - late.start_s < 2:
            continue
        clip, at = heard(scene), late.start_s
        before, after = (measure(clip, "loudness", *w).value for w in ((at - 2, at), (at, at + 2)))
        both = 10 * np.log10(10 ** (early.level_db / 10) + 10 ** (late.level_db / 10))
        rises.append((after - before, both - early.level_db))
        if len(rises) == 8:
            break
    found, truth = np.array(rises).T
    assert len(found) == 8 and np.median(abs(found - truth)) < 1.5
    assert np.all(found[truth > 3] > 0)


# -- avqa listen -------------------------------------------------------------------------------


def test_listen_prints_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", str(SAMPLES / "duo.mp4"), "--from", "2", "--to", "5"]) == 0
    shown = capsys.readouterr().out
    assert "Measured from the sound (2.0-5.0 s, stereo, 44100 Hz)" in shown
    assert "± 0.1" in shown
    seconds = [line.split()[0] for line in shown.splitlines()[-3:]]
    assert seconds == ["2", "3", "4"]


def test_listen_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", str(SAMPLES / "trio.mp4"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["facts"]["channels"] == 2 and len(row["facts"]["level_db"]) == 10
    assert row["facts"]["loudness"]["unit"] == "LUFS" and "speech" not in row


def test_listen_to_a_file_without_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = make_media(tmp_path / "silent.mp4", Picture(times_s=at_rate(25, 1)))
    assert main(["listen", str(silent)]) == 0
    assert "no sound track" in capsys.readouterr().out


def test_listen_outside_of_the_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = make_media(tmp_path / "short.wav", sound=Sound(seconds=1.0, codec="pcm_s16le"))
    assert main(["listen", str(short), "--from", "4"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "from 4 s" in said and "between 0 and 1 s" in said
