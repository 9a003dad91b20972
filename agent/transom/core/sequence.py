"""Sequence numbers that a payload carries: what never arrived, and what arrived twice.

A number far behind, far ahead, or near zero, is a device that began anew.
"""

from typing import Any

REMEMBERED = 1000  # numbers back at which a message still counts as old and not as a new beginning
FARTHEST = 1_000_000  # numbers ahead at which a message is taken for a new beginning and not for a loss
MOST_TOPICS = 100_000  # topics followed; more are not


class Sequences:
    """The numbers of one stream, by topic."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._holes: dict[str, set[int]] = {}
        self.missing = 0  # numbers that have not arrived
        self.gaps = 0

    def is_new(self, topic: str, number: int) -> bool:
        """False for a number that was here before."""
        last = self._last.get(topic)
        if last is None:
            if len(self._last) < MOST_TOPICS:
                self._last[topic] = number
            return True
        if last < number <= last + FARTHEST:
            self._last[topic] = number
            if number > last + 1:
                self._missed(topic, last + 1, number)
            return True
        if last - number > REMEMBERED or (number <= 1 < last - number) or number - last > FARTHEST:
            self._last[topic] = number
            self._holes.pop(topic, None)
            return True
        holes = self._holes.get(topic)
        if holes is not None and number in holes:
            holes.remove(number)
            self.missing -= 1
            return True
        return False

    def _missed(self, topic: str, begin: int, end: int) -> None:
        self.gaps += 1
        self.missing += end - begin
        holes = self._holes.setdefault(topic, set())
        holes.update(range(max(begin, end - REMEMBERED), end))
        holes.difference_update([n for n in holes if n < end - REMEMBERED])

    def snapshot(self) -> dict[str, Any]:
        return {
            "last": dict(self._last), "holes": {topic: sorted(holes) for topic, holes in self._holes.items() if holes},
            "missing": self.missing, "gaps": self.gaps,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        self._last = dict(state["last"])
        self._holes = {topic: set(holes) for topic, holes in state["holes"].items()}
        self.missing, self.gaps = int(state["missing"]), int(state["gaps"])
