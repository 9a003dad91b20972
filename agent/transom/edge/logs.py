"""Log lines for people and for journald: one line a fact, on standard error; what repeats is counted, not repeated."""

import logging
import os
import sys
import time
from collections.abc import Callable

REPEAT = 60.0  # seconds in which the same line is logged once
REMEMBERED = 1000  # lines

_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (0, "<7>"))  # sd-daemon(3)


class _Line(logging.Formatter):
    def __init__(self, *, journald: bool) -> None:
        super().__init__("%(message)s" if journald else "%(asctime)s %(levelname)-7s %(message)s")
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\n", " | ")
        prefix = next(p for level, p in _PRIORITIES if record.levelno >= level) if self._journald else ""
        return prefix + line


class Collapse(logging.Filter):
    """Lets a warning or an error through once a minute; the next one through says how often it came in between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, record.getMessage()), self._clock()
        since, times = self._seen.get(key, (float("-inf"), 0))
        if now - since < REPEAT:
            self._seen[key] = since, times + 1
            return False
        if len(self._seen) >= REMEMBERED:
            self._seen = {k: v for k, v in self._seen.items() if now - v[0] < REPEAT}
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
        self._seen[key] = now, 0
        if times:
            record.msg, record.args = f"{record.getMessage()} ({times} more times in the last {now - since:.0f} s)", ()
        return True


def set_up(level: str) -> None:
    """Logs of this package to standard error, with journald's priorities where it listens."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(journald="JOURNAL_STREAM" in os.environ))
    handler.addFilter(Collapse())
    root = logging.getLogger("transom")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
    logging.getLogger("transom.paho").setLevel(
        level.upper() if level == "debug" else logging.CRITICAL
    )  # we say it better
