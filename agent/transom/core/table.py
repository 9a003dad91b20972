"""Arrays with a row a series that grow by a quarter, reset, save and restore together.

The base of every room of the core that keeps state; it knows nothing of what the columns mean.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Table:
    """Subclasses name their columns in `fills` (column: what a row holds when nothing is known) and make them empty."""

    fills: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.size = 0

    def resize(self, size: int) -> None:
        """Makes room for series ids below `size`, and a quarter more than there was: growth costs five copies of a row
        at most, and as much room stands empty at most."""
        if size <= self.size:
            return
        self.size = max(size, self.size + self.size // 4, 16)
        for name, fill in self.fills.items():
            column = getattr(self, name)
            bigger = np.full((self.size, *column.shape[1:]), fill, column.dtype)
            bigger[: len(column)] = column
            setattr(self, name, bigger)

    def reset(self, series: NDArray[np.int32]) -> None:
        """series: int32 [n], rows that are as new after this."""
        for name, fill in self.fills.items():
            getattr(self, name)[series] = fill

    def snapshot(self) -> dict[str, Any]:
        """Copies of all columns."""
        return {"size": self.size, **{name: getattr(self, name).copy() for name in self.fills}}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave. A column that an older version did not have is as new."""
        self.size = int(state["size"])
        for name, fill in self.fills.items():
            if name in state:
                setattr(self, name, np.array(state[name]))
            else:
                column = getattr(self, name)
                setattr(self, name, np.full((self.size, *column.shape[1:]), fill, column.dtype))
