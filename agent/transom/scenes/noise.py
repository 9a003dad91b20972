"""Noise of simulated sensors: what a thing has just been, and something new. Names and sizes in, numbers out."""

import math
import random


class Noise:
    """Autoregressive noises, each by its name; the same seed and the same calls give the same numbers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # a simulation
        self._last: dict[str, float] = {}

    def near(self, name: str, size: float, memory: float = 0.7) -> float:
        """The next value of the noise `name`, of standard deviation `size`; memory: its correlation with the last."""
        fresh = self.random.gauss(0, size * math.sqrt(1 - memory**2))
        last = self._last.get(name)
        self._last[name] = self.random.gauss(0, size) if last is None else memory * last + fresh
        return self._last[name]

    def white(self, size: float) -> float:
        return self.random.gauss(0, size)
