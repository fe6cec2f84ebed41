"""Where the band stands: a room or a meadow, and the things without sound in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from instruct_data.bandstand.pen import Canvas, Colour, Pen, from_hsv, oval, points, scaled

Rng = np.random.Generator


def draw_stage(canvas: Canvas, place: str, clutter: int, rng: Rng) -> None:
    """Paint the whole background on `canvas`, in place."""
    height, width = canvas.shape[:2]
    pen = Pen(canvas, (0.0, 0.0), float(height))
    ratio = width / height
    horizon = float(rng.uniform(0.66, 0.78))
    if place == "indoor":
        _room(pen, ratio, horizon, rng)
    else:
        _meadow(pen, ratio, horizon, rng)
    for _ in range(clutter):
        thing = THINGS[int(rng.integers(len(THINGS)))]
        size = float(rng.uniform(0.16, 0.26))
        at = (float(rng.uniform(0.04, 0.96)) * ratio, float(rng.uniform(horizon + 0.03, 0.95)))
        colour = from_hsv(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.75))
        thing(Pen(canvas, (at[0] * height, at[1] * height), size * height), colour)


def _fade(pen: Pen, top: float, bottom: float, above: Colour, below: Colour) -> None:
    """Fill the full width between two heights with a vertical gradient."""
    height = pen.canvas.shape[0]
    first, last = round(top * height), round(bottom * height)
    part = ((np.arange(first, last) + 0.5) / height - top)[:, None] / (bottom - top)
    rows = np.array(above) * (1 - part) + np.array(below) * part
    pen.canvas[first:last] = rows[:, None].astype(np.uint8)


def _room(pen: Pen, ratio: float, horizon: float, rng: Rng) -> None:
    wall = from_hsv(rng.uniform(0.02, 0.14), rng.uniform(0.15, 0.45), rng.uniform(0.62, 0.86))
    floor = from_hsv(rng.uniform(0.03, 0.1), rng.uniform(0.35, 0.6), rng.uniform(0.32, 0.55))
    _fade(pen, 0.0, horizon, scaled(wall, 0.85), wall)
    _fade(pen, horizon, 1.0, scaled(floor, 0.85), scaled(floor, 1.1))
    for i in range(-6, 13):  # planks towards the vanishing point
        x = ratio * (0.5 + (i - 3) * 0.09)
        pen.line((x, horizon), (ratio / 2 + (x - ratio / 2) * 2.2, 1.0), 0.006, scaled(floor, 0.75))
    pen.box(0.0, horizon - 0.03, ratio, horizon, scaled(wall, 0.6))
    if rng.random() < 0.7:
        _window(pen, ratio * rng.uniform(0.1, 0.75), rng)
    if rng.random() < 0.6:
        _picture(pen, ratio * rng.uniform(0.05, 0.85), rng)
    if rng.random() < 0.7:
        _curtains(
            pen, ratio, horizon, from_hsv(rng.uniform(-0.08, 0.02) % 1, 0.7, rng.uniform(0.4, 0.65))
        )
    for x in rng.uniform(0.1, 0.9, int(rng.integers(1, 4))):
        _lamp(pen, float(x) * ratio, float(rng.uniform(0.06, 0.14)))


def _window(pen: Pen, left: float, rng: Rng) -> None:
    pane = from_hsv(rng.uniform(0.55, 0.66), rng.uniform(0.15, 0.6), rng.uniform(0.3, 0.95))
    right, frame = left + 0.28, (238, 232, 220)
    pen.box(left, 0.12, right, 0.46, pane)
    for x in (left, (left + right) / 2, right):
        pen.line((x, 0.11), (x, 0.47), 0.02, frame)
    for y in (0.12, 0.29, 0.46):
        pen.line((left, y), (right, y), 0.02, frame)


def _picture(pen: Pen, left: float, rng: Rng) -> None:
    pen.box(left, 0.16, left + 0.22, 0.34, (92, 64, 34))
    pen.box(left + 0.02, 0.18, left + 0.2, 0.32, from_hsv(rng.random(), 0.3, 0.8))
    pen.box(left + 0.02, 0.26, left + 0.2, 0.32, from_hsv(rng.random(), 0.4, 0.55))


def _curtains(pen: Pen, ratio: float, horizon: float, colour: Colour) -> None:
    for side in (0.0, 1.0):
        for i in range(4):
            x = 0.04 * i if side == 0.0 else ratio - 0.04 * (i + 1)
            pen.box(x, 0.0, x + 0.04, horizon + 0.04, scaled(colour, 0.8 if i % 2 else 1.1))


def _lamp(pen: Pen, x: float, y: float) -> None:
    pen.line((x, 0.0), (x, y), 0.008, (50, 44, 40))
    pen.fill(
        points((x - 0.03, y), (x + 0.03, y), (x + 0.07, y + 0.06), (x - 0.07, y + 0.06)),
        (120, 80, 40),
    )
    pen.disc((x, y + 0.065), 0.025, (255, 244, 190))


def _meadow(pen: Pen, ratio: float, horizon: float, rng: Rng) -> None:
    sky = from_hsv(rng.uniform(0.53, 0.6), rng.uniform(0.35, 0.65), rng.uniform(0.8, 0.98))
    ground = from_hsv(rng.uniform(0.2, 0.36), rng.uniform(0.4, 0.65), rng.uniform(0.42, 0.68))
    _fade(pen, 0.0, horizon, sky, (226, 236, 244))
    if rng.random() < 0.6:
        pen.disc((ratio * rng.uniform(0.05, 0.95), rng.uniform(0.06, 0.2)), 0.07, (255, 242, 160))
    for _ in range(int(rng.integers(1, 5))):
        _cloud(pen, ratio * rng.uniform(0.0, 1.0), rng.uniform(0.06, 0.3), rng.uniform(0.05, 0.09))
    for _ in range(int(rng.integers(1, 4))):
        centre = (ratio * rng.uniform(0.0, 1.0), horizon + 0.05)
        hill = scaled(ground, rng.uniform(0.6, 0.85))
        pen.fill(oval(centre, rng.uniform(0.4, 0.9), rng.uniform(0.12, 0.3), 32), hill)
    for x in rng.uniform(0.0, 1.0, int(rng.integers(1, 6))):
        _tree(pen, float(x) * ratio, horizon + 0.02, rng)
    _fade(pen, horizon, 1.0, scaled(ground, 0.9), scaled(ground, 1.12))
    for x, y in rng.uniform((0.0, horizon + 0.03), (ratio, 1.0), (14, 2)):
        pen.line((x, y), (x + 0.012, y - 0.025), 0.008, scaled(ground, 0.75))


def _cloud(pen: Pen, x: float, y: float, size: float) -> None:
    for dx, grow in ((-1.1, 0.7), (0.0, 1.0), (1.1, 0.75)):
        pen.fill(oval((x + dx * size, y), size * grow * 1.3, size * grow * 0.7), (250, 252, 255))


def _tree(pen: Pen, x: float, foot: float, rng: Rng) -> None:
    tall = float(rng.uniform(0.22, 0.42))
    green = from_hsv(rng.uniform(0.24, 0.4), rng.uniform(0.45, 0.7), rng.uniform(0.25, 0.5))
    pen.line((x, foot), (x, foot - 0.5 * tall), 0.035, (92, 64, 42))
    if rng.random() < 0.4:
        pen.fill(
            points(
                (x - 0.32 * tall, foot - 0.2 * tall),
                (x + 0.32 * tall, foot - 0.2 * tall),
                (x, foot - tall),
            ),
            green,
        )
        return
    for dx, dy in ((-0.18, 0.55), (0.18, 0.55), (0.0, 0.75)):
        pen.disc((x + dx * tall, foot - dy * tall), 0.25 * tall, green)


def _chair(pen: Pen, colour: Colour) -> None:
    for x in (-0.35, 0.35):
        pen.line((x, -0.5), (x, 0.0), 0.09, scaled(colour, 0.7))
    pen.box(-0.4, -0.58, 0.4, -0.46, colour)
    pen.box(-0.4, -1.15, -0.28, -0.5, colour)
    pen.box(-0.4, -1.15, 0.3, -0.8, colour)


def _music_stand(pen: Pen, colour: Colour) -> None:
    dark = (46, 46, 52)
    pen.line((0.0, -0.9), (0.0, -0.1), 0.05, dark)
    for x in (-0.25, 0.25):
        pen.line((0.0, -0.2), (x, 0.0), 0.05, dark)
    pen.fill(points((-0.36, -1.25), (0.36, -1.25), (0.42, -0.85), (-0.42, -0.85)), dark)
    pen.box(-0.24, -1.22, 0.24, -0.9, (240, 240, 232))


def _plant(pen: Pen, colour: Colour) -> None:
    for x, y in ((-0.45, -1.0), (-0.2, -1.25), (0.1, -1.3), (0.4, -1.05), (0.5, -0.75)):
        pen.line((0.0, -0.4), (x, y), 0.13, (52, 122, 58))
    pen.fill(points((-0.26, -0.45), (0.26, -0.45), (0.18, 0.0), (-0.18, 0.0)), colour)


def _speaker(pen: Pen, colour: Colour) -> None:
    pen.box(-0.35, -1.2, 0.35, 0.0, (52, 50, 56))
    for y, radius in ((-0.9, 0.15), (-0.38, 0.25)):
        pen.disc((0.0, y), radius, (110, 110, 116))
        pen.disc((0.0, y), radius * 0.5, (34, 34, 38))


def _crate(pen: Pen, colour: Colour) -> None:
    pen.box(-0.45, -0.7, 0.45, 0.0, colour, scaled(colour, 0.6))
    pen.line((-0.45, -0.7), (0.45, 0.0), 0.06, scaled(colour, 0.7))


def _ball(pen: Pen, colour: Colour) -> None:
    pen.disc((0.0, -0.3), 0.3, colour)
    pen.disc((-0.1, -0.4), 0.09, scaled(colour, 1.3))


THINGS: tuple[Callable[[Pen, Colour], None], ...] = (
    _chair,
    _music_stand,
    _plant,
    _speaker,
    _crate,
    _ball,
)
