"""`transom replay`: recordings through the very pipeline that runs live. Files in, one JSON object a window out; on
demand also the alerts, a picture, and other models or budgets side by side."""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from transom.edge import recordings
from transom.edge.variants import Models, Variant, varied, with_model
from transom.errors import RecordingError, TransomError
from transom.flags import merged, nested, settings_arguments
from transom.plots.drawing import SERIES, draw, period
from transom.runtimes import files
from transom.settings import Settings, StreamSettings, load_settings
from transom.verbs import comparison
from transom.verbs.feeds import Logs, Tables
from transom.verbs.sink import Sink, summary

EXAMPLES = """\
transom replay pump.csv --output out.jsonl                 with the shipped model, nothing configured
transom replay *.csv --model pump.pt --output - | head     another model, to standard output
transom replay day.jsonl -c plant.toml --output out.jsonl  a recording, with the streams of a configuration
transom replay pump.csv --plot pump.svg                    a picture of values, expected band, score and alerts
transom replay month.jsonl.gz --compare "false_alarms=1/day" "false_alarms=1/month" --plot month.svg
transom replay pump.csv --compare "model=universal" "model=pump.pt, raise_after=2 of 3" """

MOST_VARIANTS = 12


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
        progress = stack.enter_context(progress_bar(console))
        sink = Sink(out, alerts, args)
        for kind, paths in (("table", tables), ("recording", logs)):
            if paths:
                variants = _variants(kind, streams_for(kind, settings, args, paths), args, models)
                sink.know(variants)
                feed = Tables(paths, progress) if kind == "table" else Logs(paths, progress)
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
    summary(console, sink.tally, time.perf_counter() - begun)
    if args.compare:
        here = Console(stderr=args.output == "-" or args.alerts == "-" or args.plot == "-")
        if not here.is_terminal:
            here = Console(stderr=here.stderr, width=160)
        comparison.tell(here, sink.outcomes)
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be known before a long replay."""
    if not (args.output or args.alerts or args.plot or args.compare):
        raise TransomError(
            "transom replay", "nothing is asked for", "give --output OUT.jsonl, --plot OUT.svg or --compare"
        )
    if args.plot_series < 1:
        raise TransomError("--plot-series", f"{args.plot_series} is too small", "at least 1")
    if len(args.compare) > MOST_VARIANTS:
        raise TransomError("--compare", f"{len(args.compare)} variants are too many", f"at most {MOST_VARIANTS}")
    doubled = [text for text in args.compare if args.compare.count(text) > 1]
    if doubled:
        raise TransomError("--compare", f"{doubled[0]!r} is given twice", "name each variant once")
    written = [str(Path(f).absolute()) for f in (args.output, args.alerts, args.plot) if f and f != "-"]
    if (args.output, args.alerts, args.plot).count("-") > 1 or len(set(written)) < len(written):
        raise TransomError("transom replay", "two of the outputs are one file", "give each a file of its own")
    read = {str(path.absolute()) for path in args.input}
    for file in written:
        if file in read:
            raise TransomError(file, "is also an input", "choose another file to write")


# --- settings -------------------------------------------------------------------------------------------------------


def streams_for(kind: str, settings: Settings, args: argparse.Namespace, paths: Sequence[Path]) -> Settings:
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
    streams = {}
    for name, table in known.streams.items():  # a file from elsewhere must not say which files of ours are opened
        foreign = {"model_sha256", "keys_file", "sender"}
        foreign |= set() if str(table.get("model")) in files.shipped_models() else {"model"}
        streams[name] = {key: value for key, value in table.items() if key not in foreign}
    return load_settings(args.config, merged({"streams": streams}, nested(args.overrides)))


def _variants(kind: str, settings: Settings, args: argparse.Namespace, models: Models) -> list[Variant]:
    if args.model is not None:
        settings = with_model(settings, args.model)
    found = [Variant(text, varied(settings, text), models, args.stream) for text in args.compare]
    found = found or [Variant("", settings, models, args.stream)]
    for variant in found:
        variant.load(kind)
    return found


def _opened(name: str, stack: ExitStack) -> BinaryIO:
    if name == "-":
        return sys.stdout.buffer
    try:
        return stack.enter_context(Path(name).open("wb"))
    except OSError as error:
        raise TransomError(name, error.strerror or str(error), "choose a file that can be written") from None


def progress_bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        "{task.percentage:>3.0f} %",
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
