"""The 22 instruments as drawings: keys and drums here, the rest in two files beside this one.

Every drawing has a part that stays (`still`) and one that moves with the pose
(`moving`). What stays is drawn once a scene, what moves once a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instruct_data.bandstand import drawings_strings as strings
from instruct_data.bandstand import drawings_winds as winds
from instruct_data.bandstand.pen import (
    Colour,
    Ink,
    Pen,
    Pose,
    bars,
    dots,
    from_hsv,
    oval,
    points,
    rounded,
)
from instruct_data.bandstand.person import LEFT, RIGHT, arm, body, head

BLACK: Colour = (24, 22, 26)
WHITE: Colour = (250, 250, 246)
HIDE: Colour = (244, 232, 204)
CHROME: Colour = (190, 194, 202)
WOOD: Colour = (150, 92, 44)

BARS: tuple[Colour, ...] = tuple(from_hsv(i / 9.5, 0.85, 0.95) for i in range(8))
SHELLS: tuple[Colour, ...] = ((186, 26, 40), (30, 84, 180), (24, 120, 110), (120, 50, 140))
CONGA = rounded(
    points(
        (-0.17, 0.0),
        (0.17, 0.0),
        (0.235, 0.26),
        (0.19, 0.6),
        (0.12, 0.8),
        (-0.12, 0.8),
        (-0.19, 0.6),
        (-0.235, 0.26),
    ),
    1,
)
CONGA_HEAD = oval((0.0, 0.02), 0.18, 0.06)
DRUM_HEAD, DRUM_FOOT = oval((-0.06, 0.96), 0.36, 0.1), oval((-0.06, 1.4), 0.36, 0.1)
BLACK_KEYS = bars([((-0.22, 0.6 + 0.085 * i), (-0.15, 0.6 + 0.085 * i)) for i in range(6)], 0.035)
BUTTONS = dots([(x, 0.6 + 0.085 * i) for i in range(6) for x in (0.09, 0.17)], 0.028)
CYMBAL = oval((0.0, 0.0), 0.24, 0.05)


@dataclass(frozen=True)
class Drawing:
    """`moving` draws through a pen that sways, if the instrument is `held`."""

    moving: Callable[[Pen, Ink, Pose], None]
    still: Callable[[Pen, Ink], None] | None = None

    @property
    def held(self) -> bool:
        return self.still is None


def draw_still(kind: str, pen: Pen, ink: Ink) -> None:
    """What stays in place while the player plays: its body, and an instrument that stands."""
    body(pen, ink)
    still = DRAWINGS[kind].still
    if still is not None:
        still(pen, ink)


def draw_moving(kind: str, pen: Pen, ink: Ink, pose: Pose) -> None:
    """Head, arms and what they hold, in the given pose."""
    drawing = DRAWINGS[kind]
    head(pen, ink, pose)
    if drawing.held:
        turn = ink.tilt + 2.5 * pose.beat
        pen = pen.moved(0.04 * pose.sway_x, 0.035 * pose.sway_y, turn, about=(0.0, 0.7))
    drawing.moving(pen, ink, pose)


def accordion(pen: Pen, ink: Ink, pose: Pose) -> None:
    red, dark = ink((206, 24, 40)), (70, 8, 16)
    left, right = -0.19 - 0.08 * pose.beat, 0.19 + 0.08 * pose.beat
    pen.box(left, 0.54, right, 1.08, ink((240, 224, 196)), dark)
    folds = 5
    for i in range(folds):
        x = left + (i + 0.5) / folds * (right - left)
        pen.line((x, 0.53), (x, 1.09), 0.45 * (right - left) / folds, (34, 26, 30))
    pen.box(left - 0.24, 0.5, left, 1.12, red, dark)
    pen.box(right, 0.5, right + 0.24, 1.12, red, dark)
    pen.box(left - 0.22, 0.54, left - 0.1, 1.08, WHITE)
    pen.moved(left, 0.0).fill_all(BLACK_KEYS, BLACK)
    pen.moved(right, 0.0).fill_all(BUTTONS, WHITE)
    arm(pen, ink, LEFT, (left - 0.16, 0.8 + 0.08 * pose.sway_y))
    arm(pen, ink, RIGHT, (right + 0.2, 0.84))


def piano(pen: Pen, ink: Ink) -> None:
    pen.fill(points((-0.46, 0.62), (0.46, 0.62), (0.5, 0.72), (-0.5, 0.72)), (58, 56, 62))
    pen.box(-0.5, 0.72, 0.5, 1.58, BLACK, (70, 68, 74))
    pen.box(-0.46, 1.08, 0.46, 1.5, (40, 38, 44))
    for x in (-0.44, 0.4):
        pen.box(x, 1.58, x + 0.06, 1.66, BLACK)
    pen.box(-0.5, 0.84, 0.5, 1.04, WHITE, BLACK)
    for i in range(1, 10):
        x = -0.5 + 0.1 * i
        pen.line((x, 0.84), (x, 1.04), 0.012, (120, 120, 120))
        if i not in (3, 7):
            pen.line((x, 0.84), (x, 0.96), 0.05, BLACK)


def piano_hands(pen: Pen, ink: Ink, pose: Pose) -> None:
    arm(pen, ink, LEFT, (-0.26 + 0.09 * pose.sway_x, 0.92 + 0.09 * pose.beat))
    arm(pen, ink, RIGHT, (0.26 + 0.09 * pose.sway_y, 0.92 - 0.09 * pose.beat))


def xylophone(pen: Pen, ink: Ink) -> None:
    for x in (-0.4, 0.36):
        pen.line((x, 1.1), (x + 0.02, 1.66), 0.05, (90, 90, 98))
    for left, right in (((-0.5, 0.94), (0.48, 1.02)), ((-0.5, 1.32), (0.48, 1.2))):
        pen.line(left, right, 0.05, ink(WOOD))
    for i, colour in enumerate(BARS):
        x, part = -0.49 + 0.123 * i, i / 7
        pen.box(x, 0.86 + 0.1 * part, x + 0.115, 1.4 - 0.14 * part, ink(colour))


def _stick(
    pen: Pen, ink: Ink, shoulder: tuple[float, float], tip: tuple[float, float], knob: Colour
) -> None:
    """An arm with a stick or mallet whose knob is at `tip`."""
    hand = (tip[0] + (0.15 if shoulder[0] > 0 else -0.15), tip[1] - 0.2)
    arm(pen, ink, shoulder, hand)
    pen.line(hand, tip, 0.04, (226, 190, 130))
    pen.disc(tip, 0.055, knob)


def xylophone_mallets(pen: Pen, ink: Ink, pose: Pose) -> None:
    up, down = 0.12 * pose.beat, -0.12 * pose.beat
    _stick(pen, ink, LEFT, (-0.24 + 0.1 * pose.sway_x, 0.98 + up), (250, 250, 250))
    _stick(pen, ink, RIGHT, (0.22 + 0.1 * pose.sway_y, 1.0 + down), (250, 250, 250))


def drum(pen: Pen, ink: Ink) -> None:
    shell = ink.one_of(SHELLS)
    for x in (-0.34, 0.22):
        pen.line((x, 1.36), (x, 1.66), 0.04, CHROME)
    pen.fill(DRUM_FOOT, shell, BLACK)
    pen.box(-0.42, 0.96, 0.3, 1.4, shell)
    for x in (-0.3, -0.06, 0.18):
        pen.line((x, 1.04), (x, 1.46), 0.03, CHROME)
    pen.fill(DRUM_HEAD, WHITE, CHROME)
    pen.line((0.4, 0.56), (0.4, 1.66), 0.035, (120, 124, 132))


def drum_sticks(pen: Pen, ink: Ink, pose: Pose) -> None:
    cymbal = pen.moved(0.36, 0.56, -10 + 12 * pose.beat)
    cymbal.fill(CYMBAL, ink((238, 196, 60)), (120, 86, 10))
    up, down = 0.14 * pose.beat, -0.14 * pose.beat
    _stick(pen, ink, LEFT, (-0.18 + 0.07 * pose.sway_x, 0.92 + up), (200, 150, 90))
    _stick(pen, ink, RIGHT, (0.1 + 0.07 * pose.sway_y, 0.92 + down), (200, 150, 90))


def congas(pen: Pen, ink: Ink) -> None:
    for x, colour in ((-0.25, (196, 66, 30)), (0.25, (226, 146, 40))):
        barrel = pen.moved(x, 0.88)
        barrel.fill(CONGA, ink(colour), (70, 34, 14))
        for y, half in ((0.14, 0.2), (0.56, 0.185)):
            barrel.line((-half, y), (half, y), 0.035, CHROME)
        barrel.fill(CONGA_HEAD, HIDE, (90, 80, 70))


def conga_hands(pen: Pen, ink: Ink, pose: Pose) -> None:
    up, down = 0.13 * pose.beat, -0.13 * pose.beat
    arm(pen, ink, LEFT, (-0.25 + 0.08 * pose.sway_x, 0.82 + up))
    arm(pen, ink, RIGHT, (0.25 + 0.08 * pose.sway_y, 0.82 + down))


DRAWINGS: dict[str, Drawing] = {
    "accordion": Drawing(accordion),
    "acoustic_guitar": Drawing(strings.acoustic_guitar),
    "bagpipe": Drawing(winds.bagpipe),
    "banjo": Drawing(strings.banjo),
    "bassoon": Drawing(winds.bassoon),
    "cello": Drawing(strings.cello),
    "clarinet": Drawing(winds.clarinet),
    "congas": Drawing(conga_hands, congas),
    "drum": Drawing(drum_sticks, drum),
    "electric_bass": Drawing(strings.electric_bass),
    "erhu": Drawing(strings.erhu),
    "flute": Drawing(winds.flute),
    "guzheng": Drawing(strings.guzheng_hands, strings.guzheng),
    "piano": Drawing(piano_hands, piano),
    "pipa": Drawing(strings.pipa),
    "saxophone": Drawing(winds.saxophone),
    "suona": Drawing(winds.suona),
    "trumpet": Drawing(winds.trumpet),
    "tuba": Drawing(winds.tuba),
    "ukulele": Drawing(strings.ukulele),
    "violin": Drawing(strings.violin),
    "xylophone": Drawing(xylophone_mallets, xylophone),
}
