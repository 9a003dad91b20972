"""Messages that come again: the broker repeats, marked, what it holds for unacknowledged, with the packet id of before.

Remembers the latest messages by packet id and a checksum; no clock, no disk.
"""

import zlib
from collections import OrderedDict

from transom.core.pipeline import Message

REMEMBERED = 32_768  # half of all packet ids: a broker that reuses one has had our acknowledgement of it long since
Mark = tuple[int, int]  # packet id, checksum of topic and payload


def mark_of(mid: int, message: Message) -> Mark:
    return mid, zlib.crc32(message.payload, zlib.crc32(message.topic.encode()))


class Redelivered:
    """The latest marks: more than a broker sends ahead of acknowledgements, fewer than there are packet ids."""

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
        while len(self._marks) > REMEMBERED:
            self._marks.popitem(last=False)

    def marks(self) -> list[Mark]:
        return list(self._marks.items())
