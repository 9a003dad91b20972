"""Scores to verdicts: p-values, what is over the budget's bar, and what that changes in the life of an alert.

Columns in, columns out; no words. Series of one batch are judged window after window in rounds, each round over all
series at once, so that no batching changes a verdict. Windows of which there is nothing to decide go a short way.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.alerts import CALM, CALM_SCORE, CRITICAL, Alerts, AlertSpec, Change, State
from transom.core.attention import Attention
from transom.core.blame import Blame
from transom.core.calibration import Calibration
from transom.core.hold import ACCEPT
from transom.core.model import Manifest, Outputs, Windows
from transom.core.own import Own, Told, told_again

HIGHEST_BAR = 0.2  # a budget so large that more windows would exceed it says nothing


@dataclass(slots=True)
class Verdicts:
    """A row a window. p_value: float64 [n]; state, change: uint8 [n], `State` and the `Change` that is told; normal:
    bool [n], False for a strange window of an alert. Of use where something is told: since: int64 [n] µs; peak: float64
    [n]; severity: int8 [n]; why: float64 [n, 3], see `own.Told`; place: uint8 [n, C], see `Blame`."""

    p_value: NDArray[np.float64]
    state: NDArray[np.uint8]
    change: NDArray[np.uint8]
    since: NDArray[np.int64]
    peak: NDArray[np.float64]
    severity: NDArray[np.int8]
    why: NDArray[np.float64]
    place: NDArray[np.uint8]
    normal: NDArray[np.bool_]

    @classmethod
    def blank(cls, n: int, channels: int) -> "Verdicts":
        return cls(
            np.ones(n), np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.int64), np.zeros(n),
            np.zeros(n, np.int8), np.full((n, 3), np.nan), np.zeros((n, channels), np.uint8), np.ones(n, bool),
        )  # fmt: skip

    def put(self, rows: NDArray[np.int64], other: "Verdicts") -> None:
        """Those of these rows."""
        for name in self.__slots__:
            getattr(self, name)[rows] = getattr(other, name)


class Jury:
    """Calibration and alerts of one stream. raised, unscored: how many alerts, and windows without a score, ever."""

    def __init__(
        self, manifest: Manifest, spec: AlertSpec, budget: float | None, threshold: float | None, interval: float | None
    ) -> None:
        """See `Judge`."""
        self.manifest, self.budget, self.threshold = manifest, budget, threshold
        self.own = Own(interval) if manifest.any_sensor and manifest.task == "anomaly" else None
        self.calibration = self.own.calibration if self.own else Calibration(manifest.calibration, interval)
        self.alerts, self.attention, self.blame = Alerts(spec), Attention(), Blame(len(manifest.channels))
        self.raised = self.unscored = 0

    def rule(self, windows: Windows, outputs: Outputs) -> Verdicts:
        """windows by series and time; outputs of a model that finds anomalies. Takes them as happened."""
        calm = self._calm(windows, outputs["score"])
        if calm is None:
            return self._decide(windows, outputs)
        rest, verdicts = calm
        if len(rest):
            some = Windows(windows.series[rest], windows.end[rest], windows.values[rest])
            verdicts.put(rest, self._decide(some, {key: array[rest] for key, array in outputs.items()}))
        return verdicts

    def _calm(self, windows: Windows, score: NDArray[np.float32]) -> tuple[NDArray[np.int64], Verdicts] | None:
        """Verdicts on one window of each series that is under its bar, without an alert or anything that could become
        one, and the rows that are not so, untouched. None for a batch of another kind."""
        ids, end = windows.series, windows.end
        if self.own is not None or not len(ids) or not np.isfinite(score).all() or (ids[1:] == ids[:-1]).any():
            return None
        u = self.calibration.table.surprise(score)
        seen = self.calibration.look(ids)
        p = self.calibration.p_value(u, seen)
        over, quiet = self._bars(ids, p, score)
        busy = over | self.alerts.busy(ids) | self.attention.busy(ids)
        verdicts = Verdicts.blank(len(ids), self.blame.channels)
        rest = np.flatnonzero(busy)
        if len(rest):
            rows = np.flatnonzero(~busy)
            ids, end, u, quiet, seen = ids[rows], end[rows], u[rows], quiet[rows], seen[:, rows]
            learning = self.calibration.windows[ids] < self.manifest.learning
            verdicts.p_value[rows], verdicts.state[rows] = p[rows], self.alerts.pass_calm(ids, quiet, learning)
        else:
            learning = self.calibration.windows[ids] < self.manifest.learning
            verdicts.p_value, verdicts.state = p, self.alerts.pass_calm(ids, quiet, learning)
        self.calibration.beat(ids, end)
        self.calibration.take(ids, u, seen)
        return rest, verdicts

    def _decide(self, windows: Windows, outputs: Outputs) -> Verdicts:
        """`rule` for windows of any kind."""
        score, contribution = outputs["score"], outputs["contribution"]
        found = Verdicts.blank(len(windows), self.blame.channels)
        unscored = ~np.isfinite(score)
        self.unscored += int(unscored.sum())
        clean = np.where(unscored, np.float32(0), score)
        u = self.calibration.table.surprise(clean)
        rank = segments.ranks(segments.starts(windows.series))
        for turn in range(int(rank.max()) + 1 if len(windows) else 0):
            rows: Any = np.flatnonzero(rank == turn) if turn or rank.any() else slice(None)
            ids, end = windows.series[rows], windows.end[rows]
            learning = self.calibration.windows[ids] < self.manifest.learning
            p, shown, news, found.why[rows], told = self._p_values(ids, end, u[rows], windows.values[rows, -1, 0])
            over, calm = self._bars(ids, p, clean[rows])
            over, calm = over & ~unscored[rows], calm & ~unscored[rows]
            value = windows.values[rows, -1, 0].astype(np.float64)
            if self.own is not None:
                calm &= self.own.hold.over(ids, value, found.why[rows][:, 1], self._accepted(ids))
            found.state[rows], change = self.alerts.step(
                ids, end, clean[rows].astype(np.float64), over, calm, self._critical(ids, p, clean[rows]), learning,
                news,
            )  # fmt: skip
            lasted = (end - self.alerts.since[ids]) / 1000.0 * self.calibration.windows_per_ms(ids)
            fault = (found.state[rows] == State.ALERT) & (lasted < self._accepted(ids))
            found.normal[rows], teaches = ~(fault & over), self._teaches(fault, over)
            begun = change == Change.RAISE
            self.raised += int(begun.sum())
            if self.own is not None:
                self.own.hold.begin(ids[begun], value[begun], *found.why[rows][begun].T)
                if told is not None:
                    known = np.isfinite(value)
                    self.own.learn(ids[known], told, teaches[known])
            else:
                self.calibration.learn(ids, u[rows], end, teaches)
            change = self._named(ids, contribution[rows], over, found.state[rows] == State.ALERT, change)
            found.change[rows] = self.attention.tell(ids, end, change, self.alerts.active[ids])
            if change.any() or found.change[rows].any():
                found.place[rows] = self.blame.place[ids]
                self.blame.forget(ids[change == Change.CLEAR])
            found.p_value[rows] = shown
            found.since[rows], found.peak[rows] = self.alerts.since[ids], self.alerts.peak[ids]
            found.severity[rows] = self.alerts.severity[ids]
        return found

    def _named(
        self, ids: NDArray[np.int32], contribution: NDArray[np.float32], over: NDArray[np.bool_],
        up: NDArray[np.bool_], change: NDArray[np.uint8],
    ) -> NDArray[np.uint8]:  # fmt: skip
        """The changes, with an update where an alert has one more channel to name."""
        if not up.any():
            return change
        known = np.nan_to_num(contribution, nan=0.0)
        more = self.blame.weigh(ids, known, over, up & (change != Change.RAISE))
        change = np.where(more & (change == Change.NONE), np.uint8(Change.UPDATE), change)
        told = (change == Change.RAISE) | (change == Change.UPDATE)
        self.blame.name(ids[told], known[told])
        return change

    def _p_values(
        self, ids: NDArray[np.int32], end: NDArray[np.int64], u: NDArray[np.float64], value: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_] | None, NDArray[np.float64], Told | None]:
        """p-value of each window, the one to be shown (1 for what is no news), whether it is news for an alert, and
        why: float64 [n, 3], side, habit and level (see `Told`), NaN where there are none; and what a series' own past
        says, where it decides."""
        why = np.full((len(ids), 3), np.nan)
        if self.own is None:
            p = self.calibration.p_value(u, self.calibration.look(ids))
            return p, p, None, why, None
        p, shown, fresh = np.ones(len(ids)), np.ones(len(ids)), np.zeros(len(ids), bool)
        known = np.isfinite(value)
        told = self.own.judge(ids[known], end[known], value[known], self._per_window(ids[known]))
        p[known], shown[known] = told.p_value, np.where(told.news, told.p_value, 1.0)
        fresh[known] = told.lately | (self.threshold is not None)
        why[known] = np.stack([told.side, told.usual, told.level], 1)
        return p, shown, fresh, why, told

    def _teaches(self, fault: NDArray[np.bool_], over: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [n]: False for a window that keeps an alert up (fault: one that is not accepted yet), for a fault must
        not become usual while it is told of, and what goes on for `accept_after` is. A series' own past learns from all
        windows unless `accept_after` is set, and then from none of an alert: see docs/detection.md for why."""
        if self.own is None:
            return ~(fault & over)
        return ~fault if self.alerts.spec.accept_after is not None else np.ones(len(fault), bool)

    def _accepted(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [n]: windows after which what an alert is about is a new usual. Without `accept_after` ACCEPT; of a
        series' own past half the time of one false alarm if that is less, for a held alert hides the next."""
        if self.alerts.spec.accept_after is not None:
            return self.alerts.spec.accept_after * self.calibration.windows_per_ms(ids)
        if self.own is None:
            return np.full(len(ids), float(ACCEPT))
        return np.minimum(told_again(self._per_window(ids)), ACCEPT)

    def _per_window(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [n]: false alarms allowed a window."""
        return (self.budget or 0.0) / self.calibration.windows_per_ms(ids)

    def bar(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [n]: the p-value from which a window of each series is over the budget's bar."""
        return np.minimum(self._per_window(ids), HIGHEST_BAR)

    def _bars(
        self, ids: NDArray[np.int32], p: NDArray[np.float64], score: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """bool [n] each: over the bar, well under it."""
        if self.threshold is not None:
            return score >= self.threshold, score < CALM_SCORE * self.threshold
        bar = self.bar(ids)
        # Of a bar near 1 the tenfold is exceeded by ordinary windows: calm is half way to it at most.
        return p <= bar, p >= np.minimum(CALM * bar, np.sqrt(bar))

    def _critical(
        self, ids: NDArray[np.int32], p: NDArray[np.float64], score: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """bool [n]: far over the bar."""
        return score >= 2 * self.threshold if self.threshold is not None else p <= CRITICAL * self.bar(ids)
