"""The picture shows what the scene says: who is there, where, and who moves when."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instruct_data.bandstand.picture import contact_sheet, player_box, render_frames
from instruct_data.bandstand.scene import INSTRUMENTS, Player, Scene, sample_scene

# Grey levels, mean over a player's box. Flute and trumpet, the closest, are at 8; the next at 12.
DISTINCT = 6.5


def scene_of(*players: Player, place: str = "indoor", shake: float = 0.0, look: int = 5) -> Scene:
    return replace(sample_scene(0), players=players, place=place, shake=shake, clutter=2, look=look)


def player(kind: str = "violin", x: float = 0.5, **fields: object) -> Player:
    return replace(Player(instrument=kind, x=x, pan=0.0, look=11), **fields)  # type: ignore[arg-type]


def difference(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Absolute difference in grey levels, mean over the colours, of shape (height, width)."""
    return np.abs(one.astype(np.float64) - other).mean(-1)


def inside(scene: Scene, who: Player, picture: NDArray[np.float64]) -> NDArray[np.float64]:
    left, top, right, bottom = player_box(scene, who)
    return picture[top:bottom, left:right]


def test_frames_are_rgb_bytes_of_the_size_asked_for() -> None:
    frames = render_frames(sample_scene(3), [0.0, 0.5, 9.9], height=90, width=160)
    assert frames.shape == (3, 90, 160, 3) and frames.dtype == np.uint8
    assert render_frames(sample_scene(3), []).shape == (0, 72, 128, 3)


def test_a_frame_depends_on_the_scene_and_its_time_alone() -> None:
    scene = sample_scene(4)
    frames = render_frames(scene, [1.0, 4.0, 7.3])
    again = render_frames(Scene.from_json(scene.to_json()), [7.3, 1.0])
    assert np.array_equal(frames[[2, 0]], again)


@pytest.mark.parametrize("kind", INSTRUMENTS)
def test_every_player_moves_between_any_two_frames_while_it_plays(kind: str) -> None:
    """Five players on the picture (the smallest drawing), each rate of the grid, whole clip."""
    stands = (0.1, 0.3, 0.5, 0.7, 0.9)
    rates = (1.0, 1.7, 2.8, 5.0, 7.0)  # at 5 Hz, strokes 0.2 s apart coincide
    band = [
        player(kind, x, look=i, start_s=0.0, end_s=10.0, rate_hz=rate, moves_s=(0.0, 10.0))
        for i, (x, rate) in enumerate(zip(stands, rates, strict=True))
    ]
    scene = scene_of(*band)
    times = np.arange(0.05, 9.5, 0.43)
    first, second = render_frames(scene, times), render_frames(scene, times + 0.2)
    for who in band:
        for before, after in zip(first, second, strict=True):
            changed = inside(scene, who, difference(before, after)) > 12
            assert changed.sum() >= 12


def test_players_are_still_outside_their_moves() -> None:
    plays = player("drum", 0.25, rate_hz=2.8, start_s=2.0, end_s=5.0, moves_s=(2.0, 5.0))
    silent = player("cello", 0.75, look=3)
    scene = scene_of(plays, silent)
    frames = render_frames(scene, [1.0, 1.2, 3.0, 3.2, 5.0, 6.1])
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[4], frames[5])
    assert np.array_equal(frames[0], frames[4])
    changed = difference(frames[2], frames[3])
    assert inside(scene, plays, changed).mean() > 1.0
    assert not inside(scene, silent, changed).any()


def test_a_mime_without_sound_moves() -> None:
    scene = scene_of(player("pipa", moves_s=(0.0, 4.0)))
    frames = render_frames(scene, [1.0, 1.2])
    assert difference(frames[0], frames[1]).max() > 30


def test_position_on_the_picture_follows_x() -> None:
    empty = render_frames(scene_of(), [0.0])[0]
    for x in (0.2, 0.5, 0.8):
        picture = render_frames(scene_of(player("piano", x)), [0.0])[0]
        weight = difference(picture, empty).sum(0)
        assert (weight * (np.arange(128) + 0.5)).sum() / weight.sum() / 128 == pytest.approx(
            x, abs=0.03
        )


def test_all_instruments_differ_clearly_on_the_small_picture() -> None:
    """The same person, side and room: what differs is the instrument."""
    scenes = [scene_of(player(kind)) for kind in INSTRUMENTS]
    boxes = [inside(s, s.players[0], render_frames(s, [0.0])[0]) for s in scenes]
    closest = min(
        (difference(one, other).mean(), a, b)
        for (a, one), (b, other) in combinations(zip(INSTRUMENTS, boxes, strict=True), 2)
    )
    assert closest[0] > DISTINCT, closest


def test_indoor_and_outdoor_are_unlike_in_every_look() -> None:
    for look in range(20):
        pair = [scene_of(place=place, look=look) for place in ("indoor", "outdoor")]
        room, meadow = (render_frames(scene, [0.0])[0].astype(float) for scene in pair)
        assert difference(room, meadow).mean() > 25
        sky, wall = meadow[:40].mean((0, 1)), room[:40].mean((0, 1))
        assert sky[2] > sky[0] + 20, "the sky is blue"
        assert wall[0] > wall[2], "the light in a room is warm"


def test_a_small_picture_is_the_big_one_shrunk() -> None:
    for seed in range(12):
        scene = sample_scene(seed)
        small = render_frames(scene, [3.3])[0]
        big = render_frames(scene, [3.3], height=360, width=640)[0]
        shrunk = cv2.resize(big, (128, 72), interpolation=cv2.INTER_AREA)
        assert difference(small, np.asarray(shrunk, np.uint8)).mean() < 5.0


def test_shake_moves_the_whole_picture_smoothly() -> None:
    times = np.arange(0, 4, 0.05)
    still = render_frames(scene_of(player()), times)
    shaken = render_frames(scene_of(player(), shake=0.012), times)
    assert np.array_equal(still[0], still[-1])
    steps = [difference(a, b).mean() for a, b in zip(shaken, shaken[1:], strict=False)]
    assert max(steps) < 4.0
    assert difference(shaken[0], shaken[10])[:, :20].max() > 3
    assert max(difference(a, b).mean() for a, b in zip(still, shaken, strict=True)) < 8.0


def test_looks_vary_and_clutter_shows() -> None:
    one, other = (render_frames(scene_of(player(look=i)), [0.0])[0] for i in (1, 2))
    assert difference(one, other).mean() > 3
    bare, full = (render_frames(replace(scene_of(), clutter=n), [0.0])[0] for n in (0, 4))
    assert (difference(bare, full) > 10).sum() > 100


def test_a_sound_from_off_screen_is_not_on_the_picture() -> None:
    unseen = replace(player("tuba"), x=None)
    without, with_it = (render_frames(scene_of(*who), [0.0]) for who in ((), (unseen,)))
    assert np.array_equal(without, with_it)
    with pytest.raises(ValueError, match="tuba is off-screen"):
        player_box(scene_of(unseen), unseen)


def test_the_contact_sheet_has_a_tile_for_each_instrument() -> None:
    sheet = contact_sheet(72)
    assert sheet.shape[0] == 4 * 72 and sheet.shape[1] % 6 == 0
    tile = sheet.shape[1] // 6
    tiles = [
        sheet[r : r + 72, c : c + tile] for r in range(0, 288, 72) for c in range(0, 6 * tile, tile)
    ]
    assert [bool(t.any()) for t in tiles] == [True] * len(INSTRUMENTS) + [False] * 2
