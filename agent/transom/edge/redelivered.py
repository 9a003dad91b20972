"""Messages that come again: the broker repeats, marked, what it holds for unacknowledged, with the packet id of before.

Remembers the latest messages by packet id and a checksum; no clock, no disk.
"""

import zlib
from collections import OrderedDict

from transom.core.pipeline import Message
from transom.edge.wire import WINDOW

Mark = tuple[int, int]  # packet id, checksum of topic and payload


def mark_of(mid: int, message: Message) -> Mark:
    return mid, zlib.crc32(message.payload, zlib.crc32(message.topic.encode()))


class Redelivered:
    """The latest WINDOW marks: a broker holds no more for unacknowledged, and reuses no packet id among them."""

    def __init__(self) -> None:
        self._marks: OrderedDict[int, int] = OrderedDict()
        self.count = 0

    def seen(self, mid: int, message: Message) -> bool:
        """True for a message that is here already; any other is remembered."""
        mid, checksum = mark_of(mid, message)
        if message.redelivered and self._marks.get(mid) == checksum:
            self.count += 1
            return True
        self.add([(mid, checksum)])
        return False

    def add(self, marks: list[Mark]) -> None:
        for mid, checksum in marks:
            self._marks[mid] = checksum
            self._marks.move_to_end(mid)
        while len(self._marks) > WINDOW:
            self._marks.popitem(last=False)

    def marks(self) -> list[Mark]:
        return list(self._marks.items())
