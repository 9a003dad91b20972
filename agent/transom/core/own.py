"""What a series' own past says of its present: habit, novelty, tail, record. Values in, p-values out.

For models that take any sensor, and so cannot know what this one is like. A window's surprise is -log of the p-value
of its novelty by peaks over a threshold; REALISED turns it into how often it really came on simulated normal data, as
news, because distances to centres that go on learning are not exponentially distributed. What is rarer than once in all
windows so far is extrapolated, and doubted (`foreseen`).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.calibration import SMALLEST, Calibration
from transom.core.habit import Habits
from transom.core.hold import Hold
from transom.core.news import Records
from transom.core.novelty import Found, Situations
from transom.core.table import Table

TAIL, PRIOR = 0.1, 300.0  # of the peaks over a threshold: share of windows above it, windows that the prior counts for
REALISED = (  # surprise, and -log of the share of windows that were news with so much
    (0.0, 1.5, 2.0, 2.4, 2.8, 3.4, 4.2, 4.5, 5.0, 5.6, 7.0, 11.0),
    (0.0, 2.7, 3.8, 4.7, 5.4, 6.1, 7.0, 7.3, 8.0, 8.7, 9.46, 10.3),
)
BEYOND = 0.2  # slope after the last of them
DOUBT = 30.0  # times that a p-value is too small at most, where nobody has watched for long enough
HUGE = 1e30  # values beyond count as this


def told_again(per_window: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [n], windows: who may be told of a false alarm once a day is told again after half a day."""
    return np.asarray(0.5 / np.maximum(per_window, 1e-12))


class Told(NamedTuple):
    """p_value: float64 [n], of the window; news: bool [n], larger than all in memory; lately: bool [n], than those of
    the time in which one false alarm is allowed; side: int8 [n], what is strange: 0 the value, 1 the value at such an
    hour, 2 the mean of late; usual: float64 [n], that of the habit; level: float64 [n], the mean of late; value:
    float64 [n] and found, its situation, are for `learn`."""

    p_value: NDArray[np.float64]
    news: NDArray[np.bool_]
    lately: NDArray[np.bool_]
    side: NDArray[np.int8]
    usual: NDArray[np.float64]
    level: NDArray[np.float64]
    value: NDArray[np.float64]
    found: Found


def foreseen(p_value: NDArray[np.float64], windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """p_value, windows seen: [n] -> p-value float64 [n], no smaller: sqrt(p / windows) below 1 / windows, but at most
    DOUBT times as large.

    So of a bar with bar x windows < 1 only p <= bar^2 x windows is over: while a series is younger than the time in
    which one false alarm is allowed, what raises one must be as much rarer as the bar lies beyond all it has shown. A
    fault that is plain must be told of a young series too, so p <= bar / DOUBT always is."""
    doubted = np.minimum(np.sqrt(p_value / np.maximum(windows, 1)), np.minimum(DOUBT * p_value, 1.0))
    return np.where(p_value * windows < 1.0, doubted, p_value)


def realised(surprise: NDArray[np.float64]) -> NDArray[np.float64]:
    """surprise: float64 [n] >= 0 -> p-value float64 [n] in (0, 1]."""
    at, found = REALISED
    beyond = BEYOND * np.maximum(surprise - at[-1], 0.0)
    return np.clip(np.exp(-np.interp(surprise, at, found) - beyond), SMALLEST, 1.0)


class Own:
    """Habits, situations, their tail and records of the series of one stream. calibration knows the rhythm as well."""

    def __init__(self, interval: float | None) -> None:
        """interval: ms between windows when the grid is timed; None = learned per series."""
        self.habits, self.situations, self.records, self.hold = Habits(), Situations(), Records(), Hold()
        self.calibration = Calibration(None, interval, TAIL, PRIOR)

    def judge(
        self,
        series: NDArray[np.int32],
        end: NDArray[np.int64],
        value: NDArray[np.float32],
        per_window: NDArray[np.float64],
    ) -> Told:
        """value: float32 [n], finite, of distinct series at `end` (µs); per_window: false alarms allowed a window. Each
        window is judged by those before it; `learn` is to follow, once it is known what came of it."""
        v = np.minimum(np.maximum(value.astype(np.float64), -HUGE), HUGE)
        departure = self.habits.departure(series, end, v)
        found = self.situations.novelty(series, v, departure)
        surprise = self.calibration.surprise(series, found.novelty)
        self.calibration.beat(series, end)
        news, lately = self.records.news(series, surprise, told_again(per_window))
        level = self.situations.level[series]
        p_value = foreseen(realised(surprise), self.calibration.windows[series])
        return Told(p_value, news, lately, found.side, v - departure, level, v, found)

    def learn(self, series: NDArray[np.int32], told: Told, normal: NDArray[np.bool_] | None = None) -> None:
        """Takes the windows that `judge` told of as seen. normal: bool [n], False for those that teach nothing of what
        is usual (default: all are normal)."""
        found, value = told.found, told.value
        if normal is not None and not normal.all():
            series, found, value = series[normal], found.of(normal), value[normal]
        self.calibration.take(series, found.novelty, self.calibration.look(series))
        self.habits.learn(series, value)
        self.situations.learn(series, found)

    def resize(self, size: int) -> None:
        for _, room in self._rooms():
            room.resize(size)

    def reset(self, series: NDArray[np.int32]) -> None:
        for _, room in self._rooms():
            room.reset(series)

    def snapshot(self) -> dict[str, Any]:
        return {name: room.snapshot() for name, room in self._rooms()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, room in self._rooms():
            if name in state:
                room.restore(state[name])
            else:  # an older version did not have it
                room.resize(self.situations.size)

    def _rooms(self) -> Iterator[tuple[str, Table]]:
        yield from (
            ("habits", self.habits), ("situations", self.situations), ("records", self.records),
            ("calibration", self.calibration), ("hold", self.hold),
        )  # fmt: skip
