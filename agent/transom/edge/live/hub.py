"""What keeps viewers up to date: a thread that tells each of them twice a second what is new, and sleeps without any.

The run loop hands its events over and goes on. The threads of the listener wait at a Viewer for what to send.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from transom.core.events import Alert, Events, Predictions
from transom.dialects.live.board import Board, Seen
from transom.dialects.live.chart import About

log = logging.getLogger(__name__)

EVERY = 0.5  # seconds between two messages to a viewer
BEAT = 1.0  # seconds without news after which there is one that says how the agent is
REST = 0.1  # seconds between two turns of the thread, whoever wakes it
MOST = 8  # viewers at a time
BEHIND = 8  # messages that may wait for a viewer; one that is further behind is hung up on
FOLD = 4096  # predictions that are left lying while nobody watches
ALERTS = 100  # and changes of alerts
GIVEN_UP = 16 * FOLD  # predictions that may lie there; more are not shown


@dataclass(slots=True)
class Viewer:
    """seen: what it wants and knows; messages: what is to be sent to it, None for the end."""

    name: str
    seen: Seen
    messages: queue.Queue[bytes | None] = field(default_factory=lambda: queue.Queue(BEHIND))
    told: float = 0.0
    gone: bool = False


class Hub:
    """counts: viewers now, those hung up on because they were slow, those sent away because there were too many, and
    predictions that came too fast to be shown."""

    def __init__(self, head: Callable[[], Mapping[str, Any]], room: int | None = None) -> None:
        """head: what the page says of the agent itself, asked for at each message."""
        self._head = head
        self._board = Board() if room is None else Board(room)
        self._pending: deque[Predictions] = deque()
        self._alerts: deque[Alert] = deque()
        self._waiting = 0  # predictions in _pending, or a few less: both threads count
        self._about: dict[str, About] = {}
        self._viewers: list[Viewer] = []
        self._lock, self._wake, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self.dropped = self.refused = self.skipped = 0
        self._thread = threading.Thread(target=self._run, name="transom-live", daemon=True)
        self._thread.start()

    def counts(self) -> dict[str, int]:
        return {
            "viewers": len(self._viewers),
            "dropped": self.dropped,
            "refused": self.refused,
            "skipped": self.skipped,
        }

    # --- for the run loop ---------------------------------------------------------------------------------------------

    def take(self, events: Events) -> None:
        """Keeps what has happened for the thread to sort; costs the run loop an append."""
        self._alerts.extend(events.alerts)
        for batch in events.predictions:
            if self._waiting >= GIVEN_UP:
                self.skipped += len(batch)
                continue
            self._pending.append(batch)
            self._waiting += len(batch)
        if self._waiting >= FOLD or len(self._alerts) >= ALERTS:
            self._wake.set()

    def configure(self, about: dict[str, About]) -> None:
        """The streams that there are from now on."""
        self._about = about

    # --- for the threads that send ------------------------------------------------------------------------------------

    def join(self, name: str, seen: Seen) -> Viewer | None:
        """A viewer that is told what is new from now on, None if there are too many. The one of the same name, whom a
        browser has left behind, makes room."""
        viewer = Viewer(name, seen)
        with self._lock:
            for other in [v for v in self._viewers if name and v.name == name]:
                self._end(other)
            if len(self._viewers) >= MOST or self._ended.is_set():
                self.refused += 1
                return None
            self._viewers.append(viewer)
        self._wake.set()
        return viewer

    def leave(self, viewer: Viewer, *, slow: bool = False) -> None:
        """slow: because it did not take what it was sent."""
        with self._lock:
            if slow:
                self._slow(viewer)
            self._end(viewer)

    def close(self) -> None:
        """Hangs up on all."""
        self._ended.set()
        self._wake.set()
        self._thread.join(5)
        with self._lock:
            for viewer in list(self._viewers):
                self._end(viewer)

    def _end(self, viewer: Viewer) -> None:
        """Says the end, in place of what waits if need be. Called with the lock."""
        if viewer.gone:
            return
        viewer.gone = True
        self._viewers.remove(viewer)
        while True:
            try:
                viewer.messages.put_nowait(None)
            except queue.Full:
                viewer.messages.get_nowait()
            else:
                return

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(EVERY - REST if self._viewers else None)
            self._wake.clear()
            if self._ended.is_set():
                return
            try:
                with self._lock:
                    self._turn()
            except Exception:
                log.exception("the live page cannot be told what is new; its viewers connect again")
                with self._lock:
                    self._board = Board(self._board.room)
                    for viewer in list(self._viewers):
                        self._end(viewer)
            self._ended.wait(REST)

    def _turn(self) -> None:
        if self._board.about is not self._about:
            self._board.configure(self._about)
        self._waiting = 0
        predictions = [self._pending.popleft() for _ in range(len(self._pending))]
        alerts = [self._alerts.popleft() for _ in range(len(self._alerts))]
        self._board.take(predictions, alerts)
        now = time.monotonic()
        for viewer in list(self._viewers):
            if now - viewer.told >= EVERY - REST:
                self._tell(viewer, now)

    def _tell(self, viewer: Viewer, now: float) -> None:
        if viewer.messages.full():
            self._slow(viewer)
            return
        news = self._board.tell(viewer.seen)
        if news or now - viewer.told >= BEAT:
            viewer.told = now
            viewer.messages.put_nowait(msgspec.json.encode({"head": self._head(), **news}))

    def _slow(self, viewer: Viewer) -> None:
        """Hangs up on one that does not take what it is told. Called with the lock."""
        if not viewer.gone:
            self.dropped += 1
            log.info("a viewer of the live page was too slow; it was hung up on (%s so far)", self.dropped)
            self._end(viewer)
