"""The person behind an instrument: plain on purpose, the instrument is what must be recognised."""

from __future__ import annotations

from instruct_data.bandstand.pen import Ink, Pen, Pose, Spot, dots, points

HEIGHT = 1.7
"""Height of a player, in units of its width."""
LEFT: Spot = (-0.19, 0.46)
RIGHT: Spot = (0.19, 0.46)
TORSO = points((-0.23, 0.42), (-0.1, 0.37), (0.1, 0.37), (0.23, 0.42), (0.2, 1.04), (-0.2, 1.04))
EYES = dots(((-0.05, 0.01), (0.05, 0.01)), 0.02)


def body(pen: Pen, ink: Ink) -> None:
    """Legs, neck and torso, which do not move."""
    for x in (-0.11, 0.11):
        pen.line((x, 1.0), (x * 1.1, 1.62), 0.16, ink.trousers)
        pen.line((x - 0.07, 1.65), (x + 0.1, 1.65), 0.07, (36, 32, 34))
    pen.box(-0.06, 0.3, 0.06, 0.42, ink.skin)
    pen.fill(TORSO, ink.cloth)


def head(pen: Pen, ink: Ink, pose: Pose) -> None:
    x, y = 0.025 * pose.sway_x, 0.19 + 0.02 * pose.sway_y + 0.012 * pose.beat
    pen.disc((x, y - 0.02), 0.165, ink.hair)
    if ink.long_hair:
        pen.box(x - 0.165, y - 0.02, x + 0.165, y + 0.17, ink.hair)
    pen.disc((x, y + 0.025), 0.135, ink.skin)
    pen.fill_all(EYES + (x, y), (30, 24, 24))


def arm(pen: Pen, ink: Ink, shoulder: Spot, hand: Spot) -> None:
    """Upper arm, lower arm and hand; the elbow hangs out to the side of the shoulder."""
    side = 1.0 if shoulder[0] > 0 else -1.0
    elbow = (
        0.5 * (shoulder[0] + hand[0]) + 0.11 * side,
        0.5 * (shoulder[1] + hand[1]) + 0.1,
    )
    pen.line(shoulder, elbow, 0.11, ink.sleeve)
    pen.line(elbow, hand, 0.09, ink.sleeve)
    pen.disc(hand, 0.06, ink.skin)
