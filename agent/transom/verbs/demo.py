"""`transom demo`: broker, plant, faults and a live view in one command. Arguments in, 0 if every fault was caught."""

import argparse
import contextlib
import importlib.util
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.live import Live

from transom.core.events import Alert, Events
from transom.edge.assembly import build_pipeline
from transom.edge.broker import EmbeddedBroker
from transom.edge.service import Agent
from transom.errors import BrokerError
from transom.settings import Settings, load_settings
from transom.verbs.plant import AFTER, RATE, Fault, Plant, schedule, stamp
from transom.verbs.view import View, alert_line

EXAMPLES = """\
transom demo                 until Ctrl-C
transom demo --seconds 60    with a summary at the end; status 0 if every fault was caught"""

GRACE = 8.0  # seconds after a fault in which a further alert of its series still belongs to it
STATUS_EVERY = 5.0  # seconds between two lines in a pipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so many seconds, with a summary")
    parser.add_argument(
        "--port", type=int, default=0, help="of the broker inside, on 127.0.0.1 (default: any that is free)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulated plant (default: 0)")


def run(args: argparse.Namespace) -> int:
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
    with EmbeddedBroker(args.port) as broker, tempfile.TemporaryDirectory() as state:
        settings = _settings(broker.port, state)
        console.print(
            f"listen in: mosquitto_sub -h 127.0.0.1 -p {broker.port} -t 'transom/#' -v", highlight=False, soft_wrap=True
        )
        demo = Demo(settings, args.seconds, args.seed, stop)
        with _screen(console, demo):
            demo.run()
    return demo.summary(console)


def _settings(port: int, state: str) -> Settings:
    """Three streams with payloads of three kinds, all watched by `universal`."""
    common = {"model": "universal", "false_alarms": "6/day"}
    units = {"temperature": "°C", "vibration": "mm/s", "pressure": "bar", "flow": "l/min"}
    return load_settings(None, {
        "agent": {"id": "demo", "state": state},
        "broker": {"host": "127.0.0.1", "port": port, "protocol": "3.1.1", "session": 0},
        "streams": {
            "pumps": {"topic": "plant/{site}/{device}/{channel}", "no_data": True, "max_gap": "2s", **common,
                      "channels": {name: {"unit": unit} for name, unit in units.items()}},
            "climate": {"topic": "home/{room}/climate", **common,
                        "channels": {"temperature": {"unit": "°C"}, "humidity": {"unit": "%"}}},
            "doors": {"topic": "home/{room}/door", **common,
                      "channels": {"contact": {"switch": True, "on": ["OPEN"], "off": ["CLOSED"]}}},
        },
    })  # fmt: skip


@dataclass(slots=True)
class Told:
    """An alert and when it was raised, in seconds since the plant started."""

    alert: Alert
    seconds: float


@dataclass(slots=True)
class Outcome:
    fault: Fault
    caught: Told | None = None


@dataclass(slots=True)
class Verdict:
    """What became of the faults. false: raised alerts that belong to none."""

    outcomes: list[Outcome] = field(default_factory=list)
    false: list[Told] = field(default_factory=list)


def judge(faults: list[Fault], raised: list[Told]) -> Verdict:
    """Which fault each raised alert belongs to."""
    verdict = Verdict([Outcome(f) for f in faults])
    for told in raised:
        belongs = False
        for outcome in verdict.outcomes:
            fault, alert = outcome.fault, told.alert
            same = (alert.stream, alert.series) == (fault.kind.stream, fault.kind.series)
            if same and fault.begin <= told.seconds <= fault.end + GRACE:
                belongs = True
                if outcome.caught is None and alert.kind == fault.kind.alert and told.seconds <= fault.end + AFTER:
                    outcome.caught = told
        if not belongs:
            verdict.false.append(told)
    return verdict


class Demo:
    """The plant, the agent and what has been seen of them."""

    def __init__(self, settings: Settings, seconds: float | None, seed: int, stop: threading.Event) -> None:
        self.seconds, self.stop, self.seed = seconds, stop, seed
        channels = [c for s in settings.streams.values() for c in s.channels.items()]
        self.view = View({name: c.unit for name, c in channels})
        self.agent = Agent(settings, build_pipeline(settings), self._saw)
        self.faults: list[Fault] = []
        self.raised: list[Told] = []
        self.new: list[Alert] = []
        self._begun = time.monotonic()
        self._port = settings.broker.port

    def run(self) -> None:
        feeding = threading.Thread(target=self._feed, name="plant")
        feeding.start()
        self.agent.run(self.stop)
        self.stop.set()
        feeding.join(5)

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def _saw(self, events: Events, _now: int) -> None:
        self.view.take(events)
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
        """Publishes the plant in step with the clock until the end."""
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        self.agent.ready.wait(20)
        plant, faults, beat = Plant(self.seed), schedule(self.seconds), 0
        coming = next(faults, None)
        begun, begun_ms = time.monotonic(), time.time_ns() // 1_000_000
        self._begun = begun
        while not self.stop.is_set():
            seconds = beat / RATE
            if self.seconds is not None and seconds >= self.seconds:
                break
            if coming is not None and seconds >= coming.begin and coming not in self.faults:
                self.faults.append(coming)
            if coming is not None and seconds > coming.end:
                coming = next(faults, None)
            active = coming if coming is not None and coming.begin <= seconds <= coming.end else None
            for topic, payload in plant.send(seconds, stamp(begun_ms, beat), active):
                client.publish(topic, payload, 0)
            beat += 1
            self.stop.wait(max(0.0, begun + beat / RATE - time.monotonic()))
        self.stop.wait(0.5)  # the last readings are on their way
        self.stop.set()
        client.disconnect()
        client.loop_stop()

    def summary(self, console: Console) -> int:
        """Prints what was seen; 0 if every fault that had its time was caught."""
        done = [f for f in self.faults if self.elapsed() >= f.end + AFTER or f.end + AFTER <= (self.seconds or 0)]
        verdict = judge(
            done, [t for t in self.raised if not any(f not in done and f.begin <= t.seconds for f in self.faults)]
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
            what = f"after {told.seconds - outcome.fault.begin:.1f} s: {told.alert.summary}" if told else "NOT CAUGHT"
            console.print(f"  {outcome.fault.kind.name}: {what}", highlight=False, markup=False, soft_wrap=True)
        for told in verdict.false:
            console.print(
                f"  false alarm at {told.seconds:.0f} s: {told.alert.series}: {told.alert.summary}",
                markup=False,
                soft_wrap=True,
            )
        if not done:
            console.print(
                "  no fault was injected: --seconds 30 or more gives the models time to learn", highlight=False
            )
        return 0 if len(caught) == len(done) else 1


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
