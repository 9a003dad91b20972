"""What time it is for the pipeline: the present, jumps of the clock, and whether silence now says something.

Silence counts only while somebody could have been heard: not while the broker is away, the link silent, the machine
asleep or this process stopped.
"""

import time
from collections.abc import Iterable

from transom.core.stream import Stream
from transom.edge.clock import Clock
from transom.edge.hearing import Absence
from transom.edge.mqtt import Connection

TURN = 0.25  # seconds without a message after which idle series are looked for, and seconds between two such looks


class Present:
    """now: ms since 1970, when the latest turn began."""

    def __init__(self) -> None:
        self.clock, self.now = Clock(), 0
        self._absence = Absence()
        self._ticked = 0.0

    def look(self, connection: Connection, streams: Iterable[Stream]) -> int:
        """Takes the present, and returns the ms by which silence must not be counted since the last look."""
        self.now, jump = self.clock.look()
        present = time.monotonic()
        connection.hearing.patience = _patience(streams)
        gone = round(1000 * self._absence.look(present, connection.hearing.gaps(), away=not connection.ready))
        if gone:
            self._ticked = present + TURN  # what waited at the broker comes first
        return jump + gone

    def tick(self, connection: Connection, *, behind: bool, after: float) -> int | None:
        """The present, when it is time to look for idle series.

        behind: messages wait that this turn does not take; after: time (monotonic) before which nobody should look."""
        present = time.monotonic()
        if present < max(self._ticked + TURN, after) or not connection.ready:
            return None
        if behind or self._absence.on or connection.hearing.silent:
            return None
        self._ticked = present
        return self.now


def _patience(streams: Iterable[Stream]) -> float | None:
    """Seconds that the link may be silent: half of what a series may be."""
    limits = [s.grid.stale_after for s in streams if s.grid.stale_after is not None]
    return min(limits) / 2e6 if limits else None
