"""Made-up windows on which runtimes and batch sizes are compared. Numbers in, windows out; always the same."""

import numpy as np
from numpy.typing import NDArray


def probe_windows(count: int, length: int, channels: int) -> NDArray[np.float32]:
    """float32 [count, length, channels] of every kind that a model should stand: noise and walks, small and large, a
    series that has just begun, and in row 0 one of which nothing was heard."""
    probe = _noise(count * length * channels).reshape(count, length, channels)
    probe[::2] = probe[::2].cumsum(axis=1)
    sizes = np.array([0.1, 1, 3, 100])[np.arange(count) * 5 // 3 % 4]
    windows: NDArray[np.float32] = (probe * sizes[:, None, None]).astype(np.float32)
    windows[::7, : length // 2] = np.nan
    windows[0] = np.nan  # it may give NaN, and must not fail
    return windows


def _noise(count: int) -> NDArray[np.float64]:
    """[count] numbers of mean 0 and variance 1, always the same: numpy.random costs 7 MB. Sums of four digits of
    splitmix64 (Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    parts = [(z >> np.uint64(16 * i) & np.uint64(0xFFFF)).astype(np.float64) / 65536 - 0.5 for i in range(4)]
    total: NDArray[np.float64] = (parts[0] + parts[1] + parts[2] + parts[3]) * 3**0.5
    return total
