"""What the band is drawn with: a pen with a frame of its own, the look of a player, its pose.

A pen draws in units of a player's width, x to the right from the middle, y down from
the crown of the head. The same drawing code therefore serves every size of picture.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
"""Picture of shape (height, width, 3), RGB."""
Points = NDArray[np.float64]
"""Polygon of shape (corners, 2), in units of the pen."""
Colour = tuple[int, int, int]
Spot = tuple[float, float]

SHIFT = 4
FIXED = 1 << SHIFT
OUTLINE = 0.022
GROWTH = 0.6
"""By how much OpenCV's anti-aliasing widens a shape on each side, in pixels. Thin things are
drawn so much thinner; without that they would be fat on small pictures."""


def points(*spots: Spot) -> Points:
    return np.array(spots, np.float64)


def rounded(corners: Points, rounds: int = 2) -> Points:
    """The polygon with its corners cut (Chaikin), so that it reads as a curve."""
    for _ in range(rounds):
        following = np.roll(corners, -1, axis=0)
        cut = np.stack([0.75 * corners + 0.25 * following, 0.25 * corners + 0.75 * following], 1)
        corners = cut.reshape(-1, 2)
    return corners


def ribbon(spots: Sequence[Spot], widths: Sequence[float]) -> Points:
    """A tube along `spots` that is `widths` wide at each of them."""
    line = np.array(spots, np.float64)
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], 1) * (np.array(widths)[:, None] / 2)
    return np.concatenate([line + across, (line - across)[::-1]])


def outline(profile: Sequence[tuple[float, float]]) -> Points:
    """A body that is symmetric about the y axis, from (y, half width) pairs; rounded."""
    right = [(half, y) for y, half in profile]
    left = [(-half, y) for y, half in reversed(profile)]
    return rounded(np.array(right + left, np.float64))


def oval(centre: Spot, rx: float, ry: float, corners: int = 20) -> Points:
    angles = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([centre[0] + rx * np.cos(angles), centre[1] + ry * np.sin(angles)], 1)


def dots(spots: Sequence[Spot], radius: float) -> Points:
    """Small round things of one colour, for `Pen.fill_all`: shape (len(spots), corners, 2)."""
    return np.stack([oval(spot, radius, radius, 8) for spot in spots])


def bars(ends: Sequence[tuple[Spot, Spot]], width: float) -> Points:
    """Straight bars of one colour, for `Pen.fill_all`: shape (len(ends), 4, 2)."""
    return np.stack([ribbon(pair, (width, width)) for pair in ends])


def _matrix(turn: tuple[float, float, float, float]) -> Points:
    a, b, c, d = turn
    return np.array([[a, c], [b, d]])


class Pen:
    """Draws anti-aliased shapes on a canvas through a similarity transform, to 1/16 pixel."""

    def __init__(
        self, canvas: Canvas, origin: Spot, unit: float, *, mirrored: bool = False
    ) -> None:
        """`origin` is where (0, 0) lies and `unit` the length of 1, both in pixels."""
        self.canvas = canvas
        self.unit = unit
        # x' = a x + b y + e and y' = c x + d y + f, in fixed point. OpenCV counts from the
        # middle of the first pixel, half a pixel in from the edge.
        one = unit * FIXED
        self._turn = (-one if mirrored else one, 0.0, 0.0, one)
        self._shift = ((origin[0] - 0.5) * FIXED, (origin[1] - 0.5) * FIXED)
        self._matrix = _matrix(self._turn)

    def moved(self, dx: float, dy: float, turn: float = 0.0, about: Spot = (0.0, 0.0)) -> Pen:
        """A pen whose frame is turned clockwise by `turn` degrees about a spot, then shifted."""
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        a, b, c, d = self._turn
        x, y = about
        pen = Pen.__new__(Pen)
        pen.canvas, pen.unit = self.canvas, self.unit
        pen._turn = (a * cos + b * sin, b * cos - a * sin, c * cos + d * sin, d * cos - c * sin)
        pen._matrix = _matrix(pen._turn)
        pen._shift = self._at((x - cos * x + sin * y + dx, y - sin * x - cos * y + dy))
        return pen

    def _at(self, spot: Spot) -> Spot:
        # Plain floats: for one spot numpy would take five times as long.
        (a, b, c, d), (x, y) = self._turn, spot
        return a * x + b * y + self._shift[0], c * x + d * y + self._shift[1]

    def fill(self, shape: Points, colour: Colour, edge: Colour | None = None) -> None:
        """Fill a polygon; `edge` is the colour of its outline, if it has one."""
        corners = [(shape @ self._matrix + self._shift).astype(np.int32)]
        cv2.fillPoly(self.canvas, corners, colour, cv2.LINE_AA, SHIFT)
        if edge is not None:
            width = max(1, round(OUTLINE * self.unit - GROWTH))
            cv2.polylines(self.canvas, corners, True, edge, width, cv2.LINE_AA, SHIFT)

    def fill_all(self, shapes: Points, colour: Colour) -> None:
        """Fill shapes that do not overlap, of shape (shapes, corners, 2), in one go."""
        corners = (shapes @ self._matrix + self._shift).astype(np.int32)
        cv2.fillPoly(self.canvas, list(corners), colour, cv2.LINE_AA, SHIFT)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        colour: Colour,
        edge: Colour | None = None,
    ) -> None:
        less = GROWTH / self.unit
        left, top, right, bottom = left + less, top + less, right - less, bottom - less
        self.fill(points((left, top), (right, top), (right, bottom), (left, bottom)), colour, edge)

    def line(self, start: Spot, end: Spot, width: float, colour: Colour) -> None:
        """A straight bar with flat ends, at least about a pixel wide."""
        (x0, y0), (x1, y1) = self._at(start), self._at(end)
        dx, dy = x1 - x0, y1 - y0
        half = max(width * self.unit / 2 - GROWTH, 0.05) * FIXED / (math.hypot(dx, dy) or 1.0)
        ax, ay = -dy * half, dx * half
        bar = [[x0 + ax, y0 + ay], [x1 + ax, y1 + ay], [x1 - ax, y1 - ay], [x0 - ax, y0 - ay]]
        corners = np.array(bar).astype(np.int32)
        cv2.fillConvexPoly(self.canvas, corners, colour, cv2.LINE_AA, SHIFT)

    def disc(self, centre: Spot, radius: float, colour: Colour) -> None:
        x, y = self._at(centre)
        size = max(1, int((radius * self.unit - GROWTH) * FIXED))
        cv2.circle(self.canvas, (int(x), int(y)), size, colour, -1, cv2.LINE_AA, SHIFT)


@dataclass(frozen=True)
class Pose:
    """Where a player is in its movement; all zero at rest."""

    beat: float = 0.0
    """The stroke, -1 to 1, at the rate of the notes."""
    sway_x: float = 0.0
    sway_y: float = 0.0
    """A slow circle of radius 1. It never stands still: frames 0.2 s apart always differ."""


class Ink:
    """The look of one player: its colours, size, tilt and side, all drawn from a seed."""

    def __init__(self, look: int) -> None:
        rng = np.random.default_rng(look)
        self.size = float(rng.uniform(0.88, 1.12))
        self.tilt = float(rng.uniform(-5, 5))
        self.mirrored = bool(rng.random() < 0.5)
        self.variant = int(rng.integers(12))
        self._hue = float(rng.uniform(-0.025, 0.025))
        self._light = float(rng.uniform(0.88, 1.1))
        self.skin = SKINS[int(rng.integers(len(SKINS)))]
        self.hair = HAIRS[int(rng.integers(len(HAIRS)))]
        self.long_hair = bool(rng.random() < 0.4)
        # Mid tones of low saturation: black as well as golden instruments stand out from them.
        self.cloth = from_hsv(rng.random(), rng.uniform(0.08, 0.42), rng.uniform(0.5, 0.85))
        self.trousers = from_hsv(rng.random(), rng.uniform(0.05, 0.4), rng.uniform(0.28, 0.5))
        self.sleeve = scaled(self.cloth, 0.82)
        self._tinted: dict[Colour, Colour] = {}

    def __call__(self, colour: Colour) -> Colour:
        """The colour as this player's instrument has it: a little off in hue and light."""
        found = self._tinted.get(colour)
        if found is None:
            hue, sat, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
            found = from_hsv((hue + self._hue) % 1.0, sat, min(1.0, value * self._light))
            self._tinted[colour] = found
        return found

    def one_of(self, colours: Sequence[Colour]) -> Colour:
        return self(colours[self.variant % len(colours)])


def from_hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))
    return round(red * 255), round(green * 255), round(blue * 255)


def scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(c * factor)) for c in colour)
    return red, green, blue


SKINS: tuple[Colour, ...] = (
    (250, 214, 180),
    (232, 186, 145),
    (198, 142, 100),
    (141, 92, 60),
    (98, 62, 42),
)
HAIRS: tuple[Colour, ...] = (
    (30, 24, 22),
    (74, 46, 28),
    (140, 88, 42),
    (214, 178, 96),
    (150, 150, 152),
)
