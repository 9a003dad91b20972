"""What alerts a recording would have raised: counted by series for each variant, and told as a table.

Events in, rows for a person out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transom.core.events import Events, lasted
from transom.core.printable import printable
from transom.dialects.plain import rfc3339

DAY = 86_400_000_000  # µs
SERIES = 20  # in the table


@dataclass(slots=True)
class Counts:
    """Of one series, or of all. begin, end: µs of the first and last window; held: µs in alert, each moment once;
    longest: µs; first: µs of the first alert."""

    begin: int = 1 << 62
    end: int = -(1 << 62)
    alerts: int = 0
    held: int = 0
    longest: int = 0
    first: int | None = None
    open: dict[str, int] = field(default_factory=dict)  # since, by id
    since: int = 0  # when the first of those that are open began
    watched: list[tuple[int, int]] = field(default_factory=list)  # from and to, µs, of each series
    allowed: float | None = None  # false alarms, for the time watched

    @property
    def time(self) -> int:
        """µs in which at least one series was watched."""
        total, reached = 0, -(1 << 62)
        for begin, end in sorted(self.watched):
            total += max(0, end - max(begin, reached))
            reached = max(reached, end)
        return total

    def raised(self, alert: str, time: int) -> None:
        self.alerts += 1
        self.first = time if self.first is None else min(self.first, time)
        if not self.open:
            self.since = time
        self.open[alert] = time

    def cleared(self, alert: str, time: int) -> None:
        began = self.open.pop(alert, None)
        if began is None:
            return
        self.longest = max(self.longest, time - began)
        if not self.open:
            self.held += max(0, time - self.since)


class Outcome:
    """The alerts of one variant. budgets: false alarms allowed a millisecond and series, by stream."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.budgets: dict[str, float | None] = {}
        self.series: dict[tuple[str, str], Counts] = {}

    def take(self, events: Events) -> None:
        for batch in events.predictions:
            for series, end in zip(batch.series, batch.end.tolist(), strict=True):
                counts = self._of(batch.stream, series)
                counts.begin, counts.end = min(counts.begin, end), max(counts.end, end)
        for alert in events.alerts:
            counts = self._of(alert.stream, alert.series)
            if alert.event == "raise":
                counts.raised(alert.id, alert.since)
            elif alert.event == "clear":
                counts.cleared(alert.id, alert.time)

    def _of(self, stream: str, series: str) -> Counts:
        key = stream, series
        known = self.series.get(key)
        if known is None:
            known = self.series[key] = Counts()
        return known

    def close(self) -> Counts:
        """Ends alerts that are still up with their series' last window; the counts of all series together."""
        total = Counts()
        for (stream, _), counts in self.series.items():
            if counts.end > counts.begin:
                total.watched.append((counts.begin, counts.end))
            budget = self.budgets.get(stream)
            counts.watched = total.watched[-1:] if counts.end > counts.begin else []
            counts.allowed = None if budget is None else budget * max(0, counts.end - counts.begin) / 1000
            if counts.allowed is not None:
                total.allowed = (total.allowed or 0.0) + counts.allowed
            for alert in list(counts.open):
                counts.cleared(alert, max(counts.end, counts.open[alert]))
            total.begin, total.end = min(total.begin, counts.begin), max(total.end, counts.end)
            total.alerts += counts.alerts
            total.held += counts.held
            total.longest = max(total.longest, counts.longest)
            firsts = [f for f in (total.first, counts.first) if f is not None]
            total.first = min(firsts) if firsts else None
        return total


def tell(console: Console, outcomes: Sequence[Outcome]) -> None:
    """A sentence for each variant, and a table of the series that would have been told of. allowed: the false alarms
    that the budget allows for the time watched."""
    totals = [outcome.close() for outcome in outcomes]
    for outcome, total in zip(outcomes, totals, strict=True):
        time = f"in {lasted(total.time)}" if total.time else "in no time"
        count = f"{total.alerts:,} time{'s' * (total.alerts != 1)}"
        console.print(
            f"with {outcome.label} it would have alerted {count} {time}", style="bold", markup=False, highlight=False
        )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("series", "variant", "alerts", "allowed", "a day", "in alert", "first alert", "longest"):
        side: Literal["left", "right"] = "left" if name in ("series", "variant", "first alert") else "right"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", max_width=40)
    several = len({key for outcome in outcomes for key in outcome.series}) > 1
    if several:
        _add(table, "all", outcomes, totals)
    keys = sorted(
        {key for outcome in outcomes for key, counts in outcome.series.items() if counts.alerts},
        key=lambda key: (-max(o.series[key].alerts for o in outcomes if key in o.series), key),
    )
    for key in keys[:SERIES]:
        _add(table, f"{key[0]}: {key[1]}", outcomes, [o.series.get(key, Counts()) for o in outcomes])
    if several or keys:
        console.print(table)
    quiet = len({key for outcome in outcomes for key in outcome.series}) - len(keys)
    if len(keys) > SERIES:
        console.print(f"… and {len(keys) - SERIES:,} more series with alerts", highlight=False)
    if quiet:
        console.print(f"{quiet:,} series without an alert in any variant", highlight=False)


def _add(table: Table, name: str, outcomes: Sequence[Outcome], counts: Sequence[Counts]) -> None:
    for i, (outcome, c) in enumerate(zip(outcomes, counts, strict=True)):
        days = c.time / DAY
        table.add_row(
            Text(printable(name) if i == 0 else ""), Text(outcome.label), f"{c.alerts:,}",
            "" if c.allowed is None else f"{c.allowed:.3g}", f"{c.alerts / days:.3g}" if days >= 1 else "",
            lasted(c.held) if c.alerts else "",
            rfc3339(c.first)[:19] + "Z" if c.first is not None else "", lasted(c.longest) if c.alerts else "",
        )  # fmt: skip
