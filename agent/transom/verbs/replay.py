"""`transom replay`: recordings through the very pipeline that runs live. Files in, one JSON object a window out."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from transom.core.events import Events
from transom.core.model import Model
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects import plain
from transom.edge import recordings
from transom.edge.assembly import build_pipeline, stream_spec
from transom.errors import RecordingError, SettingsError, TransomError
from transom.flags import settings_arguments
from transom.runtimes import choice
from transom.settings import Settings, StreamSettings, load_settings

EXAMPLES = """\
transom replay pump.csv --output out.jsonl                 with the shipped model, nothing configured
transom replay *.csv --model pump.pt --output - | head     another model, to standard output
transom replay day.jsonl -c plant.toml --output out.jsonl  a recording, with the streams of a configuration"""

_encode = msgspec.json.Encoder().encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("input", nargs="+", type=Path, metavar="INPUT", help="CSV or recording (.jsonl), plain or .gz")
    parser.add_argument("--model", help="a model file or a shipped model's name, instead of the configured one")
    parser.add_argument("--stream", help="the configured stream whose settings serve for CSV files")
    parser.add_argument(
        "--output", required=True, metavar="OUT.jsonl", help="where the lines go; - for standard output"
    )
    parser.add_argument("--alerts", metavar="ALERTS.jsonl", help="also write the alerts as they would be published")


def run(args: argparse.Namespace) -> int:
    settings = load_settings(args.config, args.overrides, need_streams=False)
    tables = [p for p in args.input if recordings.is_table(p)]
    logs = [p for p in args.input if not recordings.is_table(p)]
    console = Console(stderr=True)
    tally = Tally()
    begun = time.perf_counter()
    with ExitStack() as stack:
        out = _opened(args.output, stack)
        alerts = _opened(args.alerts, stack) if args.alerts else None
        progress = stack.enter_context(_progress(console))
        if tables:
            replay = _TableReplay(settings, args.model, args.stream)
            for events in _advance(replay.run(tables), progress, replay):
                _write(events, out, alerts, tally)
            tally.add_accounts(replay.accounts())
            tally.bad.update(replay.bad_cells())
        if logs:
            pipeline = _recorded_pipeline(settings, args, logs[0])
            for path in logs:
                for events in _recorded(path, pipeline, progress):
                    _write(events, out, alerts, tally)
            _write(pipeline.flush(), out, alerts, tally)
            tally.add_accounts(pipeline.accounts())
            if pipeline.strangers:
                tally.bad["messages of topics that no stream watches"] = pipeline.strangers
    _summary(console, tally, time.perf_counter() - begun)
    return 0


@dataclass(slots=True)
class Tally:
    """What the summary says."""

    accounts: Counter[str] = field(default_factory=Counter)
    alerts: list[str] = field(default_factory=list)
    raised: int = 0
    letters: list[str] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)

    def add_accounts(self, accounts: dict[str, dict[str, int]]) -> None:
        for counts in accounts.values():
            self.accounts.update(counts)


class _TableReplay:
    """CSV files through pipelines that share one model; files of one column and of several need different payloads."""

    def __init__(self, settings: Settings, model: str | None, stream: str | None) -> None:
        name, self._stream = _stream_for_tables(settings, stream)
        name, folder = model or self._stream.model, Path() if model else settings.folder
        digest = None if model else self._stream.model_sha256
        self.model: Model = choice.load(
            name, folder, settings.agent.runtime, sha256=digest, threads=settings.agent.threads
        )
        self._spec: StreamSpec = stream_spec(name, self._stream, self.model.manifest)
        self._pipelines: dict[str | None, Pipeline] = {}
        self.tables: list[recordings.OpenTable] = []

    def run(self, paths: list[Path]) -> Iterator[Events]:
        self.tables = [recordings.open_table(p, name) for p, name in recordings.series_names(paths).items()]
        for batch in recordings.table_messages(self.tables):
            by_shape: dict[str | None, list[Message]] = {}
            for table, messages in batch:
                by_shape.setdefault(table.shape, []).extend(messages)
            for shape, messages in by_shape.items():
                yield self._pipeline(shape).process(messages)
        for pipeline in self._pipelines.values():
            yield pipeline.flush()

    def _pipeline(self, shape: str | None) -> Pipeline:
        if shape not in self._pipelines:
            self._pipelines[shape] = Pipeline([(recordings.table_stream(self._spec, shape), self.model)])
        return self._pipelines[shape]

    def position(self) -> tuple[int, int]:
        return sum(t.source.done for t in self.tables), sum(t.source.size for t in self.tables)

    def accounts(self) -> dict[str, dict[str, int]]:
        return {f"{i}": counts for i, p in enumerate(self._pipelines.values()) for counts in p.accounts().values()}

    def bad_cells(self) -> dict[str, int]:
        """Cells that are no number, by the first of them in each file."""
        found = {}
        for opened in self.tables:
            bad = opened.table.bad
            if bad.count:
                first = bad.cells[0]
                place = f"first in line {first.line}, column {first.column}: {first.text!r}"
                found[f"cells in {opened.source.path} that are no number or time, {place}"] = bad.count
        return found


def _stream_for_tables(settings: Settings, name: str | None) -> tuple[str, StreamSettings]:
    if name is not None:
        if name not in settings.streams:
            known = ", ".join(settings.streams) or "none"
            raise TransomError("--stream", f"no stream {name!r} is configured", f"configured: {known}")
        return name, settings.streams[name]
    if len(settings.streams) > 1:
        known = ", ".join(settings.streams)
        raise TransomError("--stream", "several streams are configured", f"say which serves for CSV files: {known}")
    if settings.streams:
        return next(iter(settings.streams.items()))
    return "replay", StreamSettings(topic=recordings.TOPIC)


def _recorded_pipeline(settings: Settings, args: argparse.Namespace, path: Path) -> Pipeline:
    if not settings.streams:
        raise RecordingError(str(path), "is a recording of topics, and no stream says what they mean", "give -c FILE")
    if args.model is not None:
        models = {f"streams.{name}.model": args.model for name in settings.streams}
        settings = load_settings(args.config, args.overrides | models)
    assembly = build_pipeline(settings)
    if assembly.broken:
        raise SettingsError(list(assembly.broken.values()))
    return assembly.pipeline


def _recorded(path: Path, pipeline: Pipeline, progress: Progress) -> Iterator[Events]:
    source = recordings.open_source(path)
    task = progress.add_task(path.name, total=source.size)
    for messages in recordings.recorded_messages(source):
        yield pipeline.process(messages, messages[-1].received if messages else None)
        progress.update(task, completed=source.done)


def _advance(batches: Iterator[Events], progress: Progress, replay: _TableReplay) -> Iterator[Events]:
    task = progress.add_task("replay", total=None)
    for events in batches:
        yield events
        done, size = replay.position()
        progress.update(task, completed=done, total=size)


def _write(events: Events, out: BinaryIO, alerts: BinaryIO | None, tally: Tally) -> None:
    for predictions in events.predictions:
        out.writelines(line + b"\n" for line in plain.lines(predictions))
    for alert in events.alerts:
        tally.raised += alert.event == "raise"
        if alert.event == "raise" and len(tally.alerts) < 10:
            tally.alerts.append(f"{plain.rfc3339(alert.time)} {alert.series}: {alert.summary}")
        if alerts is not None:
            alerts.write(_encode(plain.alert_body(alert)) + b"\n")
    tally.letters += [f"{letter.topic}: {letter.reason}" for letter in events.dead_letters[: 5 - len(tally.letters)]]


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
