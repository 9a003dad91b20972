"""The smallest and largest of what comes, in columns of time: a picture of a million readings in constant memory.

Batches in; for each series at most `room` columns out, whose width doubles when the time seen outgrows them. Nothing is
averaged, so a single spike is seen at any width.
"""

import numpy as np
from numpy.typing import NDArray

ROOM = 2048  # columns of a series: two a pixel
LEAST = 64  # columns of a series when there are very many of them
LIMIT = 1 << 23  # numbers kept in all: 32 MiB

_EMPTY = np.float32(np.nan)


class Columns:
    """room: columns a series has now; count: series so far; begin, end: int64 [S], µs, the times seen of each."""

    def __init__(self, low: int, high: int, limit: int = LIMIT) -> None:
        """low, high: of how many quantities the smallest and of how many the largest is kept; limit: numbers in all."""
        self.room, self.count, self._limit = ROOM, 0, limit
        self.begin, self.end = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._first = np.zeros(0, np.int64)  # of column 0: time >> shift
        self._shift = np.zeros(0, np.int64)  # a column is 2^shift µs wide
        self._low = np.zeros((0, ROOM, low), np.float32)
        self._high = np.zeros((0, ROOM, high), np.float32)

    @property
    def most(self) -> int:
        """Series for which there is room."""
        return self._limit // (LEAST * max(1, self._low.shape[2] + self._high.shape[2]))

    def new(self) -> int | None:
        """The number of a new series, or None when there is no room for one."""
        if self.count >= self.most:
            return None
        self.count += 1
        return self.count - 1

    def add(
        self, rows: NDArray[np.int64], time: NDArray[np.int64], low: NDArray[np.float32], high: NDArray[np.float32]
    ) -> None:
        """rows: [B] series numbers; time: [B] µs; low, high: [B, …] quantities, NaN where missing; in any order."""
        if not len(rows):
            return
        self._grow()
        fresh = np.unique(rows[self.begin[rows] > self.end[rows]])
        np.minimum.at(self.begin, rows, time)
        np.maximum.at(self.end, rows, time)
        self._first[fresh] = self.begin[fresh]
        touched = np.unique(rows)
        outside = self.begin[touched] >> self._shift[touched] < self._first[touched]
        outside |= (self.end[touched] >> self._shift[touched]) - self._first[touched] >= self.room
        if outside.any():
            self._refit(touched[outside])
        column = (time >> self._shift[rows]) - self._first[rows]
        np.fmin.at(self._low, (rows, column), low)
        np.fmax.at(self._high, (rows, column), high)

    def read(self, row: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """The columns of a series that hold anything, at most `most`: the time in their middle int64 [n], µs; low
        [n, …]; high [n, …]."""
        low, high = self._low[row], self._high[row]
        held = np.flatnonzero(np.isfinite(low).any(1) | np.isfinite(high).any(1))
        if not len(held):
            return np.zeros(0, np.int64), low[:0], high[:0]
        place, shift = self._first[row] + held, int(self._shift[row])
        while int(place[-1] - place[0]) >= most:
            place, shift = place >> 1, shift + 1
        starts = np.flatnonzero(np.diff(place, prepend=place[0] - 1))
        middle = np.clip((place[starts] << shift) + (1 << shift >> 1), self.begin[row], self.end[row])
        return middle, np.fmin.reduceat(low[held], starts), np.fmax.reduceat(high[held], starts)

    def _grow(self) -> None:
        have = len(self._first)
        if self.count <= have:
            return
        size = min(max(self.count, 2 * have, 8), max(self.most, self.count))
        numbers = size * (self._low.shape[2] + self._high.shape[2])
        room = self.room
        while room > LEAST and room * numbers > self._limit:
            room //= 2
        if room < self.room:
            self.room = room
            self._refit(np.arange(have))
            self._low, self._high = self._low[:, :room].copy(), self._high[:, :room].copy()
        far = np.iinfo(np.int64)
        more = size - have
        self.begin = np.concatenate([self.begin, np.full(more, far.max)])
        self.end = np.concatenate([self.end, np.full(more, far.min)])
        self._first = np.concatenate([self._first, np.zeros(more, np.int64)])
        self._shift = np.concatenate([self._shift, np.zeros(more, np.int64)])
        for name in ("_low", "_high"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full((more, room, old.shape[2]), _EMPTY)]))

    def _refit(self, rows: NDArray[np.int64]) -> None:
        """Wider columns for these series, so that all the time seen of each has its place."""
        rows = rows[self.begin[rows] <= self.end[rows]]
        begin, end, shift = self.begin[rows], self.end[rows], self._shift[rows]
        while (narrow := (end >> shift) - (begin >> shift) >= self.room).any():
            shift = shift + narrow
        first = begin >> shift
        old = self._first[rows, None] + np.arange(self._low.shape[1])
        place = np.clip((old >> (shift - self._shift[rows])[:, None]) - first[:, None], 0, self.room - 1)
        which = np.arange(len(rows))[:, None]
        for array, join in ((self._low, np.fmin), (self._high, np.fmax)):
            fresh = np.full((len(rows), *array.shape[1:]), _EMPTY)
            join.at(fresh, (which, place), array[rows])
            array[rows] = fresh
        self._first[rows], self._shift[rows] = first, shift
