"""Holes in a series' own rhythm: readings that a regular sensor must have sent and that never arrived.

Looks at accepted readings only and changes nothing about them; what it finds is counted and reported. The same
readings in any batches give the same counts.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import NEVER
from transom.core.table import Table

KEPT = 8  # intervals that make a rhythm
REGULAR = 1.5  # the longest of them over the shortest, at most
LEAST_BY_ARRIVAL = 20_000  # µs: what waited somewhere arrives in bursts, whose pace says nothing of the sensor
HOLE = 2.5  # times the typical interval: longer is a hole


class Rhythm(Table):
    """last: int64 [S, C] µs, the newest reading; intervals: float32 [S, C, 8] µs, newest last, 0 unknown."""

    fills: ClassVar[dict[str, Any]] = {"last": NEVER, "intervals": 0.0}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.last = np.zeros((0, channels), np.int64)
        self.intervals = np.zeros((0, channels, KEPT), np.float32)
        self.counts = {"gaps": 0, "missing": 0}

    def hear(
        self, series: NDArray[np.int32], channel: NDArray[np.int64], time: NDArray[np.int64],
        arrival: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Accepted readings, by series and in order of arrival; time: int64 [n] µs; arrival: bool [n], True where it
        is the time of arrival."""
        if not len(series):
            return
        key = series.astype(np.int64) * self.channels + channel
        if self.channels > 1:
            order = np.argsort(key, kind="stable")
            key, time, arrival = key[order], time[order], arrival[order]
        first = segments.starts(key)
        last = self.last.reshape(-1)
        before = segments.max_before(time, first, last[key])
        interval = np.where(before == NEVER, 0, time - np.where(before == NEVER, time, before)).astype(np.float32)
        # Out of order, or the first: no interval.
        ahead = (interval > 0) & ~(arrival & (interval < LEAST_BY_ARRIVAL))
        np.maximum.at(last, key, time)
        key, interval = key[ahead], interval[ahead]
        if not len(key):
            return
        known = self.intervals.reshape(-1, KEPT)
        first = segments.starts(key)
        if first.all():  # nearly always: one reading of each
            lines = np.concatenate([known[key, 1:], interval[:, None]], axis=1)
            self._count(known[key], interval)
            known[key] = lines
            return
        rank, begin = segments.ranks(first), np.flatnonzero(first)
        # One line of intervals a key: its history, then the new ones. Row i of the view holds the KEPT before it.
        length = np.diff(np.append(begin, len(key))) + KEPT
        offset = np.concatenate([[0], np.cumsum(length)[:-1]])
        line = np.empty(int(length.sum()), np.float32)
        line[offset[:, None] + np.arange(KEPT)] = known[key[begin]]
        place = np.repeat(offset, length - KEPT) + KEPT + rank
        line[place] = interval
        self._count(np.lib.stride_tricks.sliding_window_view(line, KEPT)[place - KEPT], interval)
        known[key[begin]] = line[(offset + length - KEPT)[:, None] + np.arange(KEPT)]

    def hear_plain(self, series: NDArray[np.int32], time: NDArray[np.int64], arrival: NDArray[np.bool_]) -> None:
        """`hear` of one reading each of these (distinct) series of one channel, each later than all before it."""
        before = self.last[series, 0]
        self.last[series, 0] = time
        interval = (time - before).astype(np.float32)
        taken = before != NEVER
        if arrival.any():
            taken &= ~(arrival & (interval < LEAST_BY_ARRIVAL))
        if not taken.all():
            series, interval = series[taken], interval[taken]
        line = self.intervals[series, 0]
        self._count(line, interval)
        line[:, :-1] = line[:, 1:]
        line[:, -1] = interval
        self.intervals[series, 0] = line

    def _count(self, before: NDArray[np.float32], interval: NDArray[np.float32]) -> None:
        """before: float32 [n, 8], the intervals before each."""
        least = before.min(axis=1, initial=np.inf)
        regular = (least > 0) & (interval > HOLE * least)
        if not regular.any():
            return
        regular &= before.max(axis=1) <= REGULAR * least
        if not regular.any():
            return
        interval, typical = interval[regular], np.sort(before[regular], axis=1)[:, KEPT // 2]
        hole = interval > HOLE * typical
        self.counts["gaps"] += int(hole.sum())
        self.counts["missing"] += int((np.rint(interval[hole].astype(np.float64) / typical[hole]) - 1).sum())

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"counts": dict(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.counts = dict(state["counts"])
