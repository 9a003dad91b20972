"""Signals of many kinds, made up: what sensors do, without being any sensor. A seed in, float32 [N, L] out.

Sums of waves of several shapes, autoregressive noise with light and heavy tails, random walks, trends, level shifts,
bursts, exponentials, counts, saturation, quantisation, switches and missing values.
"""

import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator
Signal = NDArray[np.float64]


def signals(count: int, length: int, seed: int, *, events: bool = True) -> NDArray[np.float32]:
    """float32 [count, length], NaN where missing. events: with level shifts and bursts, which no model can foresee."""
    rng = np.random.default_rng(seed)
    made = np.empty((count, length), np.float32)
    for i in range(count):
        x = _base(length, rng)
        x = _transformed(_events(x, rng) if events else x, rng)
        made[i] = x * np.exp(rng.uniform(-3, 3)) + rng.normal() * rng.choice([0, 1, 100])
    share = np.where(rng.random(count) < 0.2, rng.choice([0.02, 0.2], count), 0.0)
    made[rng.random(made.shape) < share[:, None]] = np.nan
    return made


def _base(length: int, rng: Random) -> Signal:
    """Waves, autoregression, a walk, a trend and white noise, each now and then."""
    t = np.arange(length)
    x = np.zeros(length)
    for _ in range(rng.integers(0, 3)):
        period, phase = np.exp(rng.uniform(np.log(3), np.log(300))), rng.uniform(0, 2 * np.pi)
        angle = 2 * np.pi * t / period + phase
        shape = rng.integers(0, 4)
        sine = np.sin(angle)
        wave = (sine, np.sign(sine), (angle / np.pi) % 2 - 1, np.exp(3 * sine) / 10)[shape]
        x += rng.exponential() * wave
    if rng.random() < 0.6:
        x += rng.exponential(0.5) * _autoregressive(length, rng)
    if rng.random() < 0.2:
        x += np.cumsum(rng.standard_normal(length)) * rng.exponential(0.3)
    if rng.random() < 0.2:
        x += t * rng.normal() * 0.02
    return x + rng.standard_normal(length) * rng.choice([0, 0.01, 0.1, 0.5, 1])


def _autoregressive(length: int, rng: Random) -> Signal:
    phi = rng.choice([0, 0.5, 0.9, 0.98, 0.999])
    noise = rng.standard_normal(length) if rng.random() < 0.7 else rng.standard_t(3, length)
    y = np.empty(length)
    y[0] = noise[0] / max(np.sqrt(1 - phi * phi), 0.05)
    for j in range(1, length):
        y[j] = phi * y[j - 1] + noise[j]
    return y


def _events(x: Signal, rng: Random) -> Signal:
    """A level shift, or bursts."""
    if rng.random() < 0.15:
        x[rng.integers(0, len(x)) :] += 2 * rng.normal()
    if rng.random() < 0.15:
        hit = rng.random(len(x)) < rng.choice([0.01, 0.05, 0.1])
        x[hit] += rng.exponential(4) * rng.choice([-1, 1]) * rng.exponential(1, hit.sum())
    return x


def _transformed(x: Signal, rng: Random) -> Signal:
    """What sensors make of the world: exponentials, counts, limits, steps of resolution, on and off."""
    if rng.random() < 0.1:
        x = np.exp(np.clip(x, -4, 4))
    if rng.random() < 0.08:
        x = rng.poisson(np.exp(np.clip(0.5 * x, -3, 4))).astype(float)
    if rng.random() < 0.08:
        x = np.clip(x, np.quantile(x, 0.2), np.quantile(x, 0.9))
    if rng.random() < 0.2:
        resolution = (x.std() + 1e-6) * rng.choice([0.05, 0.2, 0.5, 1])
        x = np.round(x / resolution) * resolution
    if rng.random() < 0.05:
        x = (x > np.quantile(x, 0.8)).astype(float)
    return x
