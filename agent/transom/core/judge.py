"""Windows and what the model made of them to predictions and alerts: calibrate, then the life of an alert.

Columns in, columns out; a Python object only for a change that a person hears of. Series of one batch are judged
window after window in rounds, each round over all series at once, so that no batching changes a verdict.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core import segments, telling
from transom.core.alerts import CALM, CALM_SCORE, CRITICAL, SEVERITIES, Alerts, AlertSpec, Change, State
from transom.core.attention import Attention, Call
from transom.core.blame import Blame
from transom.core.calibration import Calibration
from transom.core.drift import Drift
from transom.core.events import DriftReport, Events, Predictions
from transom.core.grid import Silence
from transom.core.hold import ACCEPT
from transom.core.intake import Intake, names_of
from transom.core.model import Manifest, Outputs, Windows
from transom.core.own import Own, Told, told_again
from transom.core.standing import Standing

HIGHEST_BAR = 0.2  # a budget so large that more windows would exceed it says nothing


class Judge:
    """Calibration and alerts of one stream."""

    def __init__(
        self, intake: Intake, manifest: Manifest, spec: AlertSpec, budget: float | None, threshold: float | None,
        interval: float | None,
    ) -> None:  # fmt: skip
        """budget: alarms a millisecond and series; threshold: a plain score instead; interval: ms between windows."""
        self.intake, self.manifest = intake, manifest
        self.budget, self.threshold = budget, threshold
        self.own = Own(interval) if manifest.any_sensor and manifest.task == "anomaly" else None
        self.calibration = self.own.calibration if self.own else Calibration(manifest.calibration, interval)
        self.alerts, self.attention = Alerts(spec), Attention()
        self._configured = budget
        self.blame = Blame(len(manifest.channels))
        self.standing = Standing(intake, manifest.label, self.alerts, self.attention, self.blame)
        # Of a model of its own channels the score may creep too.
        self.drift = Drift(len(manifest.channels) + (manifest.task == "anomaly" and not manifest.any_sensor))
        self.counts = {"windows": 0, "alerts": 0, "unscored": 0}

    def resize(self, size: int) -> None:
        (self.own or self.calibration).resize(size)
        self.alerts.resize(size)
        self.attention.resize(size)
        self.blame.resize(size)
        self.drift.resize(size)

    def reset(self, series: NDArray[np.int32]) -> None:
        (self.own or self.calibration).reset(series)
        self.alerts.reset(series)
        self.attention.reset(series)
        self.blame.reset(series)
        self.drift.reset(series)

    def judge(self, windows: Windows, outputs: Outputs) -> Events:
        """One batch of windows (by series and time) with the model's outputs for them."""
        self.counts["windows"] += len(windows)
        common: dict[str, Any] = {
            "stream": self.intake.name, "model": self.manifest.label,
            "series": names_of(self.intake.names, windows.series),
            "channels": names_of(self.intake.labels, windows.series),
            "end": windows.end, "value": windows.values[:, -1],
        }  # fmt: skip
        state = np.full(len(windows), State.NORMAL, np.uint8)
        if self.manifest.task != "anomaly":
            self.drift.learn(windows.series, windows.end, windows.values[:, -1])
        if self.manifest.task == "forecast":
            extra: dict[str, Any] = {
                "forecast": outputs["forecast"],
                "quantiles": self.manifest.quantiles,
                "targets": tuple(c.name for c in self.manifest.targets),
                "lead": self.manifest.lead,
            }
            return Events([Predictions(**common, state=state, **extra)])
        if self.manifest.task == "classify":
            probability: dict[str, Any] = {"probability": outputs["probability"], "classes": self.manifest.classes}
            return Events([Predictions(**common, state=state, **probability)])
        p_value, state, change, since, peak, severity, why, place, normal = self._verdicts(windows, outputs)
        self._age(windows, outputs["score"], normal)
        predictions = Predictions(
            **common, state=state, score=outputs["score"], p_value=p_value, expected=outputs["expected"],
            interval=outputs.get("interval"), contribution=outputs["contribution"],
        )  # fmt: skip
        told = np.flatnonzero(change)
        alerts = [
            telling.anomaly(predictions, i, self.intake.units(int(windows.series[i])), int(change[i]), int(since[i]),
                            float(peak[i]), SEVERITIES[severity[i]], why[i], place[i],
                            self.standing.seen(int(windows.series[i]), "anomaly", over=change[i] == Change.CLEAR))
            for i in told.tolist()
        ]  # fmt: skip
        return Events([predictions], alerts)

    def _verdicts(self, windows: Windows, outputs: Outputs) -> tuple[NDArray[Any], ...]:
        n, score, contribution = len(windows), outputs["score"], outputs["contribution"]
        p_value, state, change = np.ones(n), np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        since, peak, severity = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int8)
        why, place = np.full((n, 3), np.nan), np.zeros(contribution.shape, np.uint8)
        normal = np.ones(n, bool)
        unscored = ~np.isfinite(score)
        self.counts["unscored"] += int(unscored.sum())
        clean = np.where(unscored, np.float32(0), score)
        u = self.calibration.table.surprise(clean)
        rank = segments.ranks(segments.starts(windows.series))
        for turn in range(int(rank.max()) + 1 if n else 0):
            rows = np.flatnonzero(rank == turn) if turn or rank.any() else slice(None)
            ids, end = windows.series[rows], windows.end[rows]
            learning = self.calibration.windows[ids] < self.manifest.learning
            p, shown, news, why[rows], told = self._p_values(ids, end, u[rows], windows.values[rows, -1, 0])
            over, calm, critical = self._bars(ids, p, clean[rows])
            over, calm = over & ~unscored[rows], calm & ~unscored[rows]
            value = windows.values[rows, -1, 0].astype(np.float64)
            if self.own is not None:
                calm &= self.own.hold.over(ids, value, why[rows][:, 1], self._accepted(ids))
            state[rows], change[rows] = self.alerts.step(
                ids, end, clean[rows].astype(np.float64), over, calm, critical, learning, news
            )
            lasted = (end - self.alerts.since[ids]) / 1000.0 * self.calibration.windows_per_ms(ids)
            fault = (state[rows] == State.ALERT) & (lasted < self._accepted(ids))
            normal[rows], teaches = ~(fault & over), self._teaches(fault, over)
            begun = change[rows] == Change.RAISE
            self.counts["alerts"] += int(begun.sum())
            if self.own is not None:
                self.own.hold.begin(ids[begun], value[begun], *why[rows][begun].T)
                if told is not None:
                    known = np.isfinite(value)
                    self.own.learn(ids[known], told, teaches[known])
            else:
                self.calibration.learn(ids, u[rows], end, teaches)
            change[rows] = self._named(ids, contribution[rows], over, state[rows] == State.ALERT, change[rows])
            shown_change = self.attention.tell(ids, end, change[rows], self.alerts.active[ids])
            if change[rows].any() or shown_change.any():
                place[rows] = self.blame.place[ids]
                self.blame.forget(ids[change[rows] == Change.CLEAR])
                change[rows] = shown_change
            p_value[rows] = shown
            since[rows], peak[rows] = self.alerts.since[ids], self.alerts.peak[ids]
            severity[rows] = self.alerts.severity[ids]
        return p_value, state, change, since, peak, severity, why, place, normal

    def _age(self, windows: Windows, score: NDArray[np.float32], normal: NDArray[np.bool_]) -> None:
        """The levels of the day, without the strange windows of an alert."""
        last = windows.values[:, -1]
        if self.drift.levels.shape[1] > last.shape[1]:
            last = np.concatenate([last, score[:, None]], 1)
        self.drift.learn(windows.series, windows.end, np.where(normal[:, None], last, np.float32(np.nan)))

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
            p = self.calibration.p_value(ids, u)
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
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """bool [n] each: over the bar, well under it, far over it."""
        if self.threshold is not None:
            return score >= self.threshold, score < CALM_SCORE * self.threshold, score >= 2 * self.threshold
        bar = self.bar(ids)
        # Of a bar near 1 the tenfold is exceeded by ordinary windows: calm is half way to it at most.
        return p <= bar, p >= np.minimum(CALM * bar, np.sqrt(bar)), p <= CRITICAL * bar

    def judge_around(self, silence: Silence, windows: Windows, outputs: Outputs) -> Events:
        """`judge`, and the no-data alerts of series that fell silent or came back, each in its place among the windows
        of its series: a batch must not look into a silence from behind it."""
        events = Events()
        if not self.alerts.spec.no_data or not len(silence.series):
            return self.judge(windows, outputs) if len(windows) else events
        left = np.ones(len(windows), bool)
        rank = segments.ranks(segments.starts(silence.series))
        for turn in range(int(rank.max()) + 1):
            rows = np.flatnonzero(rank == turn)
            begin = np.searchsorted(windows.series, silence.series[rows], "left").tolist()
            stop = np.searchsorted(windows.series, silence.series[rows], "right").tolist()
            before = np.zeros(len(windows), bool)
            for row, a, b in zip(rows.tolist(), begin, stop, strict=True):
                hit = np.flatnonzero(windows.end[a:b] < silence.closed[row])
                before[a : a + int(hit[-1]) + 1 if len(hit) else a] = True
            self._judge_some(events, windows, outputs, before & left)
            left &= ~before
            told, raised = self.standing.silence(silence, rows)
            events.alerts += told
            self.counts["alerts"] += raised
        self._judge_some(events, windows, outputs, left)
        return events

    def _judge_some(self, events: Events, windows: Windows, outputs: Outputs, rows: NDArray[np.bool_]) -> None:
        if rows.any():
            some = Windows(windows.series[rows], windows.end[rows], windows.values[rows])
            events.extend(self.judge(some, {key: array[rows] for key, array in outputs.items()}))

    def drifting(self, most: int) -> tuple[int, list[DriftReport]]:
        """How many channels drift, or are away from the training data, and those `most` that have moved farthest."""
        found = self.drift.moved()
        if self.manifest.reference is not None:
            r = self.manifest.reference
            found += self.drift.away(np.asarray(r.mean, np.float64), np.asarray(r.spread, np.float64))
        found.sort(key=lambda m: -abs(m.sizes))
        return len(found), [
            telling.drift(self.intake.name, self.intake.names[m.series], m, *self._channel(m.series, m.channel))
            for m in found[:most]
        ]

    def _channel(self, series: int, channel: int) -> tuple[str, str]:
        """Name and unit; after the channels comes the score."""
        names, units = self.intake.labels[series], self.intake.units(series)
        return (names[channel], units[channel]) if channel < len(names) else ("score", "")

    # --- what people say ----------------------------------------------------------------------------------------------

    def call(self, call: Call, series: int | None) -> None:
        """series: the one that the call names, None where it names none that is here."""
        if call.verb == "set-budget":
            self.budget = call.budget
        elif call.verb == "configured":
            self.budget = self._configured
        elif series is None:
            return
        elif call.verb == "mute":
            self.attention.mute(series, call.until, call.kind)
        elif call.verb == "unmute":
            self.attention.unmute(series)
        elif call.verb == "acknowledge" and call.alert in {i for i, _ in self.standing.up(series)}:
            self.attention.acknowledge(series, call.kind, call.by, call.at)

    def snapshot(self) -> dict[str, Any]:
        return {
            "calibration": (self.own or self.calibration).snapshot(), "alerts": self.alerts.snapshot(),
            "blame": self.blame.snapshot(), "drift": self.drift.snapshot(), "counts": dict(self.counts),
            "attention": self.attention.snapshot(),
            "budget": None if self.budget == self._configured else self.budget,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        (self.own or self.calibration).restore(state["calibration"])
        self.alerts.restore(state["alerts"])
        for name, room in (("blame", self.blame), ("drift", self.drift)):
            if name in state:
                room.restore(state[name])
            else:  # an older version did not have it
                room.resize(self.alerts.size)
        self.counts = dict(state["counts"])
        if "attention" in state:  # it came later than the format
            self.attention.restore(state["attention"])
        if state.get("budget") is not None:
            self.budget = float(state["budget"])
