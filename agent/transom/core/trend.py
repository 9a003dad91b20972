"""Does a row of daily levels rise or fall for good? Levels in; slope, its certainty and its beginning out.

A line is fitted to what each weekday is apart from its own mean over the span, so that a weekly rhythm is no trend (the
idea of the seasonal Kendall test: Hirsch, Slack & Smith, Water Resources Research 1982). The slope's standard error
is that of residuals that follow each other by an AR(1) law (Prais & Winsten 1954), whose correlation is taken larger
than it looks by about its bias in short rows (Marriott & Pope 1954), so that a level that wanders and comes back is
seldom taken for a trend. A single step fits no line: what one step explains better is a shift, not a drift.
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
    known; line: float64 [n], the residual sum of squares of the best single step over that of the line."""

    slope: Floats
    certainty: Floats
    line: Floats


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
    spread, power = xx.copy(), np.ones(n)
    for lag in range(1, days):
        power = power * rho
        spread += 2 * power * (x[:, lag:] * x[:, :-lag]).sum(1)
    error = np.sqrt(np.maximum(squares / np.maximum(free, 1) * spread, 0.0)) / np.maximum(xx, 1e-300)
    enough = (free >= FREEDOM) & (known.sum(1) >= KNOWN * days)
    # A level that moves as a ruler has no error at all.
    certainty = np.where(enough, slope / np.maximum(error, 1e-9 * np.abs(slope) + 1e-300), 0.0)
    total = (y * y).sum(1)
    best = np.full(n, np.inf)
    for at in range(2, days - 1):
        step = _apart(np.broadcast_to(np.arange(days) >= at, levels.shape).astype(np.float64), by_week, count)
        explained = (step * y).sum(1) ** 2 / np.maximum((step * step).sum(1), 1e-9)
        best = np.minimum(best, total - explained)
    return Trend(slope, certainty, best / np.maximum(squares, 1e-300))


def _apart(values: Floats, known: NDArray[np.bool_], count: NDArray[np.int_]) -> Floats:
    """What each day is apart from the mean of its weekday, 0 where unknown. known: bool [n, weeks, 7]."""
    shaped = np.where(known, values.reshape(known.shape), 0.0)
    centred = np.where(known, shaped - shaped.sum(1, keepdims=True) / np.maximum(count, 1), 0.0)
    return np.asarray(centred.reshape(len(known), -1))


class Beginning(NamedTuple):
    """day: int64 [n], index of the day on which it began; before, now: float64 [n], levels then and at the end."""

    day: NDArray[np.int64]
    before: Floats
    now: Floats


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
    return Beginning(np.maximum(found, first), before, now)
