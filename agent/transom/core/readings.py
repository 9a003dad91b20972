"""Readings as columns, and what became of each: accepted, invalid, duplicate or late are results, not log lines."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Fate(IntEnum):
    """What became of a reading; every one has exactly one fate."""

    ACCEPTED = 0
    INVALID = 1
    DUPLICATE = 2
    LATE = 3


@dataclass(frozen=True, slots=True)
class Readings:
    """Decoded readings of one stream in order of arrival; all values are finite.

    series: int32 [n]; channel: int16 [n]; time: int64 [n], µs since 1970; value: float64 [n], raw units;
    received: int64 [n], µs since 1970, when the message arrived; arrival: bool [n], True where `time` is the time of
    arrival because the payload names none.
    """

    series: NDArray[np.int32]
    channel: NDArray[np.int16]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    received: NDArray[np.int64]
    arrival: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, rows: slice) -> "Readings":
        return Readings(
            self.series[rows], self.channel[rows], self.time[rows], self.value[rows], self.received[rows],
            self.arrival[rows],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steps:
    """Closed steps, sorted by series and, within a series, in the order in which they closed.

    series: int32 [n]; time: int64 [n], µs since 1970, where the step begins; values: float32 [n, C], NaN where missing;
    fresh: bool [n], True where at least one reading fell into the step, False where it was filled.
    """

    series: NDArray[np.int32]
    time: NDArray[np.int64]
    values: NDArray[np.float32]
    fresh: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.series)
