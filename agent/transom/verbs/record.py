"""`transom record`: what the broker sends, to a file that `replay` and `train` read. Settings in, a recording out."""

import argparse
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from transom.core import recorded
from transom.core.events import lasted
from transom.core.topics import Pattern
from transom.edge import logs
from transom.edge.recorder import LEAST_SIZE, Files, Heard, record
from transom.edge.wire import broker_options, check_connection
from transom.errors import RecordingError, TransomError
from transom.flags import settings_arguments
from transom.settings import Settings, load_settings
from transom.settings.quantities import parse_size

EXAMPLES = """\
transom record -c plant.toml --output day.jsonl.gz              the topics of all streams, until Ctrl-C
transom record -c plant.toml --output day.jsonl.gz --seconds 86400
transom record --broker.host 192.0.2.7 --topic 'plant/{site}/{device}/{channel}' --output plant.jsonl
transom record -c plant.toml --output ring.jsonl.gz --max-size 50MB --keep 20"""

_LOCAL = {"model", "model_sha256"}  # a file of this machine is none of another's
_GUARDS = {"sender", "keys_file", "replay_window"}  # they are for messages of a broker, and name a file too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="OUT", help="the file to write: .jsonl, or .jsonl.gz compressed"
    )
    parser.add_argument("--append", action="store_true", help="go on with a recording that is there")
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so long (default: when told to)")
    parser.add_argument(
        "--topic",
        nargs="+",
        action="extend",
        default=[],
        metavar="TOPIC",
        help="topics in place of those of the streams, with + and # or named levels as in a stream's topic",
    )
    parser.add_argument("--max-size", metavar="SIZE", help="end when the file has this size, as in 100MB")
    parser.add_argument(
        "--keep", type=int, metavar="N", help="with --max-size: begin another file then, and keep the newest N"
    )


def run(args: argparse.Namespace) -> int:
    settings = load_settings(args.config, args.overrides, need_streams=False)
    limit = _limit(args)
    patterns = [Pattern.parse(text) for text in args.topic or [s.topic for s in settings.streams.values()]]
    if not patterns:
        raise TransomError("transom record", "nothing to listen to", "give -c FILE with streams, or --topic 'plant/#'")
    filters = list(dict.fromkeys(p.filter for p in patterns))
    logs.set_up("warning")
    check_connection(settings)
    streams = told_streams(settings, args.topic)

    def begin(now: int) -> bytes:
        return recorded.word("begin", now, filters=filters, streams=streams)

    files = Files(args.output, begin, append=args.append, limit=limit, keep=args.keep)
    stop = threading.Event()
    began = time.monotonic()
    console = Console(stderr=True)
    with _stopped_by_signals(stop), _shown(console, filters) as on_look:
        heard = record(broker_options(settings), filters, files, stop, seconds=args.seconds, on_look=on_look)
    _tell(Console(), heard, files, time.monotonic() - began)
    return 0


def _limit(args: argparse.Namespace) -> int | None:
    """The arguments' limits, checked before anything is opened."""
    if str(args.output) == "-":
        raise RecordingError("--output", "a recording goes into a file", "name one, such as day.jsonl.gz")
    if args.seconds is not None and not args.seconds > 0:
        raise TransomError("--seconds", f"{args.seconds:g} is no time at all", "at least a second")
    if args.keep is not None and (args.keep < 1 or args.max_size is None):
        raise TransomError("--keep", "says how many files of --max-size are kept", "give both, --keep at least 1")
    if args.max_size is None:
        return None
    try:
        limit = parse_size(args.max_size)
    except ValueError as error:
        raise TransomError("--max-size", *error.args) from None
    if limit < LEAST_SIZE:
        raise TransomError("--max-size", f"{args.max_size} is too small", f"at least {LEAST_SIZE >> 10}KiB")
    return limit


def told_streams(settings: Settings, topics: list[str]) -> dict[str, dict[str, Any]]:
    """How the payloads of the topics are read, for the recording's first line: a replay needs no configuration then.

    The streams without what is of this machine only, or a stream for each given topic with named levels. No secrets.
    """
    told = {}
    for name, stream in settings.streams.items():
        local = _LOCAL if "/" in stream.model or stream.model.endswith(".pt") else {"model_sha256"}
        told[name] = stream.model_dump(mode="json", exclude=local | _GUARDS, exclude_defaults=True)
    if told:
        return told
    named = [text for text in topics if Pattern.parse(text).names]
    return {"recorded" if i == 0 else f"recorded{i + 1}": {"topic": text} for i, text in enumerate(named)}


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _shown(console: Console, filters: list[str]) -> Iterator[Callable[[Heard], None]]:
    """A line that says how it goes, on a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    begun, last = time.monotonic(), [time.monotonic(), 0.0, 0.0]
    with Live(
        Text(f"listening to {', '.join(filters)}"), console=console, refresh_per_second=4, transient=True
    ) as live:

        def on_look(heard: Heard) -> None:
            now = time.monotonic()
            if now - last[0] >= 1:
                last[:] = now, heard.messages, (heard.messages - last[1]) / (now - last[0])
            gaps = f"  {heard.gap_count:,} gaps" if heard.gap_count else ""
            live.update(
                Text(
                    f"{lasted(round((now - begun) * 1e6)):>8}  {heard.messages:,} messages of {heard.topics:,} topics  "
                    f"{last[2]:,.0f}/s  {heard.size / 1e6:,.2f} MB{gaps}  (Ctrl-C ends)",
                    no_wrap=True, overflow="ellipsis",
                )
            )  # fmt: skip

        yield on_look


def _tell(console: Console, heard: Heard, files: Files, seconds: float) -> None:
    names = ", ".join(str(p) for p in files.paths[:3]) + (", …" if len(files.paths) > 3 else "")
    console.print(
        f"{heard.messages:,} messages of {heard.topics:,} topics in {seconds:,.0f} s: {names} "
        f"({heard.size / 1e6:,.3f} MB)",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    if files.full:
        console.print("it has reached --max-size", highlight=False)
    for end, length, reason in heard.gaps:
        console.print(f"gap of {length:.1f} s until {recorded.shown(end)}: {reason}", markup=False, highlight=False)
    if heard.gap_count > len(heard.gaps):
        console.print(f"… and {heard.gap_count - len(heard.gaps):,} more gaps, {heard.gap_seconds:,.0f} s in all")
    if heard.shed:
        console.print(f"{heard.shed:,} messages were dropped: the disk is slower than the broker")
    if not heard.messages:
        console.print("nothing came: check the topics, with `mosquitto_sub -v -t '#'`", markup=False, highlight=False)
