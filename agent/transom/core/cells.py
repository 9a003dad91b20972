"""Aggregates in the making: readings that fall into the same step and channel become one value.

Columns in, columns out. Sums are added in order of arrival, so that no batching changes their last bit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import NEVER
from transom.core.model import Aggregate


@dataclass(slots=True)
class Cells:
    """value: float64 [G, C]; count: int32 [G, C], readings so far; time: int64 [G, C] µs, of the newest reading; last:
    float64 [G, C], that reading, kept where the largest or smallest is wanted: held is what was there at the end."""

    value: NDArray[np.float64]
    count: NDArray[np.int32]
    time: NDArray[np.int64]
    last: NDArray[np.float64]

    @classmethod
    def empty(cls, groups: int, channels: int, aggregate: Aggregate) -> "Cells":
        start = {"min": np.inf, "max": -np.inf}.get(aggregate, 0.0)
        shape = (groups, channels)
        return cls(np.full(shape, start), np.zeros(shape, np.int32), np.full(shape, NEVER), np.zeros(shape))

    def rows(self, which: NDArray[np.bool_]) -> "Cells":
        return Cells(self.value[which], self.count[which], self.time[which], self.last[which])

    def add(
        self, cell: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64], aggregate: Aggregate
    ) -> None:
        """cell: int64 [n], flat index into [G, C] of each reading, readings in order of arrival within each cell."""
        flat, newest = self.value.reshape(-1), self.time.reshape(-1)
        if aggregate in ("mean", "sum"):
            np.add.at(flat, cell, value)
        elif aggregate == "min":
            np.minimum.at(flat, cell, value)
        elif aggregate == "max":
            np.maximum.at(flat, cell, value)
        if aggregate in ("last", "min", "max") and len(cell):
            order = np.lexsort((time, cell))
            top = order[segments.ends(segments.starts(cell[order]))]
            top = top[time[top] > newest[cell[top]]]
            (flat if aggregate == "last" else self.last.reshape(-1))[cell[top]] = value[top]
        np.add.at(self.count.reshape(-1), cell, 1)
        np.maximum.at(newest, cell, time)

    def result(self, aggregate: Aggregate) -> NDArray[np.float64]:
        """float64 [G, C], NaN where no reading fell (0 for a count)."""
        if aggregate == "count":
            return self.count.astype(np.float64)
        empty = self.count == 0
        value = self.value / np.where(empty, 1, self.count) if aggregate == "mean" else self.value.copy()
        value[empty] = np.nan
        return value

    def carried(self, aggregate: Aggregate) -> NDArray[np.float64]:
        """float64 [G, C], NaN where no reading fell: what later steps without a reading hold."""
        if aggregate not in ("min", "max"):
            return self.result(aggregate)
        return np.where(self.count == 0, np.nan, self.last)
