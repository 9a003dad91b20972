"""What appliances draw, in watts every 10 s: a class and a random generator in, one run of such an appliance out.

Shapes as one sees them at a smart plug: heating elements that a thermostat switches, motors with a surge, standby.
"""

from collections.abc import Callable
from typing import SupportsInt

import numpy as np
from numpy.typing import NDArray

Watts = NDArray[np.float64]
PERIOD = 10_000  # ms between two readings
RUN = 360  # steps of a run at most: an hour


def _kettle(r: np.random.Generator) -> Watts:
    return np.concatenate([_flat(r, r.uniform(1800, 2400), r.integers(9, 22), 0.004), np.full(r.integers(6, 20), 0.0)])


def _fridge(r: np.random.Generator) -> Watts:
    level, parts = r.uniform(60, 130), []
    on, off = r.integers(60, 110), r.integers(90, 160)
    for _ in range(4):
        run = _flat(r, level, on, 0.01)
        run[0] += r.uniform(1, 4) * level  # the motor starts
        parts += [run * (1 + 0.1 * np.exp(-np.arange(on) / 20)), np.full(off, r.uniform(0, 2))]
    return np.concatenate(parts)


def _microwave(r: np.random.Generator) -> Watts:
    level, duty = r.uniform(1000, 1500), r.choice([1.0, 1.0, 0.6])
    run = _flat(r, level, r.integers(6, 36), 0.01)
    run[np.arange(len(run)) % 3 >= 3 * duty] = r.uniform(40, 60)  # the magnetron pauses, the fan goes on
    return np.concatenate([run, np.full(r.integers(6, 18), r.uniform(1, 4))])


def _coffee(r: np.random.Generator) -> Watts:
    level = r.uniform(900, 1450)
    parts = [_flat(r, level, r.integers(4, 9), 0.01)]
    for _ in range(r.integers(6, 12)):  # keeps itself warm
        parts += [np.full(r.integers(6, 14), r.uniform(1, 4)), _flat(r, level, r.integers(1, 3), 0.05)]
    return np.concatenate(parts)


def _washer(r: np.random.Generator) -> Watts:
    def drum(steps: SupportsInt, watts: float) -> Watts:  # turns and rests
        return np.asarray(watts * (r.random(int(steps)) < 0.7) + 8, np.float64)

    heat = _flat(r, r.uniform(1900, 2200), r.integers(60, 110), 0.01)
    parts: list[Watts] = [
        drum(r.integers(12, 24), r.uniform(100, 180)), heat + drum(len(heat), 120.0),
        drum(r.integers(90, 130), r.uniform(100, 200)),
        np.asarray(np.linspace(150, r.uniform(350, 500), r.integers(30, 48)) * float(1 + 0.05 * r.standard_normal())),
    ]  # fmt: skip
    return np.concatenate(parts).astype(np.float64)


def _television(r: np.random.Generator) -> Watts:
    level = r.uniform(60, 130)
    picture = np.cumsum(r.normal(0, 0.02, RUN)) * 0.6
    return np.asarray(level * (1 + 0.12 * np.tanh(picture) + 0.03 * r.standard_normal(RUN)))


def _laptop(r: np.random.Generator) -> Watts:
    level, full = r.uniform(35, 65), r.integers(90, 260)
    charge = np.where(np.arange(RUN) < full, level, 12 + (level - 12) * np.exp(-(np.arange(RUN) - full) / 60))
    load = np.abs(np.convolve(r.standard_normal(RUN + 5), np.ones(6) / 6, "valid")) * 14
    return np.asarray(charge + load)


def _flat(r: np.random.Generator, level: float, steps: SupportsInt, noise: float) -> Watts:
    return np.asarray(level * (1 + noise * r.standard_normal(int(steps))))


KINDS: dict[str, Callable[[np.random.Generator], Watts]] = {
    "coffee machine": _coffee, "fridge": _fridge, "kettle": _kettle, "laptop": _laptop, "microwave": _microwave,
    "television": _television, "washing machine": _washer,
}  # fmt: skip


def run(kind: str, random: np.random.Generator) -> Watts:
    """float64 [n], n <= RUN: one use of the appliance."""
    return np.maximum(np.round(KINDS[kind](random)[:RUN], 1), 0.0)
