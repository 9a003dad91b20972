"""What the run loop sees of arrival: it hands over the messages that are for it, and publishes what is to be told.

Messages of the inbox in, the others and publications out. A bounded queue is all that lies between the loop and the
threads that do the work.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator

from transom.core.pipeline import Message, Pipeline
from transom.dialects import updates
from transom.edge.arrival.desk import Desk, Store
from transom.edge.arrival.fetching import Fetching
from transom.edge.arrival.folder import Folder
from transom.edge.arrival.receiver import Receiver
from transom.edge.arrival.worker import Worker
from transom.edge.mqtt import Connection
from transom.settings import Settings

END = 0.5  # seconds for which the end of the threads is waited for; what they write is whole or not at all
OFFERS, CHUNKS = 32, 64  # messages that wait for the thread: more are dropped, and said or asked for again


class Arrivals:
    """One thread uses it, the run loop's; `start` begins the others."""

    def __init__(self, settings: Settings, store: Store | None) -> None:
        """store: None where nobody decides what runs: then nothing arrives."""
        self._idle = store is None
        self.desk = Desk(settings, store)
        self._started = False
        self._receiver: Receiver | None = None
        self._lock = threading.Lock()
        self._offers: dict[str, tuple[str, bytes]] = {}  # stream and payload by topic, the latest
        self._chunks: deque[tuple[str, int, bytes]] = deque()  # digest, number, bytes
        self._hurry = False
        self._ready = False  # the connection, when it was last looked at
        self._running: Pipeline | None = None
        self._mqtt = Worker("transom-updates", self._step)
        self._folder = Worker("transom-folder", Folder(self.desk).step)
        fetching = Fetching(self.desk)
        self._https = Worker("transom-https", fetching.step)
        fetching.pause = self._https.pause
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Other settings from now on."""
        self.desk.settings = settings
        self._on = "mqtt" in self._ways
        bases = [settings.base, *map(updates.group_base, settings.agent.groups)]
        self._filters = [f for base in bases for f in updates.filters(base)] if self._on else []
        self._prefixes = tuple(f"{base}/update/" for base in bases)
        for worker in (self._mqtt, self._folder, self._https):
            worker.wake()
        if self._started:
            self.start()

    def start(self) -> None:
        """To be called once, when the agent runs."""
        self._started = True
        for worker in self._workers():
            worker.start()

    @property
    def _ways(self) -> tuple[str, ...]:
        return () if self._idle else self.desk.settings.models.updates

    def _workers(self) -> Iterator[Worker]:
        ways = self._ways
        for way, worker in (("mqtt", self._mqtt), ("folder", self._folder), ("https", self._https)):
            if way in ways:
                yield worker

    def close(self) -> None:
        """What is half done goes on at the next start."""
        workers = (self._mqtt, self._folder, self._https)
        for worker in workers:
            worker.stop()
        end = time.monotonic() + END
        ended = [worker.join(max(0.0, end - time.monotonic())) for worker in workers]
        if ended[0] and self._receiver is not None:
            self._receiver.close()

    # --- for the run loop ---------------------------------------------------------------------------------------------

    @property
    def filters(self) -> list[str]:
        """What to subscribe to."""
        return self._filters

    @property
    def stored(self) -> list[str]:
        """Filters of which the broker's stored messages are wanted, also where its session has them already."""
        return self._filters[::2]

    def take(self, messages: list[Message]) -> list[Message]:
        """Notes what is for us; returns the others."""
        if not self._on:
            return messages
        prefixes = self._prefixes
        mine = [m for m in messages if m.topic.startswith(prefixes)]
        if not mine:
            return messages
        with self._lock:
            for message in mine:
                self._note(message)
        self._mqtt.wake()
        return [m for m in messages if not m.topic.startswith(prefixes)]

    def _note(self, message: Message) -> None:
        kind, _, rest = message.topic.partition("/update/")[2].partition("/")
        if kind == "offer":
            if message.topic in self._offers or len(self._offers) < OFFERS:
                self._offers[message.topic] = rest, message.payload
            else:
                self.desk.counts["dropped"] += 1
            return
        active = self._receiver.active if self._receiver is not None else ""
        number = updates.chunk_number(rest, active) if kind == "chunk" and active else None
        if number is None or len(message.payload) > updates.CHUNK_SIZES[-1]:
            self.desk.counts["strange"] += 1  # not asked for, or somebody else in the group has asked
        elif len(self._chunks) >= CHUNKS:
            self.desk.counts["dropped"] += 1
        else:
            self._chunks.append((active, number, message.payload))

    def shed(self, topics: dict[str, int]) -> dict[str, int]:
        """Without the messages of ours that the inbox had to drop, which are counted."""
        mine = [t for t in topics if t.startswith(self._prefixes)] if self._on and topics else []
        if mine:
            self.desk.counts["dropped"] += sum(topics[t] for t in mine)
        return {t: n for t, n in topics.items() if t not in mine} if mine else topics

    def speak(self, pipeline: Pipeline, connection: Connection) -> None:
        """Publishes what is to be told; to be called at each turn."""
        if pipeline is not self._running:
            self._running = pipeline
            self.desk.running = {name: s.model for name, s in pipeline.streams.items()}
        ready, self._ready = self._ready, connection.ready
        if self._ready:
            if not ready and self._on:
                self._hurry = True
                self._mqtt.wake()
            for publication in self.desk.unsent():
                connection.publish(publication)

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _step(self) -> float:
        now = time.monotonic()
        if self._receiver is None:
            receiver = Receiver(self.desk)
            receiver.resume(now)
            self._receiver = receiver
        with self._lock:
            offers, self._offers = self._offers, {}
            chunks, self._chunks = self._chunks, deque()
            hurry, self._hurry = self._hurry, False
        if not self._on:
            return float("inf")
        if hurry:
            self._receiver.hurry()
        for digest, number, data in chunks:
            if self._receiver.active == digest:
                self._receiver.chunk(number, data, now)
        for stream, payload in offers.values():
            self._receiver.offered(stream, payload, now)
        return self._receiver.step(time.monotonic())
