"""`transom bench`: what the agent does on this machine, measured against a plain script and a bare subscriber.

Arguments in; a table for people, or one JSON object, and a picture out. A broker of its own on 127.0.0.1, and programs
that are ended with it, also on Ctrl-C. Nothing of a user's broker or state is touched.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from transom import __version__
from transom.bench import report, subjects
from transom.bench.picture import picture
from transom.bench.plan import Plan
from transom.bench.private import private
from transom.bench.processes import BenchError
from transom.errors import TransomError
from transom.flags import settings_arguments
from transom.settings import load_settings

EXAMPLES = """\
transom bench                          about two minutes, on a machine that does nothing else
transom bench --svg throughput.svg     also a picture against the number of series
transom bench -c plant.toml            with the models, topics and payloads of a configuration
transom bench --json > here.json       every figure, with what was measured and where"""

FORMAT = 1  # of --json
SECONDS = 4.0
PIPE = 160  # columns of the table where no terminal says how many there are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--svg", type=Path, metavar="OUT.svg", help="throughput and latency against number of series")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="N",
        help="of each measurement (default: 4, two minutes in all)",
    )
    parser.add_argument("--series", type=int, default=1000, help="of the comparison (default: 1000)")
    parser.add_argument("--broker", choices=("auto", "amqtt"), default="auto", help="amqtt although mosquitto is there")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when a part could not be measured; raises TransomError when nothing can."""
    if args.seconds <= 0 or args.series < 1:
        raise TransomError("--seconds, --series", "must be more than 0", "see transom bench --help")
    if args.svg is not None and not args.svg.absolute().parent.is_dir():
        raise TransomError(str(args.svg), "there is no such folder", "choose a file that can be written")
    console = Console(stderr=True)
    with _ended_by_signals():
        results = measure(args, console)
    if args.svg is not None:
        _draw(results, args.svg)
    if args.json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        show(results)
    return 1 if results["failed"] else 0


def measure(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All figures, with what was measured and where; those of a part that failed are None."""
    begun = time.monotonic()
    results: dict[str, Any] = {
        "format": FORMAT, "version": __version__, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": host(), "seconds": args.seconds, "notes": [], "failed": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="transom-bench-") as name, progress(console) as bar:
        folder = Path(name)
        task = bar.add_task("model", total=None)
        if args.config is None and not args.overrides:
            subject = subjects.made_up(folder)
        else:
            settings = load_settings(args.config, args.overrides)
            subject = subjects.configured(settings, args.config, args.overrides, folder)
        with private(folder, embedded=args.broker == "amqtt") as broker:
            plan = Plan(broker, subject, folder, args.seconds, args.series)
            results |= {"broker": broker.name, "subject": subject.label, "series_compared": plan.series}
            results["notes"] += notes(plan)
            steps = plan.steps()
            bar.update(task, total=len(steps))
            for key, title, step in steps:
                bar.update(task, description=title)
                results[key] = None
                try:
                    results[key] = step()
                except BenchError as error:  # the rest can still be measured
                    results["failed"][key] = str(error)
                bar.advance(task)
    results["taken_s"] = round(time.monotonic() - begun, 1)
    results["load_average"] = [results["host"].pop("load"), os.getloadavg()[0]]
    return results


def notes(plan: Plan) -> list[str]:
    """What a reader must know to read the figures."""
    told = []
    busy = os.getloadavg()[0]
    if busy > 1:
        told.append(f"the machine was busy when this began (load {busy:.1f}): figures are lower than on a quiet one")
    if not plan.broker.fast:
        told.append(
            "the broker is amqtt, which passes on some 4,000 messages a second: rates are its own, and receiving alone "
            "is not measured; apt install mosquitto mosquitto-clients"
        )
    if plan.subject.naive is None:
        told.append("no plain script beside it: that reads one stream of one channel, JSON or numbers, in TorchScript")
    if any(source.series is not None for source in plan.subject.sources):
        told.append("a topic without named levels is one series: fewer are measured than the figures' names say")
    if not all(source.timed for source in plan.subject.sources):
        told.append("payloads hold no time to the microsecond: latency counts from arrival at the agent, or in ms")
    return told


def host() -> dict[str, Any]:
    """Where it was measured."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), "")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.platform(), "machine": platform.machine(), "cpu": model, "cpus": os.cpu_count(),
        "memory_bytes": memory, "python": platform.python_version(), "load": os.getloadavg()[0],
    }  # fmt: skip


def show(results: dict[str, Any]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=PIPE)
    h = results["host"]
    console.print(f"{h['cpu'] or h['machine']}, {h['cpus']} CPUs, {h['system']}, Python {h['python']}", markup=False)
    console.print(f"{results['subject']}; {results['series_compared']:,} series; {results['broker']}\n", markup=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for row in report.rows(results):
        table.add_row(*row)
    console.print(table)
    for text in results["notes"]:
        console.print(f"note: {text}", markup=False, soft_wrap=True)
    for key, text in results["failed"].items():
        console.print(f"NOT MEASURED {key}: {text}", markup=False, soft_wrap=True)
    console.print(f"{results['taken_s']:.0f} s")


def _draw(results: dict[str, Any], path: Path) -> None:
    points = results.get("series")
    if not points:
        raise TransomError(str(path), "is not drawn: nothing was measured against the number of series")
    try:
        path.write_text(picture(points, f"Transom {results['version']}: {results['subject']}"))
    except OSError as error:
        raise TransomError(str(path), error.strerror or str(error), "choose a file that can be written") from None


def progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:28}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: the programs it started are ended and its folder is removed."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # in a test this is no main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
