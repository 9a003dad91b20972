"""Real parts to torture: an agent in a process of its own, a mosquitto, numbered readings, and the accounts of it all.

Used by the tests beside it and by scripts/torture.
"""

import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from ports import free_port

from transom.core.pipeline import Message, Pipeline
from transom.edge.assembly import build_pipeline
from transom.settings import load_settings

SERIES = 100
STEP = 10_000  # ms of event time between two readings of a series: an hour goes by in a minute at 6 a second
SPIKE = 90.0
SPIKE_EVERY = 41  # readings; series s has its spikes where its number and theirs agree
FIRST_SPIKE = 78

AGENT = """\
[agent]
id = "gw"
state = "{state}"
health_every = "1s"
{agent}
[broker]
host = "{host}"
port = {port}
{broker}
[streams.s]
topic = "plant/{{device}}/{{channel}}"
model = "universal"
threshold = 2.0
sequence = "n"
{stream}
"""


@dataclass
class Broker:
    """A mosquitto that keeps its sessions on disk, as docs/reliability.md says."""

    folder: Path
    port: int = 0
    host: str = "127.0.0.1"
    save_always: bool = False  # write every change at once: safe against kill -9, and slow; see `scratch`
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Broker":
        binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        assert binary, "mosquitto is not installed"
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {self.folder}/\n"
            f"{'autosave_interval 1' if self.save_always else 'autosave_interval 1800'}\n"
            f"autosave_on_changes {str(self.save_always).lower()}\n"
            "max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\nsys_interval 1\n"
        )
        self._process = subprocess.Popen(
            [str(binary), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: self.up(), 10, "mosquitto does not start")
        return self

    def up(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 0.2).close()
        except OSError:
            return False
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


def wait_until(
    there: Callable[[], bool], seconds: float, problem: str, pause: float = 0.02, shown: Sequence[str] = ()
) -> None:
    """shown: its last lines, as they are at the end, stand behind the problem."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"{problem} {[*shown][-20:]}"
        time.sleep(pause)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: a mosquitto that writes every change takes 380 readings a second on a disk
    and 1,700 here (measured on a busy 2-core machine), and a kill of the process alone spares what is written in either."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="transom-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Agent:
    """`transom run` in a process of its own; started and killed as often as wanted."""

    def __init__(
        self, folder: Path, port: int, *, host: str = "127.0.0.1", state: Path | None = None, prefix: tuple[str, ...] = (),
        agent: str = "", broker: str = "", stream: str = "",
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self.state = state or folder / "state"
        self.config = folder / "agent.toml"
        self.config.write_text(
            AGENT.format(state=self.state, host=host, port=port, agent=agent, broker=broker, stream=stream)
        )
        self.lines: list[str] = []
        self.starts, self.ended_in = 0, 0.0
        self._prefix = prefix
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "Agent":
        self._process = subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "transom", "run", "-c", str(self.config)],
            stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.starts += 1
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line.rstrip())
        process.stderr.close()

    def wait_for(self, text: str, seconds: float = 60, since: int = 0) -> None:
        wait_until(
            lambda: any(text in line for line in self.lines[since:]), seconds, f"no {text!r} in", shown=self.lines
        )

    def ready(self, seconds: float = 60) -> "Agent":
        count = sum("ready:" in line for line in self.lines)
        wait_until(
            lambda: sum("ready:" in line for line in self.lines) > count or not self.running, seconds,
            "not ready:", shown=self.lines,
        )  # fmt: skip
        assert self.running, f"the agent ended: {self.lines[-20:]}"
        return self

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit status. `ended_in`: the seconds that the longest end took; one of a minute is killed."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(10)
        finally:
            self.ended_in = max(self.ended_in, time.monotonic() - began)

    def pipeline(self) -> Pipeline:
        """The same streams and models, undisturbed and in this process."""
        return build_pipeline(load_settings(self.config, {})).pipeline


def value(series: int, number: int) -> float:
    """What a sensor says: a period, noise that depends on nothing but the two numbers, and now and then a spike."""
    noise = random.Random(series * 1_000_003 + number).gauss(0, 0.3)
    spiked = number >= FIRST_SPIKE and (number - series) % SPIKE_EVERY == 0
    return round(20 + 5 * math.sin(2 * math.pi * (number / 24 + series / 7)) + noise + SPIKE * spiked, 4)


class Sensors:
    """Numbered readings with a time of their own, at QoS 1, sent until the broker has them."""

    latest: "Sensors | None" = None  # for whoever shows progress

    def __init__(self, port: int, *, host: str = "127.0.0.1", series: int = SERIES, begin: int | None = None) -> None:
        self.series, self.begin = series, begin or (int(time.time()) - 1_000_000) * 1000
        self.sent = 0  # readings of each series
        Sensors.latest = self
        self._up: float | None = None  # since when the connection is there
        self._sessions: list[float] = []  # when each connection began
        self._published: dict[int, list[tuple[str, int]]] = {}  # by packet id, in order: topic and number,
        self._acknowledged: dict[int, list[tuple[float, int]]] = {}  # and when that came, of which connection
        self._client = client("sensors", port, host, self._connected)
        self._client.on_disconnect = lambda *_: setattr(self, "_up", None)
        self._given = self._taken = 0  # publications; those that the broker has acknowledged
        self._client.on_publish = self._heard
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _connected(self, _client: paho.Client) -> None:
        self._up = time.monotonic()
        self._sessions.append(self._up)

    def _heard(self, _client: paho.Client, _data: Any, mid: int, *_: Any) -> None:
        self._taken += 1
        self._acknowledged.setdefault(mid, []).append((time.monotonic(), len(self._sessions) - 1))

    def acknowledged(self) -> dict[tuple[str, int], tuple[float, float]]:
        """Topic and number of each reading that the broker has: when it said so, and when that connection had begun."""
        return {
            which: (when, self._sessions[session])
            for mid, readings in self._published.items()
            for which, (when, session) in zip(readings, self._acknowledged.get(mid, []), strict=False)
        }

    def topic(self, series: int) -> str:
        return f"plant/d{series}/x"

    def body(self, series: int, number: int) -> bytes:
        time_ms = self.begin + number * STEP + series
        return json.dumps({"value": value(series, number), "time": time_ms / 1000, "n": number}).encode()

    def round(self) -> None:
        """One reading of each series, once the connection is there. Not right at its beginning: paho would send new
        messages before those that it sends again, and a sensor that sends out of order has late readings."""
        wait_until(lambda: self._up is not None and time.monotonic() - self._up > 0.5, 120, "no broker")
        for s in range(self.series):
            info = self._client.publish(self.topic(s), self.body(s, self.sent), 1)  # it waits if the connection ends
            self._published.setdefault(info.mid, []).append((self.topic(s), self.sent))
            self._given += 1
        self.sent += 1

    @contextmanager
    def running(self, rounds_per_second: float) -> Iterator["Sensors"]:
        def go() -> None:
            while not self._stop.is_set():
                began = time.monotonic()
                self.round()
                self._stop.wait(max(0.0, began + 1 / rounds_per_second - time.monotonic()))

        self._stop.clear()
        self._thread = threading.Thread(target=go, daemon=True)
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def settle(self, seconds: float = 60) -> None:
        """Returns once the broker has everything; on a busy machine that may take long, as long as it goes on."""
        while self._taken < self._given:
            before = self._taken
            wait_until(
                lambda before=before: self._taken >= self._given or self._taken > before,  # type: ignore[misc]
                seconds, f"the broker acknowledges no more: {self._taken} of {self._given} readings",
            )  # fmt: skip

    def messages(self, without: Set[tuple[str, int]] = frozenset(), first: int = 0) -> list[Message]:
        """without: topic and number of readings that are left out; first: the number that the others begin with."""
        return [
            Message(self.topic(s), self.body(s, n), self.begin + n * STEP + s)
            for n in range(first, self.sent)
            for s in range(self.series)
            if (self.topic(s), n) not in without
        ]

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()


def client(
    name: str, port: int, host: str = "127.0.0.1", ready: Callable[[paho.Client], object] | None = None
) -> paho.Client:
    """A client whose session the broker keeps, and that connects again quickly."""
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
    made.reconnect_delay_set(1, 1)
    made.max_inflight_messages_set(500)
    asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    asked.SessionExpiryInterval = 3600
    asked.ReceiveMaximum = 5000
    up = threading.Event()

    def connected(c: paho.Client, *_: Any) -> None:
        if ready is not None:
            ready(c)
        up.set()

    made.on_connect = connected
    made.connect(host, port, 30, clean_start=False, properties=asked)
    made.loop_start()
    assert up.wait(20), "no connection"
    return made


class Listener:
    """Everything the agent publishes: predictions by series and time, alerts in order, each health and status."""

    latest: "Listener | None" = None  # for whoever shows progress

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.lines: dict[tuple[str, str], set[bytes]] = {}
        self.alerts: list[dict[str, Any]] = []
        self.health: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.letters: list[dict[str, Any]] = []
        Listener.latest = self
        self._client = client("listener", port, host, lambda c: c.subscribe("transom/gw/#", 1))
        self._client.on_message = self._take

    def _take(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        kind = message.topic.rpartition("/")[2]
        if kind == "prediction":
            series = message.topic.removeprefix("transom/gw/s/").removesuffix("/prediction")
            line = message.payload
            self.lines.setdefault((series, line[9:33].decode()), set()).add(line)
            return
        body = json.loads(message.payload)
        {"alert": self.alerts, "health": self.health, "status": self.statuses, "dead-letter": self.letters}.get(
            kind, []
        ).append(body)

    def counts(self) -> dict[str, int]:
        """The accounts of the stream as last told."""
        return self.health[-1]["streams"]["s"] if self.health else {}

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()
