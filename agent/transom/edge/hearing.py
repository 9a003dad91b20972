"""When the broker was last heard: a silent link must not be taken for silent sensors.

The network thread says what it hears, the run loop asks. Sends nothing.
"""

import time
from collections import deque
from collections.abc import Callable

Gap = tuple[float, float]  # seconds of a clock that only goes forward: from, to


class Hearing:
    """patience: seconds without a sign of the broker after which the link counts as silent, None = for ever."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = self._asked = clock()
        self._gaps: deque[Gap] = deque()
        self.patience: float | None = None

    # --- the network thread -------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Something has come, and nobody has seen it yet: whoever sees it must find the gap before it."""
        now = self._clock()
        if self.patience is not None and now - self._last > self.patience:
            self._gaps.append((self._last, now))
        self._last = now

    def should_ask(self) -> bool:
        """True once, when nothing has come for half the patience: then the broker should be made to say something."""
        if self.patience is None or self._asked > self._last or self._clock() - self._last < self.patience / 2:
            return False
        self._asked = self._clock()
        return True

    # --- the run loop -------------------------------------------------------------------------------------------------

    @property
    def silent(self) -> bool:
        return self.patience is not None and self._clock() - self._last > self.patience

    def gaps(self) -> list[Gap]:
        """The silences of the link that have ended since the last call."""
        return [self._gaps.popleft() for _ in range(len(self._gaps))]


class Absence:
    """Adds up gaps that may overlap: the broker gone, the link silent, this process stopped."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._counted = 0.0

    @property
    def on(self) -> bool:
        return self._since is not None

    def look(self, now: float, gaps: list[Gap], *, away: bool) -> float:
        """Seconds of absence that have ended since the last look, none twice. now: of the gaps' clock."""
        if away and self._since is None:
            self._since = now
        elif not away and self._since is not None:
            gaps = [*gaps, (self._since, now)]
            self._since = None
        total = 0.0
        for begin, end in sorted(gaps):
            total += max(0.0, end - max(begin, self._counted))
            self._counted = max(self._counted, end)
        return total
