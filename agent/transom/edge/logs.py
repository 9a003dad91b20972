"""Log lines for people and for journald: one line a fact, on standard error; what repeats is counted, not repeated."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from transom.core.printable import printable
from transom.edge import masks

REPEAT = 60.0  # seconds in which the same line is logged once
REMEMBERED = 1000  # lines

_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (0, "<7>"))  # sd-daemon(3)


class _Line(logging.Formatter):
    def __init__(self, *, journald: bool) -> None:
        super().__init__("%(message)s" if journald else "%(asctime)s %(levelname)-7s %(message)s")
        self._journald = journald

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        return masks.trace(ei) or super().formatException(ei)

    def format(self, record: logging.LogRecord) -> str:
        line = printable(super().format(record).replace("\n", " | "))
        prefix = next(p for level, p in _PRIORITIES if record.levelno >= level) if self._journald else ""
        return prefix + line


class _Repeated(NamedTuple):
    """A line that was let through, when (s), and how often it came again since."""

    record: logging.LogRecord
    since: float
    times: int


class Collapse(logging.Filter):
    """Lets a warning or an error through once a minute; the next one through says how often it came in between, and
    `due` says it where no next one comes. Any thread may log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._seen: dict[tuple[str, str], _Repeated] = {}
        self._over: list[_Repeated] = []  # that had to make room

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, record.getMessage()), self._clock()
        with self._lock:
            known = self._seen.get(key)
            if known is not None and now - known.since < REPEAT:
                self._seen[key] = known._replace(times=known.times + 1)
                return False
            if len(self._seen) >= REMEMBERED:
                self._make_room(now)
            self._seen[key] = _Repeated(_copy(record, record.getMessage()), now, 0)
        if known is not None and known.times:
            record.msg, record.args = _again(known, now), ()
        return True

    def _make_room(self, now: float) -> None:
        gone = {k: r for k, r in self._seen.items() if now - r.since >= REPEAT} or dict(self._seen)
        for key, repeated in gone.items():
            del self._seen[key]
            if repeated.times and len(self._over) < REMEMBERED:
                self._over.append(repeated)

    def due(self, *, end: bool = False) -> list[logging.LogRecord]:
        """Lines that say how often others came again: those whose minute is over, and at the end all."""
        now = self._clock()
        with self._lock:
            over, self._over = self._over, []
            for key, repeated in list(self._seen.items()):
                if repeated.times and (end or now - repeated.since >= REPEAT):
                    over.append(repeated)
                    del self._seen[key]
        return [_copy(repeated.record, _again(repeated, now)) for repeated in over]


def _again(repeated: _Repeated, now: float) -> str:
    times, seconds = repeated.times, now - repeated.since
    return f"{repeated.record.getMessage()} ({times} more times in the last {seconds:.0f} s)"


def _copy(record: logging.LogRecord, message: str) -> logging.LogRecord:
    """Without the traceback, and what hangs on it."""
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, (), None)


class _Handler(logging.StreamHandler[TextIO]):
    """Tells what has come again; at the end of the process too, for logging closes its handlers then."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_Line(journald="JOURNAL_STREAM" in os.environ))
        self._collapse = Collapse()
        self.addFilter(self._collapse)

    def tell(self, *, end: bool = False) -> None:
        for record in self._collapse.due(end=end):
            with self.lock or contextlib.nullcontext():
                self.emit(record)

    def close(self) -> None:
        self.tell(end=True)
        super().close()


def tell() -> None:
    """To be called now and then: warnings that came again and then no more are told with their count."""
    for handler in logging.getLogger("transom").handlers:
        if isinstance(handler, _Handler):
            handler.tell()


def set_up(level: str) -> None:
    """Logs of this package to standard error, with journald's priorities where it listens."""
    root = logging.getLogger("transom")
    root.handlers[:] = [_Handler()]
    root.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    logging.getLogger("transom").setLevel(level.upper())
    logging.getLogger("transom.paho").setLevel(
        level.upper() if level == "debug" else logging.CRITICAL
    )  # we say it better
