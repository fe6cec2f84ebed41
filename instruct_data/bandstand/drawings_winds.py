"""Wind instruments, as they are held. The table in `drawings.py` lists them."""

from __future__ import annotations

import math

from instruct_data.bandstand.pen import Colour, Ink, Pen, Pose, bars, dots, oval, points, ribbon
from instruct_data.bandstand.person import LEFT, RIGHT, arm

BLACK: Colour = (24, 22, 26)
BRASS: Colour = (240, 188, 52)
SHADE: Colour = (138, 92, 16)
SILVER: Colour = (226, 230, 238)
IVORY: Colour = (248, 242, 226)
STEEL: Colour = (92, 98, 112)

_TURN = [math.radians(a) for a in range(180, -1, -20)]
SAX = ribbon(
    [(-0.14, 0.36), (-0.12, 0.6), (-0.11, 0.9), (-0.09, 1.06)]
    + [(0.09 + 0.18 * math.cos(a), 1.14 + 0.2 * math.sin(a)) for a in _TURN[1:-1]]
    + [(0.28, 1.04), (0.32, 0.86), (0.37, 0.74)],
    [0.05, 0.07, 0.09, 0.11, *[0.12 + 0.008 * i for i in range(8)], 0.2, 0.3, 0.42],
)
TUBA_BELL = ribbon(
    [(0.2, 1.1), (0.2, 0.7), (0.21, 0.45), (0.23, 0.28), (0.25, 0.12)],
    [0.16, 0.19, 0.24, 0.34, 0.58],
)
TUBA_MOUTH = oval((0.25, 0.12), 0.29, 0.075)
TUBA_LOOPS = (
    oval((0.0, 0.98), 0.38, 0.42),
    oval((0.0, 0.98), 0.24, 0.28),
    oval((0.0, 0.98), 0.11, 0.14),
)
CLARINET_BELL = points((-0.05, 0.9), (0.05, 0.9), (0.13, 1.1), (-0.13, 1.1))
SUONA_CONE = points((-0.025, 0.0), (0.025, 0.0), (0.085, 0.46), (-0.085, 0.46))
SUONA_BELL = ribbon([(0.0, 0.44), (0.0, 0.56), (0.0, 0.68), (0.0, 0.76)], [0.15, 0.24, 0.42, 0.6])
SUONA_MOUTH = oval((0.0, 0.76), 0.3, 0.08)
TRUMPET_BELL = ribbon([(0.0, 0.0), (0.2, 0.0), (0.3, 0.0), (0.38, 0.0)], [0.06, 0.1, 0.22, 0.46])
BAG = oval((0.0, 0.0), 0.36, 0.25)
TARTAN = bars(
    [((x, -half), (x, half)) for x, half in ((-0.2, 0.18), (0.0, 0.24), (0.2, 0.18))], 0.065
)
_DRONES = (((0.1, 0.7), (0.22, 0.0)), ((0.18, 0.72), (0.38, 0.06)), ((0.24, 0.76), (0.5, 0.18)))
DRONES = bars(_DRONES, 0.065)
DRONE_RINGS = dots(
    [
        (foot[0] + part * (tip[0] - foot[0]), foot[1] + part * (tip[1] - foot[1]))
        for foot, tip in _DRONES
        for part in (0.3, 0.65, 0.97)
    ],
    0.045,
)
SAX_KEYS = dots([(-0.1, y) for y in (0.56, 0.68, 0.8, 0.92, 1.04)], 0.042)
TUBA_VALVES = bars([((x, 0.9), (x, 0.74)) for x in (-0.12, -0.02, 0.08)], 0.05)
TRUMPET_VALVES = bars([((x, -0.09), (x, 0.28)) for x in (0.13, 0.21, 0.29)], 0.05)
FLUTE_KEYS = dots([(x, -0.02) for x in (0.14, 0.22, 0.3, 0.38, 0.46)], 0.03)
CLARINET_RINGS = bars([((-0.06, y), (0.06, y)) for y in (0.18, 0.52, 0.9)], 0.035)
CLARINET_KEYS = dots([(0.015, y) for y in (0.28, 0.36, 0.44, 0.62, 0.7, 0.78)], 0.034)
BASSOON_RINGS = bars([((-0.05, y), (0.05, y)) for y in (-0.55, 0.1)], 0.035)
BASSOON_KEYS = dots([(0.02, y) for y in (-0.4, -0.28, -0.1, 0.25, 0.38, 0.5)], 0.032)
SUONA_RINGS = bars(
    [((-0.045 - 0.05 * y, y), (0.045 + 0.05 * y, y)) for y in (0.12, 0.2, 0.28, 0.36)], 0.025
)


def saxophone(pen: Pen, ink: Ink, pose: Pose) -> None:
    pen.line((0.0, 0.28), (-0.14, 0.33), 0.05, BLACK)
    pen.line((-0.05, 0.3), (-0.15, 0.38), 0.06, ink(BRASS))
    pen.fill(SAX, ink(BRASS), SHADE)
    pen.line((0.17, 0.72), (0.57, 0.77), 0.05, ink(SHADE))
    pen.fill_all(SAX_KEYS, IVORY)
    arm(pen, ink, RIGHT, (0.0, 0.68 + 0.04 * pose.beat))
    arm(pen, ink, LEFT, (-0.18, 0.96 - 0.05 * pose.beat))


def tuba(pen: Pen, ink: Ink, pose: Pose) -> None:
    pen.fill(TUBA_LOOPS[0], ink(BRASS), SHADE)
    pen.fill(TUBA_LOOPS[1], ink(SHADE))
    pen.fill(TUBA_LOOPS[2], ink(BRASS), SHADE)
    pen.fill(TUBA_BELL, ink(BRASS), SHADE)
    pen.fill(TUBA_MOUTH, ink((168, 116, 26)), SHADE)
    pen.line((0.0, 0.29), (-0.24, 0.5), 0.05, ink(BRASS))
    pen.line((-0.24, 0.48), (-0.28, 0.8), 0.06, ink(BRASS))
    pen.moved(0.0, 0.05 * pose.beat).fill_all(TUBA_VALVES, IVORY)
    arm(pen, ink, LEFT, (-0.05, 0.74 + 0.06 * pose.beat))
    arm(pen, ink, RIGHT, (0.3, 0.8))


def trumpet(pen: Pen, ink: Ink, pose: Pose) -> None:
    horn = pen.moved(0.02, 0.29, -4 + 5 * pose.beat)
    horn.line((0.0, 0.0), (0.3, 0.0), 0.075, ink(BRASS))
    loop = points((0.04, 0.05), (0.38, 0.05), (0.38, 0.24), (0.04, 0.24))
    horn.fill(loop, ink(BRASS), SHADE)
    horn.box(0.1, 0.11, 0.32, 0.18, ink.cloth)
    horn.fill_all(TRUMPET_VALVES, ink((252, 216, 110)))
    horn.moved(0.13, 0.0).fill(TRUMPET_BELL, ink(BRASS), SHADE)
    horn.line((0.0, -0.04), (0.0, 0.04), 0.04, SILVER)
    arm(pen, ink, LEFT, (0.1, 0.53))
    arm(pen, ink, RIGHT, (0.27, 0.52 + 0.05 * pose.beat))


def flute(pen: Pen, ink: Ink, pose: Pose) -> None:
    tube = pen.moved(0.0, 0.28, 3 + 5 * pose.beat)
    tube.line((-0.2, 0.0), (0.6, 0.0), 0.125, STEEL)
    tube.line((-0.19, 0.0), (0.59, 0.0), 0.085, ink(SILVER))
    tube.fill_all(FLUTE_KEYS, STEEL)
    arm(pen, ink, LEFT, (0.16, 0.36 + 0.03 * pose.beat))
    arm(pen, ink, RIGHT, (0.36, 0.37 - 0.03 * pose.beat))


def clarinet(pen: Pen, ink: Ink, pose: Pose) -> None:
    tube = pen.moved(0.0, 0.27, -17)
    tube.line((0.0, 0.0), (0.0, 0.95), 0.1, BLACK)
    tube.fill(CLARINET_BELL, BLACK)
    tube.fill_all(CLARINET_RINGS, SILVER)
    tube.fill_all(CLARINET_KEYS, SILVER)
    tube.line((0.06, 0.55), (0.06, 0.85), 0.02, SILVER)
    arm(pen, ink, LEFT, (0.04, 0.62 + 0.05 * pose.beat))
    arm(pen, ink, RIGHT, (0.26, 0.88 - 0.05 * pose.beat))


def bassoon(pen: Pen, ink: Ink, pose: Pose) -> None:
    wood = ink((146, 40, 24))
    tube = pen.moved(-0.04, 0.86, 27)
    tube.line((0.0, 0.72), (0.0, -0.86), 0.1, wood)
    tube.line((-0.1, 0.72), (-0.1, -0.2), 0.1, ink((176, 58, 34)))
    tube.box(-0.16, 0.64, 0.06, 0.76, ink(SILVER))
    tube.line((-0.07, -0.86), (0.07, -0.86), 0.07, IVORY)
    tube.fill_all(BASSOON_RINGS, SILVER)
    tube.fill_all(BASSOON_KEYS, SILVER)
    pen.line((0.0, 0.29), (-0.1, 0.42), 0.03, SILVER)
    pen.line((-0.1, 0.42), (0.03, 0.66), 0.03, SILVER)
    arm(pen, ink, RIGHT, (0.12, 0.66 + 0.05 * pose.beat))
    arm(pen, ink, LEFT, (-0.24, 1.04 - 0.05 * pose.beat))


def suona(pen: Pen, ink: Ink, pose: Pose) -> None:
    horn = pen.moved(0.0, 0.29, -30 + 6 * pose.beat)
    horn.line((0.0, -0.02), (0.0, 0.08), 0.04, ink(BRASS))
    horn.fill(SUONA_CONE, ink((96, 30, 26)), BLACK)
    horn.fill_all(SUONA_RINGS, ink((214, 150, 90)))
    horn.fill(SUONA_BELL, ink(BRASS), SHADE)
    horn.fill(SUONA_MOUTH, ink((150, 100, 24)), SHADE)
    arm(pen, ink, LEFT, (0.02, 0.48 + 0.03 * pose.beat))
    arm(pen, ink, RIGHT, (0.2, 0.6 - 0.03 * pose.beat))


def bagpipe(pen: Pen, ink: Ink, pose: Pose) -> None:
    pen.fill_all(DRONES, BLACK)
    pen.fill_all(DRONE_RINGS, IVORY)
    pen.line((-0.02, 0.27), (-0.08, 0.66), 0.045, BLACK)
    bag = pen.moved(0.03, 0.84, -8 + 5 * pose.beat)
    bag.fill(BAG, ink((190, 28, 36)), (60, 10, 14))
    bag.fill_all(TARTAN, ink((20, 92, 58)))
    bag.line((-0.35, 0.06), (0.35, 0.06), 0.065, ink((20, 92, 58)))
    bag.line((-0.33, -0.09), (0.33, -0.09), 0.03, (244, 214, 70))
    pen.line((-0.2, 0.98), (-0.26, 1.36), 0.06, BLACK)
    pen.line((-0.3, 1.37), (-0.22, 1.39), 0.05, IVORY)
    arm(pen, ink, LEFT, (-0.24, 1.12 + 0.05 * pose.beat))
    arm(pen, ink, RIGHT, (0.18, 0.9 + 0.05 * pose.beat))
