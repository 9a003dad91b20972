"""Normal data of several kinds, made up: nothing ever happens in it. A seed in, values float64 [n] at 5 min steps out.

Not the generator that `universal` was trained on (transom_models/synthetic.py): processes stated by their equations.
"""

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]
STEP = 300  # seconds


def autoregressive(n: int, phi: float, rng: np.random.Generator) -> Series:
    """AR(1) with variance 1."""
    x = np.empty(n)
    x[0] = rng.standard_normal()
    noise = rng.standard_normal(n) * np.sqrt(1 - phi * phi)
    for i in range(1, n):
        x[i] = phi * x[i - 1] + noise[i]
    return x


def kinds(n: int, seed: int) -> dict[str, Series]:
    """Name of the kind -> its values."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) * STEP
    day, week = 2 * np.pi * t / 86_400, 2 * np.pi * t / 604_800
    work = ((t // 86_400) % 7 < 5) * np.clip(np.sin(day - 1.8), 0, None)
    busy = np.exp(0.8 * np.sin(day - 1.5) + 0.4 * np.sin(week) + 0.3 * autoregressive(n, 0.97, rng))
    swap = np.cumsum(rng.random(n) < 0.01) % 2
    return {
        "white noise": 20 + rng.standard_normal(n),
        "uniform noise": rng.random(n),
        "autoregressive 0.9": autoregressive(n, 0.9, rng),
        "autoregressive 0.99": autoregressive(n, 0.99, rng),
        "daily temperature": np.round(21 + 3 * np.sin(day) + 0.8 * autoregressive(n, 0.99, rng), 1),
        "office load": 5 + 20 * work + 1.5 * autoregressive(n, 0.8, rng),
        "counts": rng.poisson(6 * busy).astype(float),
        "latency": 40 * np.exp(0.25 * autoregressive(n, 0.7, rng)),
        "heavy tails": 50 + rng.standard_t(4, n),
        "on and off": 60 + 15 * swap + rng.standard_normal(n),
    }
