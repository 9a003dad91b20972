"""Scores to p-values that keep their promise, and the life of alerts over many series at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transom.core.alerts import Alerts, AlertSpec, Change, State
from transom.core.calibration import Calibration, Tables
from transom.core.model import CalibrationTable

TABLE = CalibrationTable(tuple(np.linspace(0, 9, 40)), tuple(np.exp(-np.linspace(0, 9, 40))), 1.0)
ONE = np.zeros(1, np.int32)


def fed(scores: np.ndarray) -> tuple[Calibration, np.ndarray]:
    """One series' p-values, each from the windows before it."""
    calibration = Calibration(TABLE, 1000.0)
    calibration.resize(1)
    found = []
    for i, u in enumerate(Tables(TABLE).surprise(scores.astype(np.float32))):
        found.append(calibration.p_value(np.array([u]), calibration.look(ONE))[0])
        calibration.learn(ONE, np.array([u]), np.array([1_000_000 * i]))
    return calibration, np.array(found)


def test_p_values_of_data_like_the_table_s_are_uniform() -> None:
    _, p = fed(np.random.default_rng(0).exponential(size=6000))
    for level in (0.5, 0.1, 0.01, 0.002):
        assert 0.5 * level < np.mean(p <= level) < 1.6 * level


def test_a_series_that_departs_from_the_table_finds_its_own_bar() -> None:
    _, p = fed(3 * np.random.default_rng(1).exponential(size=6000))
    late = p[1000:]
    assert 0.3 * 0.01 < np.mean(late <= 0.01) < 2 * 0.01


def test_one_anomaly_does_not_raise_the_bar_much() -> None:
    scores = np.random.default_rng(2).exponential(size=1000)
    before, _ = fed(scores)
    after, _ = fed(np.append(scores, 1e6))
    u = np.array([12.0])
    assert after.p_value(u, after.look(ONE))[0] < 5 * before.p_value(u, before.look(ONE))[0]


@given(st.lists(st.floats(0, 1e9, width=32), min_size=2, max_size=30))
def test_a_higher_score_never_has_a_higher_p_value(scores: list[float]) -> None:
    calibration, _ = fed(np.random.default_rng(3).exponential(size=150))
    ordered = np.sort(np.array(scores, np.float32))
    p = [
        calibration.p_value(Tables(TABLE).surprise(np.array([s], np.float32)), calibration.look(ONE))[0]
        for s in ordered
    ]
    assert all(0 < value <= 1 for value in p)
    assert all(a >= b for a, b in zip(p, p[1:], strict=False))


def life(spec: AlertSpec, over: str, learning: int = 0) -> list[tuple[str, str]]:
    """over: a window each, `#` over the bar, `.` calm, `-` neither -> states and changes."""
    alerts = Alerts(spec)
    alerts.resize(1)
    told = []
    for i, mark in enumerate(over):
        state, change = alerts.step(
            ONE, np.array([1_000_000 * i]), np.array([10.0 if mark == "#" else 1.0]), np.array([mark == "#"]),
            np.array([mark == "."]), np.array([False]), np.array([i < learning]),
        )  # fmt: skip
        told.append((State(state[0]).name, Change(change[0]).name))
    return told


def test_two_of_three_windows_raise_and_five_calm_ones_clear() -> None:
    told = life(AlertSpec(2, 3), "#.#-.....")
    assert [s for s, _ in told] == [
        "PENDING",
        "PENDING",
        "ALERT",
        "ALERT",
        "ALERT",
        "ALERT",
        "ALERT",
        "ALERT",
        "NORMAL",
    ]
    assert [c for _, c in told if c != "NONE"] == ["RAISE", "CLEAR"]


def test_what_is_neither_over_nor_calm_keeps_an_alert_up() -> None:
    assert all(s == "ALERT" for s, _ in life(AlertSpec(), "#----------"))


def test_hold_off_keeps_a_new_alert_down() -> None:
    told = life(AlertSpec(hold_off=4000), "#.....###.#")
    assert [i for i, (_, c) in enumerate(told) if c == "RAISE"] == [0, 10]


def test_nothing_is_raised_while_learning() -> None:
    assert [c for _, c in life(AlertSpec(), "####", learning=3)] == ["NONE", "NONE", "NONE", "RAISE"]


def test_many_series_live_side_by_side_as_if_alone() -> None:
    rng = np.random.default_rng(4)
    over = rng.random((40, 50)) < 0.2
    together, ids = Alerts(AlertSpec(2, 4)), np.arange(40, dtype=np.int32)
    together.resize(40)
    states = []
    for i in range(50):
        now = np.full(40, 1_000_000 * i)
        states.append(
            together.step(ids, now, over[:, i] * 9.0, over[:, i], ~over[:, i], over[:, i] & False, np.zeros(40, bool))[
                0
            ]
        )
    for series in range(40):
        alone = life(AlertSpec(2, 4), "".join("#" if o else "." for o in over[series]))
        assert [s for s, _ in alone] == [State(row[series]).name for row in states]
