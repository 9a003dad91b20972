"""What waits for the broker: alerts until it has acknowledged them, predictions while they are young.

Decides what goes when; the connection sends, the journal keeps the alerts. One thread uses it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from transom.dialects.plain import Publication
from transom.edge import overflow
from transom.edge.mqtt import Connection
from transom.edge.retention import Dropped

log = logging.getLogger(__name__)

RATE = 1000.0  # publications a second out of a backlog, beside what is new
UNACKNOWLEDGED = 500  # alerts on their way to the broker at a time
HELD = 5000  # alerts held in memory; the journal has the rest
MEMORY = 10_000  # alerts held in memory where no journal has them

Stored = tuple[int, Publication]  # id in the journal, below 0 for one that is not on disk
Read = Callable[[int, int], Sequence[Stored]]


class Outbox:
    """limit: predictions that may wait; max_age: ms after which one is not sent any more."""

    def __init__(self, limit: int, max_age: int, read: Read) -> None:
        """read: (after id, at most) -> alerts on disk, oldest first."""
        self.limit, self.max_age, self._read = limit, max_age, read
        self._predictions: deque[tuple[int, Publication]] = deque()
        self._alerts: deque[Stored] = deque()
        self._sent: dict[int, Stored] = {}  # by packet id
        self._last = 0  # highest id taken from disk
        self._on_disk = True  # there may be more on disk than is held here
        self._done: list[int] = []
        self._unsaved, self._most = 0, MEMORY
        self._allowance, self._then = RATE, time.monotonic()
        self._new = 0  # that came since the last flush
        self.counts = {"predictions_dropped": 0, "predictions_expired": 0, "alerts_delivered": 0, "alerts_dropped": 0}

    def predict(self, publications: Iterable[Publication], now: int, connection: Connection) -> None:
        """Sends what nothing older stands in the way of, and keeps the rest for a while. now: ms."""
        if not self._predictions and connection.can_publish:
            connection.publish_many(list(publications))
            return
        for publication in publications:
            while self._predictions and len(self._predictions) >= self.limit:
                self._predictions.popleft()
                self.counts["predictions_dropped"] += 1
            if self.limit:
                self._predictions.append((now, publication))
            else:
                self.counts["predictions_dropped"] += 1
            self._new += 1

    def alert(self, stored: Sequence[Stored]) -> None:
        """Alerts that have just been kept."""
        for one in stored:
            if one[0] > 0 and (self._on_disk or len(self._alerts) >= HELD):
                self._on_disk = True  # it is there, and its turn comes after those before it
                continue
            self._alerts.append(one)
            self._last = max(self._last, one[0])
            self._new += 1

    def unsaved(self, alerts: Iterable[Publication]) -> None:
        """Alerts that could not be kept on disk: memory is all there is."""
        for alert in alerts:
            self._unsaved += 1
            self._alerts.append((-self._unsaved, alert))
        if len(self._alerts) > self._most:
            self._thin()

    def _thin(self) -> None:
        memory = [one for one in self._alerts if one[0] < 0]
        kept = overflow.thin([alert for _, alert in memory], MEMORY)
        dropped = {i for (i, _), keep in zip(memory, kept, strict=True) if not keep}
        if dropped:
            self.counts["alerts_dropped"] += len(dropped)
            log.warning("too many alerts wait in memory: the oldest updates, or alerts that are over, are dropped")
            self._alerts = deque(one for one in self._alerts if one[0] not in dropped)
        self._most = len(self._alerts) + MEMORY // 10  # not with each one

    def rescue(self) -> list[Publication]:
        """The alerts that are in memory only, those on their way too, to be kept on disk."""
        return [alert for i, alert in (*self._sent.values(), *self._alerts) if i < 0]

    def rescued(self, ids: Sequence[int]) -> None:
        """What `rescue` gave is on disk now, with these ids, and comes from there when its turn has come."""
        left = iter(ids)
        for mid, (i, alert) in self._sent.items():
            if i < 0:
                self._sent[mid] = next(left), alert
        self._alerts = deque(one for one in self._alerts if one[0] > 0)
        self._on_disk = True

    def moved(self) -> None:
        """The file is another one, in which ids begin anew: what is held here is in memory only."""
        for mid, (i, alert) in self._sent.items():
            if i > 0:
                self._unsaved += 1
                self._sent[mid] = -self._unsaved, alert
        alerts, self._alerts = [alert for _, alert in self._alerts], deque()
        self._last, self._done, self._on_disk = 0, [], True
        self.unsaved(alerts)

    def flush(self, now: int, connection: Connection) -> None:
        """Takes note of what the broker has, and sends what may go. now: ms."""
        for mid in connection.confirmed():
            stored = self._sent.pop(mid, None)
            if stored is not None:
                self.counts["alerts_delivered"] += 1
                if stored[0] > 0:
                    self._done.append(stored[0])
        present = time.monotonic()
        self._allowance = min(self._allowance + RATE * (present - self._then), RATE)
        self._then = present
        new, self._new = self._new, 0
        if not connection.ready or not (self._alerts or self._predictions or self._on_disk):
            return
        # What is new does not use up what the backlog may; what was new while nobody could be told is backlog.
        self._allowance += new
        self._send_alerts(connection)
        self._send_predictions(now, connection)
        self._allowance = min(self._allowance, RATE)

    def _send_predictions(self, now: int, connection: Connection) -> None:
        young: list[Publication] = []
        while self._predictions and len(young) + 1 <= self._allowance and connection.can_publish:
            made, publication = self._predictions.popleft()
            if now - made > self.max_age:
                self.counts["predictions_expired"] += 1
                continue
            young.append(publication)
        self._allowance -= len(young)
        if young:
            # Together, for these have no packet id: one could be that of an alert which is still on its way.
            connection.publish_many(young)

    def _send_alerts(self, connection: Connection) -> None:
        while self._allowance >= 1 and len(self._sent) < UNACKNOWLEDGED:
            if not self._alerts and not self._fetch():
                return
            mid = connection.publish(self._alerts[0][1])
            if mid is None:
                return
            self._sent[mid] = self._alerts.popleft()
            self._allowance -= 1

    def _fetch(self) -> bool:
        """True when there is something to send again."""
        while self._on_disk:
            more = self._read(self._last, HELD)
            self._on_disk = len(more) == HELD
            if more:
                self._last = more[-1][0]
            under_way = {i for i, _ in self._sent.values()} | set(self._done)
            self._alerts.extend(one for one in more if one[0] not in under_way)
            if self._alerts:
                return True
        return False

    def again(self) -> None:
        """A new connection object knows nothing of what was sent over the last one: it all goes again."""
        self._alerts.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    @property
    def under_way(self) -> list[int]:
        """Ids of alerts that the broker is being given."""
        return [i for i, _ in self._sent.values()]

    def forget(self, dropped: Dropped) -> None:
        """Alerts that the journal has given up."""
        self._alerts = deque(one for one in self._alerts if not 0 < one[0] <= dropped.upto)
        self.counts["alerts_dropped"] += dropped.number

    def done(self) -> list[int]:
        """Ids on disk that the broker has, since the last call."""
        done, self._done = self._done, []
        return done

    def undone(self, ids: Iterable[int]) -> None:
        """What `done` gave could not be written."""
        self._done[:0] = ids

    @property
    def waiting(self) -> dict[str, int]:
        return {
            "alerts_waiting": len(self._alerts) + len(self._sent), "predictions_waiting": len(self._predictions)
        }  # fmt: skip
