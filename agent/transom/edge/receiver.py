"""PUBLISH packets to messages in the inbox, and how far the broker is ahead of our acknowledgements.

Runs in the network thread, but for `mine`; sends nothing.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from functools import partial

from transom.core.pipeline import Message
from transom.edge.inbox import Inbox, Token
from transom.edge.packets import DUP, QOS, RETAIN, Packet

LEAST_WINDOW = 20  # messages that a broker sends ahead of acknowledgements: mosquitto's default
MOST_NAMES = 100_000  # topics whose text is remembered
SHORT_NAME = 512  # bytes of a topic whose text is
LONGEST_NAME = 4096  # bytes of a topic that is taken: longer ones fit no series' name, and fill the memory
LONGEST_SENDER = 1024  # bytes of what is said of a sender
FEW = 64  # messages of one read that are few
NAP = 0.001  # seconds

_message = partial(tuple.__new__, Message)  # a third of the time of Message(…)
_sessions = itertools.count(1)  # over all connections: a packet id means nothing in the next one


class Receiver:
    """received, bad_topics: messages so far; session: of the connection that is there, 0 for none."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.received = self.bad_topics = self.session = 0
        self._taken = self._before = 0  # messages with a token, ever and up to this connection
        self._acknowledged = (0, 0)  # session, and how many of its messages
        self._most = LEAST_WINDOW
        self._names: dict[bytes, str] = {}  # topics as they come
        self._heard = 0  # messages of the last read
        self._last_heard = 0.0

    def begin(self) -> None:
        """A connection is there."""
        self.session, self._before = next(_sessions), self._taken

    def end(self) -> None:
        """It is gone: packet ids are used again."""
        self.session = 0

    def take(self, batch: Sequence[Packet]) -> list[int]:
        """Puts a batch into the inbox. Returns packet ids of what is no message and must be acknowledged: unanswered it
        would fill the broker's window for good."""
        now, session, names, message = time.time_ns() // 1_000_000, self.session, self._names, _message
        entries: list[tuple[Message, Token | None]] = []
        refused: list[int] = []
        for topic, payload, first, mid, value in batch:
            name = names[topic] if topic in names else self._name(topic)
            if name is None:
                self.bad_topics += 1
                refused += [mid] if mid else []
                continue
            sender = None if value is None else _sender(value)
            taken = message((name, payload, now, first & DUP != 0, first & RETAIN != 0, sender))
            if first & QOS:
                self._taken += 1
                entries.append((taken, Token(session, mid)))
            else:
                entries.append((taken, None))
        self.received += len(entries)
        self._heard = len(entries)
        self._inbox.put_many(entries)
        return refused

    def _name(self, topic: bytes) -> str | None:
        if len(topic) > LONGEST_NAME:
            return None
        if len(self._names) >= MOST_NAMES:
            self._names.clear()
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            return None
        return name if len(topic) > SHORT_NAME else self._names.setdefault(topic, name)

    def mine(self, tokens: Iterable[Token]) -> list[int]:
        """Packet ids of those tokens that belong to the connection that is there; they count as acknowledged."""
        current = self.session
        mids = [mid for session, mid in tokens if session == current]
        session, count = self._acknowledged
        self._acknowledged = current, len(mids) + (count if session == current else 0)
        return mids

    def held_back(self, window: int | None) -> float:
        """How much of what the broker may send ahead of our acknowledgements it has sent: 0 to 1. window: None where
        nobody tells its limit: the most that was ever seen stands for it."""
        session, count = self._acknowledged
        waiting = self._taken - self._before - (count if session == self.session else 0)
        self._most = max(self._most, waiting)
        return waiting / (window or self._most)

    def nap(self) -> None:
        """While readings trickle in, a moment's wait lets one read take many: a third of the cost of each."""
        if not self._heard:
            return
        now, few = time.monotonic(), self._heard < FEW
        self._heard = 0
        if few and now - self._last_heard < NAP * 4:
            time.sleep(NAP)
            now += NAP
        self._last_heard = now


def _sender(value: bytes) -> str:
    """One that is too long is that of nobody."""
    return value.decode(errors="replace") if len(value) <= LONGEST_SENDER else "a name too long to be one"
