"""How many refusals are told: a second and a topic in, told or only counted out."""

from collections.abc import Iterable
from typing import Any

DEAD_LETTERS = 10  # a second and stream, by time of arrival,
QUIET = 10  # and so many more of topics that had none in it: one that floods hides no other's fault


class Letters:
    """The quota of one stream."""

    def __init__(self, second: int = -1, told: int = 0, topics: Iterable[str] = ()) -> None:
        """second: since 1970, of which `told` were admitted, of these topics."""
        self._second, self._told, self._topics = second, told, set(topics)

    def admits(self, second: int, topic: str) -> bool:
        if second != self._second:
            self._second, self._told, self._topics = second, 0, set()
        if self._told >= DEAD_LETTERS + QUIET or (self._told >= DEAD_LETTERS and topic in self._topics):
            return False
        self._told += 1
        self._topics.add(topic)
        return True

    def snapshot(self) -> list[Any]:
        """The arguments of one that goes on where this one is."""
        return [self._second, self._told, sorted(self._topics)]
