"""Faults that are put into one channel of normal running. Sizes are in units of the channel's jitter."""

import numpy as np

KINDS = ("bias", "drift", "stuck", "noise", "spike", "scale")
BEFORE, FAULTY = 130, 120  # steps of a piece: a window, the model's learning time and some more; the fault


def jitter_of(values: np.ndarray) -> np.ndarray:
    """values: [n, C] of normal running -> [C], each channel's deviation about its mean of 20 steps."""
    smooth = np.apply_along_axis(lambda c: np.convolve(c, np.ones(20) / 20, "same"), 0, values)
    return (values - smooth)[20:-20].std(0)


def spoil(x: np.ndarray, kind: str, size: float, sign: float, noise: np.ndarray) -> np.ndarray:
    """x: [FAULTY], a channel's values from the fault on; size: of its jitter."""
    after = np.arange(1, len(x) + 1)
    if kind == "bias":
        return x + sign * 8 * size
    if kind == "drift":
        return x + sign * 12 * size * np.minimum(after / 60, 1)
    if kind == "stuck":
        return np.full_like(x, x[0])
    if kind == "noise":
        return x + 4 * size * noise
    if kind == "spike":
        return x + sign * 15 * size * (after % 20 == 1)
    return x.mean() + 4 * (x - x.mean())  # scale: it swings four times as far
