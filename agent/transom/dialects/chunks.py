"""Which chunks of a file are there, and which to ask for next: numbers, bytes and the present in, numbers out.

A chunk counts only when it is the one that the offer names, so any order, loss, repetition and forgery leads to this
file or to none. Little is on its way at a time; what does not come is asked for again, less and less often.
"""

import hashlib
from collections.abc import Iterable
from itertools import islice

from transom.dialects import updates
from transom.dialects.updates import Offer

WINDOW = 16  # chunks on their way
PATIENCE, LONGEST = 2.0, 60.0  # seconds without any chunk after which all are asked for again: at first, and at most
AGAIN = 1.0  # seconds before the same chunk is asked for again


class Chunks:
    """Of one offer. bad: chunks that came and were not those of the offer."""

    def __init__(self, offer: Offer) -> None:
        """Raises UpdateError for an offer that contradicts itself."""
        self.offer, self._hashes = offer, updates.hashes(offer)
        self._missing = dict.fromkeys(range(offer.chunks))  # an ordered set
        self._asked: dict[int, float] = {}  # when, in the order of asking
        self._overtaken: dict[int, float] = {}  # when asked for; others came that were asked for later
        self._patience, self._since = PATIENCE, 0.0  # since when nothing came
        self.bad = 0

    @property
    def received(self) -> int:
        return self.offer.chunks - len(self._missing)

    @property
    def complete(self) -> bool:
        return not self._missing

    def fits(self, number: int, data: bytes) -> bool:
        """Whether these are the bytes of that chunk."""
        return (
            0 <= number < self.offer.chunks
            and len(data) == self.offer.length(number)
            and hashlib.sha256(data).digest() == self._hashes[number]
        )

    def held(self, numbers: Iterable[int]) -> None:
        """Chunks that are there already."""
        for number in numbers:
            self._missing.pop(number, None)

    def take(self, number: int, data: bytes, now: float) -> bool:
        """True for a chunk that was missing: it is to be kept. now: seconds, of a clock that only goes forward."""
        if number not in self._missing:
            return False
        if not self.fits(number, data):
            self.bad += 1
            return False
        del self._missing[number]
        self._overtaken.pop(number, None)
        self._patience, self._since = PATIENCE, now
        while number in self._asked:  # a sender answers in the order of asking: what it passes over is lost
            first = next(iter(self._asked))
            asked = self._asked.pop(first)
            if first != number:
                self._overtaken[first] = asked
        return True

    def hurry(self) -> None:
        """Somebody who has the file is there: all of it may be asked for again at once."""
        self._asked.clear()
        self._overtaken.clear()
        self._patience = PATIENCE

    def due(self, now: float) -> list[int]:
        """What to ask for now, lowest first; it counts as asked for."""
        if self._asked and now - self._since >= self._patience:
            self._asked.clear()
            self._patience = min(2 * self._patience, LONGEST)
        if len(self._asked) > WINDOW // 2:
            return []
        if not self._asked:
            self._since = now
        self._overtaken = {n: asked for n, asked in self._overtaken.items() if now - asked < AGAIN}
        free = (n for n in self._missing if n not in self._asked and n not in self._overtaken)
        numbers = list(islice(free, WINDOW - len(self._asked)))
        self._asked.update(dict.fromkeys(numbers, now))
        return numbers

    def wait(self, now: float) -> float:
        """Seconds after which `due` is to be asked again, if nothing comes before."""
        silence = max(0.0, self._since + self._patience - now)
        return min(silence, AGAIN) if self._overtaken else silence
