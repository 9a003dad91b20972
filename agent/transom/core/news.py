"""What is news: a surprise larger than all within the recent memory. Surprise in, news or not out.

An event goes on for many windows, and each of them is as unlikely as the first. Only a new record is told: the memory
is a share of what the series has shown, for who has watched for a day cannot know what recurs in a week. On normal
data surprises over a high bar are rare and far apart, so leaving out what is no record changes their number little.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.table import Table

SHARE = 0.1  # of the windows so far, that records are remembered for
LEAST, MOST = 5, 2000  # windows
KEPT = 8  # records that wait for a higher one; where they are more the lowest are forgotten


class Records(Table):
    """height: float32 [S, KEPT], surprise of the records that no later one has exceeded, falling; row: int32 [S, KEPT],
    the window each came in; rows: int32 [S], windows so far."""

    fills: ClassVar[dict[str, Any]] = {"height": -1.0, "row": 0, "rows": 0}

    def __init__(self) -> None:
        super().__init__()
        self.height, self.row = np.zeros((0, KEPT), np.float32), np.zeros((0, KEPT), np.int32)
        self.rows = np.zeros(0, np.int32)

    def news(
        self, series: NDArray[np.int32], surprise: NDArray[np.float64], shorter: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """surprise: float64 [n] of distinct series; shorter: float64 [n], windows -> bool [n] twice: larger than all in
        memory, and larger than all of the last `shorter` windows in memory; then remembered."""
        s = surprise.astype(np.float32)
        rows, height, row = self.rows[series], self.height[series], self.row[series]
        memory = np.minimum(np.maximum(SHARE * rows, LEAST), MOST)
        age = rows[:, None] - row
        height[age > memory[:, None]] = -1.0
        lately = s > np.where(age <= shorter[:, None], height, np.float32(-1.0)).max(1)
        news = s > height.max(1)
        height[height <= s[:, None]] = -1.0
        at = height.argmin(1)
        n = np.arange(len(s))
        taken = height[n, at] < s
        height[n[taken], at[taken]], row[n[taken], at[taken]] = s[taken], rows[taken]
        self.height[series], self.row[series], self.rows[series] = height, row, rows + 1
        return np.asarray(news), np.asarray(lately)
