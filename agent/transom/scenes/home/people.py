"""The people of a simulated home: when they are in which room, and what they open. Days in, minutes out.

Habits that differ from home to home (when they rise, leave, come back, go to bed), with a daily spread.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY = 1440  # minutes
Minutes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Habits:
    """Minutes of the day. people: how many; spread: standard deviation of each from day to day."""

    people: int
    rises: float
    leaves: float
    returns: float
    retires: float
    spread: float


@dataclass(frozen=True, slots=True)
class Life:
    """Minutes [n] from a midnight. living, bedroom: people in there; cooking: 0 to 1; door, window: 1 while open."""

    living: Minutes
    bedroom: Minutes
    cooking: Minutes
    door: Minutes
    window: Minutes


def habits(random: np.random.Generator) -> Habits:
    rises = random.uniform(330, 450)
    return Habits(
        int(random.integers(1, 5)), rises, rises + random.uniform(45, 100), random.uniform(930, 1100),
        random.uniform(1320, 1410), random.uniform(8, 25),
    )  # fmt: skip


def life(who: Habits, days: int, random: np.random.Generator, first: int = 0) -> Life:
    """So many days, from the `first` of the week on; the sixth and seventh of each week are spent at home."""
    n = days * DAY
    living, bedroom, cooking, door, window = (np.zeros(n) for _ in range(5))
    for day in range(days):
        begin = day * DAY

        def near(minute: float, begin: int = begin) -> int:
            return int(np.clip(begin + minute + random.normal(0, who.spread), 0, n - 1))

        weekend = (day + first) % 7 >= 5
        rise, bed = near(who.rises + 75 * weekend), near(who.retires)
        bedroom[begin:rise] = who.people
        bedroom[bed : begin + DAY] = who.people
        living[rise:bed] = who.people
        outings = []
        if weekend:
            for _ in range(random.poisson(1.5)):
                go = near(random.uniform(600, 1080))
                outings.append((go, min(go + int(random.uniform(40, 200)), bed - 30)))
        else:
            outings.append((near(who.leaves), near(who.returns)))
            if random.random() < 0.3:
                go = near(random.uniform(who.returns + 30, who.retires - 90))
                outings.append((go, min(go + int(random.uniform(30, 90)), bed - 10)))
        for go, back in outings:
            if back > go:
                living[go:back] = 0
            for moment in (go, back):
                door[moment : moment + 1 + int(random.exponential(1.5))] = 1
        for _ in range(random.poisson(0.7)):  # the post, a neighbour
            moment = int(random.uniform(rise + 20, bed - 20))
            if living[min(moment, n - 1)] > 0:
                door[moment : moment + 1 + int(random.exponential(2))] = 1
        for minute in (who.rises + 75 * weekend + 10, who.retires - 60):  # airing
            if random.random() < 0.85:
                moment = near(minute)
                window[moment : moment + int(random.uniform(6, 16))] = 1
        for minute in (who.rises + 75 * weekend + 20, who.returns + 75):
            if random.random() < 0.8:
                moment = near(minute)
                cooking[moment : moment + int(random.uniform(10, 35))] = random.uniform(0.3, 1)
    return Life(living, bedroom, cooking * (living > 0), door, window)
