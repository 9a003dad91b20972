"""Does a row of daily levels rise or fall for good? Levels in; slope, its certainty and its beginning out.

A line is fitted to what each weekday is apart from its own mean over the span, so that a weekly rhythm is no trend (the
idea of the seasonal Kendall test: Hirsch, Slack & Smith, Water Resources Research 1982). The slope's standard error
is that of residuals that follow each other by an AR(1) law (Prais & Winsten 1954), whose correlation is taken larger
than it looks by about its bias in short rows (Marriott & Pope 1954), so that a level that wanders and comes back is
seldom taken for a trend. What a single step explains better than a line with a beginning is a shift, not a drift.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WEEK = 7
KNOWN = 0.7  # share of the span's days that must be known
FREEDOM = 10  # degrees of freedom that the residuals must have
BIAS = 4.0  # over the degrees of freedom: what is added to the residuals' correlation
MOST = 0.97  # of that correlation
LATEST = 7  # days at the end of which a drift may not have begun: they would be one step

Floats = NDArray[np.float64]


class Trend(NamedTuple):
    """slope: float64 [n], units a day; certainty: float64 [n], slope over its standard error, 0 where too little is
    known; step: float64 [n], the sum of squares that the best single step leaves."""

    slope: Floats
    certainty: Floats
    step: Floats


def trend(levels: Floats) -> Trend:
    """levels: [n, D], one a day, oldest first, NaN where unknown; D: whole weeks, 3 at least."""
    n, days = levels.shape
    known = np.isfinite(levels)
    by_week = known.reshape(n, days // WEEK, WEEK)
    count = by_week.sum(1, keepdims=True)
    y = _apart(np.where(known, levels, 0.0), by_week, count)
    x = _apart(np.broadcast_to(np.arange(days) - (days - 1.0), levels.shape), by_week, count)
    xx = (x * x).sum(1)
    slope = (x * y).sum(1) / np.maximum(xx, 1e-300)
    residual = y - slope[:, None] * x
    squares = (residual * residual).sum(1)
    free = known.sum(1) - by_week.any(1).sum(1) - 1
    pairs = np.maximum((known[:, 1:] & known[:, :-1]).sum(1), 1)
    variance = squares / np.maximum(known.sum(1), 1)
    rho = (residual[:, 1:] * residual[:, :-1]).sum(1) / pairs / np.maximum(variance, 1e-300)
    rho = np.clip(rho + BIAS * (1 + np.maximum(rho, 0.0)) / np.maximum(free, 1), 0.0, MOST)
    spread, carried = np.zeros(n), np.zeros(n)
    for day in x.T:  # the sum over all pairs of days of x x' rho ** days between them
        spread += day * (day + 2 * rho * carried)
        carried = day + rho * carried
    error = np.sqrt(np.maximum(squares / np.maximum(free, 1) * spread, 0.0)) / np.maximum(xx, 1e-300)
    enough = (free >= FREEDOM) & (known.sum(1) >= KNOWN * days)
    # A level that moves as a ruler has no error at all.
    certainty = np.where(enough, slope / np.maximum(error, 1e-9 * np.abs(slope) + 1e-300), 0.0)
    return Trend(slope, certainty, (y * y).sum(1) - _by_a_step(y, by_week, count).max(1))


def _by_a_step(y: Floats, known: NDArray[np.bool_], count: NDArray[np.int_]) -> Floats:
    """float64 [n, D - 3]: how much of the sum of squares of y (see `_apart`) a step before each day explains, first and
    last days left out. A step s is centred by weekday as y is: s y is the sum of y after it, and s s grows, day by day
    from the end, by what one more day of its weekday adds."""
    later: NDArray[np.int64] = np.cumsum(known[:, ::-1], 1)[:, ::-1] - known
    grows = np.where(known, 1.0 - (2.0 * later + 1.0) / np.maximum(count, 1), 0.0).reshape(len(y), -1)
    sizes = np.cumsum(grows[:, ::-1], 1)[:, ::-1]
    after = np.cumsum(y[:, ::-1], 1)[:, ::-1]
    return np.asarray((after**2 / np.maximum(sizes, 1e-9))[:, 2:-1])


def _apart(values: Floats, known: NDArray[np.bool_], count: NDArray[np.int_]) -> Floats:
    """What each day is apart from the mean of its weekday, 0 where unknown. known: bool [n, weeks, 7]."""
    shaped = np.where(known, values.reshape(known.shape), 0.0)
    centred = np.where(known, shaped - shaped.sum(1, keepdims=True) / np.maximum(count, 1), 0.0)
    return np.asarray(centred.reshape(len(known), -1))


class Beginning(NamedTuple):
    """day: int64 [n], index of the day on which it began; before, now: float64 [n], levels then and at the end; rest:
    float64 [n], the sum of squares that is left."""

    day: NDArray[np.int64]
    before: Floats
    now: Floats
    rest: Floats


def beginning(levels: Floats, slope: Floats) -> Beginning:
    """The level that was constant and then rose or fell by a line (two-phase regression: Hinkley 1971), by least
    squares over all days on which that may have begun. levels: as for `trend`; slope: [n], of which weekdays are
    freed."""
    n, days = levels.shape
    known = np.isfinite(levels)
    day = np.arange(days, dtype=np.float64)
    flat = np.where(known, levels - slope[:, None] * day, 0.0).reshape(n, days // WEEK, WEEK)
    count = known.reshape(n, days // WEEK, WEEK).sum(1)
    weekday = flat.sum(1) / np.maximum(count, 1)
    mean = (weekday * (count > 0)).sum(1, keepdims=True) / np.maximum((count > 0).sum(1, keepdims=True), 1)
    y = np.where(known, levels - np.tile(weekday - mean, (1, days // WEEK)), 0.0)
    total = np.maximum(known.sum(1), 1)
    best = np.full(n, np.inf)
    found, before, now = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    for at in range(days - LATEST):
        ramp = np.where(known, np.maximum(day - at, 0.0), 0.0)
        x, middle = ramp - known * (ramp.sum(1) / total)[:, None], y.sum(1) / total
        rate = (x * y).sum(1) / np.maximum((x * x).sum(1), 1e-300)
        rest = np.where(known, y - middle[:, None] - rate[:, None] * x, 0.0)
        squares = (rest * rest).sum(1)
        # Of equal ones the later: days before the first known one say nothing.
        better = (squares <= best) & (known[:, : at + 1].any(1) | (at == 0))
        level = middle - rate * ramp.sum(1) / total
        best = np.where(better, squares, best)
        found, before = np.where(better, at, found), np.where(better, level, before)
        now = np.where(better, level + rate * (days - 1 - at), now)
    first = known.argmax(1)
    return Beginning(np.maximum(found, first), before, now, best)
