"""Two models side by side: what is out of bounds is named, and what both do is no fault of the newer one."""

from typing import Any

import numpy as np
import pytest

from transom.core.alerts import State
from transom.core.events import Predictions
from transom.edge.rollout.comparison import LEAST, Bounds, Comparison, Pair

BOUNDS = Bounds(alarm_ratio=3.0, error_ratio=1.5, latency_ratio=5.0, agreement=0.5)


def said(ends: list[int], **columns: Any) -> list[Predictions]:
    n = len(ends)
    fields: dict[str, Any] = {
        "stream": "s", "model": "m", "series": ["a"] * n, "channels": [("x",)] * n, "end": np.array(ends),
        "value": np.zeros((n, 1), np.float32), "state": np.full(n, State.NORMAL, np.uint8),
    }  # fmt: skip
    return [Predictions(**fields | columns)]


def of(base: dict[str, Any], new: dict[str, Any], n: int = 2 * LEAST, step: int | None = None) -> Comparison:
    """Both over n windows, one a turn. A column is an array of n rows."""
    found = Comparison(step=step)
    for i in range(n):
        found.add(*(said([i], **{k: v[i : i + 1] for k, v in columns.items()}) for columns in (base, new)))
    return found


def states(*up: int, n: int = 2 * LEAST) -> dict[str, Any]:
    state = np.full(n, State.NORMAL, np.uint8)
    state[list(up)] = State.ALERT
    return {"state": state}


def test_two_that_say_the_same_are_within_bounds() -> None:
    p = {"p_value": np.linspace(0.01, 1, 2 * LEAST)}
    found = of(states(3, 4) | p, states(3, 4) | p)
    assert found.failure(BOUNDS, 0.0) == ""
    figures = found.figures()
    assert (figures["windows"], figures["agreement"], figures["correlation"]) == (2 * LEAST, 1.0, 1.0)


@pytest.mark.parametrize(
    ("base", "new", "expected", "fails"),
    [(0, 3, 0, False), (0, 7, 0, True), (10, 30, 0, False), (10, 60, 0, True), (0, 60, 20, False), (0, 120, 20, True)],
)
def test_alarms_are_held_against_those_of_the_other_model_and_the_budget(
    base: int, new: int, expected: float, fails: bool
) -> None:
    found = of(states(), states())
    found.alarms = Pair(base, new)
    assert bool(found.failure(BOUNDS, expected)) == fails


def test_one_that_stays_in_alert_is_out_of_bounds_unless_the_other_does_too() -> None:
    up = range(2 * LEAST)
    assert "in alert in 100%" in of(states(), states(*up)).failure(BOUNDS, 0.0)
    assert of(states(*up), states(*up)).failure(BOUNDS, 0.0) == ""


def test_nothing_is_said_of_a_model_before_there_are_enough_windows() -> None:
    n = LEAST - 1
    assert of(states(n=n), states(*range(n), n=n), n).failure(BOUNDS, 0.0) == ""


def test_classes_are_compared_as_such() -> None:
    one, other = np.tile([0.9, 0.1], (2 * LEAST, 1)), np.tile([0.1, 0.9], (2 * LEAST, 1))
    assert of({"probability": one}, {"probability": one}).failure(BOUNDS, 0.0) == ""
    assert "in 0% of the windows" in of({"probability": one}, {"probability": other}).failure(BOUNDS, 0.0)


def forecasts(value: np.ndarray, off: float) -> dict[str, Any]:
    """Foresees the next value, and is wrong by `off`."""
    ahead = np.roll(value, -1, 0) + off
    return {"value": value, "forecast": ahead[:, None, :, None].astype(np.float32), "quantiles": (0.5,)}


@pytest.mark.parametrize(("off", "fails"), [(1.4, False), (1.6, True)])
def test_forecasts_are_held_against_what_came(off: float, fails: bool) -> None:
    value = np.arange(2 * LEAST, dtype=np.float32)[:, None] ** 1.5
    base, new = (forecasts(value, o) | {"quantiles": [(0.5,)] * len(value)} for o in (1.0, off))
    found = Comparison(step=1)
    for i in range(len(value) - 1):
        rows = ({k: (v[0] if k == "quantiles" else v[i : i + 1]) for k, v in side.items()} for side in (base, new))
        found.add(*(said([i], **row) for row in rows))
    assert found.error_ratio == pytest.approx(off, rel=0.01)
    assert bool(found.failure(BOUNDS, 0.0)) == fails


def test_a_gap_is_no_error() -> None:
    found = Comparison(step=1)
    for end in (0, 5):
        rows = {"forecast": np.zeros((1, 1, 1, 1), np.float32), "quantiles": (0.5,)}
        found.add(said([end], **rows), said([end], **rows))
    assert found.error_ratio is None


def test_latency_is_a_ratio_of_medians() -> None:
    found = of(states(), states())
    for slow in (1.0, 9.0, 1.0):  # one that was interrupted
        found.pace(1.0, slow)
    assert found.failure(BOUNDS, 0.0) == ""
    for _ in range(5):
        found.pace(1.0, 6.0)
    assert "6 times as long" in found.failure(BOUNDS, 0.0)


def test_windows_that_only_one_has_seen_are_not_compared() -> None:
    found = Comparison()
    found.add(said([1, 2, 3]), said([2, 3, 4]))
    found.add(said([5]), [])
    assert (found.windows, found.unmatched) == (2, 2)
