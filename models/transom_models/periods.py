"""The period of training windows: the lag at which a signal resembles itself again. Arrays in, steps out."""

import numpy as np
from numpy.typing import NDArray

LEAST = 0.3  # autocorrelation at the lag
RISE = 0.25  # by which it stands above the lowest one before it: a slow signal resembles itself at every short lag
NEAR = 0.9  # of the highest: the shortest such lag is the period, the others its multiples
TURNS = 0.8  # autocorrelation of readings of several kinds that take turns in one channel, after a round of them
APART = 0.3  # and at most at lag 1: neighbours are of different kinds
LARGEST = 2_000  # windows that are looked at


def autocorrelation(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """windows: [N, T, C], NaN where missing -> [T // 2], the mean over windows and channels that move at all."""
    rows = windows[:: -(-len(windows) // LARGEST)]
    known = np.isfinite(rows)
    z = np.where(known, rows, 0).astype(np.float64)
    z = (z - z.sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)) * known
    length = z.shape[1]
    power = np.abs(np.fft.rfft(z, 2 * length, axis=1)) ** 2
    raw = np.fft.irfft(power, axis=1)[:, : length // 2]  # Wiener-Khinchin
    raw = raw * (length / (length - np.arange(length // 2)))[None, :, None]  # fewer pairs at longer lags
    energy = raw[:, :1]
    moving = energy > 1e-12 * max(float(energy.max()), 1e-300)
    shape = np.where(moving, raw / np.where(moving, energy, 1), 0)
    return shape.sum((0, 2)) / max(1, int(moving.sum()))


def period(windows: NDArray[np.float32], least: float = LEAST) -> int:
    """windows: [N, T, C] -> steps, or 1 where none is plain. least: the autocorrelation that it takes."""
    found = autocorrelation(windows)
    lags = np.arange(1, len(found) - 1)
    peaks = lags[(found[lags] > found[lags - 1]) & (found[lags] >= found[lags + 1]) & (lags >= 2)]
    rise = found[peaks] - np.minimum.accumulate(found)[peaks] if len(peaks) else np.zeros(0)
    peaks = peaks[(found[peaks] >= least) & (rise >= RISE)]
    if not len(peaks):
        return 1
    return int(peaks[found[peaks] >= NEAR * found[peaks].max()][0])


def turns(windows: NDArray[np.float32]) -> int:
    """windows: [N, T, C] -> how many kinds of readings take turns in a channel; 1 where a channel is one signal."""
    count = period(windows, TURNS)
    return count if count > 1 and autocorrelation(windows)[1] <= APART else 1
