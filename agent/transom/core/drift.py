"""Sensors that age: the level of each channel by the day, and what of it is a drift. Windows in, reports out.

An alarm is about what is sudden. What moves by little each day is told here instead: since when, how far, how fast. The
level of a day is the mean of its hours' means (UTC), so that neither the daily rhythm nor readings that come more
densely at times move it; eight weeks of them are kept. `trend` says whether they rise or fall for good. A stretch of
time that is shorter than three weeks cannot be told from a weekly rhythm, so nothing is said before.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import NEVER
from transom.core.habit import HOUR
from transom.core.table import Table
from transom.core.trend import WEEK, beginning, trend

DAYS = 8 * WEEK  # levels kept
SPANS = ((4 * WEEK, 6.0), (DAYS, 4.0))  # days that are looked at, and the certainty that they need
ON = 0.5  # share of it with which a drift that was told of goes on
LEAST = 0.25  # of the usual spread within a day: a drift over the span that is worth telling
WHOLE = 0.75  # share of the usual hours that a day must have
AWAY = 2.0  # usual spreads from the training data, from which an input is elsewhere
RECENT = 3  # days that must be known of the last week for that
MEMORY = 28.0  # days after which older ones fade in the usual spread
PART = 512  # channels whose levels are fitted at once, so that memory is bounded
LARGEST = 1e18  # values beyond count as this; its square is a float32
AT_ONCE = 1024  # windows that are counted together: the hours want them all, but none at once

Floats = NDArray[np.float64]


class Moved(NamedTuple):
    """One channel of one series that drifts, or that is away from what its model was trained on.

    since: µs since 1970, the day it began, or None against the training data; before, now: levels in raw units; usual:
    spread of the values within a day (standard deviation), or of the training data; per_day: raw units a day."""

    series: int
    channel: int
    kind: Literal["drift", "reference"]
    since: int | None
    before: float
    now: float
    usual: float
    per_day: float

    @property
    def sizes(self) -> float:
        """How far it has moved, in usual spreads; never infinite."""
        return (self.now - self.before) / max(self.usual, 1e-9 * max(abs(self.now), abs(self.before)), 1e-30)


class Drift(Table):
    """Of each series: hour: int64 [S], the current one since 1970. Of each of its channels, all [S, C]: levels:
    float32 [S, C, DAYS], less `origin`: float64, the first value, NaN where unknown, that of a day at its number
    modulo DAYS; sum: float64, count: int32, of the hour; day: float64, sum of its hours' means, squares: float64 and
    seen: int32, of its values; hours, most: uint8, hours seen today and on a usual day; variance: float32, usual one
    within a day; days: uint8, that it was learned from; began: int32, day since 1970 or -1; before, now, rate:
    float32. 290 bytes a channel."""

    fills: ClassVar[dict[str, Any]] = {
        "hour": NEVER, "levels": np.nan, "origin": np.nan, "sum": 0.0, "count": 0, "day": 0.0, "squares": 0.0,
        "seen": 0, "hours": 0, "most": 0, "variance": 0.0, "days": 0, "began": -1, "before": 0.0, "now": 0.0,
        "rate": 0.0,
    }  # fmt: skip

    def __init__(self, channels: int) -> None:
        super().__init__()
        shape = 0, channels
        self.hour = np.zeros(0, np.int64)
        self.levels = np.zeros((*shape, DAYS), np.float32)
        self.origin, self.sum, self.day, self.squares = (np.zeros(shape) for _ in range(4))
        self.count, self.seen, self.began = (np.zeros(shape, np.int32) for _ in range(3))
        self.hours, self.most, self.days = (np.zeros(shape, np.uint8) for _ in range(3))
        self.variance, self.before, self.now, self.rate = (np.zeros(shape, np.float32) for _ in range(4))
        self._aside: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]] = []  # not yet counted
        self._put_aside = 0

    def learn(self, series: NDArray[np.int32], end: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """The newest step of each window: series [n], sorted; end: int64 [n], µs, rising within a series; values:
        [n, C], kept, NaN where missing or where it must not count. Counted once there are AT_ONCE, or by `settle`."""
        self._aside.append((series, end, values))
        self._put_aside += len(series)
        if self._put_aside >= AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Counts what was put aside, each series in its order, so that it does not matter when."""
        aside, self._aside, self._put_aside = self._aside, [], 0
        if not aside:
            return
        series = np.concatenate([s for s, _, _ in aside])
        order = np.argsort(series, kind="stable")
        self._count(
            series[order], np.concatenate([e for _, e, _ in aside])[order],
            np.concatenate([v for _, _, v in aside])[order],
        )  # fmt: skip

    def reset(self, series: NDArray[np.int32]) -> None:
        self.settle()
        super().reset(series)

    def snapshot(self) -> dict[str, Any]:
        self.settle()
        return super().snapshot()

    def restore(self, state: dict[str, Any]) -> None:
        self._aside, self._put_aside = [], 0
        super().restore(state)

    def _count(self, series: NDArray[np.int32], end: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        if not len(series):
            return
        hour = end // HOUR
        first = segments.starts(series)
        turn = first.copy()
        turn[1:] |= hour[1:] != hour[:-1]
        nth = np.cumsum(turn)
        of: NDArray[np.int64] = nth - nth[segments.start_of(first)]  # the how-manieth hour of its series here
        for i in range(int(of.max()) + 1):
            rows = of == i
            begins = rows & turn
            self._advance(series[begins], hour[begins])
            self._add(series[rows], values[rows])

    def _add(self, series: NDArray[np.int32], values: NDArray[np.float32]) -> None:
        row, channel = np.nonzero(np.isfinite(values))
        at = series[row], channel
        value = np.clip(values[row, channel].astype(np.float64), -LARGEST, LARGEST)
        fresh = np.isnan(self.origin[at])
        if fresh.any():  # the first of several is the origin, in any batch
            where = series[row][fresh][::-1], channel[fresh][::-1]
            self.origin[where] = value[fresh][::-1]
        value = value - self.origin[at]
        np.add.at(self.sum, at, value)
        np.add.at(self.count, at, 1)
        np.add.at(self.squares, at, value * value)
        np.add.at(self.seen, at, 1)

    def _advance(self, series: NDArray[np.int32], hour: NDArray[np.int64]) -> None:
        """The hours before these are over, and so may be the days; series are distinct."""
        before = self.hour[series]
        back = (hour < before) & (before != NEVER)
        if back.any():  # a clock that was set back: other days
            super().reset(series[back])
            before = self.hour[series]
        self.hour[series] = hour
        moved = (hour > before) & (before != NEVER)
        ids = series[moved]
        if not len(ids):
            return
        self.day[ids] += self.sum[ids] / np.maximum(self.count[ids], 1)
        self.hours[ids] += self.count[ids] > 0
        self.sum[ids], self.count[ids] = 0.0, 0
        was, now = before[moved] // 24, hour[moved] // 24
        over = now > was
        if over.any():
            self._close(ids[over], was[over], now[over])

    def _close(self, series: NDArray[np.int32], was: NDArray[np.int64], now: NDArray[np.int64]) -> None:
        """The day `was` of these series is over; the next one that has a value is `now`."""
        hours, most, seen = self.hours[series].astype(np.int64), self.most[series].astype(np.int64), self.seen[series]
        usual = (hours >= WHOLE * 24) | ((most > 0) & (hours > 0) & (hours >= WHOLE * most))
        level = self.day[series] / np.maximum(hours, 1)
        mean_square = self.squares[series] / np.maximum(seen, 1)
        within = np.maximum(mean_square - level * level, 0.0)
        days = self.days[series].astype(np.float64)
        learned = usual & (seen > 1)
        variance = self.variance[series].astype(np.float64)
        fresh = variance + (within - variance) / np.minimum(days + 1, MEMORY)
        self.variance[series] = np.where(learned, fresh, variance).astype(np.float32)
        self.days[series] = np.where(learned, np.minimum(days + 1, MEMORY), days).astype(np.uint8)
        # A sensor that from now on reports at fewer hours is followed, an hour a day.
        self.most[series] = np.where(hours > most, hours, np.where(usual, most, np.maximum(most - 1, 0)))
        self.levels[series, :, was % DAYS] = np.where(usual, level, np.nan).astype(np.float32)
        for ahead in range(1, min(int((now - was).max()), DAYS + 1)):
            skipped = was + ahead < now
            self.levels[series[skipped], :, (was[skipped] + ahead) % DAYS] = np.nan
        self.day[series], self.squares[series], self.seen[series], self.hours[series] = 0.0, 0.0, 0, 0
        part = max(1, PART // max(self.levels.shape[1], 1))
        for begin in range(0, len(series), part):
            self._look(series[begin : begin + part], (now - 1)[begin : begin + part])

    def _look(self, series: NDArray[np.int32], today: NDArray[np.int64]) -> None:
        """What the levels say at the end of `today` (days since 1970)."""
        n, channels = self.began[series].shape
        at = (today[:, None] + 1 + np.arange(DAYS)) % DAYS  # oldest first
        kept = np.take_along_axis(self.levels[series], at[:, None, :], 2)
        levels: Floats = kept.reshape(n * channels, DAYS).astype(np.float64)
        usual = np.sqrt(self.variance[series].astype(np.float64)).ravel()
        began = self.began[series].ravel()
        sign = np.sign(self.now[series].astype(np.float64) - self.before[series]).ravel()
        told, on, slope = np.zeros(len(began), bool), np.zeros(len(began), bool), np.zeros(len(began))
        for days, needed in SPANS:
            found = trend(levels[:, DAYS - days :])
            sure = np.abs(found.certainty)
            hit = (sure >= needed) & (np.abs(found.slope) * days >= LEAST * usual)
            slope = np.where((hit & ~told) | (~told & (slope == 0.0)), found.slope, slope)
            told |= hit
            on |= (sure >= ON * needed) & (np.sign(found.slope) == sign)
        fresh, going = told & (began < 0), on & (began >= 0)
        before, now, rate = (column[series].ravel().astype(np.float64) for column in (self.before, self.now, self.rate))
        # Free of weekdays: the mean of the last week is the level of three days ago.
        known = np.isfinite(levels[:, -WEEK:])
        latest = np.where(known, levels[:, -WEEK:], 0.0).sum(1) / np.maximum(known.sum(1), 1) + WEEK // 2 * slope
        follow = going & known.any(1)
        now, rate = np.where(follow, latest, now), np.where(follow, slope, rate)
        if fresh.any():
            begun = beginning(levels[fresh], slope[fresh])
            slowly = begun.rest < found.step[fresh]  # of all the days, which are the last of SPANS
            fresh[fresh] = slowly
            before[fresh], now[fresh] = begun.before[slowly], begun.now[slowly]
            lasting = np.maximum(DAYS - 1 - begun.day[slowly], 1)
            rate[fresh] = (now[fresh] - before[fresh]) / lasting
            began[fresh] = np.repeat(today, channels)[fresh] - lasting
        began = np.where(fresh | going, began, -1)
        self.began[series] = began.reshape(n, channels)
        for column, value in ((self.before, before), (self.now, now), (self.rate, rate)):
            column[series] = value.reshape(n, channels).astype(np.float32)

    def moved(self) -> list[Moved]:
        """All channels that drift, in no order."""
        self.settle()
        found = []
        for s, c in zip(*np.nonzero(self.began >= 0), strict=True):
            origin = float(self.origin[s, c])
            found.append(
                Moved(int(s), int(c), "drift", int(self.began[s, c]) * 24 * HOUR, origin + float(self.before[s, c]),
                      origin + float(self.now[s, c]), float(np.sqrt(self.variance[s, c])), float(self.rate[s, c]))
            )  # fmt: skip
        return found

    def away(self, mean: Floats, usual: Floats) -> list[Moved]:
        """Channels whose level of the last week is more than AWAY usual spreads from the training data's.
        mean, usual: float64 [c] of the first c channels, mean and standard deviation."""
        self.settle()
        c = len(mean)
        rows = np.flatnonzero(self.hour != NEVER)
        at = (self.hour[rows, None] // 24 - 1 - np.arange(WEEK)) % DAYS
        week = np.take_along_axis(self.levels[rows, :c], at[:, None, :], 2).astype(np.float64)
        known = np.isfinite(week)
        level = np.where(known, week, 0.0).sum(2) / np.maximum(known.sum(2), 1) + self.origin[rows, :c]
        far = (known.sum(2) >= RECENT) & (np.abs(level - mean) > AWAY * usual) & (self.began[rows, :c] < 0)
        return [
            Moved(int(rows[s]), int(i), "reference", None, float(mean[i]), float(level[s, i]), float(usual[i]), 0.0)
            for s, i in zip(*np.nonzero(far), strict=True)
        ]
