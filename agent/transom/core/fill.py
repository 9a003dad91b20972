"""Closed steps to gapless ones: missing steps are put in, missing values held up to max_gap and NaN after that."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import MS, NEVER, GridSpec
from transom.core.cells import Cells
from transom.core.readings import Steps
from transom.core.table import Table

HELD_STEPS = 10  # default max_gap, in steps
HELD_READING = 60_000_000  # default max_gap in µs when a step is one reading


class Fill(Table):
    """last_step: int64 [S], begin of the last step given out; held, held_time: [S, C], each channel's last value."""

    fills: ClassVar[dict[str, Any]] = {"last_step": NEVER, "held": 0.0, "held_time": NEVER}

    def __init__(self, spec: GridSpec, channels: int, length: int) -> None:
        """length: steps in a window; a longer gap is not filled further, the rest would push itself out again."""
        super().__init__()
        self.spec, self.channels, self.length = spec, channels, length
        self.step = spec.step * MS if spec.step else None
        default = HELD_STEPS * self.step if self.step else HELD_READING
        self.max_gap = spec.max_gap * MS if spec.max_gap else default
        self.last_step = np.zeros(0, np.int64)
        self.held = np.zeros((0, channels), np.float64)
        self.held_time = np.zeros((0, channels), np.int64)

    def fill(self, s: NDArray[np.int32], k: NDArray[np.int64], cells: Cells) -> Steps:
        """s, k: series and begin of closed steps, sorted by series, each series in order of closing."""
        first = segments.starts(s)
        values, times = cells.result(self.spec.aggregate), np.where(cells.count > 0, cells.time, NEVER)
        carried = cells.carried(self.spec.aggregate)
        fresh = np.ones(len(s), bool)
        if self.step is not None:
            repeat = self._missing(s, k, first, self.step) + 1
            if len(s) and repeat.max() > 1:
                real = np.cumsum(repeat) - 1
                owner = np.repeat(np.arange(len(s)), repeat)
                k = k[owner] - (real[owner] - np.arange(len(owner))) * self.step
                s, fresh = s[owner], np.zeros(len(owner), bool)
                fresh[real] = True
                values, times, carried = values[owner], times[owner], carried[owner]
                values[~fresh] = 0.0 if self.spec.aggregate == "count" else np.nan
                times[~fresh] = NEVER
                first = segments.starts(s)
        self.last_step[s[segments.ends(first)]] = k[segments.ends(first)]
        if self.step is not None or self.channels > 1:  # else a step exists only with its reading
            values = self._hold(s, k, first, values, times, carried)
        return Steps(s, k, values.astype(np.float32), fresh)

    def take_plain(self, s: NDArray[np.int32], time: NDArray[np.int64], value: NDArray[np.float64]) -> Steps:
        """`fill` of one reading each of these (distinct) series, where a step is one reading of the only channel."""
        self.last_step[s] = time
        if self.spec.aggregate == "count":
            value = np.ones(len(s))
        elif self.spec.aggregate in ("mean", "sum"):
            value = value + 0.0  # a sum that begins at 0 has no -0
        return Steps(s, time, value.astype(np.float32)[:, None], np.ones(len(s), bool))

    def _missing(
        self, s: NDArray[np.int32], k: NDArray[np.int64], first: NDArray[np.bool_], step: int
    ) -> NDArray[np.int64]:
        """int64 [n]: steps without a reading before each."""
        previous = np.empty_like(k)
        previous[1:] = k[:-1]
        previous[first] = self.last_step[s[first]]
        missing = np.where(previous == NEVER, 0, (k - previous) // step - 1)
        return np.clip(missing, 0, self.length)

    def _hold(
        self, s: NDArray[np.int32], k: NDArray[np.int64], first: NDArray[np.bool_], values: NDArray[np.float64],
        times: NDArray[np.int64], carried: NDArray[np.float64],
    ) -> NDArray[np.float64]:  # fmt: skip
        """Puts each channel's last value, `carried`, where there is none, and remembers it for the next batch."""
        row = np.arange(len(s))[:, None]
        source = np.maximum.accumulate(np.where(np.isnan(values), -1, row), axis=0)
        inside = source >= segments.start_of(first)[:, None]
        column = np.arange(self.channels)[None, :]
        value = np.where(inside, carried[source, column], self.held[s])
        time = np.where(inside, times[source, column], self.held_time[s])
        last = segments.ends(first)
        self.held[s[last]], self.held_time[s[last]] = value[last], time[last]
        held = np.isnan(values) & (time != NEVER) & (k[:, None] - time <= self.max_gap)
        return np.where(held, value, values)
