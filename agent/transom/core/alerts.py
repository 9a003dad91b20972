"""The life of an alert over all series at once: raise, update, clear, with hysteresis, hold-off and a stable id.

Whether a window exceeds its bar comes in, what a person should hear goes out. Never asks the clock.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import MS, NEVER
from transom.core.table import Table

CLEAR_AFTER = 5  # calm windows in a row that end an alert
GROWN = 1.2  # an update is told when the peak score has grown by this factor
CALM = 10.0  # a p-value is calm when it is this many times the one that raises
CALM_SCORE = 0.8  # with a plain threshold: calm below this share of it
CRITICAL = 0.01  # p-value over the one that raises, at which an alert is critical


class State(IntEnum):
    """The state of a series as predictions give it, in lower case."""

    LEARNING = 0
    NORMAL = 1
    PENDING = 2
    ALERT = 3
    STALE = 4


class Change(IntEnum):
    NONE = 0
    RAISE = 1
    UPDATE = 2
    CLEAR = 3


@dataclass(frozen=True, slots=True)
class AlertSpec:
    """raise_n of the last raise_m windows over the bar raise an alert; hold_off: ms after an alert without a new one;
    no_data: a series that falls silent raises an alert of its own kind; accept_after: ms after which what an alert is
    about is a new usual, None for what `judge` makes of the budget."""

    raise_n: int = 1
    raise_m: int = 1
    hold_off: int = 0
    no_data: bool = False
    accept_after: int | None = None


class Alerts(Table):
    """active: bool [S]; history: uint64 [S], last windows over the bar, newest in bit 0; fresh: uint64 [S], those of
    them that were news; calm: int32 [S], calm windows in a row; since, quiet_until: int64 [S] µs; peak, told: float64
    [S], highest score and the one last told of; severity: int8 [S], 1 warning, 2 critical; silent_since: int64 [S] µs,
    of a no-data alert."""

    fills: ClassVar[dict[str, Any]] = {
        "active": False, "history": 0, "fresh": 0, "calm": 0, "since": NEVER, "quiet_until": NEVER, "peak": 0.0,
        "told": 0.0, "severity": 0, "silent_since": NEVER,
    }  # fmt: skip

    def __init__(self, spec: AlertSpec) -> None:
        super().__init__()
        self.spec = spec
        self._mask = np.uint64((1 << spec.raise_m) - 1)
        self.active = np.zeros(0, bool)
        self.history = np.zeros(0, np.uint64)
        self.fresh = np.zeros(0, np.uint64)
        self.calm = np.zeros(0, np.int32)
        self.since = np.zeros(0, np.int64)
        self.quiet_until = np.zeros(0, np.int64)
        self.peak = np.zeros(0, np.float64)
        self.told = np.zeros(0, np.float64)
        self.severity = np.zeros(0, np.int8)
        self.silent_since = np.zeros(0, np.int64)

    def step(
        self, series: NDArray[np.int32], end: NDArray[np.int64], score: NDArray[np.float64], over: NDArray[np.bool_],
        calm: NDArray[np.bool_], critical: NDArray[np.bool_], learning: NDArray[np.bool_],
        news: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:  # fmt: skip
        """One window of each of these (distinct) series -> state uint8 [n], change uint8 [n].

        end: µs; over: the score is over the bar; calm: well under it; learning: may not raise yet;
        news: no other window of late was as strange, without which nothing is raised (default: all are news).
        """
        if not over.any() and not self.busy(series).any():
            return self.pass_calm(series, calm, learning), np.zeros(len(series), np.uint8)
        history = ((self.history[series] << np.uint64(1)) | over.astype(np.uint64)) & self._mask
        history[learning] = 0
        self.history[series] = history
        fresh = (
            history if news is None else ((self.fresh[series] << np.uint64(1)) | (over & news)) & self._mask & history
        )
        self.fresh[series] = fresh
        was = self.active[series]
        held_off = end < self.quiet_until[series]
        raised = ~was & ~learning & ~held_off & (np.bitwise_count(history) >= self.spec.raise_n) & (fresh != 0)
        run = np.where(calm, self.calm[series] + 1, 0)
        self.calm[series] = run
        cleared = was & (run >= max(CLEAR_AFTER, self.spec.raise_m))
        now = (was | raised) & ~cleared
        rank = np.where(critical, 2, 1).astype(np.int8)
        peak = np.where(raised, score, np.maximum(self.peak[series], score))
        worse = was & ~cleared & over & (rank > self.severity[series])
        updated = was & ~cleared & (worse | (peak > GROWN * self.told[series]))
        self.severity[series] = np.where(raised, rank, np.where(worse, rank, self.severity[series]))
        self.peak[series] = np.where(was | raised, peak, 0.0)
        self.told[series] = np.where(raised | updated, peak, self.told[series])
        self.since[series] = np.where(raised, end, self.since[series])
        self.quiet_until[series] = np.where(cleared, end + self.spec.hold_off * MS, self.quiet_until[series])
        self.active[series] = now
        self.history[series] = np.where(cleared, np.uint64(0), history)
        state = np.where(now, State.ALERT, np.where(self.history[series] != 0, State.PENDING, State.NORMAL))
        state = np.where(learning & ~now, State.LEARNING, state)
        change = np.where(raised, Change.RAISE, np.where(cleared, Change.CLEAR, np.where(updated, Change.UPDATE, 0)))
        return state.astype(np.uint8), change.astype(np.uint8)

    def busy(self, series: NDArray[np.int32]) -> NDArray[np.bool_]:
        """bool [n]: an alert is up, or may come of a window that was over the bar."""
        return np.asarray(self.active[series] | (self.history[series] != 0))

    def pass_calm(
        self, series: NDArray[np.int32], calm: NDArray[np.bool_], learning: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """`step` of windows under the bar of (distinct) series that are not busy, nearly all that there are: nothing is
        to be told. uint8 [n], the state."""
        self.calm[series] = np.where(calm, self.calm[series] + 1, 0)
        self.fresh[series], self.peak[series] = 0, 0.0
        return np.where(learning, np.uint8(State.LEARNING), np.uint8(State.NORMAL))

    def silence(self, series: NDArray[np.int32], time: NDArray[np.int64], back: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Series that fell silent or came back (each at most once here) -> change uint8 [n] of their no-data alerts."""
        change = np.zeros(len(series), np.uint8)
        if not self.spec.no_data:
            return change
        known = self.silent_since[series] != NEVER
        change[~back & ~known], change[back & known] = Change.RAISE, Change.CLEAR
        self.silent_since[series] = np.where(~back & ~known, time, self.silent_since[series])
        return change


def alert_id(stream: str, series: str, kind: str, since: int) -> str:
    """The same from raise to clear, in any run over the same data: a digest of what the alert is about."""
    text = "\0".join((stream, series, kind, str(since)))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


SEVERITIES = ("", "warning", "critical")
