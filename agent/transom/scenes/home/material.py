"""What the models of a home learn from: many simulated homes, each with habits of its own, in which nothing goes wrong.

Hours and a seed in, traces out; each home's generator stems from the seed and its number.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from transom.scenes.home import air, appliances, freezer
from transom.scenes.home.people import Life, habits, life
from transom.scenes.scene import Trace

HOMES = 72
MINUTE = 60_000_000  # µs
MONDAY = 1_767_571_200_000_000  # µs since 1970, 2026-01-05, a Monday
CONTACT = 10  # minutes of a step
SLOW = 5  # minutes of a step of air and freezer
SESSION = 540  # readings that a socket has one appliance: an hour and a half


def lives(hours: float, seed: int, homes: int | None = None) -> Iterator[tuple[int, np.random.Generator, Life]]:
    """The homes, one after the other, for so many whole days."""
    for home in range(homes or HOMES):
        random = np.random.default_rng([seed, home])
        yield home, random, life(habits(random), max(1, round(hours / 24)), random, home)


def contacts(hours: float, seed: int) -> Sequence[Trace]:
    """The front door and a window of each home: 1 where a step saw it open."""
    found = []
    for home, _, minutes in lives(hours, seed, 4 * HOMES):  # their habits are all that there is to learn
        for name, state in (("door", minutes.door), ("window", minutes.window)):
            opened = state.reshape(-1, CONTACT).max(1)
            found.append(Trace(f"{home}/{name}", ("contact",), clock(len(opened), CONTACT), opened[:, None]))
    return found


def rooms(hours: float, seed: int) -> Sequence[Trace]:
    """The air of each home's living room, a reading every five minutes."""
    return [
        Trace(f"{home}/living", air.CHANNELS, clock(len(minutes.door) // SLOW, SLOW), air.room(minutes, random)[::SLOW])
        for home, random, minutes in lives(hours, seed)
    ]


def freezers(hours: float, seed: int) -> Sequence[Trace]:
    """The freezer of each home, the means of five minutes."""
    found = []
    for home, random, minutes in lives(hours, seed):
        values = freezer.well(random, opening(minutes)).reshape(-1, SLOW, 2).mean(1)
        found.append(Trace(f"{home}/freezer", freezer.CHANNELS, clock(len(values), SLOW), values))
    return found


def opening(minutes: Life) -> NDArray[np.float64]:
    """The chance that someone opens the freezer, by minute."""
    return 0.004 * (minutes.living > 0) + 0.03 * minutes.cooking


def sockets(hours: float, seed: int) -> Sequence[Trace]:
    """Sockets into which one appliance after the other is plugged, a reading every 10 s."""
    found = []
    for home in range(HOMES):
        random = np.random.default_rng([seed, home])
        steps = max(2 * SESSION, round(hours * 3600_000 / appliances.PERIOD))
        watts, labels = socket(steps, random)
        times = MONDAY + np.arange(steps, dtype=np.int64) * appliances.PERIOD * 1000
        found.append(Trace(f"{home}/socket", ("power",), times, watts[:, None], labels, tuple(appliances.KINDS)))
    return found


def socket(steps: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """power float64 [n] in W, and the number of the appliance in KINDS, NaN where a window may not decide yet."""
    watts, labels, names = np.zeros(0), np.zeros(0), list(appliances.KINDS)
    last = -1
    while len(watts) < steps:
        kind = int(random.choice([k for k in range(len(names)) if k != last]))
        last = kind
        parts: list[NDArray[np.float64]] = []
        while sum(len(p) for p in parts) < SESSION:
            parts.append(appliances.run(names[kind], random))
            parts.append(np.full(int(random.integers(6, 60)), 0.0))
        session = np.concatenate(parts)[:SESSION]
        watts, labels = np.concatenate([watts, session]), np.concatenate([labels, np.full(len(session), float(kind))])
    return watts[:steps], labels[:steps]


def clock(steps: int, minutes: int) -> NDArray[np.int64]:
    """int64 µs [n], a step every so many minutes."""
    return MONDAY + np.arange(steps, dtype=np.int64) * minutes * MINUTE
