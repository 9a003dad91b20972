"""Messages that come again: the broker repeats, marked, what it holds for unacknowledged, with the packet id of before.

Remembers the latest messages by packet id and a checksum; no clock, no disk.
"""

import zlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from transom.core.pipeline import Message
from transom.edge.inbox import Token

IDS = 65_536  # packet ids are 16 bits
REMEMBERED = 32_768  # half of all packet ids: a broker that reuses one has had our acknowledgement of it long since
Mark = tuple[int, int]  # packet id, checksum of topic and payload


class Split(NamedTuple):
    """messages: that are new, with those at QoS 0; tokens, marks: of the new ones at QoS 1; again: tokens of those that
    are here already and are only acknowledged."""

    messages: list[Message]
    tokens: list[Token]
    marks: list[Mark]
    again: list[Token]


def mark_of(mid: int, message: Message) -> Mark:
    return mid, zlib.crc32(message.payload, zlib.crc32(message.topic.encode()))


class Redelivered:
    """The latest marks: more than a broker sends ahead of acknowledgements, fewer than there are packet ids."""

    def __init__(self) -> None:
        # By packet id, in the size that there are of them: memory does not grow with traffic.
        self._checksum, self._turn = array("I", bytes(4 * IDS)), array("Q", bytes(8 * IDS))
        self._now = 0
        self.count = 0

    def split(self, messages: Sequence[Message], tokens: Sequence[Token | None]) -> Split:
        """What is new, which is remembered, and what is here already."""
        if not any(tokens):  # QoS 0
            return Split([*messages], [], [], [])
        found = Split([], [], [], [])
        for message, token in zip(messages, tokens, strict=True):
            if token is not None:
                mark = self._new(token.mid, message)
                if mark is None:
                    found.again.append(token)
                    continue
                found.tokens.append(token)
                found.marks.append(mark)
            found.messages.append(message)
        return found

    def seen(self, mid: int, message: Message) -> bool:
        """True for a message that is here already; any other is remembered."""
        return self._new(mid, message) is None

    def _new(self, mid: int, message: Message) -> Mark | None:
        mark = mark_of(mid, message)
        if message.redelivered and self._checksum[mid] == mark[1] and self._recent(mid):
            self.count += 1
            return None
        self.add([mark])
        return mark

    def add(self, marks: list[Mark]) -> None:
        for mid, checksum in marks:
            self._now += 1
            self._checksum[mid], self._turn[mid] = checksum, self._now

    def marks(self) -> list[Mark]:
        """Oldest first."""
        known = sorted((self._turn[mid], mid) for mid in range(IDS) if self._recent(mid))
        return [(mid, self._checksum[mid]) for _, mid in known]

    def _recent(self, mid: int) -> bool:
        return 0 < self._turn[mid] > self._now - REMEMBERED
