"""Where the events of a replay go: lines, alerts, the picture, the comparison, and the summary for a person.

Events in; nothing is decided here.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from transom.core.events import DriftReport, Events
from transom.core.pipeline import Pipeline
from transom.core.printable import cut, printable
from transom.dialects import plain
from transom.edge.variants import Variant
from transom.plots.panel import About
from transom.plots.traces import Timing, Traces
from transom.verbs import comparison
from transom.verbs.feeds import Logs, Tables

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Tally:
    """What the summary says."""

    accounts: Counter[str] = field(default_factory=Counter)
    alerts: list[str] = field(default_factory=list)
    raised: int = 0
    letters: list[str] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)
    drifting: int = 0
    drifts: list[DriftReport] = field(default_factory=list)

    def add_drifts(self, pipeline: Pipeline) -> None:
        count, largest = pipeline.drifting()
        self.drifting += count
        self.drifts = sorted([*self.drifts, *largest], key=lambda r: -abs(r.sizes))[:10]


class Sink:
    """Where events go: lines, alerts, the picture, the comparison and the summary."""

    def __init__(self, out: BinaryIO | None, alerts: BinaryIO | None, args: argparse.Namespace) -> None:
        self._out, self._alerts = out, alerts
        self._marks = [b'"variant":%b,' % _encode(text) for text in args.compare] or [b""]
        self.tally = Tally()
        self.outcomes = [comparison.Outcome(text) for text in args.compare]
        self.traces = Traces(self._timing, len(self._marks)) if args.plot else None
        self._about: dict[str, Callable[[], About]] = {}
        self._timings: dict[str, Timing] = {}

    def know(self, variants: Sequence[Variant]) -> None:
        """What the picture needs of the streams, before the first event of theirs."""
        first = variants[0]
        for name, spec in first.streams.items():
            self._timings[name] = Timing(spec.grid.step * 1000 if spec.grid.step else None, spec.stride)
            self._about[name] = lambda name=name: _about(name, first)  # type: ignore[misc]
        for outcome, variant in zip(self.outcomes, variants, strict=False):
            outcome.budgets |= {name: stream.budget for name, stream in variant.settings.streams.items()}

    def about(self, stream: str) -> About:
        return self._about[stream]()

    def _timing(self, stream: str) -> Timing:
        return self._timings[stream]

    def take(self, variant: int, events: Events) -> None:
        mark, tally = self._marks[variant], self.tally
        if self._out is not None:
            for predictions in events.predictions:
                self._out.writelines(_marked(mark, line) for line in plain.lines(predictions))
        if self._alerts is not None:
            self._alerts.writelines(_marked(mark, _encode(plain.alert_body(alert))) for alert in events.alerts)
        if self.traces is not None:
            self.traces.take(events, variant)
        if self.outcomes:
            self.outcomes[variant].take(events)
        if variant:
            return
        for alert in events.alerts:
            tally.raised += alert.event == "raise"
            if alert.event == "raise" and len(tally.alerts) < 10:
                tally.alerts.append(printable(f"{plain.rfc3339(alert.time)} {alert.series}: {alert.summary}"))
        if len(tally.letters) < 5:
            told = (f"{cut(printable(letter.topic))}: {printable(letter.reason)}" for letter in events.dead_letters)
            tally.letters = list(dict.fromkeys([*tally.letters, *told]))[:5]

    def finish(self, first: Variant, feed: Tables | Logs) -> None:
        """The accounts of all turns of a kind."""
        tally = self.tally
        for pipeline in first.pipelines:
            for counts in pipeline.accounts().values():
                tally.accounts.update(counts)
            tally.add_drifts(pipeline)
            if pipeline.strangers:
                tally.bad["messages of topics that no stream watches"] = pipeline.strangers
        tally.bad.update(feed.bad())


def _marked(mark: bytes, line: bytes) -> bytes:
    return b"{" + mark + line[1:] + b"\n" if mark else line + b"\n"


def _about(name: str, variant: Variant) -> About:
    """Units, bars and threshold of a stream, as they are when the replay is over."""
    units: dict[str, str] = {}
    bars: dict[str, float] = {}
    threshold = None
    for pipeline in variant.pipelines:
        if name in pipeline.streams:
            threshold = pipeline.streams[name].spec.threshold
            _learn(pipeline, name, units, bars)
    return About(units, bars, threshold)


def _learn(pipeline: Pipeline, name: str, units: dict[str, str], bars: dict[str, float]) -> None:
    judge, intake = pipeline.streams[name].judge, pipeline.streams[name].intake
    ids = [i for i, series in enumerate(intake.names) if series]
    for i in ids:
        units.update({c: u for c, u in zip(intake.labels[i], intake.units(i), strict=True) if u})
    units.update({c.name: c.unit for c in judge.manifest.targets if c.unit})
    if judge.threshold is None and judge.manifest.task == "anomaly" and ids:
        found = judge.bar(np.array(ids, np.int32)).tolist()
        bars.update({intake.names[i]: bar for i, bar in zip(ids, found, strict=True)})


def summary(console: Console, tally: Tally, seconds: float) -> None:
    a = tally.accounts
    table = Table.grid(padding=(0, 2))
    table.add_row("readings", f"{a['received']:,}", f"{a['received'] / max(seconds, 1e-9):,.0f} a second")
    refused = [f"{a[k]:,} {k}" for k in ("invalid", "duplicate", "late", "unused") if a[k]]
    table.add_row("", f"{a['accepted']:,} accepted", ", ".join(refused))
    table.add_row("windows", f"{a['windows']:,}", f"{a['series']:,} series")
    table.add_row("alerts", f"{tally.raised:,}", "")
    console.print(table)
    for line in tally.alerts:
        console.print(f"  {line}", markup=False, highlight=False)
    if tally.raised > len(tally.alerts):
        console.print(f"  … and {tally.raised - len(tally.alerts):,} more (--alerts FILE writes them all)")
    if tally.drifting:
        console.print(f"drift: {tally.drifting:,} at the end of the recording, the largest first", highlight=False)
    for drift in tally.drifts:
        console.print(f"  {printable(drift.series)}: {printable(drift.summary)}", markup=False, highlight=False)
    for text, count in tally.bad.items():
        console.print(f"{count:,} {text}", markup=False)
    for line in tally.letters:
        console.print(f"refused: {line}", markup=False, highlight=False)
