"""One series as the page draws it: columns of its latest points, by channel, and what is forecast.

Rings in, plain values for JSON out. Numbers have the seven digits that float32 holds, None stands for none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.model import ANY
from transom.dialects.live.layout import Layout
from transom.dialects.live.rings import Points, Rings
from transom.dialects.plain import rounded_all


class About(NamedTuple):
    """What the predictions do not say of a stream. units: by channel; step: µs, None where it is a reading; task,
    model: of its model."""

    units: Mapping[str, str] = {}
    step: int | None = None
    task: str = ""
    model: str = ""

    def of(self, channels: Sequence[str]) -> list[str]:
        """The units of these channels."""
        return [self.units.get(c, "") or self.units.get(ANY, "") for c in channels]


def chart(rings: Rings, place: int, about: About, points: Points) -> dict[str, Any]:
    """The points, and with `anew` what they are."""
    layout, channels = rings.layout, rings.channels[place]
    assert layout is not None
    body = _columns(layout, points)
    body["anew"] = points.anew
    if points.anew:
        body |= {
            "channels": list(channels), "units": about.of(channels), "task": about.task, "model": about.model,
            "classes": list(layout.classes),
        }  # fmt: skip
    if layout.forecast and len(points.time):
        body["forecast"] = _fan(layout, rings, place, about, points)
    return body


def _columns(layout: Layout, points: Points) -> dict[str, Any]:
    c, rows = layout.channels, points.rows.astype(np.float64)
    body: dict[str, Any] = {
        "time": _ms(points.time), "state": points.state.tolist(), "value": _each(rows[:, :c]),
    }  # fmt: skip
    if layout.expected:
        body["expected"] = _each(rows[:, c : 2 * c])
    if layout.interval:
        body |= {"low": _each(rows[:, 2 * c : 3 * c]), "high": _each(rows[:, 3 * c : 4 * c])}
    if layout.score:
        score = layout.score_at
        body |= {"score": rounded_all(rows[:, score]), "p_value": rounded_all(rows[:, score + 1])}
    if layout.classes:
        body["probability"] = _each(rows[:, layout.score_at + 2 :])
    return body


def _fan(layout: Layout, rings: Rings, place: int, about: About, points: Points) -> dict[str, Any]:
    """The latest forecast: its times, and of each target the lowest, the middle and the highest quantile."""
    values = rings.forecast(place).astype(np.float64)  # [H, C, Q]
    horizon, targets, q = values.shape
    recent = np.diff(rings.read(place).time[-20:])
    step = about.step or (int(np.median(recent)) if len(recent) else 0)
    time = points.time[-1] + step * (layout.lead + np.arange(horizon, dtype=np.int64))
    names = layout.targets or rings.channels[place]
    return {
        "time": _ms(time) if step else [], "targets": list(names[:targets]),
        "levels": [layout.quantiles[i] for i in (0, q // 2, q - 1)] if len(layout.quantiles) == q else [],
        "low": _each(values[:, :, 0]), "middle": _each(values[:, :, q // 2]), "high": _each(values[:, :, q - 1]),
    }  # fmt: skip


def _each(columns: NDArray[np.float64]) -> list[list[float | None]]:
    """[n, C] -> C lists of n."""
    return [rounded_all(column) for column in columns.T]


def _ms(time: NDArray[np.int64]) -> list[float]:
    ms: list[float] = (time / 1000).tolist()
    return ms
