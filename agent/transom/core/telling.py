"""What a person hears: an alert's change with its sentence, and a drift's. One row in, one report out."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import Change, alert_id
from transom.core.blame import NAMED, carriers, in_order
from transom.core.drift import Moved
from transom.core.events import Alert, DriftReport, Predictions, Told, shown

CHANGES: dict[int, Literal["raise", "update", "clear"]] = {
    Change.RAISE: "raise",
    Change.UPDATE: "update",
    Change.CLEAR: "clear",
}


def anomaly(
    predictions: Predictions, i: int, units: tuple[str, ...], change: int, since: int, peak: float, severity: str,
    why: NDArray[np.float64], place: NDArray[np.uint8], seen: tuple[str, int] | None = None,
) -> Alert:  # fmt: skip
    """The change that window `i` brought. units: [C]; since: µs; why: [3], see `Judge._p_values`; place: [C], see
    `Blame`; seen: who has acknowledged it and when. A raise and an update name who carries the score now, a clear whom
    the alert has named."""
    names, value = predictions.channels[i], predictions.value[i]
    score, p_value, contribution = predictions.score, predictions.p_value, predictions.contribution
    assert score is not None and p_value is not None and contribution is not None  # noqa: PT018  # task is anomaly
    expected = predictions.expected[i] if predictions.expected is not None else None
    interval = predictions.interval[i] if predictions.interval is not None else None
    shares = contribution[i]
    order = np.argsort(-shares, kind="stable").tolist()
    named, carrying = in_order(place), carriers(shares[None])[0]
    which = named[:NAMED] if change == Change.CLEAR else [j for j in order if carrying[j]]
    time, over = int(predictions.end[i]), change == Change.CLEAR
    told = Told(
        tuple(names[j] for j in which), tuple(units[j] for j in which), tuple(float(value[j]) for j in which),
        None if expected is None else tuple(float(expected[j]) for j in which),
        None if interval is None else tuple((float(interval[j, 0]), float(interval[j, 1])) for j in which),
        (int(why[0]), why[1], why[2]) if not over and which[:1] == [0] and np.isfinite(why[0]) else None,
        _ended(value, interval) if over else "", time - since,
    )  # fmt: skip
    return Alert(
        id=alert_id(predictions.stream, predictions.series[i], "anomaly", since), event=CHANGES[change],
        kind="anomaly", severity=severity, stream=predictions.stream, series=predictions.series[i],
        model=predictions.model, since=since, time=time, summary=told.text(peak), score=float(score[i]),
        peak_score=peak,
        p_value=float(p_value[i]), value=_named(names, value),
        expected={} if expected is None else _named(names, expected),
        interval={} if interval is None else _bands(names, interval),
        contribution={names[j]: float(shares[j]) for j in order}, channels=tuple(names[j] for j in named),
        acknowledged=seen, told=told,
    )  # fmt: skip


def drift(stream: str, series: str, moved: Moved, channel: str, unit: str) -> DriftReport:
    """ "temperature drifts: 21.02 °C on 2026-03-02, 23.12 °C now, +0.071 a day (0.9 of its usual spread)"."""
    report = DriftReport(
        stream, series, channel, moved.kind, unit, moved.since, moved.before, moved.now, moved.now - moved.before,
        moved.sizes, moved.per_day, "", moved.usual,
    )  # fmt: skip
    return replace(report, summary=drifting(report))


def drifting(r: DriftReport) -> str:
    """The sentence of a report."""
    unit = f" {r.unit}" if r.unit else ""
    was, now = shown(r.before, r.usual), shown(r.now, r.usual)
    if r.since is None:
        text = f"{r.channel} is away from the training data: {was}{unit} there, {now}{unit} in the last week"
    else:
        day = str(np.datetime64(r.since, "us"))[:10]
        text = f"{r.channel} drifts: {was}{unit} on {day}, {now}{unit} now, {r.per_day:+.3g} a day"
    return text + (f" ({abs(r.sizes):.2g} of its usual spread)" if abs(r.sizes) < 1e4 else "")


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
