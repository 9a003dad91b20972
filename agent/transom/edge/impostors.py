"""Messages that were refused for their sender or signature: told in the log at once, then once a minute a stream."""

import logging
import time
from collections.abc import Sequence

from transom.core.events import DeadLetter

log = logging.getLogger(__name__)

AGAIN = 60.0  # seconds
LONGEST = 200  # characters of a topic in the log
KINDS = ("sender", "signature")


class Impostors:
    """Keeps a moment and a count for each stream."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}  # by stream: when, and how many dead letters since

    def look(self, letters: Sequence[DeadLetter]) -> None:
        """letters: of one turn; most turns have none."""
        for letter in letters:
            if letter.kind not in KINDS:
                continue
            now = time.monotonic()
            told, since = self._told.get(letter.stream, (now - AGAIN, 0))
            if now - told < AGAIN:
                self._told[letter.stream] = told, since + 1
                continue
            more = f"; {since} like it in the last minute" if since else ""
            log.warning("streams.%s: %r is refused: %s%s", letter.stream, letter.topic[:LONGEST], letter.reason, more)
            self._told[letter.stream] = now, 0
