"""A freezer: its compressor's power and its temperature, minute by minute, well or with something wrong.

One thermal mass, a thermostat with two bounds, and a compressor that takes heat out while it runs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CHANNELS = ("power", "temperature")
UNITS = {"power": "W", "temperature": "°C"}
Wrong = Literal["", "ajar", "weak", "dead"]


@dataclass
class Freezer:
    """`minute` gives power (W) and temperature (°C) of the next minute."""

    random: np.random.Generator

    def __post_init__(self) -> None:
        r = self.random
        self.rated, self.goal = r.uniform(55, 110), r.uniform(-20, -17)
        self.leak = r.uniform(1 / 600, 1 / 420)  # share of the distance to the room a minute
        self.pull = r.uniform(0.16, 0.24)  # K a minute
        self.temperature = self.goal + r.uniform(-1, 1)
        self.on, self.since, self.opened = r.random() < 0.5, 0, 0.0

    def minute(self, used: float, wrong: Wrong = "") -> tuple[float, float]:
        """used: the chance that someone opens it for a moment in this minute. wrong: ajar, a door that stays open a
        gap; weak, a compressor that runs and hardly cools; dead, one that does not start."""
        r = self.random
        self.opened = 0.7 * self.opened + (0.5 if r.random() < used else 0.0)
        warmth = self.leak * (5.0 if wrong == "ajar" else 1.0) * (21.0 - self.temperature)
        cold = self.pull * {"weak": 0.15, "dead": 0.0}.get(wrong, 1.0) if self.on else 0.0
        self.temperature += warmth - cold + 0.1 * self.opened + r.normal(0, 0.01)
        if self.on and self.temperature < self.goal - 1.0:
            self.on, self.since = False, 0
        elif not self.on and self.temperature > self.goal + 1.0:
            self.on, self.since = True, 0
        self.since += 1
        power = self.rated * (1 + 0.25 * np.exp(-self.since / 3)) if self.on and wrong != "dead" else 0.6
        return max(0.0, float(power + r.normal(0, 0.4))), float(self.temperature + r.normal(0, 0.05))


def well(random: np.random.Generator, used: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [n, 2]: a freezer without a fault. used: chance of an opening, by minute."""
    freezer = Freezer(random)
    return np.array([freezer.minute(float(u)) for u in used])
