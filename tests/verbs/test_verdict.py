"""The judging of a demo: forecasts beside naive ones, recognitions stretch by stretch."""

import numpy as np
import pytest

from transom.core.events import Predictions
from transom.scenes.scene import Fault, Outlook, last_value, velocity
from transom.verbs.verdict import Forecasts, Recognitions

STEP = 60_000_000  # µs


def forecasts(series: str, values: list[float], said: list[float], horizon: int, channels: int = 1) -> Predictions:
    """Windows a minute apart, each with its last value and what it says of the horizon's end."""
    n = len(values)
    value = np.repeat(np.array(values, np.float32)[:, None], channels, 1)
    forecast = np.zeros((n, horizon, channels, 3), np.float32)
    forecast[:, -1] = np.array(said, np.float32)[:, None, None] + np.array([-1, 0, 1], np.float32)
    return Predictions(
        "air", "m@1", [series] * n, [tuple(f"c{i}" for i in range(channels))] * n,
        np.arange(n, dtype=np.int64) * STEP, value, np.zeros(n, np.uint8), forecast=forecast,
        quantiles=(0.1, 0.5, 0.9),
    )  # fmt: skip


@pytest.mark.parametrize("step", [STEP, None])
def test_a_forecast_is_judged_by_what_came_at_its_horizons_end(step: int | None) -> None:
    rising = [float(i) for i in range(10)]
    judged = Forecasts(Outlook(), step, 1)
    judged.take(forecasts("a", rising, [v + 3 for v in rising], 3))
    errors = judged.errors["c0"]
    assert (errors.count, errors.model, errors.naive, errors.inside) == (7, 0.0, 7 * 9.0, 7)
    assert judged.better


def test_a_forecast_that_is_worse_than_the_last_value_is_not_good() -> None:
    flat = [5.0] * 8
    flat[-1] = 5.5
    judged = Forecasts(Outlook(), STEP, 1)
    judged.take(forecasts("a", flat, [9.0] * 8, 2))
    assert not judged.better


def test_in_a_plane_the_error_is_a_distance_and_velocity_goes_on() -> None:
    line = [2.0 * i for i in range(9)]
    judged = Forecasts(Outlook(velocity, "constant velocity", plane=True), STEP, 1)
    judged.take(forecasts("car", line, [v + 3 * 2 + 3 for v in line], 3, channels=2))
    errors = judged.errors["distance"]
    assert errors.model / errors.count == pytest.approx(2 * 3.0**2)
    assert errors.naive == pytest.approx(2 * 6.0**2)  # of the first, which has no past to go on from
    history = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert velocity(history, 4).tolist() == [5.0, 10.0]
    assert last_value(history, 4).tolist() == [1.0, 2.0]


class Kettle:
    """First a kettle, then a lamp, with a moment between that is neither."""

    def send(self, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        raise NotImplementedError

    def truth(self, stream: str, series: str, begin: int, end: int) -> str | None:
        return "kettle" if end <= 4 * 60_000 else "lamp" if begin >= 5 * 60_000 else None


def named(guesses: list[str]) -> Predictions:
    n, classes = len(guesses), ("kettle", "lamp")
    probability = np.array([[float(g == c) for c in classes] for g in guesses], np.float32)
    return Predictions(
        "plugs", "m@1", ["p"] * n, [("power",)] * n, np.arange(n, dtype=np.int64) * STEP,
        np.zeros((n, 1), np.float32), np.zeros(n, np.uint8), probability=probability, classes=classes,
    )  # fmt: skip


def test_a_stretch_is_recognised_when_most_of_its_windows_say_so() -> None:
    judged = Recognitions(60_000, Kettle())
    judged.take(named(["kettle", "kettle", "lamp", "kettle", "kettle", "lamp", "lamp", "lamp", "kettle"]))
    assert [(s.truth, s.right) for s in judged.stretches] == [("kettle", True), ("lamp", True)]
    assert (judged.right, judged.naive, judged.better) == (2, 1, True)


def test_always_naming_the_same_is_not_better_than_naive() -> None:
    judged = Recognitions(60_000, Kettle())
    judged.take(named(["kettle"] * 9))
    assert (judged.right, judged.naive, judged.better) == (1, 1, False)
