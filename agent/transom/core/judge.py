"""Windows and what the model made of them to predictions and alerts: calibrate, then the life of an alert.

Columns in, columns out; a Python object only for a change that a person hears of. Series of one batch are judged
window after window in rounds, each round over all series at once, so that no batching changes a verdict.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.alerts import CALM, CALM_SCORE, CRITICAL, SEVERITIES, Alerts, AlertSpec, Change, State, alert_id
from transom.core.calibration import Calibration
from transom.core.events import Alert, Events, Predictions, by_its_past, lasted, sentence
from transom.core.grid import Silence
from transom.core.hold import ACCEPT
from transom.core.intake import Intake, names_of
from transom.core.model import Manifest, Outputs, Windows
from transom.core.own import Own, told_again

HIGHEST_BAR = 0.2  # a budget so large that more windows would exceed it says nothing
_CHANGES: dict[int, Literal["raise", "update", "clear"]] = {
    Change.RAISE: "raise",
    Change.UPDATE: "update",
    Change.CLEAR: "clear",
}


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
        self.alerts = Alerts(spec)
        self.counts = {"windows": 0, "alerts": 0, "unscored": 0}

    def resize(self, size: int) -> None:
        (self.own or self.calibration).resize(size)
        self.alerts.resize(size)

    def reset(self, series: NDArray[np.int32]) -> None:
        (self.own or self.calibration).reset(series)
        self.alerts.reset(series)

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
        p_value, state, change, since, peak, severity, why = self._verdicts(windows, outputs["score"])
        predictions = Predictions(
            **common, state=state, score=outputs["score"], p_value=p_value, expected=outputs["expected"],
            interval=outputs.get("interval"), contribution=outputs["contribution"],
        )  # fmt: skip
        told = np.flatnonzero(change)
        alerts = [
            self._alert(predictions, i, int(windows.series[i]), int(change[i]), int(since[i]), float(peak[i]),
                        SEVERITIES[severity[i]], float(outputs["score"][i]), float(p_value[i]), why[i])
            for i in told.tolist()
        ]  # fmt: skip
        self.counts["alerts"] += sum(a.event == "raise" for a in alerts)
        return Events([predictions], alerts)

    def _verdicts(self, windows: Windows, score: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        n = len(windows)
        p_value, state, change = np.ones(n), np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        since, peak, severity = np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int8)
        why = np.full((n, 3), np.nan)
        unscored = ~np.isfinite(score)
        self.counts["unscored"] += int(unscored.sum())
        clean = np.where(unscored, np.float32(0), score)
        u = self.calibration.table.surprise(clean)
        rank = segments.ranks(segments.starts(windows.series))
        for turn in range(int(rank.max()) + 1 if n else 0):
            rows = np.flatnonzero(rank == turn) if turn or rank.any() else slice(None)
            ids, end = windows.series[rows], windows.end[rows]
            learning = self.calibration.windows[ids] < self.manifest.learning
            p, shown, news, why[rows] = self._p_values(ids, end, u[rows], windows.values[rows, -1, 0])
            over, calm, critical = self._bars(ids, p, clean[rows])
            over, calm = over & ~unscored[rows], calm & ~unscored[rows]
            value = windows.values[rows, -1, 0].astype(np.float64)
            if self.own is not None:
                calm &= self.own.hold.over(ids, value, why[rows][:, 1], told_again(self._per_window(ids)))
            state[rows], change[rows] = self.alerts.step(
                ids, end, clean[rows].astype(np.float64), over, calm, critical, learning, news
            )
            if self.own is not None:
                begun = change[rows] == Change.RAISE
                self.own.hold.begin(ids[begun], value[begun], *why[rows][begun].T)
            else:
                self.calibration.learn(ids, u[rows], end, self._teaches(ids, end, over))
            p_value[rows] = shown
            since[rows], peak[rows] = self.alerts.since[ids], self.alerts.peak[ids]
            severity[rows] = self.alerts.severity[ids]
        return p_value, state, change, since, peak, severity, why

    def _p_values(
        self, ids: NDArray[np.int32], end: NDArray[np.int64], u: NDArray[np.float64], value: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_] | None, NDArray[np.float64]]:
        """p-value of each window, the one to be shown (1 for what is no news), whether it is news for an alert, and
        why: float64 [n, 3], side, habit and level (see `Told`), NaN where there are none. What a series' own past
        says is learned here; where the model's score decides, after the verdict."""
        why = np.full((len(ids), 3), np.nan)
        if self.own is None:
            p = self.calibration.p_value(ids, u)
            return p, p, None, why
        p, shown, fresh = np.ones(len(ids)), np.ones(len(ids)), np.zeros(len(ids), bool)
        known = np.isfinite(value)
        told = self.own.judge(ids[known], end[known], value[known], self._per_window(ids[known]))
        p[known], shown[known] = told.p_value, np.where(told.news, told.p_value, 1.0)
        fresh[known] = told.lately | (self.threshold is not None)
        why[known] = np.stack([told.side, told.usual, told.level], 1)
        return p, shown, fresh, why

    def _teaches(self, ids: NDArray[np.int32], end: NDArray[np.int64], over: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [n]: False for a window that keeps an alert up, until that has lasted ACCEPT windows: a fault must not
        become usual while it is told of, and what goes on for so long is a new usual."""
        lasted = (end - self.alerts.since[ids]) / 1000.0 * self.calibration.windows_per_ms(ids)
        return ~(over & self.alerts.active[ids] & (lasted < ACCEPT))

    def _per_window(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [n]: false alarms allowed a window."""
        return (self.budget or 0.0) / self.calibration.windows_per_ms(ids)

    def _bars(
        self, ids: NDArray[np.int32], p: NDArray[np.float64], score: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """bool [n] each: over the bar, well under it, far over it."""
        if self.threshold is not None:
            return score >= self.threshold, score < CALM_SCORE * self.threshold, score >= 2 * self.threshold
        bar = np.minimum(self._per_window(ids), HIGHEST_BAR)
        # Of a bar near 1 the tenfold is exceeded by ordinary windows: calm is half way to it at most.
        return p <= bar, p >= np.minimum(CALM * bar, np.sqrt(bar)), p <= CRITICAL * bar

    def _alert(
        self, predictions: Predictions, i: int, series: int, change: int, since: int, peak: float, severity: str,
        score: float, p_value: float, why: NDArray[np.float64],
    ) -> Alert:  # fmt: skip
        names, units = predictions.channels[i], self.intake.units(series)
        assert predictions.score is not None and predictions.p_value is not None  # noqa: PT018  # task is anomaly
        expected = predictions.expected[i] if predictions.expected is not None else None
        interval = predictions.interval[i] if predictions.interval is not None else None
        contribution = predictions.contribution[i] if predictions.contribution is not None else None
        text = sentence(names, units, predictions.value[i], expected, interval, contribution)
        time = int(predictions.end[i])
        if change != Change.CLEAR and interval is not None and np.isfinite(why[0]):
            text += by_its_past(float(predictions.value[i, 0]), interval[0], int(why[0]), why[1], why[2])
        if change == Change.CLEAR:
            text = (
                f"{text}: {_ended(predictions.value[i], interval)} after {lasted(time - since)}, peak score {peak:.3g}"
            )
        order = np.argsort(-contribution, kind="stable").tolist() if contribution is not None else []
        return Alert(
            id=alert_id(predictions.stream, predictions.series[i], "anomaly", since), event=_CHANGES[change],
            kind="anomaly", severity=severity, stream=predictions.stream, series=predictions.series[i],
            model=predictions.model, since=since, time=time, summary=text, score=score, peak_score=peak,
            p_value=p_value, value=_named(names, predictions.value[i]),
            expected={} if expected is None else _named(names, expected),
            interval={} if interval is None else _bands(names, interval),
            contribution={} if contribution is None else {names[j]: float(contribution[j]) for j in order},
        )  # fmt: skip

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
            events.alerts += self._silence(silence, rows)
        self._judge_some(events, windows, outputs, left)
        return events

    def _judge_some(self, events: Events, windows: Windows, outputs: Outputs, rows: NDArray[np.bool_]) -> None:
        if rows.any():
            some = Windows(windows.series[rows], windows.end[rows], windows.values[rows])
            events.extend(self.judge(some, {key: array[rows] for key, array in outputs.items()}))

    def _silence(self, silence: Silence, rows: NDArray[np.int64]) -> list[Alert]:
        told: list[Alert] = []
        change = self.alerts.silence(silence.series[rows], silence.time[rows], silence.back[rows])
        for row, kind in zip(rows.tolist(), change.tolist(), strict=True):
            if not kind:
                continue
            i, time = int(silence.series[row]), int(silence.time[row])
            told.append(self._no_data(i, time, kind))
            if kind == Change.CLEAR and self.alerts.active[i]:  # both kinds share a retained topic: the last stays
                told.append(self._still_up(i, time))
        return told

    def _still_up(self, series: int, time: int) -> Alert:
        name, since = self.intake.names[series], int(self.alerts.since[series])
        return Alert(
            id=alert_id(self.intake.name, name, "anomaly", since), event="update", kind="anomaly",
            severity=SEVERITIES[self.alerts.severity[series]], stream=self.intake.name, series=name,
            model=self.manifest.label, since=since, time=time, peak_score=float(self.alerts.peak[series]),
            summary=f"the anomaly that began {lasted(time - since)} ago, before the silence, is still up",
        )  # fmt: skip

    def _no_data(self, series: int, time: int, change: int) -> Alert:
        since = int(self.alerts.silent_since[series])
        name = self.intake.names[series]
        what = " and ".join(self.intake.labels[series]) if len(self.intake.labels[series]) < 4 else "all channels"
        if change == Change.CLEAR:
            self.alerts.silent_since[series] = self.alerts.fills["silent_since"]
            text = f"{what} is back after {lasted(time - since)} without a reading"
        else:
            self.counts["alerts"] += 1
            text = f"{what}: no reading for longer than max_gap"
        return Alert(
            id=alert_id(self.intake.name, name, "no-data", since), event=_CHANGES[change], kind="no-data",
            severity="warning", stream=self.intake.name, series=name, model=self.manifest.label, since=since, time=time,
            summary=text,
        )  # fmt: skip

    def forget(self, series: NDArray[np.int32], now: int) -> list[Alert]:
        """Ends the alerts of series that give their place back."""
        ended = []
        for i in series.tolist():
            for active, kind, since in (
                (bool(self.alerts.active[i]), "anomaly", int(self.alerts.since[i])),
                (self.alerts.silent_since[i] != self.alerts.fills["silent_since"], "no-data",
                 int(self.alerts.silent_since[i])),
            ):  # fmt: skip
                if active:
                    name = self.intake.names[i]
                    ended.append(Alert(
                        id=alert_id(self.intake.name, name, kind, since), event="clear", kind=kind,  # type: ignore[arg-type]
                        severity="warning", stream=self.intake.name, series=name, model=self.manifest.label,
                        since=since, time=now, summary="the series has been silent for longer than forget_after",
                    ))  # fmt: skip
        return ended

    def snapshot(self) -> dict[str, Any]:
        return {
            "calibration": (self.own or self.calibration).snapshot(), "alerts": self.alerts.snapshot(),
            "counts": dict(self.counts),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        (self.own or self.calibration).restore(state["calibration"])
        self.alerts.restore(state["alerts"])
        self.counts = dict(state["counts"])


def _ended(value: NDArray[Any], interval: NDArray[Any] | None) -> str:
    """What may be said at the end of an alert: a model that follows a new level is no proof that it is right."""
    if interval is None or not np.isfinite(interval).all() or not np.isfinite(value).all():
        return "no longer unusual"
    inside = (interval[:, 0] <= value) & (value <= interval[:, 1])
    return "as expected again" if bool(inside.all()) else "no longer unusual"


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _bands(names: tuple[str, ...], interval: NDArray[Any]) -> dict[str, tuple[float | None, float | None]]:
    return {name: (_plain(low), _plain(high)) for name, (low, high) in zip(names, interval, strict=True)}


def _named(names: tuple[str, ...], values: NDArray[Any]) -> dict[str, float | None]:
    return {name: _plain(v) for name, v in zip(names, values, strict=True)}
