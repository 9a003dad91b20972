"""Windows and what the model made of them to predictions and alerts, and what people say of these.

Columns in, columns out; a Python object only for a change that a person hears of. Verdicts come from `verdicts`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core import segments, telling
from transom.core.alerts import SEVERITIES, AlertSpec, Change, State
from transom.core.attention import Call
from transom.core.drift import Drift
from transom.core.events import DriftReport, Events, Predictions
from transom.core.grid import Silence
from transom.core.intake import Intake, names_of
from transom.core.model import Manifest, Outputs, Windows
from transom.core.standing import Standing
from transom.core.verdicts import Jury


class Judge:
    """Calibration and alerts of one stream."""

    def __init__(
        self, intake: Intake, manifest: Manifest, spec: AlertSpec, budget: float | None, threshold: float | None,
        interval: float | None,
    ) -> None:  # fmt: skip
        """budget: alarms a millisecond and series; threshold: a plain score instead; interval: ms between windows."""
        self.intake, self.manifest, self.threshold = intake, manifest, threshold
        self._jury = jury = Jury(manifest, spec, budget, threshold, interval)
        self.own, self.calibration, self.alerts, self.attention = (
            jury.own,
            jury.calibration,
            jury.alerts,
            jury.attention,
        )
        self.blame, self._configured = jury.blame, budget
        self.standing = Standing(intake, manifest.label, self.alerts, self.attention, self.blame)
        # Of a model of its own channels the score may creep too.
        self.drift = Drift(len(manifest.channels) + (manifest.task == "anomaly" and not manifest.any_sensor))
        self.counts = {"windows": 0, "alerts": 0, "unscored": 0}

    @property
    def budget(self) -> float | None:
        return self._jury.budget

    @budget.setter
    def budget(self, budget: float | None) -> None:
        self._jury.budget = budget

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
            self.drift.learn(windows.series, windows.end, windows.values[:, -1].copy())
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
        v = self._jury.rule(windows, outputs)
        self.counts["alerts"] += self._jury.raised
        self.counts["unscored"] += self._jury.unscored
        self._jury.raised = self._jury.unscored = 0
        self._age(windows, outputs["score"], v.normal)
        predictions = Predictions(
            **common, state=v.state, score=outputs["score"], p_value=v.p_value, expected=outputs["expected"],
            interval=outputs.get("interval"), contribution=outputs["contribution"],
        )  # fmt: skip
        told = np.flatnonzero(v.change)
        alerts = [
            telling.anomaly(predictions, i, self.intake.units(int(windows.series[i])), int(v.change[i]),
                            int(v.since[i]), float(v.peak[i]), SEVERITIES[v.severity[i]], v.why[i], v.place[i],
                            self.standing.seen(int(windows.series[i]), "anomaly", over=v.change[i] == Change.CLEAR))
            for i in told.tolist()
        ]  # fmt: skip
        return Events([predictions], alerts)

    def _age(self, windows: Windows, score: NDArray[np.float32], normal: NDArray[np.bool_]) -> None:
        """The levels of the day, without the strange windows of an alert."""
        last = windows.values[:, -1]
        if self.drift.levels.shape[1] > last.shape[1]:
            last = np.concatenate([last, score[:, None]], 1)
        taken = last.copy() if normal.all() else np.where(normal[:, None], last, np.float32(np.nan))
        self.drift.learn(windows.series, windows.end, taken)

    def bar(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [n]: the p-value from which a window of each series is over the budget's bar."""
        return self._jury.bar(ids)

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
