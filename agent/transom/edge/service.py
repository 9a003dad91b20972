"""The run loop: drain, process, publish, and now and then say how it goes. One thread owns all state of the pipeline.

Settings and a pipeline in, publications out. Ends within seconds of `stop`, with everything saved.
"""

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from transom import __version__
from transom.core.events import Events
from transom.core.pipeline import Pipeline
from transom.dialects.plain import Publication, publications
from transom.edge import observe, state
from transom.edge.assembly import describe
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection, broker_options
from transom.settings import Settings

log = logging.getLogger(__name__)

TURN = 0.25  # seconds without a message after which idle series are looked for
SHUTDOWN = 5.0  # seconds that a clean end may take


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Agent:
    """Runs one pipeline against one broker."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, on_events: Callable[[Events, int], None] | None = None
    ) -> None:
        """on_events: told of each batch of events with the present (ms since 1970), in the run loop's thread."""
        self.settings, self.pipeline, self._on_events = settings, pipeline, on_events
        self.base = settings.base
        self.latencies = observe.Latencies()
        self.ready = threading.Event()
        self._inbox = Inbox(settings.agent.inbox)
        self._started = time.monotonic()
        self._connection = Connection(
            broker_options(settings),
            filters=pipeline.filters,
            inbox=self._inbox,
            will=self._status("offline"),
            birth=lambda: [self._status("online"), self._info()],
        )

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop` is set; then what has arrived is processed, saved and told before it returns."""
        self._restore()
        self._connection.start()
        next_health = time.monotonic() + self.settings.agent.health_every / 1000
        try:
            while not stop.is_set():
                self._inbox.wait(TURN)
                self._turn()
                if not self.ready.is_set() and self._connection.wait_ready(0):
                    self.ready.set()
                    log.info("ready: watching %s on %s", ", ".join(self.pipeline.filters), self.settings.broker.host)
                if time.monotonic() >= next_health:
                    self._connection.publish([self._health()])
                    next_health += self.settings.agent.health_every / 1000
        finally:
            self._close()

    def _turn(self) -> None:
        messages, shed = self._inbox.drain()
        if shed:
            self.pipeline.shed(shed)
        now = now_ms()
        events = self.pipeline.process(messages, now)
        self._connection.publish(publications(events, self.base))
        if messages:
            done = now_ms()
            self.latencies.add([done - m.received for m in messages])
        if self._on_events is not None:
            self._on_events(events, now)

    def _close(self) -> None:
        began = time.monotonic()
        self._connection.stop_receiving()
        self._turn()
        try:
            state.save(self.settings.agent.state, self.pipeline.snapshot())
        except OSError as error:
            log.error("state %s could not be saved: %s", self.settings.agent.state, error)  # noqa: TRY400
        self._connection.publish([self._health()])
        self._connection.close(self._status("stopped"), max(0.5, SHUTDOWN - 1.5 - (time.monotonic() - began)))
        accounts = self.pipeline.accounts()
        log.info(
            "stopped after %s readings in %s windows",
            sum(a["received"] for a in accounts.values()), sum(a["windows"] for a in accounts.values()),
        )  # fmt: skip

    def _restore(self) -> None:
        saved = state.load(self.settings.agent.state)
        if saved is None:
            return
        try:
            fresh = self.pipeline.restore(saved)
        except (KeyError, TypeError, ValueError) as error:
            log.error("state %s is of another version (%s): starting without it", self.settings.agent.state, error)  # noqa: TRY400
            return
        for name in fresh:
            log.warning("streams.%s: starts anew, its model or shape has changed since the state was saved", name)
        log.info("state restored: %s series", sum(a["series"] for a in self.pipeline.accounts().values()))

    def _status(self, word: str) -> Publication:
        return Publication(f"{self.base}/status", msgspec.json.encode({"state": word}), 1, retain=True)

    def _info(self) -> Publication:
        body = observe.info(__version__, describe(self.pipeline))
        return Publication(f"{self.base}/info", msgspec.json.encode(body), 1, retain=True)

    def _health(self) -> Publication:
        body = observe.health(
            accounts=self.pipeline.accounts(), strangers=self.pipeline.strangers, latencies=self.latencies,
            connection=self._connection.counters(), inbox=len(self._inbox),
            uptime=time.monotonic() - self._started,
        )  # fmt: skip
        return Publication(f"{self.base}/health", msgspec.json.encode(body), 0, retain=True)
