"""Two models on the same windows: what both said comes in turn by turn, figures and a verdict go out.

Knows no thread, no clock and no file. `base` is the model that ran before, `new` the one that is tried, whichever of
them is live.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import Predictions

LEAST = 30  # windows before anything is said of a model
SLACK = 3.0  # standard deviations of a Poisson count, and alarms, that the alarms of a model may be above its bound
ALERT_SLACK = 0.05  # share of its windows that a model may be in alert beyond its bound
MOST_SCORED = 256  # windows of a turn whose forecasts are held against what came
MOST_AWAITED = 20_000  # series
PACES = 64  # measurements of latency that are kept
TINY = 1e-12


class Bounds(NamedTuple):
    """Ratios of the new model's figure to the base's, and the least share of windows in which both say the same."""

    alarm_ratio: float
    error_ratio: float
    latency_ratio: float
    agreement: float


class Pair(NamedTuple):
    """One figure of both models."""

    base: float
    new: float

    @property
    def ratio(self) -> float:
        return self.new / max(self.base, TINY)


class Comparison:
    """stride: steps between windows; step: µs of a timed grid, None where a step is a reading."""

    def __init__(self, stride: int = 1, step: int | None = None) -> None:
        self._stride, self._step = stride, step
        self.windows = self.unmatched = self.agreed = 0
        self._in_alert = np.zeros(2, np.int64)  # windows
        self._sums = np.zeros(5)  # of x, y, xx, yy, xy; x, y: -log p of base and new
        self._paired = 0
        self._errors: NDArray[np.float64] | None = None  # [2, C], sums of absolute errors of base and new
        self.scored = 0
        self._awaited: dict[str, tuple[int, NDArray[np.float32]]] = {}  # by series: end of the window, forecasts [2, C]
        self._paces: deque[Pair] = deque(maxlen=PACES)
        self.alarms = Pair(0, 0)

    # --- what both said -----------------------------------------------------------------------------------------------

    def add(self, base: Sequence[Predictions], new: Sequence[Predictions]) -> None:
        """What both made of the windows of one turn."""
        old, its = _Rows.of(base, self._stride), _Rows.of(new, self._stride)
        if old is None or its is None:
            self.unmatched += len(old.end if old is not None else its.end if its is not None else ())
            return
        rows, other = _matched(old, its)
        self.unmatched += max(len(old.end), len(its.end)) - len(rows)
        if not len(rows):
            return
        self.windows += len(rows)
        up = old.state[rows] == State.ALERT, its.state[other] == State.ALERT
        self._in_alert += [int(side.sum()) for side in up]
        if old.label is not None and its.label is not None:
            self.agreed += int((old.label[rows] == its.label[other]).sum())
        else:
            self.agreed += int((up[0] == up[1]).sum())
        if old.p_value is not None and its.p_value is not None:
            x, y = (-np.log(np.maximum(p, TINY)) for p in (old.p_value[rows], its.p_value[other]))
            self._sums += [x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
            self._paired += len(x)
        if old.ahead is not None and its.ahead is not None:
            self._score(old, its, rows[:MOST_SCORED], other[:MOST_SCORED])

    def pace(self, base: float, new: float) -> None:
        """Seconds that each took for one and the same batch."""
        self._paces.append(Pair(base, new))

    def _score(self, old: "_Rows", its: "_Rows", rows: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        assert old.ahead is not None
        assert its.ahead is not None
        if len(self._awaited) > MOST_AWAITED:  # of series that are long gone, most of them
            self._awaited.clear()
        for i, j in zip(rows.tolist(), other.tolist(), strict=True):
            series, end = old.series[i], int(old.end[i])
            before = self._awaited.get(series)
            if before is not None and self._follows(before[0], end):
                error = np.abs(before[1].astype(np.float64) - old.value[i][: before[1].shape[1]])
                if np.isfinite(error).all():
                    self._errors = error if self._errors is None else self._errors + error
                    self.scored += 1
            self._awaited[series] = end, np.stack([old.ahead[i], its.ahead[j]])

    def _follows(self, before: int, end: int) -> bool:
        return end > before and (self._step is None or end - before == self._stride * self._step)

    # --- figures ------------------------------------------------------------------------------------------------------

    @property
    def agreement(self) -> float:
        """Share of windows in which both say alert, or neither does; of a classifier, the same class."""
        return self.agreed / max(self.windows, 1)

    @property
    def in_alert(self) -> Pair:
        """Shares of windows."""
        return Pair(*(self._in_alert / max(self.windows, 1)).tolist())

    @property
    def correlation(self) -> float | None:
        """Of -log p; None where nothing varies."""
        n, (x, y, xx, yy, xy) = max(self._paired, 1), self._sums.tolist()
        spread = (xx - x * x / n) * (yy - y * y / n)
        return (xy - x * y / n) / float(np.sqrt(spread)) if spread > TINY else None

    @property
    def error_ratio(self) -> float | None:
        """Mean over the channels of the ratio of mean absolute errors; None while nothing was forecast."""
        if self._errors is None or not self.scored:
            return None
        return float(np.mean(self._errors[1] / np.maximum(self._errors[0], TINY)))

    @property
    def paces(self) -> int:
        """Measurements of latency that are kept."""
        return len(self._paces)

    @property
    def latency(self) -> Pair | None:
        """Seconds a batch, median."""
        if not self._paces:
            return None
        return Pair(*np.median(np.array(self._paces), axis=0).tolist())

    def figures(self) -> dict[str, Any]:
        """For people and health; what is not known is left out."""
        latency, alert = self.latency, self.in_alert
        found: dict[str, Any] = {
            "windows": self.windows, "agreement": self.agreement, "correlation": self.correlation,
            "alarms": self.alarms.new, "alarms_before": self.alarms.base,
            "in_alert": alert.new, "in_alert_before": alert.base, "error_ratio": self.error_ratio,
        }  # fmt: skip
        if latency is not None:
            found |= {"latency_ratio": latency.ratio, "latency_ms": 1e3 * latency.new}
        return {key: round(value, 4) for key, value in found.items() if value is not None}

    def failure(self, bounds: Bounds, expected: float) -> str:
        """Why the new model is out of bounds; "" while it is not. expected: alarms that the budget allows so far."""
        if self.windows < LEAST:
            return ""
        alarms, alert, error, latency = self.alarms, self.in_alert, self.error_ratio, self.latency
        usual = bounds.alarm_ratio * max(expected, alarms.base)
        if alarms.new > usual + SLACK * (1 + usual**0.5):
            return f"{alarms.new:.0f} alarms, where the other model raises {alarms.base:.0f}" + (
                f" and the budget allows {expected:.2g}" if expected else ""
            )
        if alert.new > bounds.alarm_ratio * alert.base + ALERT_SLACK:
            return f"in alert in {alert.new:.0%} of the windows, the other model in {alert.base:.0%}"
        if self.agreement < bounds.agreement:
            return f"says what the other model says in {self.agreement:.0%} of the windows"
        if error is not None and self.scored >= LEAST and error > bounds.error_ratio:
            return f"its error is {error:.3g} times that of the other model"
        if latency is not None and latency.ratio > bounds.latency_ratio:
            return f"takes {latency.ratio:.3g} times as long as the other model"
        return ""


class _Rows:
    """The predictions of one model in one turn, as one batch. label: int64 [n], the likeliest class; ahead: float32
    [n, C], what it foresees for the next window's last step, None where it says nothing of that."""

    def __init__(self, batches: Sequence[Predictions], stride: int) -> None:
        self.series = [name for batch in batches for name in batch.series]
        self.end, self.state = (np.concatenate([getattr(b, key) for b in batches]) for key in ("end", "state"))
        self.value = np.concatenate([b.value for b in batches])
        first = batches[0]
        self.p_value = None if first.p_value is None else np.concatenate([_known(b.p_value) for b in batches])
        self.label = None
        if first.probability is not None:
            self.label = np.concatenate([np.nan_to_num(_known(b.probability)).argmax(1) for b in batches])
        self.ahead = None
        horizon = 0 if first.forecast is None else first.forecast.shape[1]
        if horizon >= stride and first.lead == 1 and not first.targets:
            middle = int(np.abs(np.array(first.quantiles) - 0.5).argmin())
            self.ahead = np.concatenate([_known(b.forecast)[:, stride - 1, :, middle] for b in batches])

    @classmethod
    def of(cls, batches: Sequence[Predictions], stride: int) -> "_Rows | None":
        some = [batch for batch in batches if len(batch)]
        return cls(some, stride) if some else None


def _known(array: NDArray[Any] | None) -> NDArray[Any]:
    assert array is not None
    return array


def _matched(old: _Rows, its: _Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of both that are of the same window."""
    if old.series == its.series and np.array_equal(old.end, its.end):
        rows = np.arange(len(old.end))
        return rows, rows
    where = {key: i for i, key in enumerate(zip(its.series, its.end.tolist(), strict=True))}
    pairs = [
        (i, where[key]) for i, key in enumerate(zip(old.series, old.end.tolist(), strict=True)) if key in where
    ]  # fmt: skip
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
