"""`transom demo`: broker, scene, faults and a live view in one command. Arguments in, 0 if all was told rightly."""

import argparse
import contextlib
import importlib.util
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.live import Live

from transom.core.events import Alert, Events
from transom.core.printable import printable
from transom.edge.assembly import build_pipeline
from transom.edge.broker import EmbeddedBroker
from transom.edge.service import Agent
from transom.errors import BrokerError
from transom.scenes import NAMES, Fault, Scene, scene
from transom.settings import Settings, load_settings
from transom.verbs.verdict import Told, judge
from transom.verbs.view import alert_line
from transom.verbs.watch import Watch

EXAMPLES = """\
transom demo                 until Ctrl-C
transom demo --seconds 60    with a summary at the end; status 0 if every fault was caught
transom demo --scenario list which scenes there are"""

STATUS_EVERY = 5.0  # seconds between two lines in a pipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scenario", choices=(*NAMES, "list"), default="plant",
        help=f"what is simulated: {', '.join(NAMES)} (default: plant); list: tells what each is",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so many seconds, with a summary")
    parser.add_argument(
        "--port", type=int, default=0, help="of the broker inside, on 127.0.0.1 (default: any that is free)"
    )
    parser.add_argument(
        "--page", type=int, metavar="PORT", default=0, help="of the live page, on 127.0.0.1 (default: any that is free)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")


def run(args: argparse.Namespace) -> int:
    if args.scenario == "list":
        return _list(Console())
    if importlib.util.find_spec("amqtt") is None:
        raise BrokerError(
            "transom demo", "amqtt, the broker inside the demo, is not installed",
            "in Transom's folder: pip install '.[demo]' -c constraints.txt; or scripts/demo, which does all that",
        )  # fmt: skip
    console = Console()
    stop = threading.Event()
    with contextlib.suppress(ValueError):  # in a test this is no main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    place = scene(args.scenario)
    with EmbeddedBroker(args.port) as broker, tempfile.TemporaryDirectory() as state:
        settings = scene_settings(place, broker.port, state, args.page or _free_port())
        console.print(
            f"listen in: mosquitto_sub -h 127.0.0.1 -p {broker.port} -t 'transom/#' -v", highlight=False, soft_wrap=True
        )
        console.print(f"look: http://127.0.0.1:{settings.http.port}/live/", highlight=False, soft_wrap=True)
        demo = Demo(place, settings, args.seconds, args.seed, stop)
        with _screen(console, demo):
            demo.run()
    return demo.summary(console)


def _list(console: Console) -> int:
    for name in NAMES:
        console.print(f"{name:10}{scene(name).description}\n{'':10}{scene(name).real}", highlight=False)
    return 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def scene_settings(place: Scene, port: int, state: str, page: int | None = None) -> Settings:
    """The settings of an agent that watches the scene through a broker on this port of 127.0.0.1. page: the port of
    its live page, None for none."""
    streams: dict[str, dict[str, Any]] = {name: dict(stream) for name, stream in place.streams.items()}
    if place.pace is not None:  # the sensors' time runs ahead of ours
        streams = {name: {"max_ahead": "off", **stream} for name, stream in streams.items()}
    return load_settings(None, {
        "agent": {"id": "demo", "state": state},
        "broker": {"host": "127.0.0.1", "port": port, "protocol": "3.1.1", "session": 0},
        "http": {} if page is None else {"port": page, "page": True},
        "streams": streams,
    })  # fmt: skip


class Demo:
    """The scene, the agent and what has been seen of them."""

    def __init__(
        self, place: Scene, settings: Settings, seconds: float | None, seed: int, stop: threading.Event
    ) -> None:
        self.scene, self.seconds, self.stop = place, seconds, stop
        self.simulation = place.start(seed)
        self.agent = Agent(settings, build_pipeline(settings), self._saw)
        self.watch = Watch(place, self.agent.pipeline, self.simulation)
        self.view = self.watch.view
        self.faults: list[Fault] = []
        self.raised: list[Told] = []
        self.new: list[Alert] = []
        self._begun = time.monotonic()
        self._port = settings.broker.port

    def run(self) -> None:
        feeding = threading.Thread(target=self._feed, name="scene")
        feeding.start()
        self.agent.run(self.stop)
        self.stop.set()
        feeding.join(5)

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def _saw(self, events: Events, _now: int) -> None:
        self.watch.take(events)
        self.raised += [Told(a, self.elapsed()) for a in events.alerts if a.event == "raise"]
        self.new += events.alerts
        self.view.headline = self._headline()

    def _headline(self) -> str:
        counts = self.agent.pipeline.accounts().values()
        seconds = max(self.elapsed(), 1e-3)
        p50, p99 = self.agent.latencies.percentiles(50, 99)
        readings, windows = sum(c["received"] for c in counts), sum(c["windows"] for c in counts)
        text = f"{seconds:4.0f} s  {readings / seconds:.0f} readings/s  {windows:,} windows"
        text += f"  p50 {p50:.0f} ms  p99 {p99:.0f} ms" if p50 == p50 else ""
        active = [f for f in self.faults if f.begin <= seconds <= f.end]
        return f"{text}  {'FAULT ' + active[0].kind.name if active else ''}"

    def _feed(self) -> None:
        """Publishes the scene in step with the clock until the end."""
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        self.agent.ready.wait(20)
        place, faults, beat = self.scene, self.scene.schedule(self.seconds), 0
        coming = next(faults, None)
        begun, begun_ms = time.monotonic(), place.begun(time.time_ns() // 1_000_000)
        self._begun = begun
        while not self.stop.is_set():
            seconds = beat / place.rate
            if self.seconds is not None and seconds >= self.seconds:
                break
            if coming is not None and seconds >= coming.begin and coming not in self.faults:
                self.faults.append(coming)
            if coming is not None and seconds > coming.end:
                coming = next(faults, None)
            active = coming if coming is not None and coming.begin <= seconds <= coming.end else None
            for topic, payload in self.simulation.send(seconds, place.stamp(begun_ms, beat), active):
                client.publish(topic, payload, 0)
            beat += 1
            self.stop.wait(max(0.0, begun + beat / place.rate - time.monotonic()))
        self.stop.wait(0.5)  # the last readings are on their way
        self.stop.set()
        client.disconnect()
        client.loop_stop()

    def summary(self, console: Console) -> int:
        """Prints what was seen; 0 if every fault that had its time was caught."""
        done = [f for f in self.faults if self.elapsed() >= f.due or f.due <= (self.seconds or 0)]
        open_faults = [f for f in self.faults if f not in done]
        verdict = judge(
            done, [t for t in self.raised if not any(f.begin <= t.seconds for f in open_faults)], self.scene.grace
        )
        counts = list(self.agent.pipeline.accounts().values())
        p50, p99 = self.agent.latencies.percentiles(50, 99)
        caught = [o for o in verdict.outcomes if o.caught is not None]
        console.print()
        for name, value in (
            ("readings", f"{sum(c['received'] for c in counts):,}"),
            ("windows", f"{sum(c['windows'] for c in counts):,}"),
            ("alerts", f"{len(self.raised)}"), ("faults caught", f"{len(caught)} of {len(done)}"),
            ("false alarms", f"{len(verdict.false)}"), ("arrival to publish", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"),
        ):  # fmt: skip
            console.print(f"{name:20}{value}", highlight=False)
        for outcome in verdict.outcomes:
            told = outcome.caught
            what = (
                f"after {told.seconds - outcome.fault.begin:.1f} s: {printable(told.alert.summary)}"
                if told
                else "NOT CAUGHT"
            )
            console.print(f"  {outcome.fault.kind.name}: {what}", highlight=False, markup=False, soft_wrap=True)
        for told in verdict.false:
            console.print(
                printable(f"  false alarm at {told.seconds:.0f} s: {told.alert.series}: {told.alert.summary}"),
                markup=False,
                soft_wrap=True,
            )
        for line in self.watch.lines():
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        if not done and self.scene.kinds:
            console.print(
                "  no fault was injected: --seconds 30 or more gives the models time to learn", highlight=False
            )
        return 0 if len(caught) == len(done) and self.watch.better else 1


@contextlib.contextmanager
def _screen(console: Console, demo: Demo) -> Iterator[None]:
    """A live screen on a terminal; elsewhere a line an alert and a status line every few seconds."""
    if console.is_terminal:
        with Live(demo.view, console=console, refresh_per_second=4, screen=False, vertical_overflow="crop"):
            yield
        return
    ended = threading.Event()

    def lines() -> None:
        due = time.monotonic() + STATUS_EVERY
        while not ended.wait(0.25):
            while demo.new:
                print(alert_line(demo.new.pop(0), 1000).plain, flush=True)
            if time.monotonic() >= due:
                print(demo.view.headline, flush=True)
                due += STATUS_EVERY

    thread = threading.Thread(target=lines, name="lines")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.stdout.flush()
