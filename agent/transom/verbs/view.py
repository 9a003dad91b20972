"""What the demo shows: a live table of series and the latest alerts, for any width. State in, rich renderables out."""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from transom.core.alerts import State
from transom.core.events import Alert, Events, Predictions, lasted, shown
from transom.core.printable import printable
from transom.dialects.plain import rfc3339
from transom.scenes.scene import METRES

POINTS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
BLOCKS = "▁▂▃▄▅▆▇█"
KEPT = 120  # values of a series that are kept for its sparkline
STYLES = {"learning": "cyan", "normal": "green", "pending": "yellow", "alert": "bold red", "stale": "magenta"}
MARKS = {"raise": "▲", "update": "△", "clear": "▼"}


@dataclass(slots=True)
class Row:
    """A series as last seen."""

    stream: str
    series: str
    unit: str
    values: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    expected: tuple[float, float, float] | None = None  # of now, or of `ahead`
    ahead: str = ""  # how far from now the forecast is, as in "30 min"
    kind: str = ""  # what it was recognised as, as in "kettle 97 %"
    score: float = 0.0
    state: str = "learning"


@dataclass(slots=True)
class View:
    """Everything that is on the screen; `take` is called by the run loop, `__rich_console__` by the screen."""

    units: dict[tuple[str, str], str]  # by stream and channel
    steps: dict[str, int | None] = field(default_factory=dict)  # µs of a stream's grid step, None: a reading
    earth: frozenset[str] = frozenset()  # streams whose targets are latitude and longitude
    headline: str = "starting"
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=200))

    def take(self, events: Events) -> None:
        for batch in events.predictions:
            for i, series in enumerate(batch.series):
                self._row(batch, i, series)
        for alert in events.alerts:
            self.alerts.appendleft(alert)
            silent = self.rows.get((alert.stream, alert.series))
            if alert.kind == "no-data" and silent is not None:
                silent.state = "stale" if alert.event == "raise" else silent.state

    def _row(self, batch: Predictions, i: int, series: str) -> None:
        target = batch.targets[0] if batch.targets else batch.channels[i][0]
        c = batch.channels[i].index(target) if target in batch.channels[i] else 0
        onward = batch.stream in self.earth and batch.forecast is not None
        if onward:  # degrees tell a person nothing: what else the vehicle says of itself is shown
            c = next((j for j, name in enumerate(batch.channels[i]) if name not in batch.targets), c)
        row = self.rows.get((batch.stream, series))
        if row is None:
            unit = self.units.get((batch.stream, batch.channels[i][c]), "")
            row = self.rows[batch.stream, series] = Row(batch.stream, series, unit)
        row.values.append(float(batch.value[i, c]))
        if batch.expected is not None and batch.interval is not None:
            low, high = batch.interval[i, c]
            row.expected = (float(batch.expected[i, c]), float(low), float(high))
        if batch.forecast is not None and onward:
            here = batch.value[i, [batch.channels[i].index(t) for t in batch.targets]].astype(np.float64)
            steps = batch.forecast.shape[1] - 1 + batch.lead
            row.kind = f"in {ahead(steps, self.steps.get(batch.stream))} {way(here, batch.forecast[i, -1])}"
        elif batch.forecast is not None:
            last = batch.forecast[i, -1, 0]
            row.expected = (float(last[len(last) // 2]), float(last[0]), float(last[-1]))
            row.ahead = ahead(batch.forecast.shape[1] - 1 + batch.lead, self.steps.get(batch.stream))
        if batch.probability is not None:
            best = int(batch.probability[i].argmax())
            row.kind = f"{batch.classes[best]} {100 * float(batch.probability[i, best]):.0f} %"
        row.score = float(batch.score[i]) if batch.score is not None else 0.0
        row.state = State(batch.state[i]).name.lower()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        rows = sorted(self.rows.items())
        room = max(1, height - 4)
        shown_rows = rows[: max(1, min(len(rows), room - 3))]
        alerts = list(self.alerts)[: max(1, room - len(shown_rows) - 1)]
        parts: list[RenderableType] = [
            Text(self.headline, style="bold", no_wrap=True, overflow="ellipsis"),
            self._table(shown_rows, options.max_width),
        ]
        parts += [alert_line(a, options.max_width) for a in alerts]
        yield Group(*parts)

    def _table(self, rows: list[tuple[tuple[str, str], Row]], width: int) -> Table:
        table = Table(box=None, padding=(0, 1), pad_edge=False, expand=False)
        wide = width >= 110
        if wide:
            table.add_column("stream", no_wrap=True)
        spark = max(8, min(60, width - (98 if wide else 68)))
        table.add_column("series", no_wrap=True, overflow="ellipsis", max_width=24)
        table.add_column("last values", no_wrap=True, width=spark)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("expected", justify="right", no_wrap=True)
        if wide:
            table.add_column("score", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=8)
        for _, row in rows:
            value = f"{shown(row.values[-1])} {row.unit}".rstrip() if row.values else ""
            band = row.kind
            if row.expected is not None:
                middle, low, high = map(shown, row.expected)
                band = f"{middle} ({low} to {high})" if wide else f"{low} to {high}"
                band = f"in {row.ahead} {band}" if row.ahead else band
            cells = [printable(row.series), sparkline(list(row.values), spark), value, band]
            if wide:
                cells = [row.stream, *cells, f"{row.score:.2f}"]
            table.add_row(*map(Text, cells), Text(row.state, style=STYLES[row.state]))
        return table


def ahead(steps: int, step: int | None) -> str:
    """How far a forecast looks, for a person. step: µs, None where a step is a reading."""
    return lasted(steps * step) if step else f"{steps} readings"


def way(here: NDArray[np.float64], there: NDArray[np.floating]) -> str:
    """How far and whither, as in "48 m NW ± 6 m". here: [2], latitude and longitude; there: [2, Q], its quantiles."""
    metres = METRES * np.array([1.0, np.cos(np.radians(here[0]))])
    north, east = (there[:, there.shape[1] // 2] - here) * metres
    spread = float(np.linalg.norm((there[:, -1] - there[:, 0]) * metres)) / 2
    point = POINTS[round(float(np.degrees(np.arctan2(east, north))) / 45) % 8]
    return f"{math.hypot(north, east):.0f} m {point} ± {spread:.0f} m"


def sparkline(values: list[float], width: int) -> str:
    """The last `width` values as blocks between their smallest and largest."""
    values = values[-width:]
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    return "".join(BLOCKS[int(7.999 * (v - low) / span) if span else 0] for v in values)


def alert_line(alert: Alert, width: int) -> Text:
    """One line: time, mark, severity, series and the sentence, cut at the screen's edge."""
    style = "green" if alert.event == "clear" else "bold red" if alert.severity == "critical" else "yellow"
    words = f" {alert.event:6} {alert.severity:8} " if width >= 110 else " "  # the mark says it as well
    text = Text(f"{rfc3339(alert.time)[11:19]} {MARKS[alert.event]}{words}", style=style, no_wrap=True)
    text.append(printable(f"{alert.series}: {alert.summary}"), style="default")
    text.truncate(width, overflow="ellipsis")
    return text
