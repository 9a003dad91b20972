"""The period of training windows: the lag at which a signal resembles itself again. Arrays in, steps out."""

import numpy as np
from numpy.typing import NDArray

LEAST = 0.3  # autocorrelation at the lag
RISE = 0.25  # by which it stands above the lowest one before it: a slow signal resembles itself at every short lag
NEAR = 0.9  # of the highest: the shortest such lag is the period, the others its multiples
LARGEST = 2_000  # windows that are looked at


def autocorrelation(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """windows: [N, T, C], NaN where missing -> [T // 2], the mean over windows and channels that move at all."""
    rows = windows[:: -(-len(windows) // LARGEST)]
    z = rows - np.nanmean(np.where(np.isfinite(rows), rows, np.nan), axis=1, keepdims=True)
    z = np.nan_to_num(z.astype(np.float64))
    length = z.shape[1]
    power = np.abs(np.fft.rfft(z, 2 * length, axis=1)) ** 2
    raw = np.fft.irfft(power, axis=1)[:, : length // 2]  # Wiener-Khinchin
    raw = raw * (length / (length - np.arange(length // 2)))[None, :, None]  # fewer pairs at longer lags
    energy = raw[:, :1]
    moving = energy > 1e-12 * max(float(energy.max()), 1e-300)
    shape = np.where(moving, raw / np.where(moving, energy, 1), np.nan)
    return np.nan_to_num(np.nanmean(np.nanmean(shape, axis=2), axis=0))


def period(windows: NDArray[np.float32], least: float = LEAST) -> int:
    """windows: [N, T, C] -> steps, or 1 where none is plain. least: the autocorrelation that it takes."""
    with np.errstate(invalid="ignore"):
        found = autocorrelation(windows)
    lags = np.arange(1, len(found) - 1)
    peaks = lags[(found[lags] > found[lags - 1]) & (found[lags] >= found[lags + 1]) & (lags >= 2)]
    rise = found[peaks] - np.minimum.accumulate(found)[peaks] if len(peaks) else np.zeros(0)
    peaks = peaks[(found[peaks] >= least) & (rise >= RISE)]
    if not len(peaks):
        return 1
    return int(peaks[found[peaks] >= NEAR * found[peaks].max()][0])
