"""The bounded queue between the network thread and the pipeline. Messages in, all that has arrived out.

Over its limit a message that the broker will not send again sheds the oldest of its kind, which is counted by topic;
one that waits for an acknowledgement (it has a token) is not: whoever puts it stops reading until there is room. Long
before that a topic that floods is shed, of either kind (`fairness`), so that it costs no other its place.
"""

import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from transom.core.pipeline import Message
from transom.edge.fairness import BLOCK, CROWDED, Fairness

MOST = 2048  # messages of one drain: more make no turn cheaper, and the model would have none to work on meanwhile
LARGEST = 256 << 20  # bytes of topics and payloads that may wait
FULL = 0.8  # share of the limit from which the agent calls itself overloaded
LONG = 1.0  # seconds that a message may wait before it does
TOPICS = 100_000  # topics by which shed messages are counted; those of more are counted together


class Token(NamedTuple):
    """With which a message is acknowledged: the connection that it came by and its packet id."""

    session: int
    mid: int


class Drained(NamedTuple):
    """messages and their tokens (None for QoS 0), oldest first; shed: how many by topic; spent: tokens of those."""

    messages: list[Message]
    tokens: list[Token | None]
    shed: dict[str, int]
    spent: Sequence[Token] = ()


_Entry = tuple[int, Message, Token | None, float]  # number, message, token, when it was put


class Inbox:
    """One thread puts, one drains."""

    def __init__(self, limit: int, largest: int = LARGEST, fairness: Fairness | None = None) -> None:
        """limit: messages; largest: bytes of topics and payloads; fairness: None where no topic is looked at."""
        self._limit, self._largest, self._fairness = limit, largest, fairness
        self._easy = (limit, largest) if fairness is None else (min(CROWDED, limit // 8), largest // 8)
        self._spent: list[Token] = []  # of messages that were shed
        self._fleeting: deque[_Entry] = deque()  # QoS 0, in order of arrival
        self._lasting: deque[_Entry] = deque()  # QoS 1, in order of arrival
        self._count = self._bytes = 0
        self._shed: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._fullest = self._longest = 0.0
        self._woken = False

    def put(self, message: Message, token: Token | None = None) -> None:
        """Takes a message, also over the limit when it has a token; sheds the oldest without one for it."""
        with self._changed:
            while self._full(_size(message)):
                if not self._fleeting:
                    if token is not None:
                        break
                    self._drop(message.topic)
                    return
                _, oldest, _, _ = self._fleeting.popleft()
                self._bytes -= _size(oldest)
                self._drop(oldest.topic)
                if self._fairness is not None:
                    self._fairness.goes(oldest.topic, _size(oldest))
            self._count += 1
            self._bytes += _size(message)
            (self._fleeting if token is None else self._lasting).append((self._count, message, token, time.monotonic()))
            self._fullest = max(self._fullest, len(self) / self._limit, self._bytes / self._largest)
            self._changed.notify_all()

    def put_many(self, entries: Sequence[tuple[Message, Token | None]]) -> None:
        """`put` for each, in one go, without what floods while there is a crowd."""
        size, now = sum([len(m[0]) + len(m[1]) for m, _ in entries]), time.monotonic()
        with self._changed:
            if len(self) + len(entries) <= self._easy[0] and self._bytes + size <= self._easy[1]:
                self._append(entries, size, now)
                return
            if self._fairness is not None:
                entries = self._fair(entries, self._fairness, now)
                size = sum(_size(message) for message, _ in entries)
                if len(self) + len(entries) <= self._limit and self._bytes + size <= self._largest:
                    self._append(entries, size, now)
                    return
        for message, token in entries:
            self.put(message, token)

    def _append(self, entries: Sequence[tuple[Message, Token | None]], size: int, now: float) -> None:
        fleeting, lasting = self._fleeting, self._lasting
        for number, (message, token) in enumerate(entries, self._count + 1):
            (fleeting if token is None else lasting).append((number, message, token, now))
        self._count += len(entries)
        self._bytes += size
        self._fullest = max(self._fullest, len(self) / self._limit, self._bytes / self._largest)
        self._changed.notify_all()

    def _fair(
        self, entries: Sequence[tuple[Message, Token | None]], fairness: Fairness, now: float
    ) -> list[tuple[Message, Token | None]]:  # fmt: skip
        """Those that do not flood; the others are counted, and acknowledged when that is written."""
        waiting = chain(self._fleeting, self._lasting)
        fairness.crowd(((message.topic, _size(message)) for _, message, _, _ in waiting), now)
        burst = min(self._limit, self._largest // BLOCK) / 4
        kept: list[tuple[Message, Token | None]] = []
        for entry in entries:
            topic = entry[0].topic
            if fairness.admits(topic, _size(entry[0]), now, burst, kept=entry[1] is not None):
                kept.append(entry)
                continue
            self._shed[topic if topic in self._shed or len(self._shed) < TOPICS else ""] += 1
            if entry[1] is not None:
                self._spent.append(entry[1])
        return kept

    def absent(self, seconds: float) -> None:
        """For so long nothing could come: what waited at the broker comes now, and is no flood."""
        if self._fairness is not None and seconds > 0:
            with self._changed:
                self._fairness.absent(seconds, time.monotonic())

    def wait(self, timeout: float) -> bool:
        """True as soon as there is a message, False after `timeout` seconds without one."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self) > 0, timeout)

    def wait_turn(self, timeout: float) -> None:
        """Returns as soon as there is a message or `wake` was called, after `timeout` seconds at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken or len(self) > 0, timeout)
            self._woken = False

    def wake(self) -> None:
        """Ends a `wait_turn`, this one or the next: there is something else to look at."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def full(self) -> bool:
        """True when nothing more should be read that would have to be kept."""
        with self._changed:
            return self._full(0) or len(self._spent) > self._limit

    def wait_room(self, timeout: float) -> bool:
        """True as soon as there is room, False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.full, timeout)

    def drain(self, most: int | None = None) -> Drained:
        """What has arrived, at most `most` (MOST) messages, and what was shed since the last call."""
        most = MOST if most is None else most
        with self._changed:
            self._longest = max(self._longest, self._waited())
            shed, self._shed = dict(self._shed), Counter()
            spent, self._spent = self._spent, []
            entries: list[_Entry]
            if len(self) <= most:
                fleeting, lasting = self._fleeting, self._lasting
                self._fleeting, self._lasting = deque(), deque()
                entries = list(heapq.merge(fleeting, lasting)) if fleeting and lasting else [*fleeting, *lasting]
                self._bytes = 0
                if self._fairness is not None:
                    self._fairness.disperse()
            else:
                entries = [self._oldest() for _ in range(most)]
                self._bytes -= sum(_size(m) for _, m, _, _ in entries)
                if self._fairness is not None:
                    for _, message, _, _ in entries:
                        self._fairness.goes(message.topic, _size(message))
            self._changed.notify_all()
        return Drained([m for _, m, _, _ in entries], [t for _, _, t, _ in entries], shed, spent)

    def abandon(self) -> dict[str, int]:
        """Empties it: how many messages without a token were in it, by topic, with those shed before."""
        with self._changed:
            for _, message, _, _ in self._fleeting:
                self._drop(message.topic)
            shed, self._shed = dict(self._shed), Counter()
            self._fleeting, self._lasting, self._bytes, self._spent = deque(), deque(), 0, []
            if self._fairness is not None:
                self._fairness.disperse()
        return shed

    def overloaded(self) -> bool:
        """True when it has been nearly full, or a message has waited long, since this was last asked."""
        with self._changed:
            fullest, self._fullest = self._fullest, len(self) / self._limit
            longest, self._longest = max(self._longest, self._waited()), 0.0
        return fullest >= FULL or longest >= LONG

    def __len__(self) -> int:
        return len(self._fleeting) + len(self._lasting)

    def _full(self, more: int) -> bool:
        return len(self) >= self._limit or (self._bytes + more > self._largest and len(self) > 0)

    def _waited(self) -> float:
        """Seconds for which the oldest has waited."""
        oldest = min((queue[0] for queue in (self._fleeting, self._lasting) if queue), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest[3]

    def _oldest(self) -> _Entry:
        if not self._lasting or (self._fleeting and self._fleeting[0][0] < self._lasting[0][0]):
            return self._fleeting.popleft()
        return self._lasting.popleft()

    def _drop(self, topic: str) -> None:
        self._fullest = 1.0
        self._shed[topic if topic in self._shed or len(self._shed) < TOPICS else ""] += 1


def _size(message: Message) -> int:
    return len(message[0]) + len(message[1])
