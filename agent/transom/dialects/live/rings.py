"""The latest points of every series of one stream, within a number of bytes: more series, fewer points of each.

Batches of predictions in, all at once; columns out. Works on arrays: a series costs no Python object but its name.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.events import Predictions
from transom.dialects.live.layout import Floats, Layout

MOST, LEAST = 600, 16  # points of a series: with few series, and with as many as there is room for
FIRST = 16  # series that there is room for at first
NEVER = np.iinfo(np.int64).min


class Points(NamedTuple):
    """time: int64 [n], µs, ascending; state: uint8 [n]; rows: float32 [n, width]; total: of all points that the series
    has had; anew: what was read before does not go on here."""

    time: NDArray[np.int64]
    state: NDArray[np.uint8]
    rows: Floats
    total: int
    anew: bool


class Rings:
    """names: of the series, by their place; layout: of their points, None before the first; age: grows when series have
    changed their places."""

    def __init__(self, room: int, age: int = 0) -> None:
        """room: bytes; age: to begin with."""
        self.room, self.age = room, age
        self._reset(None)

    def _reset(self, layout: Layout | None) -> None:
        self.layout: Layout | None = layout
        self.age += 1
        self.names: list[str] = []
        self.channels: list[tuple[str, ...]] = []
        self._ids: dict[str, int] = {}
        self._allocate(FIRST)

    def _allocate(self, capacity: int) -> None:
        width, forecast = (self.layout.width, self.layout.forecast) if self.layout is not None else (0, ())
        fixed = 4 * int(np.prod(forecast)) if forecast else 0
        self._point = 9 + 4 * width
        self._most_series = max(FIRST, self.room // (LEAST * self._point + fixed))
        capacity = min(capacity, self._most_series)
        self._n = int(np.clip((self.room // capacity - fixed) // self._point, LEAST, MOST))
        self._time = np.full((capacity, self._n), NEVER, np.int64)
        self._state = np.zeros((capacity, self._n), np.uint8)
        self._rows = np.zeros((capacity, self._n, width), np.float32)
        self._count = np.zeros(capacity, np.int64)
        self._forecast = np.full((capacity, *(forecast or (0,))), np.nan, np.float32)

    def __len__(self) -> int:
        return len(self.names)

    # --- in -----------------------------------------------------------------------------------------------------------

    def take(self, batches: Sequence[Predictions]) -> None:
        """Batches of this stream, in their order."""
        begin = 0
        for i, batch in enumerate(batches):
            if (layout := Layout.of(batch)) != self.layout:
                self._add(batches[begin:i])
                self._reset(layout)
                begin = i
        self._add(batches[begin:])

    def _add(self, batches: Sequence[Predictions]) -> None:
        if not batches:
            return
        assert self.layout is not None
        ids = self._places(batches)
        order = np.argsort(ids, kind="stable")
        order = order[np.searchsorted(ids[order], 0) :]  # without those for whom there was no room
        ids = ids[order]
        if not len(ids):
            return
        first = np.r_[True, ids[1:] != ids[:-1]]
        begin = np.flatnonzero(first)
        many = np.diff(np.r_[begin, len(ids)])
        rank = np.arange(len(ids)) - np.repeat(begin, many)
        at = (self._count[ids] + rank) % self._n  # of those that meet in one place the last stays
        self._time[ids, at] = np.concatenate([b.end for b in batches])[order]
        self._state[ids, at] = np.concatenate([b.state for b in batches])[order]
        self._rows[ids, at] = np.concatenate([self.layout.rows(b) for b in batches])[order]
        self._count[ids[first]] += many
        if self.layout.forecast:
            last = order[np.flatnonzero(np.r_[ids[1:] != ids[:-1], True])]
            self._forecast[ids[first]] = np.concatenate([b.forecast for b in batches if b.forecast is not None])[last]

    def _places(self, batches: Sequence[Predictions]) -> NDArray[np.int64]:
        """The places of the rows' series, -1 without one; new ones get theirs."""
        many = sum(map(len, batches))
        try:
            return np.fromiter(
                map(self._ids.__getitem__, chain.from_iterable(b.series for b in batches)), np.int64, many
            )
        except KeyError:
            for batch in batches:
                for name, channels in zip(batch.series, batch.channels, strict=True):
                    if name not in self._ids:
                        if len(self.names) == len(self._count):
                            self._grow()
                        self._ids[name] = len(self.names)
                        self.names.append(name)
                        self.channels.append(channels)
            names = chain.from_iterable(b.series for b in batches)
            return np.fromiter((self._ids.get(name, -1) for name in names), np.int64, many)

    def _grow(self) -> None:
        """Room for twice as many series; where there is none, those that have been silent longest go."""
        many = len(self.names)
        stay = np.arange(many)
        if many >= self._most_series:
            time = self.last()[0]
            time[time == NEVER] = np.iinfo(np.int64).max  # has just been named: its points are coming
            oldest = np.argsort(time, kind="stable")[: max(1, many // 4)]
            stay = np.delete(stay, oldest)
            self.age += 1
        old = self._time, self._state, self._rows, self._count, self._forecast, self._n
        self._allocate(max(2 * many, FIRST))
        times, state, rows, count, forecast, n = old
        k = min(n, self._n)
        numbers = count[stay, None] - k + np.arange(k)  # of the points that stay; below zero there are none
        here, from_, to = np.arange(len(stay))[:, None], numbers % n, numbers % self._n
        self._time[here, to] = times[stay[:, None], from_]
        self._state[here, to] = state[stay[:, None], from_]
        self._rows[here, to] = rows[stay[:, None], from_]
        self._count[: len(stay)], self._forecast[: len(stay)] = count[stay], forecast[stay]
        self.names = [self.names[i] for i in stay.tolist()]
        self.channels = [self.channels[i] for i in stay.tolist()]
        self._ids = {name: i for i, name in enumerate(self.names)}

    # --- out ----------------------------------------------------------------------------------------------------------

    def place(self, name: str) -> int | None:
        return self._ids.get(name)

    def last(self) -> tuple[NDArray[np.int64], NDArray[np.uint8], Floats]:
        """The latest point of each series: time int64 [S] µs, state uint8 [S], rows float32 [S, width]."""
        many = np.arange(len(self.names))
        at = (self._count[many] - 1) % self._n
        return self._time[many, at], self._state[many, at], self._rows[many, at]

    def latest(self, place: int) -> tuple[int, Floats]:
        """The time, µs, and the row of a series' latest point."""
        at = (int(self._count[place]) - 1) % self._n
        return int(self._time[place, at]), self._rows[place, at]

    def forecast(self, place: int) -> Floats:
        """float32 [H, C, Q], the latest."""
        forecast: Floats = self._forecast[place]
        return forecast

    def read(self, place: int, after: int = 0) -> Points:
        """The points of a series after its first `after`, as far as they are still here."""
        count = int(self._count[place])
        new = count - after
        begin = after if 0 <= new <= self._n else max(0, count - self._n)
        at = np.arange(begin, count) % self._n
        time = self._time[place, at]
        back = np.flatnonzero(np.diff(time) <= 0)  # a clock that was set back: what was before is another story
        cut = int(back[-1]) + 1 if len(back) else 0
        at = at[cut:]
        return Points(
            time[cut:], self._state[place, at], self._rows[place, at], count, begin != after or cut > 0 or after == 0
        )
