"""Scores to p-values, so that a threshold is an alarm budget: a table from the model, corrected online per series.

A score s becomes u = -log p0(s) by the manifest's table; on normal data u is exponentially distributed with mean 1.
How far a series departs from that is learned from its own windows by peaks over a threshold: the share of windows
above u0, and the mean excess over it, for which the tail beyond a high threshold is exponential (the generalised Pareto
law with shape 0 in u: Pickands 1975, Balkema & de Haan 1974; streaming use: Siffer et al., "Anomaly Detection in
Streams with Extreme Value Theory", KDD 2017, section 3). Both start from the table with the weight of PRIOR windows:

    zeta = (PRIOR q + exceeding) / (PRIOR + n)        beta = (PRIOR q + sum of excess) / (PRIOR q + exceeding)
    p(u) = zeta exp(-(u - u0) / beta)                 for u > u0 = -log q

Fitting and applying are two halves of one formula and stay together. A window's p-value uses only windows before it.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import NEVER
from transom.core.model import CalibrationTable
from transom.core.table import Table

TAIL = 0.05  # q: share of normal windows above u0
PRIOR = 100.0  # windows that the table counts for
MEMORY = 5000.0  # windows after which old ones fade
CLIP = 6.0  # an excess counts for at most so many beta, so that an anomaly does not raise the bar for the next
SMALLEST = 1e-12


class Tables:
    """The manifest's table as u(score); without a table a score counts as u itself."""

    def __init__(self, table: CalibrationTable | None) -> None:
        if table is None:
            self._scores, self._u, self._scale = np.array([0.0]), np.array([0.0]), 1.0
        else:
            self._scores = np.asarray(table.scores, np.float64)
            self._u = -np.log(np.maximum(np.asarray(table.p_values, np.float64), SMALLEST))
            self._scale = max(table.tail_scale, 1e-9)

    def surprise(self, score: NDArray[np.float32]) -> NDArray[np.float64]:
        """score: float32 [n], >= 0 -> u: float64 [n], >= 0."""
        s = score.astype(np.float64)
        beyond = np.maximum(s - self._scores[-1], 0.0) / self._scale
        return np.asarray(np.maximum(np.interp(s, self._scores, self._u) + beyond, 0.0))


class Calibration(Table):
    """What each series' scores are like, and how often it has a window.

    n, exceeding, excess: float64 [S], windows, those above u0, and the sum of their excess (all fading);
    windows: int64 [S], windows ever; interval: float64 [S], ms between windows; last_end: int64 [S], µs.
    """

    fills: ClassVar[dict[str, Any]] = {
        "n": 0.0, "exceeding": 0.0, "excess": 0.0, "windows": 0, "interval": 0.0, "last_end": NEVER,
    }  # fmt: skip

    def __init__(
        self, table: CalibrationTable | None, interval: float | None, tail: float = TAIL, prior: float = PRIOR
    ) -> None:
        """interval: ms between windows when the grid is timed; None = learned per series. tail: q; prior: windows."""
        super().__init__()
        self.tail, self.u0, self.prior = tail, -np.log(tail), prior
        self.table, self.fixed = Tables(table), interval
        self.n = np.zeros(0, np.float64)
        self.exceeding = np.zeros(0, np.float64)
        self.excess = np.zeros(0, np.float64)
        self.windows = np.zeros(0, np.int64)
        self.interval = np.zeros(0, np.float64)
        self.last_end = np.zeros(0, np.int64)

    def look(self, series: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [3, n]: n, exceeding and excess of these series as they are."""
        return np.stack([self.n[series], self.exceeding[series], self.excess[series]])

    def p_value(self, u: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [n] in (0, 1]: the chance of so much surprise on a series' normal data, of which `look` gave seen."""
        zeta, beta = self._tail(seen)
        p = np.where(u > self.u0, zeta * np.exp((self.u0 - np.maximum(u, self.u0)) / beta), self._below(u, zeta))
        return np.asarray(np.minimum(np.maximum(p, SMALLEST), 1.0))

    def surprise(self, series: NDArray[np.int32], u: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [n] >= 0: -log of that chance, however small it is. series are distinct."""
        zeta, beta = self._tail(self.look(series))
        above = np.maximum(u - self.u0, 0.0) / beta - np.log(zeta)
        return np.asarray(np.where(u > self.u0, above, -np.log(np.clip(self._below(u, zeta), SMALLEST, 1.0))))

    def _below(self, u: NDArray[np.float64], zeta: NDArray[np.float64]) -> NDArray[np.float64]:
        """The chance of a surprise that is not beyond u0."""
        return np.asarray(1.0 - (1.0 - zeta) * (1.0 - np.exp(-np.minimum(u, self.u0))) / (1.0 - self.tail))

    def learn(
        self, series: NDArray[np.int32], u: NDArray[np.float64], end: NDArray[np.int64],
        normal: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Takes the windows that end at `end` (µs) as seen. series are distinct; normal: bool [n], False for those of
        an anomaly, which teach nothing of what is usual (default: all are normal)."""
        self.beat(series, end)
        if normal is not None:
            series, u = series[normal], u[normal]
        self.take(series, u, self.look(series))

    def take(self, series: NDArray[np.int32], u: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
        """`learn` without the rhythm. seen: what `look` gives of them."""
        _, beta = self._tail(seen)
        n, exceeding, excess = seen
        old = n >= MEMORY
        if old.any():
            n, exceeding, excess = seen * np.where(old, MEMORY / (MEMORY + 1.0), 1.0)
        over = u > self.u0
        self.n[series] = n + 1.0
        self.exceeding[series] = exceeding + over
        self.excess[series] = excess + np.where(over, np.minimum(u - self.u0, CLIP * beta), 0.0)

    def beat(self, series: NDArray[np.int32], end: NDArray[np.int64]) -> None:
        """Learns the rhythm of the windows."""
        last, usual, windows = self.last_end[series], self.interval[series], self.windows[series]
        # The mean of the first 100 intervals, then a slow average that a single gap does not carry away.
        if len(windows) and windows.min() >= 100:  # nearly always
            elapsed = np.minimum(np.maximum(end - last, 0) / 1000.0, 10.0 * usual)
            self.interval[series] = usual + (elapsed - usual) / 100
        else:
            taken = np.minimum(windows, 100)
            elapsed = np.where(last == NEVER, 0, np.maximum(end - last, 0)) / 1000.0
            elapsed = np.where(taken >= 10, np.minimum(elapsed, 10.0 * usual), elapsed)
            self.interval[series] = usual + np.where(taken > 0, (elapsed - usual) / np.maximum(taken, 1), 0.0)
        self.last_end[series] = end
        self.windows[series] = windows + 1

    def windows_per_ms(self, series: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [n]: windows a millisecond, fixed by a timed grid or learned from the series' own rhythm."""
        if self.fixed is not None:
            return np.full(len(series), 1.0 / self.fixed)
        return 1.0 / np.maximum(self.interval[series], 0.001)

    def _tail(self, seen: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """zeta and beta, float64 [n]."""
        n, exceeding, excess = seen
        exceeding = self.prior * self.tail + exceeding
        return exceeding / (self.prior + n), (self.prior * self.tail + excess) / exceeding
