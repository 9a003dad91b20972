"""What a series usually is at this hour of the day and of the week. Values in, departures from the habit out.

The mean of each past hour (a visit) enters two running means: of its hour of the day and of its hour of the week. The
prediction shrinks the weekly one towards the daily one, and that towards the mean of all values, by how often each was
seen (empirical Bayes with a prior of PRIOR visits: Efron & Morris, JASA 1973), and takes the hour that is going on as
further visits, by how much of it is over. Before anything recurs it is the mean of all and of the hour.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import NEVER
from transom.core.table import Table

HOUR = 3_600_000_000  # µs
PRIOR = 1.0  # visits that the coarser habit counts for
CURRENT = 3.0  # visits that the hour that is going on counts for when it is nearly over
VISITS = 30  # visits after which old ones fade
MEMORY = 5000.0  # readings after which old ones fade in the mean of all


class Habits(Table):
    """week, day: float32 [S, 168], [S, 24], mean value by hour; weeks, days: uint8, visits that each has seen;
    hour: int64 [S], the current one since 1970; total: float64 [S], sum of its values, count of them;
    mean: float64 [S], of all values; low, high: float64 [S], the range of what was learned; seen: float64 [S],
    readings."""

    fills: ClassVar[dict[str, Any]] = {
        "week": 0.0, "day": 0.0, "weeks": 0, "days": 0, "hour": NEVER, "total": 0.0, "count": 0.0, "mean": 0.0,
        "low": 0.0, "high": 0.0, "seen": 0.0,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.week, self.day = np.zeros((0, 168), np.float32), np.zeros((0, 24), np.float32)
        self.weeks, self.days = np.zeros((0, 168), np.uint8), np.zeros((0, 24), np.uint8)
        self.hour = np.zeros(0, np.int64)
        self.total, self.count = np.zeros(0), np.zeros(0)
        self.mean, self.seen = np.zeros(0), np.zeros(0)
        self.low, self.high = np.zeros(0), np.zeros(0)

    def departure(
        self, series: NDArray[np.int32], end: NDArray[np.int64], value: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """value: float64 [n], finite, of distinct series at `end` (µs) -> its distance from the habit."""
        hour = end // HOUR
        before = self.hour[series]
        moved = hour != before
        if moved.any():
            self._close(series[moved & (before != NEVER)])
            self.hour[series] = hour
        day, week = hour % 24, hour % 168
        seen, mean = self.seen[series], self.mean[series]
        mean = np.where(seen > 0, mean, value)
        days, weeks = self.days[series, day], self.weeks[series, week]
        # The hour that is going on counts by how much of it is over.
        total = self.total[series]
        part = np.where(self.count[series] > 0, (end % HOUR) / HOUR, 0.0) * CURRENT
        now = part * total / np.maximum(self.count[series], 1)
        daily = (days * self.day[series, day].astype(np.float64) + now + PRIOR * mean) / (days + part + PRIOR)
        usual = (weeks * self.week[series, week].astype(np.float64) + now + PRIOR * daily) / (weeks + part + PRIOR)
        return value - usual

    def learn(self, series: NDArray[np.int32], value: NDArray[np.float64]) -> None:
        """value: float64 [n], of these (distinct) series in the hour that `departure` was asked about last."""
        seen, mean = self.seen[series], self.mean[series]
        mean = np.where(seen > 0, mean, value)
        # An anomaly teaches no more than a range as wide as the known one beside it; what goes on soon gets there.
        low, high = np.where(seen > 0, self.low[series], value), np.where(seen > 0, self.high[series], value)
        span = np.where(high > low, np.maximum(high - low, np.maximum(np.abs(low), np.abs(high))), np.inf)
        taken = np.minimum(np.maximum(value, low - span), high + span)
        self.low[series], self.high[series] = np.minimum(low, taken), np.maximum(high, taken)
        seen = np.minimum(seen + 1, MEMORY)
        self.seen[series] = seen
        self.mean[series] = mean + (taken - mean) / seen
        self.total[series] += taken
        self.count[series] += 1

    def _close(self, series: NDArray[np.int32]) -> None:
        """The hour of these series is over: its mean enters their habits."""
        if not len(series):
            return
        mean = self.total[series] / np.maximum(self.count[series], 1)
        for table, visits, at in (
            (self.day, self.days, self.hour[series] % 24), (self.week, self.weeks, self.hour[series] % 168),
        ):  # fmt: skip
            seen = np.minimum(visits[series, at] + 1, VISITS)
            visits[series, at] = seen
            table[series, at] += ((mean - table[series, at]) / seen).astype(np.float32)
        self.total[series], self.count[series] = 0.0, 0.0
