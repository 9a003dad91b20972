"""Alerts that stand, of one stream: which are up, under which ids, and what silence and oblivion do to them.

Knows no window and no score: an alert is raised in `judge`, or here when a series falls silent.
"""

import numpy as np
from numpy.typing import NDArray

from transom.core import telling
from transom.core.alerts import SEVERITIES, Alerts, Change, alert_id
from transom.core.attention import RAISE, Attention
from transom.core.blame import Blame, in_order
from transom.core.events import Alert, lasted
from transom.core.grid import Silence
from transom.core.intake import Intake


class Standing:
    """intake: names of series and channels; model: its label; the rest is the state that it looks at."""

    def __init__(self, intake: Intake, model: str, alerts: Alerts, attention: Attention, blame: Blame) -> None:
        self.intake, self.model = intake, model
        self.alerts, self.attention, self.blame = alerts, attention, blame

    def silence(self, silence: Silence, rows: NDArray[np.int64]) -> tuple[list[Alert], int]:
        """No-data alerts of these rows, and how many were raised, told or not."""
        told: list[Alert] = []
        series, times = silence.series[rows], silence.time[rows]
        change = self.alerts.silence(series, times, silence.back[rows])
        raised = int((change == Change.RAISE).sum())
        shown = self.attention.tell_silence(series, times, change)
        for i, time, kind, happened in zip(
            series.tolist(), times.tolist(), shown.tolist(), change.tolist(), strict=True
        ):
            if kind:
                told.append(self._no_data(i, time, kind))
            if happened == Change.CLEAR:
                self.alerts.silent_since[i] = self.alerts.fills["silent_since"]
            if (
                kind == Change.CLEAR and self.alerts.active[i] and self.attention.kept_back[i] != RAISE
            ):  # both kinds share a retained topic: the last stays
                told.append(self._still_up(i, time))
        return told, raised

    def _still_up(self, series: int, time: int) -> Alert:
        name, since = self.intake.names[series], int(self.alerts.since[series])
        return Alert(
            id=alert_id(self.intake.name, name, "anomaly", since), event="update", kind="anomaly",
            severity=SEVERITIES[self.alerts.severity[series]], stream=self.intake.name, series=name,
            model=self.model, since=since, time=time, peak_score=float(self.alerts.peak[series]),
            summary=f"the anomaly that began {lasted(time - since)} ago, before the silence, is still up",
            acknowledged=self.seen(series, "anomaly", over=False),
            channels=tuple(self.intake.labels[series][j] for j in in_order(self.blame.place[series])),
        )  # fmt: skip

    def _no_data(self, series: int, time: int, change: int) -> Alert:
        since = int(self.alerts.silent_since[series])
        name = self.intake.names[series]
        what = " and ".join(self.intake.labels[series]) if len(self.intake.labels[series]) < 4 else "all channels"
        if change == Change.CLEAR:
            text = f"{what} is back after {lasted(time - since)} without a reading"
        else:
            text = f"{what}: no reading for longer than max_gap"
        return Alert(
            id=alert_id(self.intake.name, name, "no-data", since), event=telling.CHANGES[change], kind="no-data",
            severity="warning", stream=self.intake.name, series=name, model=self.model, since=since, time=time,
            summary=text, acknowledged=self.seen(series, "no-data", over=change == Change.CLEAR),
        )  # fmt: skip

    def wake(self, now: int) -> list[Alert]:
        """No-data alerts that a mute kept back until now (µs)."""
        return [self._no_data(i, now, Change.RAISE) for i in self.attention.waking(now).tolist()]

    def up(self, series: int) -> list[tuple[str, str]]:
        """(id, kind) of the alerts of a series that are up."""
        name, none = self.intake.names[series], self.alerts.fills["silent_since"]
        up = [("anomaly", int(self.alerts.since[series]))] if self.alerts.active[series] else []
        up += [("no-data", int(self.alerts.silent_since[series]))] if self.alerts.silent_since[series] != none else []
        return [(alert_id(self.intake.name, name, kind, since), kind) for kind, since in up]

    def find(self, alert: str) -> tuple[int, str] | None:
        """Series and kind of an alert that is up."""
        candidates = np.flatnonzero(
            self.alerts.active | (self.alerts.silent_since != self.alerts.fills["silent_since"])
        )
        found = ((i, kind) for i in candidates.tolist() for known, kind in self.up(i) if known == alert)
        return next(found, None)

    def seen(self, series: int, kind: str, *, over: bool) -> tuple[str, int] | None:
        """Who has acknowledged it and when; forgotten when it is over."""
        seen = self.attention.seen
        return seen.pop((series, kind), None) if over else seen.get((series, kind))

    def forget(self, series: NDArray[np.int32], now: int) -> list[Alert]:
        """Ends the alerts of series that give their place back."""
        ended = []
        for i in series.tolist():
            for active, kind, since in (
                (bool(self.alerts.active[i]) and self.attention.kept_back[i] != RAISE, "anomaly",
                 int(self.alerts.since[i])),
                (self.alerts.silent_since[i] != self.alerts.fills["silent_since"]
                 and not self.attention.silence_kept_back[i], "no-data", int(self.alerts.silent_since[i])),
            ):  # fmt: skip
                if active:
                    name = self.intake.names[i]
                    ended.append(Alert(
                        id=alert_id(self.intake.name, name, kind, since), event="clear", kind=kind,  # type: ignore[arg-type]
                        severity="warning", stream=self.intake.name, series=name, model=self.model,
                        since=since, time=now, summary="the series has been silent for longer than forget_after",
                        acknowledged=self.seen(i, kind, over=True),
                    ))  # fmt: skip
        return ended
