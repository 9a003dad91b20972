"""Log lines for people and for journald: one line a fact, on standard error."""

import logging
import os
import sys

_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (0, "<7>"))  # sd-daemon(3)


class _Line(logging.Formatter):
    def __init__(self, *, journald: bool) -> None:
        super().__init__("%(message)s" if journald else "%(asctime)s %(levelname)-7s %(message)s")
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\n", " | ")
        prefix = next(p for level, p in _PRIORITIES if record.levelno >= level) if self._journald else ""
        return prefix + line


def set_up(level: str) -> None:
    """Logs of this package to standard error, with journald's priorities where it listens."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(journald="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger("transom")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
