"""`transom push`: sends a signed model over MQTT to one agent or a group. A file in, how each agent took it out."""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from transom.dialects import updates
from transom.edge import logs, pushing
from transom.edge.pushing import Heard, Sending
from transom.edge.wire import check_connection
from transom.errors import TransomError
from transom.flags import settings_arguments
from transom.settings import arriving, load_settings, rules
from transom.settings.quantities import parse_size

EXAMPLES = """\
transom push pump.pt --stream pumps -c plant.toml            to the agent of that configuration
transom push pump.pt --stream pumps --agent gateway-7 --broker.host 192.0.2.7
transom push pump.pt --stream pumps --group hall-2 --rate 64kB/s
transom push pump.pt --stream pumps --follow                 until it runs for good, or was taken back

It can be interrupted and called again: what has arrived is not sent twice."""

WAIT = 10.0  # seconds for the first answer, and for all of a group
STALLED = 120.0  # seconds without a word after which an agent counts as gone
RATE = "1MB/s"
ENDS = ("accepted", "rolled-back", "refused")  # of what --follow waits for
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file, with MODEL.minisig beside it")
    parser.add_argument("--stream", required=True, metavar="S", help="the stream that is to run it")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--agent", metavar="ID", help="the agent (default: agent.id of the configuration)")
    target.add_argument("--group", metavar="G", help="all agents that name it in agent.groups")
    parser.add_argument(
        "--rate", default=RATE, metavar="R", help=f"bytes a second at most (default: {RATE}), so that readings pass"
    )
    parser.add_argument(
        "--wait", type=float, default=WAIT, metavar="N", help="seconds to wait for answers (default: 10)"
    )
    parser.add_argument("--follow", action="store_true", help="go on until each agent has accepted it or taken it back")


def run(args: argparse.Namespace) -> int:
    """0 when at least one agent answered and all that did took it."""
    rate = _rate(args.rate)
    if not 0 < args.wait <= 3600:
        raise TransomError("--wait", f"{args.wait:g} seconds", "choose more than 0 and at most 3600")
    settings = load_settings(args.config, args.overrides, need_streams=False)
    offer, data = pushing.read(args.model)
    pushing.check_signature(args.model, data, settings.models.trusted_keys)
    base = _base(args, settings.base)
    logs.set_up("warning")
    check_connection(settings)
    sending = Sending(offer, data, args.stream, base, single=args.group is None, rate=rate)
    stop, console = threading.Event(), Console(stderr=True)
    print(f"{args.model}: {offer.name}@{offer.version}, {offer.size:,} bytes, for {args.stream} at {base}", flush=True)
    begun = time.monotonic()

    def over(agents: Mapping[str, Heard], seconds: float) -> bool:
        show(agents)
        if not agents or (args.group is not None and seconds < args.wait):
            return bool(seconds >= args.wait)
        return all(_ended(heard, seconds, begun, follow=args.follow) for heard in agents.values())

    with _stopped_by_signals(stop), _bars(console, offer.chunks) as show:
        pushing.push(settings, sending, over, stop)
    return _tell(sending, args, stopped=stop.is_set(), waited=args.wait)


def _ended(heard: Heard, seconds: float, begun: float, *, follow: bool) -> bool:
    silent = begun + seconds - heard.at
    if heard.now.state == "offered" and follow:
        return any(e.get("event") in ENDS for e in heard.events)
    return heard.now.final or silent >= STALLED


def _rate(text: str) -> float:
    try:
        return float(parse_size(text.strip().removesuffix("/s")))
    except ValueError:
        raise TransomError("--rate", f"{text!r} is no rate", 'write it like "256kB/s" or "1MiB/s"') from None


def _base(args: argparse.Namespace, own: str) -> str:
    try:
        if args.group is not None:
            return updates.group_base(arriving.groups((args.group,))[0])
        return own if args.agent is None else f"transom/{rules.topic_level(args.agent)}"
    except ValueError as error:
        raise TransomError("--group" if args.group is not None else "--agent", *map(str, error.args)) from None


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
def _bars(console: Console, chunks: int) -> Iterator[Callable[[Mapping[str, Heard]], None]]:
    """A bar for each agent, on a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[state]}", markup=False),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def show(agents: Mapping[str, Heard]) -> None:
            for agent, heard in agents.items():
                if agent not in tasks:
                    tasks[agent] = bars.add_task(agent[:40], total=chunks, state="")
                state = str(heard.events[-1].get("event")) if heard.events else heard.now.state
                bars.update(tasks[agent], completed=heard.now.received, state=state[:40])

        yield show


def _tell(sending: Sending, args: argparse.Namespace, *, stopped: bool, waited: float) -> int:
    for agent, heard in sorted(sending.agents.items()):
        now = heard.now
        word = now.state if now.final else f"{now.state}, {now.received} of {now.chunks} chunks"
        after = [str(e.get("event")) for e in heard.events if e.get("event") != "offered"]  # it has said so itself
        reason = f": {now.reason}" if now.reason else ""
        line = f"{agent}: {', '.join([word, *after])}{reason}"
        sys.stdout.write("".join(c if c.isprintable() else "?" for c in line)[:700] + "\n")
    if stopped:
        sys.stderr.write("interrupted: call it again to go on, what has arrived is not sent twice\n")
        return INTERRUPTED
    if not sending.agents:
        who = "agent of the group" if args.group is not None else "agent"
        raise TransomError(
            sending.announcement.topic, f"no {who} answered within {waited:g} s",
            'is it running, with models.updates = ["mqtt"], and may this user publish there? The offer stays at the '
            "broker: call this again when it is there",
        )  # fmt: skip
    bad = [agent for agent, heard in sending.agents.items() if not _good(heard, follow=args.follow)]
    return 1 if bad else 0


def _good(heard: Heard, *, follow: bool) -> bool:
    return heard.now.state == "offered" and (not follow or any(e.get("event") == "accepted" for e in heard.events))
