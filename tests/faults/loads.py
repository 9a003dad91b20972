"""Too much, for long, and the end in the middle of it: floods, a soak, SIGTERM. The same form as scenarios.py."""

import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from accounts import Expected, Report
from harness import Agent, Sensors, wait_until
from scenarios import FAST, RATE, everything, finish

from transom.core.pipeline import Message

TIMES = 10  # the flood over what the agent can do
SHARE = (
    0.05  # of a processor, which the agent has in a flood: ten times what it can do is then within the broker's means
)
INBOX = 2000  # messages
FLOOD_GROWTH = 100  # MB
SOAK_GROWTH = 1000  # kB a minute: 28 bytes a reading
WARM = 60  # seconds: windows, calibrations and buffers fill


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


class Blast:
    """Publishes as fast as a socket takes it: packets made by hand, acknowledgements only counted."""

    AHEAD = 20_000  # QoS 1 packets that are not acknowledged yet

    def __init__(self, port: int, qos: int) -> None:
        self._qos, self._sent, self._acknowledged = qos, 0, 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        name = b"blast"
        body = b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2, "big") + name
        self._socket.sendall(bytes([0x10, len(body)]) + body)
        assert len(self._socket.recv(4)) == 4
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Blast":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(65536):
                self._acknowledged += len(data)  # four bytes each

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        data = bytearray()
        for topic, payload in messages:
            self._sent += 1
            name = topic.encode()
            body = len(name).to_bytes(2, "big") + name
            if self._qos:
                body += (self._sent % 65_535 + 1).to_bytes(2, "big")
            body += payload
            length = len(body)
            data += bytes([0x30 | self._qos << 1])
            while length > 127:
                data.append(length % 128 | 128)
                length //= 128
            data.append(length)
            data += body
        while self._qos and self._sent - self._acknowledged // 4 > self.AHEAD:
            time.sleep(0.001)
        self._socket.sendall(data)

    def settle(self) -> None:
        """Returns once the broker has taken everything."""
        if self._qos:
            wait_until(lambda: self._acknowledged // 4 >= self._sent, 120, "the broker has not taken the flood")


class Flood:
    """Numbered readings of 50 more series; what was sent, to send it again through an undisturbed pipeline."""

    SERIES = 50

    def __init__(self, sensors: Sensors) -> None:
        self._begin, self.sent = sensors.begin, 0

    def message(self, i: int) -> Message:
        body = {"value": i % 7, "time": (self._begin + i) / 1000, "n": i // self.SERIES}
        return Message(f"plant/flood{i % self.SERIES}/x", json.dumps(body).encode(), self._begin + i)

    def messages(self) -> list[Message]:
        return [self.message(i) for i in range(self.sent)]

    def pour(self, blast: Blast, count: int, rate: float = 1e9) -> float:
        """Sends `count` more, `rate` a second; the seconds it took."""
        began, first = time.monotonic(), self.sent
        while (done := self.sent - first) < count:
            portion = [self.message(self.sent + i)[:2] for i in range(min(500, count - done))]
            blast.send(portion)
            self.sent += len(portion)
            time.sleep(max(0.0, began + (self.sent - first) / rate - time.monotonic()))
        return time.monotonic() - began


@contextmanager
def slowed(agent: Agent, share: float) -> Iterator[None]:
    """The agent runs for a share of each 100 ms, as under a quota; outside, the broker and the sensors do not."""
    stop = threading.Event()

    def go() -> None:
        while not stop.is_set():
            agent.signal(signal.SIGSTOP)
            stop.wait(0.1 * (1 - share))
            agent.signal(signal.SIGCONT)
            time.sleep(0.1 * share)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def flood(folder: Path, scale: float = 1, seed: int = 0, qos: int = 1) -> Report:
    """Ten times what the agent can do, for 20 s (60 s with a scale of 3), then an ordinary load.

    What it can do is measured: how long it takes over a few thousand readings when it is slowed down as in the flood.
    """
    del seed
    with everything(folder, agent=f"inbox = {INBOX}", broker=f"qos = {qos}") as parts:
        broker, agent, sensors, heard = parts

        def done() -> int:
            counts = heard.counts()
            return counts.get("received", 0)

        def settle(total: int, seconds: float) -> None:
            with suppress(AssertionError):  # the report says what is missing
                wait_until(lambda: done() >= total, seconds, "")

        with sensors.running(FAST):
            time.sleep(10)
        sensors.settle()
        settle(sensors.sent * sensors.series, 60)
        more, before, largest = Flood(sensors), rss(agent.pid), [0]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                largest[0] = max(largest[0], rss(agent.pid))

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        with Blast(broker.port, qos) as blast:
            with slowed(agent, SHARE):
                began, first = time.monotonic(), done()
                more.pour(blast, INBOX - 500)  # fits the inbox: nothing is shed
                settle(first + more.sent, 60)
                able = (done() - first) / (time.monotonic() - began)
                count = max(1, round(TIMES * able * 20 * scale))
                told = len(heard.health)
                took = more.pour(blast, count, TIMES * able)
                blast.settle()
            total = more.sent + sensors.sent * sensors.series
            settle(total, 120 * max(1.0, scale) if qos else 20)
        overloaded = sum(h["overloaded"] for h in heard.health[told:])
        flooded = dict(heard.counts())
        with suppress(AssertionError):
            wait_until(lambda: not heard.health[-1]["overloaded"], 30, "")
        with sensors.running(FAST):
            time.sleep(5)
        sensors.settle()
        over.set()
        watching.join()
        settle(more.sent + sensors.sent * sensors.series, 30)
        ordinary = not heard.health[-1]["overloaded"] and heard.health[-1]["inbox"] < INBOX / 2
        expected = Expected().add(agent, [*sensors.messages(), *more.messages()] if qos else sensors.messages())
        report = finish(
            f"a flood at QoS {qos} for {took:.0f} s", agent, sensors, heard, more=more.sent, expected=expected,
            only="" if qos else "d",
        )  # fmt: skip
        grown = (largest[0] - before) / 2**20
        report.facts |= {
            "readings a second it can do": round(able), "readings a second that came": round(count / took),
            "health reports that said overloaded": overloaded, "ordinary again": ordinary,
            "shed in the flood": flooded["shed"], "MB before": before >> 20, "MB more at most": round(grown, 1),
        }  # fmt: skip
        report.demand(count / took >= 0.9 * TIMES * able, f"the flood is {TIMES} times what the agent can do")
        report.demand(took >= 20 * min(1.0, scale), "the flood lasts as long as it says")
        report.demand(overloaded, "overloaded is said")
        report.demand(any("overloaded: " in line for line in agent.lines), "overloaded is logged")
        report.demand(ordinary and any("no longer overloaded" in line for line in agent.lines), "ordinary again")
        report.demand(grown <= FLOOD_GROWTH, f"at most {FLOOD_GROWTH} MB more")
        report.demand(agent.starts == 1, "one start")
        if qos:
            report.demand(report.accounts["shed"] == 0, "nothing is shed at QoS 1")
        else:
            report.complete = False
            report.demand(report.accounts["shed"] > 0, "something is shed at QoS 0")
            report.demand(report.accounts["shed"] == flooded["shed"], "nothing is shed but in the flood")
            missed = report.sent - report.accounts["accepted"]
            report.demand(report.missing == missed, "what was not accepted is missing by its numbers")
        return report


def flood_fleeting(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """The same at QoS 0: the oldest are shed, and counted."""
    return flood(folder, scale, seed, qos=0)


def shutdown(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """SIGTERM in the middle of a flood at QoS 1: the process ends within 5 s, and what it did not take comes later."""
    del seed
    with everything(folder) as (broker, agent, sensors, heard):
        with sensors.running(FAST):
            time.sleep(8)
        more, ends = Flood(sensors), []
        with Blast(broker.port, 1) as blast:
            for _ in range(max(1, round(2 * scale))):
                pouring = threading.Thread(target=more.pour, args=(blast, 40_000, 15_000.0), daemon=True)
                pouring.start()
                time.sleep(1.5)
                status, longest = agent.stop(), agent.ended_in
                ends.append((status, round(longest, 2)))
                pouring.join()
                agent.start().ready()
            blast.settle()
        total = more.sent + sensors.sent * sensors.series
        with suppress(AssertionError):
            wait_until(lambda: heard.counts()["received"] >= total, 120, "")
        expected = Expected().add(agent, [*sensors.messages(), *more.messages()])
        report = finish("SIGTERM in a flood", agent, sensors, heard, more=more.sent, expected=expected)
        report.facts["ends in the flood (status, longest so far in s)"] = ends
        words = ("finishing", "stopped after", "ready:")
        report.facts["log of the ends"] = [line for line in agent.lines if any(word in line for word in words)]
        report.demand(all(status == 0 for status, _ in ends), "each exit status is 0")
        return report


def soak(folder: Path, scale: float = 1, seed: int = 0) -> Report:
    """An ordinary load for 3 minutes: memory, threads and file descriptors must not grow. Before them everything that
    is bounded fills, and the first snapshot under load is written, whose copy of all state is memory that stays."""
    del seed
    with everything(folder) as (_, agent, sensors, heard):
        rows: list[tuple[float, int, int, int]] = []
        with sensors.running(RATE):
            wait_until(lambda: len(heard.health) > 0, 60, "no health report")
            written = heard.health[-1]["journal"]["snapshots"]
            time.sleep(WARM * min(1.0, scale))
            wait_until(lambda: heard.health[-1]["journal"]["snapshots"] > written, 240, "no snapshot")
            time.sleep(5)
            end = time.monotonic() + 180 * scale
            while time.monotonic() < end:
                proc = Path(f"/proc/{agent.pid}")
                threads, files = (len(list((proc / kind).iterdir())) for kind in ("task", "fd"))
                rows.append((time.monotonic(), rss(agent.pid), threads, files))
                time.sleep(1)
        seen = np.array(rows, dtype=np.float64)
        slope = float(np.polyfit(seen[:, 0] - seen[0, 0], seen[:, 1], 1)[0]) * 60 / 1024
        report = finish(f"a soak of {180 * scale:.0f} s", agent, sensors, heard)
        half = len(seen) // 2
        report.facts |= {
            "MB at the beginning": int(seen[0, 1]) >> 20, "MB at the end": int(seen[-1, 1]) >> 20,
            "kB a minute": f"{slope:.0f} (at most {SOAK_GROWTH})",
        }  # fmt: skip
        report.demand(slope <= SOAK_GROWTH, f"at most {SOAK_GROWTH} kB a minute")
        # The model's thread, and one that torch keeps for it, begin when a turn first waits behind another.
        for name, column, late in (("threads", 2, 2), ("file descriptors", 3, 0)):
            first, second = int(seen[:half, column].max()), int(seen[half:, column].max())
            report.facts[name] = f"at most {first}, in the second half {second}"
            report.demand(second <= first + late, f"no growth of {name}")
        return report
