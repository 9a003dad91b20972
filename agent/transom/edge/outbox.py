"""What waits for the broker: alerts until it has acknowledged them, predictions while they are young.

Decides what goes when; the connection sends, the journal keeps the alerts. One thread uses it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from transom.dialects.plain import Publication
from transom.edge.mqtt import Connection

log = logging.getLogger(__name__)

RATE = 1000.0  # publications a second out of a backlog, beside what is new
UNACKNOWLEDGED = 500  # alerts on their way to the broker at a time
HELD = 5000  # alerts held in memory; the journal has the rest

Stored = tuple[int, Publication]  # id in the journal, below 0 for one that is not on disk
Read = Callable[[int, int], Sequence[Stored]]


class Outbox:
    """limit: predictions that may wait; max_age: ms after which one is not sent any more."""

    def __init__(self, limit: int, max_age: int, read: Read) -> None:
        """read: (after id, at most) -> alerts on disk, oldest first."""
        self._limit, self._max_age, self._read = limit, max_age, read
        self._predictions: deque[tuple[int, Publication]] = deque()
        self._alerts: deque[Stored] = deque()
        self._sent: dict[int, Stored] = {}  # by packet id
        self._last = 0  # highest id taken from disk
        self._on_disk = True  # there may be more on disk than is held here
        self._done: list[int] = []
        self._unsaved = 0
        self._allowance, self._then = RATE, time.monotonic()
        self.counts = {"predictions_dropped": 0, "predictions_expired": 0, "alerts_delivered": 0}

    def predict(self, publications: Iterable[Publication], now: int, connection: Connection) -> None:
        """Sends what nothing older stands in the way of, and keeps the rest for a while. now: ms."""
        if not self._predictions and connection.can_publish:
            connection.publish_many(list(publications))
            return
        for publication in publications:
            if len(self._predictions) >= self._limit:
                self._predictions.popleft()
                self.counts["predictions_dropped"] += 1
            if self._limit:
                self._predictions.append((now, publication))
            self._allowance += 1  # what is new does not use up what the backlog may

    def alert(self, stored: Sequence[Stored]) -> None:
        """Alerts that have just been kept."""
        for one in stored:
            if one[0] > 0 and (self._on_disk or len(self._alerts) >= HELD):
                self._on_disk = True  # it is there, and its turn comes after those before it
                continue
            self._alerts.append(one)
            self._last = max(self._last, one[0])
            self._allowance += 1

    def unsaved(self, alerts: Iterable[Publication]) -> None:
        """Alerts that could not be kept on disk: memory is all there is."""
        for alert in alerts:
            self._unsaved += 1
            self._alerts.append((-self._unsaved, alert))

    def rescue(self) -> list[Publication]:
        """Takes out the alerts that are in memory only, to be kept on disk; those on their way stay."""
        saved = [pub for i, pub in self._alerts if i < 0]
        self._alerts = deque(one for one in self._alerts if one[0] > 0)
        return saved

    def flush(self, now: int, connection: Connection) -> None:
        """Takes note of what the broker has, and sends what may go. now: ms."""
        for mid in connection.confirmed():
            stored = self._sent.pop(mid, None)
            if stored is not None:
                self.counts["alerts_delivered"] += 1
                if stored[0] > 0:
                    self._done.append(stored[0])
        present = time.monotonic()
        self._allowance = min(self._allowance + RATE * (present - self._then), max(RATE, self._allowance))
        self._then = present
        if not self._alerts and not self._predictions and not self._on_disk:
            return
        if not connection.ready:
            return
        self._send_alerts(connection)
        while self._predictions and self._allowance >= 1 and connection.can_publish:
            made, publication = self._predictions.popleft()
            if now - made > self._max_age:
                self.counts["predictions_expired"] += 1
                continue
            self._allowance -= 1
            connection.publish(publication)

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
        if not self._on_disk:
            return False
        more = self._read(self._last, HELD)
        self._alerts.extend(more)
        self._on_disk = len(more) == HELD
        if more:
            self._last = more[-1][0]
        return bool(more)

    def look_again(self) -> None:
        """There may be alerts on disk that could not be read before."""
        self._on_disk = True

    def again(self) -> None:
        """A new connection object knows nothing of what was sent over the last one: it all goes again."""
        self._alerts.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    def done(self) -> list[int]:
        """Ids on disk that the broker has, since the last call."""
        done, self._done = self._done, []
        return done

    @property
    def waiting(self) -> dict[str, int]:
        return {
            "alerts_waiting": len(self._alerts) + len(self._sent), "predictions_waiting": len(self._predictions)
        }  # fmt: skip
