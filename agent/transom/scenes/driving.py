"""One simulated vehicle: how it moves, ten times a second, and what it is doing. No sensors and no messages here.

Manoeuvres follow one another at random: cruising, a halt, a turn at a crossing, a bend, a change of lane, a rough
stretch. Metres, seconds and radians.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

STEP = 0.1  # s
LANE = 3.2  # m


@dataclass(slots=True)
class Motion:
    """x, y: m; heading: rad, 0 along x; speed: m/s; pull: m/s² along; yaw: rad/s; rough: 0 to 1; doing: its kind."""

    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    speed: float = 0.0
    pull: float = 0.0
    yaw: float = 0.0
    rough: float = 0.0
    doing: str = "standing"


def drive(chance: random.Random) -> Iterator[Motion]:
    """The motion after each STEP, without end; the same object each time."""
    motion = Motion(heading=chance.uniform(-math.pi, math.pi))
    limit = chance.uniform(9, 15)
    yield from _stand(motion, chance)
    while True:
        yield from _to(motion, limit, chance.uniform(1.3, 2.2), "accelerating")
        yield from _hold(motion, chance.uniform(3, 9), chance)
        what = chance.choices(("halt", "turn", "bend", "lane", "rough", "limit"), (3, 4, 2, 2, 2, 1))[0]
        if what == "halt":
            yield from _to(motion, 0.0, chance.uniform(1.6, 2.8), "braking")
            yield from _stand(motion, chance)
        elif what == "turn":
            slow, side = chance.uniform(4, 6), chance.choice((-1, 1))
            yield from _to(motion, slow, chance.uniform(1.5, 2.5), "braking")
            yield from _turn(motion, side * math.pi / 2 * chance.uniform(0.9, 1.1), slow / chance.uniform(9, 14))
        elif what == "bend":
            yield from _turn(motion, chance.choice((-1, 1)) * chance.uniform(0.3, 1.0), motion.speed / 90, "cruising")
        elif what == "lane":
            yield from _lane(motion, chance.choice((-1, 1)))
        elif what == "rough":
            yield from _hold(motion, chance.uniform(4, 8), chance, rough=chance.uniform(0.6, 1.0))
        else:
            limit = chance.uniform(9, 18)
            if limit < motion.speed - 1:
                yield from _to(motion, limit, chance.uniform(1.3, 2.0), "braking")


def _go(motion: Motion, pull: float, yaw: float, doing: str, rough: float = 0.0) -> Motion:
    motion.pull, motion.yaw, motion.doing, motion.rough = pull, yaw, doing, rough
    motion.speed = max(0.0, motion.speed + pull * STEP)
    motion.heading += yaw * STEP
    motion.x += motion.speed * math.cos(motion.heading) * STEP
    motion.y += motion.speed * math.sin(motion.heading) * STEP
    return motion


def _stand(motion: Motion, chance: random.Random) -> Iterator[Motion]:
    motion.speed = 0.0
    for _ in range(int(chance.uniform(3, 8) / STEP)):
        yield _go(motion, 0.0, 0.0, "standing")


def _hold(motion: Motion, seconds: float, chance: random.Random, rough: float = 0.0) -> Iterator[Motion]:
    wanted = motion.speed
    for _ in range(int(seconds / STEP)):
        pull = 0.3 * (wanted - motion.speed) + chance.gauss(0, 0.1)
        yield _go(motion, pull, chance.gauss(0, 0.004), "rough road" if rough else "cruising", rough)


def _to(motion: Motion, speed: float, pull: float, doing: str) -> Iterator[Motion]:
    """Gently in and out, as a driver does."""
    begin, eased = abs(speed - motion.speed), 0.0
    sign = 1 if speed > motion.speed else -1
    while sign * (speed - motion.speed) > 0.05:
        eased = min(1.0, eased + STEP / 0.6)
        left = abs(speed - motion.speed)
        size = pull * eased * min(1.0, 0.25 + left / max(0.2 * begin, 0.5))
        yield _go(motion, sign * min(size, left / STEP), 0.0, doing)
    motion.speed = speed


def _turn(motion: Motion, angle: float, yaw: float, doing: str = "turning") -> Iterator[Motion]:
    steps = max(6, int(abs(angle) / max(yaw, 0.02) / STEP))
    for i in range(steps):
        bow = math.sin(math.pi * (i + 0.5) / steps) ** 0.5
        yield _go(motion, 0.0, math.copysign(abs(angle) / (steps * STEP) * bow * 1.31, angle), doing)


def _lane(motion: Motion, side: int) -> Iterator[Motion]:
    seconds = 4.0
    steps = int(seconds / STEP)
    size = side * 2 * math.pi * LANE / (seconds**2 * max(motion.speed, 3.0))
    for i in range(steps):
        yield _go(motion, 0.0, size * math.sin(2 * math.pi * (i + 0.5) / steps), "cruising")
