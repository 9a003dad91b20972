"""The other side of the broker: one MQTT 3.1.1 connection that publishes made-up readings and counts what comes back.

Closed load (so many on their way, no more): the rate is what the program can do, and nothing is lost. Paced: latency.
"""

import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from transom.bench.processes import BenchError
from transom.bench.readings import Source
from transom.edge import packets

PREDICTION = b"/prediction"
CHUNK = 1 << 20  # bytes of one read
PORTION = 1000  # readings of one write
SETTLED = 60.0  # seconds in which what is on its way must have arrived
FEWEST = 500  # predictions that a rate is made of, at least
STALLED = 20.0  # seconds without a prediction after which the program has stopped


class Paced(NamedTuple):
    """sent, heard: readings and predictions; behind: predictions that were due when the last reading had been sent;
    latencies: float64 [heard], ms, from sending to hearing."""

    sent: int
    heard: int
    behind: int
    latencies: np.ndarray


class Load:
    """sent: readings so far, as the predictions that they should give; heard: predictions; refused: dead letters."""

    def __init__(
        self, port: int, sources: Sequence[Source], series: int, filters: Sequence[str], ending: bytes = PREDICTION
    ) -> None:  # fmt: skip
        """series: of all sources together; ending: of the topics of predictions. Raises BenchError when the broker is
        not there."""
        self._sources, self._ending = sources, ending
        self.series = series
        self._waits = any(source.open for source in sources)
        self._topics: list[tuple[str, int]] = []  # topic, source
        self._numbers: Counter[int] = Counter()
        self._grow(series)
        self.sent = self.heard = self.refused = self._seq = 0
        self._stamp = 0
        self._left = b""
        self._timed: list[float] | None = None
        self.last_refusal = self.health = b""
        self._connect(port, filters)

    def _connect(self, port: int, filters: Sequence[str]) -> None:
        try:
            self._sock = socket.create_connection(("127.0.0.1", port), 10)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = b"bench-load"
            self._sock.sendall(
                b"\x10"
                + bytes([12 + len(name)])
                + b"\x00\x04MQTT\x04\x02\x00\x00"
                + len(name).to_bytes(2, "big")
                + name
            )
            for i, text in enumerate(filters, 1):
                body = i.to_bytes(2, "big") + len(text).to_bytes(2, "big") + text.encode() + b"\0"
                self._sock.sendall(bytes([0x82, len(body)]) + body)
            self._answers(1 + len(filters))
        except OSError as error:
            raise BenchError(f"127.0.0.1:{port}", f"the broker does not answer ({error})") from None
        self._sock.setblocking(False)

    def _answers(self, count: int) -> None:
        """Reads the CONNACK and the SUBACKs."""
        got = b""
        while True:
            at = found = 0
            while found < count and at + 2 <= len(got) and at + 2 + got[at + 1] <= len(got):
                at, found = at + 2 + got[at + 1], found + 1
            if found == count:
                self._left = got[at:]
                return
            data = self._sock.recv(4096)
            if not data:
                raise OSError("connection closed")
            got += data

    def close(self) -> None:
        self._sock.close()

    def _grow(self, series: int) -> None:
        """Series go to the sources in turn; one that has no more of them is left out."""
        count = len(self._sources)
        room = [s.series for s in self._sources]
        number = len(self._topics)
        while len(self._topics) < series and any(
            limit is None or self._numbers[k] < limit for k, limit in enumerate(room)
        ):
            k = number % count
            number += 1
            limit = room[k]
            if limit is None or self._numbers[k] < limit:
                self._topics.append((self._sources[k].topic(self._numbers[k]), k))
                self._numbers[k] += 1
        self.series = min(series, len(self._topics))
        index: Counter[int] = Counter()
        self._makes = []
        for _, k in self._topics:
            self._makes.append(self._sources[k].make(index[k]))
            index[k] += 1

    def use(self, series: int) -> int:
        """So many series from now on, or as many as the streams can have, which it returns."""
        if series > len(self._topics):
            self._grow(series)
        self.series = min(series, len(self._topics))
        return self.series

    def readings(self, count: int) -> list[tuple[str, bytes]]:
        """The next ones, one series after the other; no two times are the same, none is ahead of the clock by much."""
        made, stamp = [], max(self._stamp, time.time_ns() // 1000)
        for _ in range(count):
            nth, i = divmod(self._seq, self.series)
            self._seq += 1
            stamp += 1
            topic, k = self._topics[i]
            made.append((topic, self._makes[i](stamp, self._seq, nth)))
            self.sent += self._sources[k].predictions
        self._stamp = stamp
        return made

    @property
    def _open(self) -> int:
        """Predictions that may wait for a series' next reading."""
        return sum(self._sources[k].open for _, k in self._topics[: self.series]) if self._waits else 0

    def send(self, count: int) -> None:
        self.write(packets.publish(self.readings(count), False))

    def write(self, data: bytes) -> None:
        """Sends, and reads meanwhile."""
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([self._sock], [self._sock], [], 1.0)
            self._read()
            if writable:
                view = view[self._sock.send(view) :]

    def _read(self) -> None:
        while True:
            try:
                data = self._sock.recv(CHUNK)
            except BlockingIOError:
                return
            if not data:
                raise BenchError("the broker", "has closed the connection of the load")
            data, at = self._left + data, 0
            while True:
                found, at, length = packets.parse(data, at, False)
                self._count(found)
                if not length or at + length > len(data):
                    break
                at += length
            self._left = data[at:]

    def _count(self, found: Sequence[packets.Packet]) -> None:
        for topic, payload, *_ in found:
            if topic.endswith(self._ending):
                self.heard += 1
                if self._timed is not None:
                    made = datetime.fromisoformat(payload[9 : payload.index(b'"', 9)].decode()).timestamp()
                    self._timed.append(1000 * (time.time() - made))
            elif topic.endswith(b"/dead-letter"):
                self.refused += 1
                self.last_refusal = payload
            elif topic.endswith(b"/health"):
                self.health = payload

    def wait_refused(self, count: int, seconds: float) -> bool:
        """True as soon as so many dead letters have been heard."""
        end = time.monotonic() + seconds
        while self.refused < count and time.monotonic() < end:
            self.listen(0.05)
        return self.refused >= count

    def listen(self, seconds: float) -> None:
        select.select([self._sock], [], [], seconds)
        self._read()

    def settle(self, heard: int, what: str) -> None:
        """Returns once so many predictions have been heard, but for those that wait for a series' next reading. Raises
        BenchError when they do not come."""
        heard -= self._open
        end, before = time.monotonic() + SETTLED, self.heard
        while self.heard < heard:
            self.listen(0.1)
            if self.heard > before:
                end, before = time.monotonic() + SETTLED, self.heard
            if time.monotonic() > end:
                why = f"; refused: {self.last_refusal[:200].decode(errors='replace')}" if self.refused else ""
                raise BenchError(what, f"gives {self.heard:,} of {heard:,} predictions{why}")

    def fill(self, rounds: int, silent: int, rate: float | None, what: str) -> None:
        """So many readings of each series, of which the first `silent` give no prediction; all others are waited for.
        rate: readings a second, None as fast as the broker takes them."""
        begun, done, total = time.monotonic(), 0, rounds * self.series
        self.sent = self.heard = 0
        while done < total:
            if rate is not None and done > rate * (time.monotonic() - begun):
                self.listen(0.005)
                continue
            quiet = silent * self.series - done
            count = min(PORTION if rate is None else 100, total - done, quiet if quiet > 0 else total)
            self.send(count)
            done += count
            if quiet > 0:
                self.sent = 0
            while self.sent - self.heard > 20 * PORTION:
                self.settle(self.sent - 20 * PORTION, what)
        self.settle(self.sent, what)

    def calm(self) -> None:
        """Returns once nothing more comes, and counts from there."""
        before = -1
        while self.heard != before:
            before = self.heard
            self.listen(0.3)
        self.sent = self.heard = 0

    def closed(self, seconds: float, ahead: int, what: str) -> float:
        """Predictions a second while at most `ahead` are on their way; longer on a box that is slow to make a few."""
        self._read()
        begun = heard_at = time.monotonic()
        before = seen = self.heard
        least = max(1, ahead // 50)
        ahead += self._open
        while time.monotonic() - begun < seconds or self.heard - before < FEWEST:
            room = ahead - (self.sent - self.heard)
            if room >= least:
                self.send(min(room, PORTION))
            self.listen(0.01)
            if self.heard > seen:
                seen, heard_at = self.heard, time.monotonic()
            elif time.monotonic() - heard_at > STALLED:
                raise BenchError(
                    what, f"has said nothing for {STALLED:.0f} s with {self.sent - self.heard:,} to answer"
                )
        return (self.heard - before) / (time.monotonic() - begun)

    def paced(self, rate: float, seconds: float) -> Paced:
        """Readings at a rate, in portions of a millisecond at most, whatever comes back."""
        self.settle(self.sent, "the program")
        self._timed = []
        begun, done, before, sent = time.monotonic(), 0, self.heard, self.sent
        while (passed := time.monotonic() - begun) < seconds:
            due = int(passed * rate) - done
            if due > 0:
                self.send(min(due, PORTION))
                done += min(due, PORTION)
            self.listen(max(0.0, min(0.001, (done + 1) / rate - (time.monotonic() - begun))))
        behind = (self.sent - sent) - (self.heard - before) - self._open
        end = time.monotonic() + 5
        while self.heard - before < self.sent - sent - self._open and time.monotonic() < end:
            self.listen(0.05)
        latencies, self._timed = np.array(self._timed), None
        return Paced(done, self.heard - before, behind, latencies)


def publish(readings: Sequence[tuple[str, bytes]], qos: int, first: int = 1) -> bytes:
    """PUBLISH packets of MQTT 3.1.1. first: packet id of the first at QoS 1, from which they count up."""
    if not qos:
        return packets.publish(readings, False)
    parts: list[bytes] = []
    for i, (topic, payload) in enumerate(readings):
        mid = (first + i - 1) % 65_535 + 1
        name = topic.encode()
        body = b"".join((len(name).to_bytes(2, "big"), name, mid.to_bytes(2, "big"), payload))
        length, left = bytearray(), len(body)
        while left > 127:
            length.append(left & 127 | 128)
            left >>= 7
        parts += (b"\x32", bytes((*length, left)), body)
    return b"".join(parts)
