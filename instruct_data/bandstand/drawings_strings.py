"""Plucked and bowed instruments, as they are held. The table in `drawings.py` lists them."""

from __future__ import annotations

from instruct_data.bandstand.pen import (
    Colour,
    Ink,
    Pen,
    Points,
    Pose,
    Spot,
    bars,
    outline,
    oval,
    points,
)
from instruct_data.bandstand.person import LEFT, RIGHT, arm

BLACK: Colour = (22, 20, 22)
EDGE: Colour = (52, 30, 18)
CREAM: Colour = (246, 238, 216)
STRING: Colour = (236, 232, 220)
SILVER: Colour = (206, 210, 218)
TAN: Colour = (222, 166, 92)
NECK: Colour = (88, 50, 28)
VARNISH: Colour = (196, 96, 34)
BROWN: Colour = (128, 62, 28)
BRIGHT: tuple[Colour, ...] = ((24, 190, 200), (240, 84, 150), (250, 214, 40), (120, 206, 60))
SOLID: tuple[Colour, ...] = ((204, 30, 36), (36, 70, 196), (244, 244, 240), (20, 110, 70))

GUITAR = outline(
    [(0.0, 0.12), (0.02, 0.22), (0.16, 0.23), (0.27, 0.15), (0.4, 0.29), (0.6, 0.31), (0.68, 0.16)]
)
VIOLIN = outline(
    [
        (0.0, 0.1),
        (0.02, 0.19),
        (0.17, 0.2),
        (0.26, 0.11),
        (0.36, 0.12),
        (0.42, 0.23),
        (0.6, 0.25),
        (0.66, 0.12),
    ]
)
PIPA = outline([(0.0, 0.045), (0.3, 0.075), (0.52, 0.16), (0.75, 0.29), (0.98, 0.3), (1.06, 0.16)])
BASS = points(
    (-0.05, 0.0),
    (-0.26, -0.12),
    (-0.2, 0.16),
    (-0.27, 0.52),
    (0.0, 0.6),
    (0.29, 0.44),
    (0.17, 0.14),
    (0.19, -0.04),
)
HOLE = oval((0.0, 0.0), 0.085, 0.085)
HEXAGON = oval((0.0, 0.0), 0.15, 0.15, 6)
BANJO_RIM, BANJO_HEAD = oval((0.0, 0.0), 0.32, 0.32), oval((0.0, 0.0), 0.26, 0.26)


def scale(shape: Points, factor: float) -> Points:
    return shape * factor


UKULELE, UKULELE_HOLE = scale(GUITAR, 0.72), scale(HOLE, 0.7)
FIDDLE, CELLO = scale(VIOLIN, 0.82), scale(VIOLIN, 1.32)
PEGS = bars([((-0.1, y), (0.1, y)) for y in (-0.035, 0.035)], 0.028)
ERHU_PEGS = bars([((-0.02, y), (0.19, y)) for y in (-1.0, -0.86)], 0.05)
PIPA_PEGS = bars([((-0.16, y), (0.16, y)) for y in (-0.08, 0.05)], 0.03)
PIPA_FRETS = bars(
    [((-0.06 - 0.012 * i, 0.22 + 0.09 * i), (0.06 + 0.012 * i, 0.22 + 0.09 * i)) for i in range(6)],
    0.028,
)
CELLO_HOLES = bars([((s * 0.12, 0.38), (s * 0.15, 0.58)) for s in (-1, 1)], 0.026)
FIDDLE_HOLES = bars([((s * 0.08, 0.26), (s * 0.08, 0.38)) for s in (-1, 1)], 0.025)


def _neck(pen: Pen, ink: Ink, foot: float, length: float, width: float, head: float) -> None:
    """Fingerboard and peg head upwards from (0, foot), with pegs on both sides."""
    top = foot - length
    pen.line((0.0, foot), (0.0, top), width, ink(NECK))
    pen.box(-width * 0.9, top - head, width * 0.9, top, ink(EDGE))
    pen.moved(0.0, top - head / 2).fill_all(PEGS, SILVER)
    pen.line((0.0, foot + 0.3), (0.0, top), 0.012, STRING)


def _bow(pen: Pen, at: Spot, turn: float, along: float, length: float) -> None:
    bow = pen.moved(at[0], at[1], turn)
    bow.line((along - length / 2, -0.035), (along + length / 2, -0.035), 0.035, BROWN)
    bow.line((along - length / 2, 0.0), (along + length / 2, 0.0), 0.022, CREAM)
    bow.box(along + length / 2 - 0.06, -0.04, along + length / 2, 0.02, BLACK)


def acoustic_guitar(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(0.06, 0.78, 58)
    body.fill(GUITAR, ink(TAN), EDGE)
    _neck(body, ink, 0.06, 0.42, 0.07, 0.14)
    body.moved(0.0, 0.23).fill(HOLE, BLACK)
    body.line((-0.12, 0.5), (0.12, 0.5), 0.04, EDGE)
    arm(pen, ink, RIGHT, (0.36, 0.62))
    arm(pen, ink, LEFT, (-0.13 + 0.03 * pose.beat, 0.94 + 0.13 * pose.beat))


def ukulele(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(0.06, 0.72, 66)
    body.fill(UKULELE, ink.one_of(BRIGHT), EDGE)
    _neck(body, ink, 0.04, 0.26, 0.055, 0.09)
    body.moved(0.0, 0.17).fill(UKULELE_HOLE, BLACK)
    body.line((-0.08, 0.36), (0.08, 0.36), 0.035, EDGE)
    arm(pen, ink, RIGHT, (0.28, 0.64))
    arm(pen, ink, LEFT, (-0.1 + 0.03 * pose.beat, 0.84 + 0.11 * pose.beat))


def electric_bass(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(-0.06, 0.9, 52)
    body.fill(BASS, ink.one_of(SOLID), BLACK)
    _neck(body, ink, 0.1, 0.66, 0.065, 0.13)
    body.box(-0.11, 0.2, 0.11, 0.27, BLACK)
    body.box(-0.11, 0.4, 0.11, 0.46, SILVER)
    arm(pen, ink, RIGHT, (0.36, 0.6))
    arm(pen, ink, LEFT, (-0.2 + 0.07 * pose.beat, 1.04 + 0.09 * pose.beat))


def banjo(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(-0.14, 1.0, 48)
    body.fill(BANJO_RIM, ink((150, 92, 40)), EDGE)
    body.fill(BANJO_HEAD, (250, 248, 240), (150, 150, 156))
    _neck(body, ink, -0.2, 0.5, 0.07, 0.13)
    body.line((0.0, 0.14), (0.0, -0.2), 0.03, (120, 112, 104))
    body.line((-0.07, 0.14), (0.07, 0.14), 0.035, BROWN)
    arm(pen, ink, RIGHT, (0.3, 0.62))
    arm(pen, ink, LEFT, (-0.22 + 0.06 * pose.beat, 1.0 + 0.12 * pose.beat))


def violin(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(0.5, 0.52, 82)
    body.fill(FIDDLE, ink(VARNISH), EDGE)
    body.line((0.0, 0.3), (0.0, 0.0), 0.05, BLACK)
    body.fill_all(FIDDLE_HOLES, BLACK)
    body.line((0.0, 0.0), (0.0, -0.1), 0.06, EDGE)
    along = 0.2 * pose.beat
    arm(pen, ink, RIGHT, (0.44, 0.6))
    _bow(pen, (0.22, 0.5), -62, -0.12 + along, 0.72)
    arm(pen, ink, LEFT, (-0.02 + 0.45 * along, 0.82 - 0.85 * along))


def cello(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(0.03, 0.7, 4)
    body.line((0.0, 0.8), (0.0, 0.97), 0.03, BLACK)
    body.fill(CELLO, ink(BROWN), EDGE)
    body.line((0.0, 0.0), (0.0, -0.5), 0.08, EDGE)
    body.disc((0.0, -0.52), 0.06, EDGE)
    body.line((0.0, 0.36), (0.0, -0.1), 0.06, BLACK)
    body.line((0.0, 0.6), (0.0, 0.82), 0.07, BLACK)
    body.fill_all(CELLO_HOLES, BLACK)
    body.line((-0.09, 0.55), (0.09, 0.55), 0.04, CREAM)
    arm(pen, ink, RIGHT, (0.08, 0.5))
    along = 0.2 * pose.beat
    _bow(pen, (-0.02, 1.18), 6, along, 0.85)
    arm(pen, ink, LEFT, (-0.38 + along, 1.15))


def erhu(pen: Pen, ink: Ink, pose: Pose) -> None:
    stem = pen.moved(0.06, 1.16, 3)
    stem.line((0.0, 0.0), (0.0, -1.1), 0.055, ink((92, 30, 22)))
    stem.fill_all(ERHU_PEGS, ink((60, 22, 16)))
    stem.line((0.035, 0.0), (0.035, -0.8), 0.014, STRING)
    stem.fill(HEXAGON, ink((112, 36, 24)), BLACK)
    stem.disc((0.0, 0.0), 0.085, ink((214, 190, 140)))
    arm(pen, ink, RIGHT, (0.1, 0.62))
    along = 0.18 * pose.beat
    _bow(pen, (0.0, 1.04), -8, -0.1 + along, 0.75)
    arm(pen, ink, LEFT, (-0.34 + along, 1.06))


def pipa(pen: Pen, ink: Ink, pose: Pose) -> None:
    body = pen.moved(0.06, 0.38, 6)
    body.fill(
        points(
            (-0.05, 0.1), (0.05, 0.1), (0.04, -0.1), (-0.1, -0.22), (-0.13, -0.16), (-0.04, -0.06)
        ),
        ink(NECK),
        EDGE,
    )
    body.fill(PIPA, ink((238, 200, 132)), EDGE)
    body.fill_all(PIPA_PEGS, BLACK)
    body.fill_all(PIPA_FRETS, ink(NECK))
    body.line((-0.15, 0.92), (0.15, 0.92), 0.05, ink(NECK))
    arm(pen, ink, RIGHT, (0.12, 0.56))
    arm(pen, ink, LEFT, (-0.12 + 0.12 * pose.beat, 1.1 + 0.05 * pose.beat))


def guzheng(pen: Pen, ink: Ink) -> None:
    """The board on its trestle; it does not move, the hands do."""
    for x in (-0.36, 0.36):
        pen.line((x, 1.15), (x - 0.09, 1.66), 0.05, ink(NECK))
        pen.line((x, 1.15), (x + 0.09, 1.66), 0.05, ink(NECK))
    pen.fill(
        points((-0.48, 0.92), (0.46, 0.92), (0.52, 1.14), (-0.52, 1.14)), ink((206, 150, 84)), EDGE
    )
    pen.box(-0.52, 1.14, 0.52, 1.22, ink((110, 44, 26)))
    pen.fill(points((-0.48, 0.92), (-0.4, 0.92), (-0.43, 1.14), (-0.52, 1.14)), ink((90, 36, 22)))
    pen.fill(points((0.4, 0.92), (0.46, 0.92), (0.52, 1.14), (0.44, 1.14)), ink((90, 36, 22)))
    for i in range(4):
        y = 0.955 + 0.05 * i
        pen.line((-0.43, y), (0.43, y), 0.008, ink((244, 214, 160)))
        x = -0.2 + 0.13 * i
        pen.fill(
            points((x - 0.035, y + 0.02), (x + 0.035, y + 0.02), (x, y - 0.06)), (255, 252, 240)
        )


def guzheng_hands(pen: Pen, ink: Ink, pose: Pose) -> None:
    arm(pen, ink, LEFT, (-0.28 + 0.1 * pose.beat, 0.97 + 0.05 * pose.sway_y))
    arm(pen, ink, RIGHT, (0.3 + 0.06 * pose.sway_x, 0.98 - 0.06 * pose.beat))
