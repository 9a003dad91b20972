"""Which topic floods: one that sends more than its rate while messages pile up, and holds more than its share of them.

Counts by topic only while the inbox is crowded; before that a message costs nothing here. Sheds and logs nothing.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from transom.core.topics import Pattern
from transom.edge import masks
from transom.settings import Settings

CROWDED = 1000  # messages that wait, from which on shares are looked at: some 30 ms of work on a PC
USUAL = 1000.0  # messages a second that a topic may bring where no stream says another rate
BURST = 5.0  # seconds of its rate that a topic may bring at once, and that may wait at a time
BURST_KEPT = 60.0  # the same at QoS 1, for a logger that sends what it has stored: shedding that would lose readings
LEAST_BURST = 100.0  # messages
SHARE = 1.5  # times the equal share of the topics
BLOCK = 4096  # bytes: a payload counts once for each that it begins
LAPSE = 60.0  # seconds without a crowd after which all begins anew
LONGEST_ABSENCE = 86_400.0  # seconds
MOST = 100_000  # topics that are followed
COUNTED = 1000  # topics by which shed messages are counted here; those of more are counted together
NAMED = 5  # topics that health names
LONGEST_NAME = 200  # characters of a topic in health and in the log

Rates = Sequence[tuple[Pattern, float | None]]


class _Bucket:
    """left: messages that the topic may bring at once; then: seconds, when that was so; extra: of an absence used."""

    __slots__ = ("burst", "extra", "left", "rate", "then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.left, self.then, self.extra = rate, burst, burst, now, 0.0


class Throttled(NamedTuple):
    """messages: shed since the start; topics: those with the most, and how many of each."""

    messages: int
    topics: list[tuple[str, int]]

    def body(self) -> dict[str, Any]:
        """For BASE/health."""
        return {"messages": self.messages, "topics": [{"topic": t, "shed": n} for t, n in self.topics]}


class Fairness:
    """Of one inbox, which calls it with its lock held; `change`, `throttled` and `lines` are for any thread. Times are
    seconds of a clock that only goes forward."""

    def __init__(self, rates: Rates = ()) -> None:
        """rates: messages a second that a topic of a pattern may bring, None: as many as it likes."""
        self._rates = self._current = list(rates)
        self._waiting: Counter[str] | None = None  # by topic, while there is a crowd
        self._total = 0
        self._buckets: dict[str, _Bucket | None] = {}  # None: no rate
        self._absence = self._crowded = 0.0
        self._lock, self._shed = threading.Lock(), Counter[str]()
        self._told: dict[str, tuple[float, int]] = {}  # by topic: when, and how many

    def change(self, rates: Rates) -> None:
        """Other rates from now on."""
        self._rates = list(rates)

    def absent(self, seconds: float, now: float) -> None:
        """For so long nobody listened: what a topic may have brought meanwhile it may bring now."""
        if seconds > 0:
            self._absence, self._crowded = min(max(seconds, self._absence), LONGEST_ABSENCE), now

    # --- what waits -----------------------------------------------------------------------------------------------

    def crowd(self, waiting: Iterable[tuple[str, int]], now: float) -> None:
        """There is a crowd. waiting: topic and size in bytes of each message in it; asked for only where it is new."""
        if now - self._crowded > LAPSE:
            self._buckets.clear()
            self._absence = 0.0
        if self._current is not self._rates:
            self._current = self._rates
            self._buckets.clear()
        self._crowded = now
        if self._waiting is None:
            self._waiting = Counter()
            for topic, size in waiting:
                self._waiting[topic] += 1 + size // BLOCK
            self._total = self._waiting.total()

    def disperse(self) -> None:
        """Nothing waits any more."""
        self._waiting = None

    def goes(self, topic: str, size: int) -> None:
        if self._waiting is None:
            return
        weight = 1 + size // BLOCK
        self._total -= weight
        self._waiting[topic] -= weight
        if not self._waiting[topic]:
            del self._waiting[topic]

    # --- who floods -----------------------------------------------------------------------------------------------

    def admits(self, topic: str, size: int, now: float, burst: float, *, kept: bool) -> bool:
        """Whether a message, in a crowd, comes in, False for one too many of its topic. burst: messages, the most that
        a topic may ever bring at once; kept: it came at QoS 1."""
        waiting, buckets, weight = self._waiting, self._buckets, 1 + size // BLOCK
        assert waiting is not None
        bucket = buckets[topic] if topic in buckets else self._new(topic, now, burst, BURST_KEPT if kept else BURST)
        if bucket is not None:
            if bucket.then != now:
                bucket.left = min(bucket.left + bucket.rate * (now - bucket.then), bucket.burst)
                bucket.then = now
            if bucket.left >= weight and waiting.get(topic, 0) < bucket.burst:
                bucket.left -= weight
            elif self._too_many(topic, bucket, weight):
                with self._lock:
                    self._shed[topic if topic in self._shed or len(self._shed) < COUNTED else ""] += 1
                return False
        waiting[topic] = waiting.get(topic, 0) + weight
        self._total += weight
        return True

    def _too_many(self, topic: str, bucket: _Bucket, weight: int) -> bool:
        """More than its rate, or its burst waits; now its share, and the absence that it may make up for, decide."""
        assert self._waiting is not None
        topics = max(len(self._buckets), len(self._waiting))
        if topics == 1 or self._waiting[topic] * topics <= SHARE * self._total:
            return False
        if bucket.extra + weight <= self._absence * bucket.rate:
            bucket.extra += weight
            return False
        return True

    def _new(self, topic: str, now: float, most: float, seconds: float) -> _Bucket | None:
        if len(self._buckets) >= MOST:
            self._buckets.clear()
        rate = self._rate(topic)
        bucket = None if rate is None else _Bucket(rate, min(max(seconds * rate, LEAST_BURST), most), now)
        return self._buckets.setdefault(topic, bucket)

    def _rate(self, topic: str) -> float | None:
        """Of the streams that take the topic the most generous decides."""
        found = [rate for pattern, rate in self._current if pattern.match(topic) is not None]
        rates = [rate for rate in found if rate is not None]
        return None if len(rates) < len(found) else max(rates, default=USUAL)

    # --- what is told of it ---------------------------------------------------------------------------------------

    def throttled(self) -> Throttled:
        with self._lock:
            most, messages = self._shed.most_common(NAMED), self._shed.total()
        return Throttled(messages, [(masks.topic(t)[:LONGEST_NAME] if t else t, count) for t, count in most])

    def lines(self, now: float, again: float) -> Iterator[str]:
        """For the log: each topic, of the few that are named, once and then every `again` seconds while it goes on."""
        with self._lock:
            most = self._shed.most_common(NAMED)
        for topic, count in most:
            since, told = self._told.get(topic, (now - again, 0))
            if count > told and now - since >= again:
                self._told[topic] = now, count
                name = repr(masks.topic(topic)[:LONGEST_NAME]) if topic else "other topics"
                yield f"{name} floods: {count - told} messages were shed, so that others need not wait (max_rate)"


def rates(settings: Settings) -> Rates:
    return [(Pattern.parse(stream.topic), stream.max_rate) for stream in settings.streams.values()]
