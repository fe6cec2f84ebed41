"""The picture of a scene: stage, players and camera.

What stays is drawn once a scene and what moves once a frame, at twice the size for
small pictures, so that a small picture is the big one shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from instruct_data.bandstand.drawings import draw_moving, draw_still
from instruct_data.bandstand.pen import Canvas, Ink, Pen, Pose
from instruct_data.bandstand.person import HEIGHT
from instruct_data.bandstand.scene import INSTRUMENTS, Player, Scene, sample_scene
from instruct_data.bandstand.stage import draw_stage

SMALL = 240
"""Pictures lower than this are drawn at twice their size and shrunk."""
WIDTHS = {1: 0.30, 2: 0.30, 3: 0.29, 4: 0.235, 5: 0.19}
"""Width of a player as a part of the picture's width, by how many are on it."""


def render_frames(
    scene: Scene,
    times_s: Sequence[float] | NDArray[np.float64],
    *,
    height: int = 72,
    width: int = 128,
) -> NDArray[np.uint8]:
    """Frames of the scene at the given times, in seconds.

    Returns uint8 RGB of shape (len(times_s), height, width, 3). The same scene, times
    and size give the same bytes.
    """
    zoom = 2 if height < SMALL else 1
    film = _Film(scene, height * zoom, width * zoom)
    frames = np.empty((len(times_s), height, width, 3), np.uint8)
    for frame, time in zip(frames, times_s, strict=True):
        drawn = film.at(float(time))
        if zoom > 1:
            drawn = _shrunk(drawn, (width, height))
        if scene.shake > 0:
            # After the shrink: moving the picture costs as much as all that is on it.
            drawn = _shaken(drawn, film.shake_at(float(time)))
        cv2.LUT(drawn, film.light, dst=frame)
    return frames


def player_box(
    scene: Scene, player: Player, *, height: int = 72, width: int = 128
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a visible player on a picture without shake, in pixels."""
    if player.x is None:
        raise ValueError(f"{player.instrument} is off-screen and has no box on the picture")
    x, y, unit = _place(scene, player, Ink(player.look), height, width)
    left, right = x - unit / 2, x + unit / 2
    return (
        max(0, math.floor(left)),
        max(0, math.floor(y)),
        min(width, math.ceil(right)),
        min(height, math.ceil(y + HEIGHT * unit)),
    )


def contact_sheet(height: int = 360) -> NDArray[np.uint8]:
    """All 22 instruments at rest, six in a row, each tile `height` pixels high; RGB."""
    width = round(0.8 * height)
    tiles = [
        render_frames(_solo(kind, look=i), [0.0], height=height, width=width)[0]
        for i, kind in enumerate(INSTRUMENTS)
    ]
    size = max(0.3, height / 400)
    for tile, kind in zip(tiles, INSTRUMENTS, strict=True):
        at = (round(0.03 * height), round(0.97 * height))
        for colour, weight in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(tile, kind, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, weight, cv2.LINE_AA)
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % 6)
    return np.concatenate([np.concatenate(tiles[i : i + 6], 1) for i in range(0, len(tiles), 6)])


def _solo(kind: str, look: int) -> Scene:
    player = Player(instrument=kind, x=0.5, pan=0.0, look=look)
    return replace(
        sample_scene(0),
        players=(player,),
        place="indoor" if look % 2 else "outdoor",
        shake=0.0,
        clutter=0,
        look=look,
    )


def _place(
    scene: Scene, player: Player, ink: Ink, height: int, width: int
) -> tuple[float, float, float]:
    """Middle and top of a player and the length of its unit, in pixels."""
    assert player.x is not None
    zoom, ground = np.random.default_rng([scene.look, 1]).uniform((0.88, 0.94), (1.0, 0.98))
    widest = WIDTHS[min(max(len(scene.seen), 1), 5)] * zoom * ink.size
    # A narrow picture shows a player whole, too.
    unit = min(widest * max(width, 16 / 9 * height), 0.98 * width, 0.55 * height)
    return player.x * width, ground * height - HEIGHT * unit, unit


def _shrunk(picture: Canvas, size: tuple[int, int]) -> Canvas:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _shaken(picture: Canvas, shift: tuple[float, float]) -> Canvas:
    """The picture shifted by parts of its height; its edges are repeated outwards."""
    height, width = picture.shape[:2]
    centre = ((width - 1) / 2 - shift[0] * height, (height - 1) / 2 - shift[1] * height)
    return np.asarray(cv2.getRectSubPix(picture, (width, height), centre), np.uint8)


class _Figure:
    """One visible player, ready to be drawn."""

    def __init__(self, scene: Scene, player: Player, height: int, width: int) -> None:
        self.player = player
        self.ink = Ink(player.look)
        x, y, self._unit = _place(scene, player, self.ink, height, width)
        self._at = (x, y)
        mime_hz, self._sway_hz, self._phase = np.random.default_rng([player.look, 2]).uniform(
            (1.0, 1.15, 0.0), (4.0, 1.4, 2 * math.pi)
        )
        self._beat_hz = player.rate_hz or float(mime_hz)

    def pen(self, canvas: Canvas) -> Pen:
        return Pen(canvas, self._at, self._unit, mirrored=self.ink.mirrored)

    def moves(self, time: float) -> bool:
        span = self.player.moves_s
        return span is not None and span[0] <= time < span[1]

    def pose(self, time: float) -> Pose:
        """The stroke follows the notes; the sway has a pace of its own, so that no pair of
        frames shows both at the same point."""
        turn = 2 * math.pi * time
        sway = turn * self._sway_hz + self._phase
        return Pose(math.sin(turn * self._beat_hz), math.cos(sway), math.sin(sway))

    def draw(self, canvas: Canvas, pose: Pose) -> None:
        draw_moving(self.player.instrument, self.pen(canvas), self.ink, pose)


class _Film:
    """A scene at one size, with everything that does not change over time drawn in advance."""

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        rng = np.random.default_rng(scene.look)
        contrast, brightness = rng.uniform(0.82, 1.1), rng.uniform(-18, 18)
        levels = (np.arange(256) - 128) * contrast + 128 + brightness
        self.light = levels.clip(0, 255).astype(np.uint8)
        self._shake = scene.shake
        self._shake_phases = rng.uniform(0, 2 * math.pi, 4)
        self._figures = [_Figure(scene, p, height, width) for p in scene.seen]
        self._stage = np.empty((height, width, 3), np.uint8)
        draw_stage(self._stage, scene.place, scene.clutter, rng)
        for figure in self._figures:
            draw_still(figure.player.instrument, figure.pen(self._stage), figure.ink)
        self._resting: dict[tuple[bool, ...], Canvas] = {}

    def at(self, time: float) -> Canvas:
        moving = tuple(figure.moves(time) for figure in self._figures)
        canvas = self._with_resting(moving).copy()
        for figure, moves in zip(self._figures, moving, strict=True):
            if moves:
                figure.draw(canvas, figure.pose(time))
        return canvas

    def shake_at(self, time: float) -> tuple[float, float]:
        """How far the picture is shifted right and down, as a part of its height."""
        a, b, c, d = self._shake_phases
        dx = 0.6 * math.sin(5.1 * time + a) + 0.4 * math.sin(11.7 * time + b)
        dy = 0.6 * math.sin(6.3 * time + c) + 0.4 * math.sin(9.4 * time + d)
        return self._shake * dx, self._shake * dy

    def _with_resting(self, moving: tuple[bool, ...]) -> Canvas:
        """The stage with those players who do not move now; made once for each such set."""
        canvas = self._resting.get(moving)
        if canvas is None:
            canvas = self._stage.copy()
            for figure, moves in zip(self._figures, moving, strict=True):
                if not moves:
                    figure.draw(canvas, Pose())
            self._resting[moving] = canvas
        return canvas
