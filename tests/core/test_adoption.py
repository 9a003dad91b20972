"""A stream that goes on with another model: no window is lost or told twice, alerts and mutes stay, the rest is new."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests_support import Distance, reading
from transom.core.admission import GridSpec
from transom.core.attention import Call
from transom.core.events import Events
from transom.core.model import CalibrationTable, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec

TABLE = CalibrationTable((1.0, 10.0, 100.0), (0.5, 0.1, 0.001), 10.0)


class Detector(Distance):
    """`Distance` of one named channel, times `gain`."""

    def __init__(self, version: str, gain: float = 1.0, length: int = 4, channel: str = "x") -> None:
        self.sha256, self.gain = version, gain
        self.manifest = Manifest(
            name="d", version=version, task="anomaly", family="none", channels=(Channel(channel),), length=length,
            calibration=TABLE,
        )  # fmt: skip

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        given = super().infer(values)
        return {**given, "score": given["score"] * self.gain, "contribution": given["contribution"] * self.gain}


class Memory:
    """An incremental model whose state is the last three steps: its numbers are those of the whole window."""

    def __init__(self, version: str) -> None:
        self.sha256 = version
        self.manifest = Manifest(
            name="m", version=version, task="anomaly", family="none", channels=(Channel("x"),), length=4, state=3
        )
        self.start = np.full(3, np.nan, np.float32)

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return self.step(values[:, -1], values[:, :-1, 0])[0]

    def step(self, values: np.ndarray, state: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        score = np.abs(values[:, 0] - np.nan_to_num(state).sum(1)).astype(np.float32)
        given = {"score": score, "contribution": score[:, None], "expected": np.nan_to_num(state).sum(1)[:, None]}
        return given, np.concatenate([state[:, 1:], values], 1)


def spec(threshold: float | None = 50.0, step: int | None = None, **changes: Any) -> StreamSpec:
    budget = None if threshold is not None else 1 / 604_800_000
    return StreamSpec(
        "s", "plant/{device}/{channel}", threshold=threshold, budget=budget, grid=GridSpec(step), **changes
    )


def told(events: list[Events]) -> list[tuple[str, int, float]]:
    """Series, end and score of each window."""
    return [
        (series, int(end), float(score))
        for batch in events
        for p in batch.predictions
        for series, end, score in zip(p.series, p.end, p.score if p.score is not None else (), strict=True)
    ]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3000), st.integers(-99, 99)), min_size=1, max_size=40),
    st.integers(0, 40), st.sampled_from([None, 1000]), st.booleans(),
)  # fmt: skip
def test_each_window_is_told_once_by_the_model_that_runs_then(
    drawn: list[tuple[str, int, int]], at: int, step: int | None, with_shadow: bool
) -> None:
    now, messages = 0, []
    for device, pause, value in drawn:
        now += pause
        messages.append(reading(value, now, f"plant/{device}/x"))
    old, new = Detector("1"), Detector("2", 2.0)
    whole = {gain: told([Pipeline([(spec(step=step), m)]).process(messages)]) for gain, m in ((1, old), (2, new))}
    pipeline, shadow = Pipeline([(spec(step=step), old)]), Pipeline([(spec(step=step), new)])
    before = told([pipeline.process(messages[:at])])
    shadow.process(messages[:at])
    state = shadow.streams["s"].snapshot() if with_shadow else None
    pipeline = pipeline.with_model(spec(step=step), new, state)
    after = told([pipeline.process(messages[at:])])
    assert sorted(before + after) == sorted(
        [*before, *(row for row in whole[2] if row[:2] not in {r[:2] for r in before})]
    )
    assert sorted(row[:2] for row in before + after) == sorted(row[:2] for row in whole[1])
    accounts = pipeline.accounts()["s"]
    assert accounts["received"] == len(messages)
    assert accounts["received"] == sum(accounts[k] for k in ("accepted", "invalid", "duplicate", "late", "shed"))


@given(st.lists(st.integers(-9, 9), max_size=12), st.lists(st.integers(-9, 9), min_size=1, max_size=12))
def test_an_incremental_model_takes_over_with_the_state_of_its_last_window(before: list[int], after: list[int]) -> None:
    messages = [reading(v, i) for i, v in enumerate(before + after)]
    whole = Pipeline([(spec(), Memory("2"))])
    whole.process(messages[: len(before)])
    pipeline = Pipeline([(spec(), Memory("1"))])
    pipeline.process(messages[: len(before)])
    other = pipeline.with_model(spec(), Memory("2"))
    assert told([other.process(messages[len(before) :])]) == told([whole.process(messages[len(before) :])])


def alerting(model: Any) -> tuple[Pipeline, str, list[Message]]:
    """A pipeline in which an alert is up, its id, and calm readings that are to follow."""
    pipeline = Pipeline([(spec(), model)])
    events = pipeline.process([reading(0 if i < 8 else 500, i) for i in range(9)])
    (alert,) = events.alerts
    assert alert.event == "raise"
    return pipeline, alert.id, [reading(500, 9 + i) for i in range(12)]


def test_an_alert_that_is_up_goes_on_under_its_id_until_the_other_model_finds_calm() -> None:
    pipeline, alert, calm = alerting(Detector("1"))
    events = pipeline.with_model(spec(), Detector("2", 0.5)).process(calm)
    assert [(a.event, a.id, a.model) for a in events.alerts] == [("update", alert, "d@2"), ("clear", alert, "d@2")]


def test_a_mute_and_an_acknowledgement_stay() -> None:
    pipeline, alert, calm = alerting(Detector("1"))
    pipeline.take(Turn(calls=[
        Call("acknowledge", "s", "a/x", 1, alert=alert, kind="anomaly", by="anna"),
        Call("mute", "s", "a/x", 1, until=1 << 60),
    ]))  # fmt: skip
    other = pipeline.with_model(spec(), Detector("2", 0.5))
    (cleared,) = other.process(calm).alerts  # the update is muted, the end is told
    assert (cleared.event, cleared.acknowledged) == ("clear", ("anna", 1))
    assert other.accounts()["s"]["withheld"] == 1


def calibrated(pipeline: Pipeline) -> list[float]:
    calibration = pipeline.streams["s"].judge.calibration
    return [float(getattr(calibration, key)[0]) for key in ("n", "exceeding", "excess", "windows")]


def test_calibration_is_the_new_models_own_and_the_rhythm_stays() -> None:
    messages = [reading(i * i % 37, i) for i in range(40)]
    pipeline, shadow = Pipeline([(spec(None), Detector("1"))]), Pipeline([(spec(None), Detector("2", 9.0))])
    pipeline.process(messages)
    shadow.process(messages)
    learned = calibrated(pipeline.with_model(spec(None), Detector("2", 9.0), shadow.streams["s"].snapshot()))
    assert learned == calibrated(shadow)
    again = calibrated(pipeline.with_model(spec(None), Detector("2", 9.0)))  # without one: from the last windows
    assert 1 <= again[0] <= 8
    assert again[1] > 0
    assert again[3] == 40
    shadow.process([reading(1, 41)])  # one that has seen other windows does not count
    assert calibrated(pipeline.with_model(spec(None), Detector("2", 9.0), shadow.streams["s"].snapshot())) == again


def test_a_restart_with_another_model_keeps_the_windows_too() -> None:
    pipeline = Pipeline([(spec(), Detector("1"))])
    pipeline.process([reading(v, v) for v in range(10)])
    other = Pipeline([(spec(), Detector("2", 2.0))])
    assert other.restore(pipeline.snapshot()) == []
    whole = Pipeline([(spec(), Detector("2", 2.0))])
    whole.process([reading(v, v) for v in range(10)])
    assert told([other.process([reading(3, 10)])]) == told([whole.process([reading(3, 10)])])


@pytest.mark.parametrize("other", [Detector("2", length=5), Detector("2", channel="y"), Distance(("x",))])
def test_another_shape_starts_anew(other: Any) -> None:
    other.manifest = other.manifest if other.sha256 else type(other.manifest)(
        name="c", version="2", task="classify", family="none", channels=(Channel("x"),), length=4, classes=("a", "b")
    )  # fmt: skip
    pipeline = Pipeline([(spec(), Detector("1"))])
    pipeline.process([reading(v, v) for v in range(10)])
    assert Pipeline([(spec(), other)]).restore(pipeline.snapshot()) == ["s"]
    with pytest.raises(ValueError, match="another shape"):
        pipeline.with_model(spec(), other)
