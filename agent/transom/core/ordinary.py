"""What each series looked like before something happened: ordinary windows, kept to explain others by.

Windows in as they are judged; nothing of what is kept changes an event. A window is ordinary when its series has no
alert up or pending; of those one in every T steps is kept, and the one before it, so that there is one that does not
overlap with a window that raises an alert.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import NEVER
from transom.core.model import Outputs, Windows
from transom.core.stream import Stream
from transom.core.table import Table


class Ordinary(Table):
    """latest, newer, older: float32 [S, T, C], the last window judged and two ordinary ones; end: int64 [S] µs, of the
    latest; kept: int8 [S], how many ordinary ones there are; since: int64 [S], steps since `newer`."""

    fills: ClassVar[dict[str, Any]] = {
        "latest": np.nan, "newer": np.nan, "older": np.nan, "end": NEVER, "kept": 0, "since": 0,
    }  # fmt: skip

    def __init__(self, stream: Stream) -> None:
        """Looks on at a stream from now on."""
        super().__init__()
        m = stream.model.manifest
        self._stream, self._length = stream, m.length
        self.latest, self.newer, self.older = (np.zeros((0, m.length, len(m.channels)), np.float32) for _ in range(3))
        self.end, self.since = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.kept = np.zeros(0, np.int8)
        stream.onlooker = self

    def take_over(self, before: "Ordinary") -> None:
        """What was kept of the same stream in another pipeline, if this one goes on from there."""
        if before._stream.fingerprint() == self._stream.fingerprint():
            self.restore(before.snapshot())

    def look(self, windows: Windows, _outputs: Outputs) -> None:
        """Windows that have just been judged."""
        self.resize(self._stream.grid.size)
        last = segments.ends(segments.starts(windows.series))
        series, values = windows.series[last], windows.values[last]
        self.latest[series], self.end[series] = values, windows.end[last]
        self.since[series] += np.diff(last, prepend=-1) * self._stream.spec.stride
        alerts = self._stream.judge.alerts
        calm = ~alerts.active[series] & (alerts.history[series] == 0)
        due = calm & ((self.kept[series] == 0) | (self.since[series] >= self._length))
        ids = series[due]
        self.older[ids], self.newer[ids] = self.newer[ids], values[due]
        self.kept[ids] = np.minimum(self.kept[ids] + 1, 2)
        self.since[ids] = 0

    def reset(self, series: NDArray[np.int32]) -> None:
        self.resize(self._stream.grid.size)
        super().reset(series)

    def window(self, series: int) -> tuple[NDArray[np.float32], int | None] | None:
        """The last window (float32 [T, C]) of a series and when it ended (µs; None when it was judged before anyone
        looked on); None when there is none."""
        if series < self.size and self.end[series] != NEVER:
            return self.latest[series].copy(), int(self.end[series])
        known = self._stream.buffers.last(series)
        return None if known is None else (known, None)

    def reference(self, series: int) -> NDArray[np.float32] | None:
        """float32 [T, C]: an ordinary window from before the last one; None when none has been seen."""
        if series >= self.size or not self.kept[series]:
            return None
        kept = self.older if self.kept[series] == 2 else self.newer
        return np.array(kept[series])
