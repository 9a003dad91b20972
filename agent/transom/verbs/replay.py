"""`transom replay`: recordings through the very pipeline that runs live. Files in, one JSON object a window out; on
demand also the alerts, a picture, and other models or budgets side by side."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from transom.core.events import Events
from transom.core.pipeline import Message, Pipeline, Turn
from transom.dialects import plain
from transom.edge import recordings
from transom.edge.variants import Feed, Models, Variant, varied, with_model
from transom.errors import RecordingError, TransomError
from transom.flags import merged, nested, settings_arguments
from transom.plots.drawing import SERIES, draw, period
from transom.plots.panel import About
from transom.plots.traces import Timing, Traces
from transom.settings import Settings, StreamSettings, load_settings
from transom.verbs import comparison

EXAMPLES = """\
transom replay pump.csv --output out.jsonl                 with the shipped model, nothing configured
transom replay *.csv --model pump.pt --output - | head     another model, to standard output
transom replay day.jsonl -c plant.toml --output out.jsonl  a recording, with the streams of a configuration
transom replay pump.csv --plot pump.svg                    a picture of values, expected band, score and alerts
transom replay month.jsonl.gz --compare "false_alarms=1/day" "false_alarms=1/month" --plot month.svg
transom replay pump.csv --compare "model=universal" "model=pump.pt, raise_after=2 of 3" """

MOST_VARIANTS = 12
_encode = msgspec.json.Encoder().encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("input", nargs="+", type=Path, metavar="INPUT", help="CSV or recording (.jsonl), plain or .gz")
    parser.add_argument("--model", help="a model file or a shipped model's name, instead of the configured one")
    parser.add_argument("--stream", help="the configured stream whose settings serve for CSV files")
    parser.add_argument("--output", metavar="OUT.jsonl", help="where the lines go; - for standard output")
    parser.add_argument("--alerts", metavar="ALERTS.jsonl", help="also write the alerts as they would be published")
    parser.add_argument("--plot", metavar="OUT.svg", help="draw values, expected band, score and alerts of each series")
    parser.add_argument(
        "--plot-series",
        type=int,
        default=SERIES,
        metavar="N",
        help=f"series to draw at most, those with alerts first (default: {SERIES})",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help='side by side, each with its own settings of the streams, as in "false_alarms=1/day" or "model=m.pt, '
        'threshold=4"; a table says what each would have raised, the lines written name their `variant`',
    )


def run(args: argparse.Namespace) -> int:
    settings = load_settings(args.config, args.overrides, need_streams=False)
    _check(args)
    tables = [p for p in args.input if recordings.is_table(p)]
    logs = [p for p in args.input if not recordings.is_table(p)]
    console = Console(stderr=True)
    begun = time.perf_counter()
    models = Models(shared=len(args.compare) > 1)
    with ExitStack() as stack:
        out = _opened(args.output, stack) if args.output else None
        alerts = _opened(args.alerts, stack) if args.alerts else None
        picture = _opened(args.plot, stack) if args.plot else None
        progress = stack.enter_context(_progress(console))
        sink = _Sink(out, alerts, args)
        for kind, paths in (("table", tables), ("recording", logs)):
            if paths:
                variants = _variants(kind, _streams(kind, settings, args, paths), args, models)
                sink.know(variants)
                feed = _Tables(paths, progress) if kind == "table" else _Logs(paths, progress)
                for of, turn in feed:
                    for i, variant in enumerate(variants):
                        sink.take(i, variant.take(of, turn))
                for i, variant in enumerate(variants):
                    for events in variant.flush(kind):
                        sink.take(i, events)
                sink.finish(variants[0], feed)
        if picture is not None and sink.traces is not None:
            title = ", ".join(p.name for p in args.input[:3]) + (", …" if len(args.input) > 3 else "")
            title = f"{title}: {period(sink.traces)}" if period(sink.traces) else title
            drawn = draw(sink.traces, sink.about, args.compare or ("",), args.plot_series, title)
            picture.write(drawn.encode())
    _summary(console, sink.tally, time.perf_counter() - begun)
    if args.compare:
        here = Console(stderr=args.output == "-" or args.alerts == "-" or args.plot == "-")
        if not here.is_terminal:
            here = Console(stderr=here.stderr, width=160)
        comparison.tell(here, sink.outcomes)
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be known before a long replay."""
    if not (args.output or args.alerts or args.plot or args.compare):
        raise TransomError("transom replay", "nothing is asked for", "give --output OUT.jsonl, --plot OUT.svg or --compare")
    if args.plot_series < 1:
        raise TransomError("--plot-series", f"{args.plot_series} is too small", "at least 1")
    if len(args.compare) > MOST_VARIANTS:
        raise TransomError("--compare", f"{len(args.compare)} variants are too many", f"at most {MOST_VARIANTS}")
    doubled = [text for text in args.compare if args.compare.count(text) > 1]
    if doubled:
        raise TransomError("--compare", f"{doubled[0]!r} is given twice", "name each variant once")
    written = [str(Path(f).absolute()) for f in (args.output, args.alerts, args.plot) if f and f != "-"]
    if [f for f in (args.output, args.alerts, args.plot)].count("-") > 1 or len(set(written)) < len(written):
        raise TransomError("transom replay", "two of the outputs are one file", "give each a file of its own")
    read = {str(path.absolute()) for path in args.input}
    for file in written:
        if file in read:
            raise TransomError(file, "is also an input", "choose another file to write")


# --- settings -------------------------------------------------------------------------------------------------------


def _streams(kind: str, settings: Settings, args: argparse.Namespace, paths: Sequence[Path]) -> Settings:
    """The settings with streams: those configured, or those that the recording tells of, or one for any table."""
    if settings.streams:
        return settings
    if kind == "table":
        if args.stream is not None:
            raise TransomError("--stream", f"no stream {args.stream!r} is configured", "configured: none")
        return settings.model_copy(update={"streams": {"replay": StreamSettings(topic=recordings.TOPIC)}})
    known = recordings.beginning(paths[0])
    if known is None or not known.streams:
        raise RecordingError(
            str(paths[0]), "is a recording of topics, and no stream says what they mean", "give -c FILE"
        )
    return load_settings(args.config, merged({"streams": known.streams}, nested(args.overrides)))


def _variants(kind: str, settings: Settings, args: argparse.Namespace, models: Models) -> list[Variant]:
    if args.model is not None:
        settings = with_model(settings, args.model)
    found = [Variant(text, varied(settings, text), models, args.stream) for text in args.compare]
    found = found or [Variant("", settings, models, args.stream)]
    for variant in found:
        variant.load(kind)
    return found


# --- turns ----------------------------------------------------------------------------------------------------------


class _Tables:
    """CSV files, side by side, as turns of the shapes that they have."""

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self._tables = [recordings.open_table(p, name) for p, name in recordings.series_names(paths).items()]
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[Feed, Turn]]:
        task = self._progress.add_task("replay", total=None)
        for batch in recordings.table_messages(self._tables):
            by_shape: dict[str | None, list[Message]] = {}
            for table, messages in batch:
                by_shape.setdefault(table.shape, []).extend(messages)
            for shape, messages in by_shape.items():
                yield ("table", shape), Turn(messages)
            done, size = (sum(getattr(t.source, name) for t in self._tables) for name in ("done", "size"))
            self._progress.update(task, completed=done, total=size)

    def bad(self) -> dict[str, int]:
        """Cells that are no number, by the first of them in each file."""
        found = {}
        for opened in self._tables:
            bad = opened.table.bad
            if bad.count:
                first = bad.cells[0]
                place = f"first in line {first.line}, column {first.column}: {first.text!r}"
                found[f"cells in {opened.source.path} that are no number or time, {place}"] = bad.count
        return found


class _Logs:
    """Recordings of ours, one after the other, as the turns that were."""

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self._paths, self._progress = paths, progress

    def __iter__(self) -> Iterator[tuple[Feed, Turn]]:
        last = None
        for path in self._paths:
            source = recordings.open_source(path, cut=True)
            task: TaskID = self._progress.add_task(path.name, total=source.size)
            for turn in recordings.recorded_turns(source, last):
                last = turn.now if turn.now is not None else last
                yield ("recording", None), turn
                self._progress.update(task, completed=source.done)

    def bad(self) -> dict[str, int]:
        return {}


# --- what comes of them ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What the summary says."""

    accounts: Counter[str] = field(default_factory=Counter)
    alerts: list[str] = field(default_factory=list)
    raised: int = 0
    letters: list[str] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)


class _Sink:
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
                tally.alerts.append(f"{plain.rfc3339(alert.time)} {alert.series}: {alert.summary}")
        tally.letters += [f"{letter.topic}: {letter.reason}" for letter in events.dead_letters[: 5 - len(tally.letters)]]

    def finish(self, first: Variant, feed: "_Tables | _Logs") -> None:
        """The accounts of all turns of a kind."""
        tally = self.tally
        for pipeline in first.pipelines:
            for counts in pipeline.accounts().values():
                tally.accounts.update(counts)
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


def _opened(name: str, stack: ExitStack) -> BinaryIO:
    if name == "-":
        return sys.stdout.buffer
    try:
        return stack.enter_context(Path(name).open("wb"))
    except OSError as error:
        raise TransomError(name, error.strerror or str(error), "choose a file that can be written") from None


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        "{task.percentage:>3.0f} %",
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _summary(console: Console, tally: Tally, seconds: float) -> None:
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
    for text, count in tally.bad.items():
        console.print(f"{count:,} {text}", markup=False)
    for line in tally.letters:
        console.print(f"refused: {line}", markup=False)
