"""What a picture needs of the events that pass: columns of each series, and the alerts of each variant.

Events in, while they come; bounded memory whatever the length. Draws nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import Alert, Events, Predictions
from transom.plots.columns import Columns

MOST_SPANS = 400  # alerts of a series and variant that are kept one by one
ALL_SPANS = 20_000  # alerts kept one by one in all
LONGEST = 400  # characters of a summary

Key = tuple[str, str]  # stream, series


class Timing(NamedTuple):
    """step: µs between the steps of a stream, None where a step is a reading; stride: steps between two windows."""

    step: int | None
    stride: int


@dataclass(slots=True)
class Span:
    """An alert from its raise on. end: µs, None while it is up; more: alerts after it that are drawn as one with it."""

    id: str
    kind: str
    severity: str
    begin: int
    summary: str
    end: int | None = None
    more: int = 0


@dataclass(slots=True)
class Trace:
    """One series: its rows in the columns, and what the latest window said. channels, targets: names; forecast:
    float32 [H, C, 3] of the last window, at `last`."""

    key: Key
    model: str
    channels: tuple[str, ...]
    targets: tuple[str, ...]
    classes: tuple[str, ...]
    row: int
    last: int = 0
    lead: int = 1
    step: int = 0  # µs, as known or found
    forecast: NDArray[np.float32] | None = None


@dataclass(slots=True)
class Group:
    """Series of one stream and shape. Of each the smallest of value, lower bound, expected [C each], p-value and
    forecast bound and middle [C_targets each], and the largest of value, upper bound, expected, score, state,
    probability [K], forecast bound and middle. Forecasts stand at the time that they are about, in columns of their
    own."""

    channels: int
    classes: int
    targets: int
    columns: Columns
    ahead: Columns | None
    traces: list[Trace] = field(default_factory=list)


class Traces:
    """`take` each batch of events; then `order` and `group_of` give what is to be drawn.

    timing: of a stream by name; variants: how many sets of alerts there are. Predictions are those of the first.
    """

    def __init__(self, timing: Callable[[str], Timing], variants: int = 1) -> None:
        self._timing = timing
        self.spans: list[dict[Key, list[Span]]] = [{} for _ in range(variants)]
        self.left_out: set[Key] = set()  # series for which there was no room
        self._open: list[dict[str, Span]] = [{} for _ in range(variants)]
        self._kept = 0
        self._groups: dict[tuple[object, ...], Group] = {}
        self._traces: dict[Key, tuple[Group, Trace]] = {}

    def take(self, events: Events, variant: int = 0) -> None:
        if variant == 0:
            for batch in events.predictions:
                self._take_predictions(batch)
        for alert in events.alerts:
            self._take_alert(alert, variant)

    def __getitem__(self, key: Key) -> tuple[Group, Trace]:
        return self._traces[key]

    def order(self) -> list[Key]:
        """The series with something to draw: those with most alerts first, then as they came."""

        def alerts(key: Key) -> int:
            return max(sum(1 + s.more for s in spans.get(key, ())) for spans in self.spans)

        return sorted(self._traces, key=lambda key: -alerts(key))

    # --- alerts -------------------------------------------------------------------------------------------------------

    def _take_alert(self, alert: Alert, variant: int) -> None:
        spans = self.spans[variant].setdefault((alert.stream, alert.series), [])
        known = self._open[variant].get(alert.id)
        if alert.event == "clear":
            if known is not None:
                known.end = max(known.end or alert.time, alert.time)
                del self._open[variant][alert.id]
            return
        if known is not None:
            if alert.severity == "critical":
                known.severity = "critical"
            return
        if alert.event != "raise":
            return
        if spans and (len(spans) >= MOST_SPANS or self._kept >= ALL_SPANS):
            joined = spans[-1]
            joined.more, joined.end = joined.more + 1, None
            self._open[variant][alert.id] = joined
            return
        self._kept += 1
        span = Span(alert.id, alert.kind, alert.severity, alert.since, alert.summary[:LONGEST])
        spans.append(span)
        self._open[variant][alert.id] = span

    # --- predictions --------------------------------------------------------------------------------------------------

    def _take_predictions(self, batch: Predictions) -> None:
        n, c = batch.value.shape
        k = 0 if batch.probability is None else batch.probability.shape[1]
        t = 0 if batch.forecast is None else batch.forecast.shape[2]
        shape = (batch.stream, batch.model, c, k, t)
        group = self._groups.get(shape)
        if group is None:
            ahead = Columns(2 * t, 2 * t) if t else None
            group = self._groups[shape] = Group(c, k, t, Columns(3 * c + 1, 3 * c + 2 + k), ahead)
        rows = np.array([self._row(group, batch, i) for i in range(n)], np.int64)
        kept = np.flatnonzero(rows >= 0)
        if not len(kept):
            return
        low, high = _quantities(batch)
        group.columns.add(rows[kept], batch.end[kept], low[kept], high[kept])
        self._remember(group, batch, rows)

    def _row(self, group: Group, batch: Predictions, i: int) -> int:
        key = batch.stream, batch.series[i]
        known = self._traces.get(key)
        if known is not None:
            return known[1].row if known[0] is group else -1
        row = group.columns.new()
        if row is None or (group.ahead is not None and group.ahead.new() is None):
            if len(self.left_out) < ALL_SPANS:
                self.left_out.add(key)
            return -1
        channels = batch.channels[i]
        trace = Trace(
            key, batch.model, channels, batch.targets or (channels if group.targets else ()), batch.classes, row,
            lead=batch.lead, step=self._timing(batch.stream).step or 0,
        )  # fmt: skip
        group.traces.append(trace)
        self._traces[key] = group, trace
        return row

    def _remember(self, group: Group, batch: Predictions, rows: NDArray[np.int64]) -> None:
        """Forecasts at the times that they are about, where the spacing of the windows is known."""
        if batch.forecast is None or group.ahead is None:
            return
        step, stride = self._timing(batch.stream)
        due = np.zeros(len(rows), np.int64)
        middle = batch.forecast.shape[3] // 2
        three = batch.forecast[:, :, :, [0, middle, -1]]
        for i in np.flatnonzero(rows >= 0).tolist():
            trace, end = group.traces[rows[i]], int(batch.end[i])
            if step is None and trace.last and end > trace.last:
                trace.step = (end - trace.last) // stride
            trace.last, trace.forecast = end, three[i]
            due[i] = end + (three.shape[1] - 1 + trace.lead) * trace.step if trace.step else 0
        known = np.flatnonzero(due)
        low, mid, high = (three[known, -1, :, q] for q in range(3))
        group.ahead.add(rows[known], due[known], np.concatenate([low, mid], 1), np.concatenate([high, mid], 1))


def _quantities(batch: Predictions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the columns of a group keep: low [B, 3 C + 1], high [B, 3 C + 2 + K]."""
    none = np.full_like(batch.value, np.nan)
    one = np.full((len(batch), 1), np.nan, np.float32)
    expected = none if batch.expected is None else batch.expected
    lower, upper = (none, none) if batch.interval is None else (batch.interval[:, :, 0], batch.interval[:, :, 1])
    p = one if batch.p_value is None else batch.p_value[:, None].astype(np.float32)
    if batch.p_value is not None:  # float32 ends at 1e-38
        p = np.maximum(p, np.float32(1e-37))
    score = one if batch.score is None else batch.score[:, None]
    parts = [batch.value, upper, expected, score, batch.state[:, None].astype(np.float32)]
    if batch.probability is not None:
        parts.append(batch.probability)
    low, high = np.concatenate([batch.value, lower, expected, p], 1), np.concatenate(parts, 1)
    learning = batch.state == State.LEARNING
    if learning.any() and batch.p_value is not None:
        low[learning, -1] = np.nan  # a p-value that decides nothing yet
    return low, high
