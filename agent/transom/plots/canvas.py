"""The frame of a panel: the axis of time that its rows share, scales from values to pixels, and their marks.

Columns of a series and a span of time in, SVG elements collected; what is drawn into it is `panel`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from transom.plots import svg
from transom.plots.axes import number, time_ticks, value_ticks
from transom.plots.traces import Group, Trace

LEFT, WIDTH, RIGHT = 78, 900, 22  # px: the axis, the picture, the margin
APART = 7  # px between rows

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Canvas:
    """span: µs, the time axis; most: columns; y: where the next row begins."""

    group: Group
    trace: Trace
    span: tuple[int, int]
    most: int
    parts: list[str] = field(default_factory=list)
    y: float = 0.0

    def seen(self) -> tuple[int, int]:
        row = self.trace.row
        return int(self.group.columns.begin[row]), int(self.group.columns.end[row])

    def ahead(self) -> tuple[Floats, Floats, Floats] | None:
        if self.group.ahead is None or self.trace.row >= len(self.group.ahead.begin):
            return None
        time, low, high = self.group.ahead.read(self.trace.row, self.most)
        return self.x(time), low.astype(np.float64), high.astype(np.float64)

    def at(self, micro: int) -> float:
        begin, end = self.span
        return LEFT + WIDTH * min(1.0, max(0.0, (micro - begin) / max(1, end - begin)))

    def x(self, micro: NDArray[np.int64]) -> Floats:
        begin, end = self.span
        return LEFT + WIDTH * ((micro - begin) / max(1, end - begin)).astype(np.float64)

    def scale(self, low: float, high: float, height: int) -> Callable[[Floats], Floats]:
        """A function from values to y, which ends a little outside the row: a wide band must not run over others."""
        bottom, size = self.y + height, max(high - low, 1e-30)

        def up(values: Floats) -> Floats:
            with np.errstate(invalid="ignore", over="ignore"):
                return np.clip(bottom - height * (values - low) / size, bottom - height, bottom)

        return up

    def axis(self, low: float, high: float, height: int, most: int) -> None:
        up = self.scale(low, high, height)
        ticks = value_ticks(low, high, most) if high > low else [(low, number(low, abs(low) or 1.0))]
        for value, words in ticks:
            y = float(up(np.array([value]))[0])
            self.parts.insert(0, svg.line(LEFT, y, LEFT + WIDTH, y, "g"))  # behind the values
            self.parts.append(svg.label(LEFT - 5, y + 4, words, "s r"))

    def grid(self, top: float) -> None:
        """Marks of time, through all rows; their text below the last."""
        begin, end = self.span
        for micro, words in time_ticks(begin, end, 10):
            x = self.at(micro)
            self.parts.insert(0, svg.line(x, top, x, self.y - APART, "g"))
            self.parts.append(svg.label(x, self.y + 9, words, "s m"))


def extent(values: Sequence[Floats], bands: Sequence[Floats]) -> tuple[float, float]:
    """What an axis shows: all values, and of the bands what lies within half the values' range around them."""
    found = np.concatenate([v[np.isfinite(v)] for v in values] or [np.zeros(0)])
    around = np.concatenate([b[np.isfinite(b)] for b in bands] or [np.zeros(0)])
    if not len(found):
        found = around if len(around) else np.zeros(1)
    low, high = float(found.min()), float(found.max())
    reach = 0.5 * (high - low)
    if len(around):
        low, high = min(low, max(float(around.min()), low - reach)), max(high, min(float(around.max()), high + reach))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
