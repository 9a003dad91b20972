"""How well a demo's models did: faults that were caught, forecasts beside naive ones, kinds that were recognised.

What was said and what then came in, counts out. Nothing is printed here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from transom.core.events import Alert, Predictions
from transom.scenes.scene import Fault, Outlook, Simulation

KEPT = 8  # last values of a series that a naive forecast may look at


@dataclass(slots=True)
class Told:
    """An alert and when it was raised, in seconds since the scene started."""

    alert: Alert
    seconds: float


@dataclass(slots=True)
class Outcome:
    fault: Fault
    caught: Told | None = None


@dataclass(slots=True)
class Verdict:
    """What became of the faults. false: raised alerts that belong to none."""

    outcomes: list[Outcome] = field(default_factory=list)
    false: list[Told] = field(default_factory=list)


def judge(faults: Sequence[Fault], raised: Sequence[Told], grace: float) -> Verdict:
    """Which fault each raised alert belongs to. grace: seconds after a fault in which a further alert of its series
    still belongs to it."""
    verdict = Verdict([Outcome(f) for f in faults])
    for told in raised:
        belongs = False
        for outcome in verdict.outcomes:
            fault, alert = outcome.fault, told.alert
            same = (alert.stream, alert.series) == (fault.kind.stream, fault.kind.series)
            if same and fault.begin <= told.seconds <= max(fault.end + grace, fault.due):
                belongs = True
                if outcome.caught is None and alert.kind == fault.kind.alert and told.seconds <= fault.due:
                    outcome.caught = told
        if not belongs:
            verdict.false.append(told)
    return verdict


@dataclass(slots=True)
class Errors:
    """Forecasts of one target at the horizon's end: how many came true, and the sums of their squared errors, for the
    middle of a forecast is the least-squares one."""

    count: int = 0
    model: float = 0.0
    naive: float = 0.0
    inside: int = 0  # truths between the outer quantiles

    def add(self, model: float, naive: float, inside: bool) -> None:
        self.count += 1
        self.model += model**2
        self.naive += naive**2
        self.inside += inside


class Forecasts:
    """The forecasts of one stream for the last step of their horizon, held until that step has come."""

    def __init__(self, outlook: Outlook, step: int | None, stride: int) -> None:
        """step: µs of a grid step, None where a step is a reading."""
        self.outlook, self.step, self.stride = outlook, step, stride
        self.errors: dict[str, Errors] = {}  # by target, or "distance"
        self._seen: dict[str, deque[NDArray[np.float64]]] = {}
        self._windows: dict[str, int] = {}
        self._waiting: dict[tuple[str, int], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def take(self, batch: Predictions) -> None:
        """Predictions of this stream in the order of each series' time."""
        if batch.forecast is None:
            return
        horizon = batch.forecast.shape[1]
        ahead = horizon - 1 + batch.lead
        for i, series in enumerate(batch.series):
            names = batch.targets or batch.channels[i]
            if not set(names) <= set(batch.channels[i]):
                return  # the truth is not in the stream
            value = batch.value[i, [batch.channels[i].index(n) for n in names]].astype(np.float64)
            n = self._windows[series] = self._windows.get(series, -1) + 1
            place = int(batch.end[i]) if self.step else n * self.stride
            came = self._waiting.pop((series, place), None)
            if came is not None:
                self._judge(names, *came, value)
            seen = self._seen.setdefault(series, deque(maxlen=KEPT))
            seen.append(value)
            due = place + ahead * (self.step or 1)
            naive = self.outlook.naive(np.stack(seen), ahead)
            self._waiting[series, due] = batch.forecast[i, -1].astype(np.float64), naive
        # What can no longer come true, as with a step that gave no window, is let go.
        if len(self._waiting) > 100_000:
            self._waiting.clear()

    def _judge(
        self,
        names: Sequence[str],
        forecast: NDArray[np.float64],
        naive: NDArray[np.float64],
        truth: NDArray[np.float64],
    ) -> None:
        """forecast: [C, Q]; naive, truth: [C]."""
        point = forecast[:, forecast.shape[1] // 2]
        if not (np.isfinite(truth).all() and np.isfinite(naive).all()):
            return
        inside = (forecast[:, 0] <= truth) & (truth <= forecast[:, -1])
        if self.outlook.plane:
            errors = self.errors.setdefault("distance", Errors())
            far = self.outlook.distance(point, truth), self.outlook.distance(naive, truth)
            errors.add(*far, bool(inside.all()))
            return
        for c, name in enumerate(names):
            errors = self.errors.setdefault(name, Errors())
            errors.add(abs(float(point[c] - truth[c])), abs(float(naive[c] - truth[c])), bool(inside[c]))

    @property
    def better(self) -> bool:
        """Whether the errors are smaller than the naive forecast's, over all targets."""
        ratios = [(e.model / e.naive) ** 0.5 for e in self.errors.values() if e.naive > 0]
        return not ratios or float(np.mean(ratios)) < 1


@dataclass(slots=True)
class Stretch:
    """Windows in a row of one series with one truth."""

    truth: str
    named: dict[str, int] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return max(self.named, key=lambda name: self.named[name]) == self.truth


class Recognitions:
    """What one stream's models named, stretch by stretch: right where most of its windows say so."""

    def __init__(self, span: int, truth: Simulation) -> None:
        """span: ms from a window's first step to its last."""
        self.span, self.simulation = span, truth
        self.stretches: list[Stretch] = []
        self._current: dict[str, Stretch | None] = {}

    def take(self, batch: Predictions) -> None:
        if batch.probability is None:
            return
        named = batch.probability.argmax(1)
        for i, series in enumerate(batch.series):
            end = int(batch.end[i]) // 1000
            truth = self.simulation.truth(batch.stream, series, end - self.span, end)
            if truth is None:
                continue
            stretch = self._current.get(series)
            if stretch is None or stretch.truth != truth:
                stretch = self._current[series] = Stretch(truth)
                self.stretches.append(stretch)
            name = batch.classes[int(named[i])]
            stretch.named[name] = stretch.named.get(name, 0) + 1

    @property
    def right(self) -> int:
        return sum(s.right for s in self.stretches)

    @property
    def naive(self) -> int:
        """What is right for one who always names the most frequent kind."""
        truths = [s.truth for s in self.stretches]
        return max((truths.count(t) for t in truths), default=0)

    @property
    def better(self) -> bool:
        """Whether more was named rightly than always naming the most frequent kind would; with one kind, everything."""
        kinds = {s.truth for s in self.stretches}
        return self.right > self.naive if len(kinds) > 1 else self.right == len(self.stretches)
