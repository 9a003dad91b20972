"""What was alerted on, kept apart until it is old enough to be normal: a few situations a series, with their number.

A fault teaches nothing while it is told of. What is left of it for as long as `accept_after` is then known with all
its weight, as if it had been learned at once: what recurs for good does not raise alerts for ever. Of more situations
than there are places the nearest become one, so that memory is bounded.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import NEVER
from transom.core.novelty import SIDES, Situations
from transom.core.table import Table

PLACES = 4


class Quarantine(Table):
    """point: float32 [S, PLACES, SIDES]; count: float32 [S, PLACES], situations that it stands for, 0 = free; since:
    int64 [S, PLACES] µs, when the (latest) alert on it was raised; waiting: bool [S], any place is in use."""

    fills: ClassVar[dict[str, Any]] = {"point": 0.0, "count": 0.0, "since": NEVER, "waiting": False}

    def __init__(self) -> None:
        super().__init__()
        self.point = np.zeros((0, PLACES, SIDES), np.float32)
        self.count = np.zeros((0, PLACES), np.float32)
        self.since = np.zeros((0, PLACES), np.int64)
        self.waiting = np.zeros(0, bool)

    def keep(self, series: NDArray[np.int32], point: NDArray[np.float32], since: NDArray[np.int64]) -> None:
        """Situations float32 [n, SIDES] of windows of alerts raised at `since` (µs), of distinct series."""
        count, points = self.count[series], self.point[series]
        away = np.where(count > 0, np.abs(points - point[:, None]).max(2), np.float32(np.inf))
        # One alert has one place, and another while any is free; then the nearest takes it in.
        same = (count > 0) & (self.since[series] == since[:, None])
        away = np.where(same, np.float32(-1), away)
        free = (count == 0).any(1) & ~same.any(1)
        at = np.where(free, (count == 0).argmax(1), away.argmin(1))
        held = self.count[series, at]
        total = held + np.float32(1)
        old = self.point[series, at]
        self.point[series, at] = old + (point - old) / total[:, None]
        self.count[series, at] = total
        self.since[series, at] = np.where(held > 0, np.maximum(self.since[series, at], since), since)
        self.waiting[series] = True

    def release(self, series: NDArray[np.int32], before: NDArray[np.int64], situations: Situations) -> None:
        """What was alerted on at `before` (µs, int64 [n], of distinct series) or earlier is normal from now on."""
        rows = np.flatnonzero(self.waiting[series])
        if not len(rows):
            return
        ids, limit = series[rows], before[rows]
        for place in range(PLACES):
            due = (self.count[ids, place] > 0) & (self.since[ids, place] <= limit)
            if due.any():
                gone = ids[due]
                situations.accept(gone, self.point[gone, place], self.count[gone, place])
                self.count[gone, place] = 0.0
        self.waiting[ids] = (self.count[ids] > 0).any(1)
