"""How long an alert stays up when a series' own past has raised it: until the value is back, or has stayed for long.

What was seen a few times is no news to the past, so the p-value of a fault that goes on soon says nothing any more. The
value does: it is back when it is less than half as far from where it should be as it was when the alert was raised.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.table import Table

ACCEPT = 1000  # windows after which what goes on is a new usual, at most, where no setting says so
BACK = 0.5  # of the distance at the raise
HOUR = (
    1  # the side (see `own.Told`) in which the value is strange for the hour: where it should be moves with the habit
)


class Hold(Table):
    """habit: bool [S], it should be where the habit is, else at `before`: float64 [S], the mean of late at the raise;
    away: float64 [S], how far from there it was; windows: int32 [S], since the raise."""

    fills: ClassVar[dict[str, Any]] = {"habit": False, "before": 0.0, "away": 0.0, "windows": 0}

    def __init__(self) -> None:
        super().__init__()
        self.habit = np.zeros(0, bool)
        self.before, self.away = np.zeros(0), np.zeros(0)
        self.windows = np.zeros(0, np.int32)

    def over(
        self, series: NDArray[np.int32], value: NDArray[np.float64], usual: NDArray[np.float64],
        longest: NDArray[np.float64],
    ) -> NDArray[np.bool_]:  # fmt: skip
        """bool [n]: an alert of these series may end. value, usual: float64 [n], of this window, which is counted;
        longest: float64 [n], windows after which it may in any case."""
        self.windows[series] += 1
        should = np.where(self.habit[series], usual, self.before[series])
        stays = np.abs(value - should) > BACK * self.away[series]  # False where either is unknown
        return np.asarray(~stays | (self.windows[series] > longest))

    def begin(
        self, series: NDArray[np.int32], value: NDArray[np.float64], side: NDArray[np.float64],
        usual: NDArray[np.float64], level: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """An alert of these series is raised by this window; side, usual, level: float64 [n], see `own.Told`."""
        habit = side == HOUR
        self.habit[series], self.before[series], self.windows[series] = habit, level, 0
        self.away[series] = np.abs(value - np.where(habit, usual, level))
