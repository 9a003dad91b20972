"""Closed steps to due windows: one buffer for all series, windows read through a strided view with a single copy.

Steps in, `Windows` out. Knows nothing of what the values mean.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.model import Windows
from transom.core.readings import Steps
from transom.core.table import Table


class Buffers(Table):
    """The last steps of each series.

    buffer: float32 [S, 2 T, C]: T - 1 steps of the past, then `filled` new ones. When a row is full its last T - 1
    steps move to the front, so that every window lies in one piece and a step is written once and moved once at most.
    seen: int64 [S], steps so far.
    """

    fills: ClassVar[dict[str, Any]] = {"buffer": np.nan, "filled": 0, "seen": 0}

    def __init__(self, length: int, channels: int, stride: int = 1, min_steps: int = 1) -> None:
        """length: T; stride: steps between windows; min_steps: steps before the first (missing ones are NaN)."""
        super().__init__()
        self.length, self.stride, self.min_steps = length, stride, max(1, min(min_steps, length))
        self.buffer = np.zeros((0, 2 * length, channels), np.float32)
        self.filled = np.zeros(0, np.int64)
        self.seen = np.zeros(0, np.int64)
        self._viewed: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None  # the buffer, its windows

    def push(self, steps: Steps) -> Windows:
        """Appends steps (sorted by series); returns the windows that end in them and are due, by series and time.

        A window is due each `stride` steps once there are `min_steps`, if its last step holds a reading.
        """
        first = segments.starts(steps.series)
        if first.all():  # nearly always: one step of each
            return self._one_each(steps)
        rank = segments.ranks(first)
        return self._pushed(steps, rank, self.seen[steps.series] + rank + 1)

    def _one_each(self, steps: Steps) -> Windows:
        """`push` of one step of each of these (distinct) series."""
        s = steps.series
        start = self.filled[s]
        full = start > self.length
        if full.any():
            self._move(s[full])
            start[full] = 0
        nth = self.seen[s] + 1
        self.buffer[s, start + (self.length - 1)] = steps.values
        self.filled[s], self.seen[s] = start + 1, nth
        due = self._due(nth, steps.fresh)
        if due.all():
            return Windows(s, steps.time, self._view()[s, start])
        return Windows(s[due], steps.time[due], self._view()[s[due], start[due]])

    def _move(self, full: NDArray[np.int32]) -> None:
        """The last T - 1 steps of these series move to the front."""
        kept = self.filled[full][:, None] + np.arange(self.length - 1)
        self.buffer[full, : self.length - 1] = self.buffer[full[:, None], kept]
        self.filled[full] = 0

    def _pushed(self, steps: Steps, rank: NDArray[np.int64], nth: NDArray[np.int64]) -> Windows:
        """rank: int64 [n], of each step within its series; nth: int64 [n], which step of its series each is, from 1."""
        parts = list(self._rounds(steps, rank, nth))
        if len(parts) == 1:
            return parts[0]
        series = np.concatenate([np.zeros(0, np.int32), *(p.series for p in parts)])
        order = np.argsort(series, kind="stable")
        empty = np.zeros((0, self.length, self.buffer.shape[2]), np.float32)
        return Windows(
            series[order],
            np.concatenate([np.zeros(0, np.int64), *(p.end for p in parts)])[order],
            np.concatenate([empty, *(p.values for p in parts)])[order],
        )

    def last(self, series: int) -> NDArray[np.float32] | None:
        """float32 [T, C]: the window that ends with the last closed step, due or not; None before the first step."""
        filled = int(self.filled[series])
        return self.buffer[series, filled - 1 : filled - 1 + self.length].copy() if filled else None

    def windows_at(self, series: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [n, T, C]: of these series, the windows that begin at these columns of the buffer."""
        return np.array(self._view()[series, start])

    def _rounds(self, steps: Steps, rank: NDArray[np.int64], nth: NDArray[np.int64]) -> Iterator[Windows]:
        """At most T steps of a series at a time, so that they fit behind the T - 1 before them."""
        if not len(steps):
            return
        if rank.max() < self.length:
            yield self._append(steps.series, steps.time, steps.values, steps.fresh, rank, nth)
            return
        turn = rank // self.length
        for i in range(int(turn.max()) + 1):
            now = turn == i
            yield self._append(
                steps.series[now], steps.time[now], steps.values[now], steps.fresh[now], rank[now] - i * self.length,
                nth[now],
            )  # fmt: skip

    def _append(
        self, s: NDArray[np.int32], time: NDArray[np.int64], values: NDArray[np.float32], fresh: NDArray[np.bool_],
        rank: NDArray[np.int64], nth: NDArray[np.int64],
    ) -> Windows:  # fmt: skip
        last = segments.ends(segments.starts(s))
        ids, added = s[last], rank[last] + 1
        full = ids[self.filled[ids] + added > self.length + 1]
        if len(full):
            self._move(full)
        start = self.filled[s] + rank
        self.buffer[s, start + self.length - 1] = values
        self.filled[ids] += added
        self.seen[ids] = nth[last]
        due = self._due(nth, fresh)
        return Windows(s[due], time[due], self._view()[s[due], start[due]])

    def _due(self, nth: NDArray[np.int64], fresh: NDArray[np.bool_]) -> NDArray[np.bool_]:
        due: NDArray[np.bool_] = fresh & (nth >= self.min_steps)
        return due if self.stride == 1 else due & ((nth - self.min_steps) % self.stride == 0)

    def _view(self) -> NDArray[np.float32]:
        """float32 [S, T + 1, T, C]: every window of the buffer, without a copy."""
        if self._viewed is None or self._viewed[0] is not self.buffer:
            row, step, channel = self.buffer.strides
            shape = len(self.buffer), self.length + 1, self.length, self.buffer.shape[2]
            view = np.lib.stride_tricks.as_strided(self.buffer, shape, (row, step, step, channel), writeable=False)
            self._viewed = self.buffer, view
        return self._viewed[1]
