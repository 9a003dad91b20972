"""What a point of a series is made of: the numbers of a prediction side by side, and where each stands.

Predictions in, float32 rows out. A layout follows from the model alone; points of two layouts never mix.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.events import Predictions

Floats = NDArray[np.float32]


class Layout(NamedTuple):
    """channels: C; expected, interval, score: whether the task gives them; classes: the names of its K probabilities;
    forecast: (H, C, Q) of its forecasts, () for none; quantiles, targets, lead: as in Predictions.

    A row is value [C], expected [C], low [C], high [C], score, p-value, probability [K]: NaN where there is none."""

    channels: int
    expected: bool
    interval: bool
    score: bool
    classes: tuple[str, ...]
    forecast: tuple[int, ...]
    quantiles: tuple[float, ...]
    targets: tuple[str, ...]
    lead: int

    @classmethod
    def of(cls, batch: Predictions) -> "Layout":
        return cls(
            batch.value.shape[1], batch.expected is not None, batch.interval is not None, batch.score is not None,
            batch.classes if batch.probability is not None else (),
            batch.forecast.shape[1:] if batch.forecast is not None else (), batch.quantiles, batch.targets, batch.lead,
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return 4 * self.channels + 2 + len(self.classes)

    @property
    def score_at(self) -> int:
        """Where the score stands in a row; the p-value stands behind it."""
        return 4 * self.channels

    def rows(self, batch: Predictions) -> Floats:
        """float32 [B, width]."""
        c, rows = self.channels, np.full((len(batch), self.width), np.nan, np.float32)
        columns: list[tuple[int, int, NDArray[Any] | None]] = [
            (0, c, batch.value),
            (c, 2 * c, batch.expected),
            (2 * c, 3 * c, None if batch.interval is None else batch.interval[:, :, 0]),
            (3 * c, 4 * c, None if batch.interval is None else batch.interval[:, :, 1]),
            (4 * c, 4 * c + 1, None if batch.score is None else batch.score[:, None]),
            (4 * c + 1, 4 * c + 2, None if batch.p_value is None else batch.p_value[:, None]),
            (4 * c + 2, self.width, batch.probability),
        ]
        for begin, end, column in columns:
            if column is not None:
                rows[:, begin:end] = column
        return rows
