"""An explanation as JSON for machines and as a sentence for people. Explanations in, plain values out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.events import shown
from transom.core.explain import Explanation, stretch
from transom.core.model import Manifest
from transom.dialects.plain import rfc3339

ANY_SENSOR = (
    "a model for any sensor raises alerts by what is new in the series' own past; explained here is its network's score"
)


def note(manifest: Manifest) -> str:
    """What is to be known beside the shares, "" for nothing."""
    return ANY_SENSOR if manifest.any_sensor and manifest.task == "anomaly" else ""


class Place(NamedTuple):
    """Whose window it is. end: µs, of its last step, None when nobody knows; step: ms, None for one a reading;
    reference: in words; note: what else is to be known."""

    stream: str
    series: str
    model: str
    channels: Sequence[str]
    units: Sequence[str]
    end: int | None
    step: int | None
    reference: str
    note: str = ""


def body(found: Explanation, place: Place) -> dict[str, Any]:
    """The object that `transom explain --json` prints and `response/explain` holds. Numbers have seven digits."""
    by_channel = found.by_channel
    order = np.argsort(-np.abs(by_channel), kind="stable").tolist()
    size = float(np.abs(by_channel).sum())
    made: dict[str, Any] = {
        "stream": place.stream, "series": place.series, "model": place.model,
        "time": None if place.end is None else rfc3339(place.end), "target": found.target.name,
        "method": found.method, "pieces": found.pieces, "reference": place.reference, "value": _number(found.value),
        "reference_value": _number(found.reference_value), "sum": _number(float(found.share.sum())),
        "gap": _number(found.gap), "summary": summary(found, place),
        "channels": [_channel(found, place, i, size) for i in order],
        "times": _times(place, len(found.share)),
        "share": {place.channels[i]: _list(found.share[:, i]) for i in order},
        "window": {place.channels[i]: _list(found.window[:, i]) for i in order},
    }  # fmt: skip
    return made | ({"note": place.note} if place.note else {})


def _channel(found: Explanation, place: Place, i: int, size: float) -> dict[str, Any]:
    share, known = float(found.by_channel[i]), np.isfinite(found.window[:, i])
    one: dict[str, Any] = {
        "channel": place.channels[i], "unit": place.units[i], "share": _number(share),
        "percent": round(100 * share / size, 1) if size else 0.0,
        "value": _number(float(found.window[known, i][-1])) if known.any() else None,
        "mean": _mean(found.window[:, i]), "reference_mean": _mean(found.reference[:, i]),
        "missing": int((~known).sum()),
    }  # fmt: skip
    return one if found.own is None else one | {"contribution": _number(float(found.own[i]))}


def summary(found: Explanation, place: Place) -> str:
    """ "score 6.41, 0.39 for an ordinary window before it; 93 % from vibration, most of it in the last 3 of 64
    steps"."""
    text = f"{found.target.name} {shown(found.value)}, {shown(found.reference_value)} for {place.reference}"
    total = float(np.abs(found.by_channel).sum())
    if total <= 0:
        return f"{text}; nothing in the window makes a difference"
    parts, told = [], 0.0
    for i in np.argsort(-np.abs(found.by_channel), kind="stable")[:3].tolist():
        share = float(found.by_channel[i])
        parts.append(f"{100 * share / total:.0f} % from {place.channels[i]}")
        told += abs(share) / total
        if told >= 2 / 3:
            break
    if len(place.channels) == 1:
        parts = [f"{'raised' if found.by_channel[0] > 0 else 'lowered'} by {place.channels[0]}"]
    return f"{text}; {', '.join(parts)}, most of it {_when(found, place)}"


def _when(found: Explanation, place: Place) -> str:
    most = int(np.argmax(np.abs(found.by_channel)))
    first, last = stretch(found.share[:, most])
    length, times = len(found.share), _times(place, len(found.share))
    count = last - first + 1
    if last == length - 1:
        where = "in the last step" if count == 1 else f"in the last {count} of {length} steps"
        return where if times is None or count == 1 else f"{where}, since {times[first]}"
    if times is not None:
        return f"at {times[first]}" if count == 1 else f"from {times[first]} to {times[last]}"
    return (
        f"{length - 1 - last} to {length - 1 - first} steps before the end"
        if count > 1
        else (f"{length - 1 - last} steps before the end")
    )


def _times(place: Place, length: int) -> list[str] | None:
    """Of each step; None when a step is a reading, whose time the window does not hold."""
    if place.end is None or place.step is None:
        return None
    return [rfc3339(place.end - (length - 1 - i) * place.step * 1000) for i in range(length)]


def _mean(values: NDArray[np.float32]) -> float | None:
    known = values[np.isfinite(values)].astype(np.float64)
    return _number(float(known.mean())) if len(known) else None


def _list(values: NDArray[Any]) -> list[float | None]:
    return [_number(v) for v in values.tolist()]


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") + 0.0 if np.isfinite(value) else None  # no -0.0
