"""What of a sensor's level is a drift: slow ageing is, rhythms, noise and steps are not."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from transom.core.drift import DAYS, Drift, Moved
from transom.core.model import Channel, Manifest, Reference
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.core.trend import trend

DAY = 86_400_000_000  # µs
T0 = 1_700_006_400_000_000 // DAY * DAY
HOURS = 24


def fed(values: np.ndarray, per_day: int = HOURS, drift: Drift | None = None, first: int = 0) -> Drift:
    """values: [n] or [n, C], evenly spaced; a batch a day."""
    values = values.reshape(len(values), -1).astype(np.float32)
    if drift is None:
        drift = Drift(values.shape[1])
        drift.resize(1)
    for begin in range(0, len(values), per_day):
        part = values[begin : begin + per_day]
        end = T0 + (first + begin + np.arange(len(part))) * (DAY // per_day)
        drift.learn(np.zeros(len(part), np.int32), end, part)
    return drift


def ramp(days: int, still: int, share: float, level: float = 20.0) -> np.ndarray:
    """Rises by share * level over 30 days from day `still` on, hourly."""
    day = np.arange(days * HOURS) / HOURS
    return level * (1 + share * np.maximum(day - still, 0) / 30)


def daily(days: int) -> np.ndarray:
    return 3 * np.sin(np.arange(days * HOURS) / HOURS * 2 * np.pi)


def autoregressive(n: int, phi: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for i, e in enumerate(rng.standard_normal(n) * np.sqrt(1 - phi * phi)):
        x[i] = phi * x[i - 1] + e
    return x


@pytest.mark.parametrize(
    "noise",
    [np.random.default_rng(0).standard_normal(60 * HOURS), daily(60), autoregressive(60 * HOURS, 0.8, 1)],
    ids=["white noise", "daily rhythm", "autoregressive"],
)
def test_a_tenth_of_the_level_in_a_month_is_told_with_its_beginning_its_size_and_its_rate(noise: np.ndarray) -> None:
    (moved,) = fed(ramp(60, 30, 0.1) + noise).moved()
    assert moved.kind == "drift"
    assert moved.since is not None
    assert abs(moved.since - (T0 + 30 * DAY)) <= 6 * DAY
    assert moved.before == pytest.approx(20, abs=0.3)
    assert moved.now == pytest.approx(22, abs=0.4)
    assert moved.per_day == pytest.approx(2 / 30, rel=0.3)
    assert moved.sizes == pytest.approx((moved.now - moved.before) / moved.usual)


def test_a_fall_is_told_as_a_rise_is() -> None:
    (moved,) = fed(ramp(60, 30, -0.1) + daily(60)).moved()
    assert moved.now < moved.before
    assert moved.per_day < 0


def test_a_weekly_rhythm_is_no_drift_and_a_drift_is_told_through_it() -> None:
    day = np.arange(70 * HOURS) // HOURS
    weekly = np.where(day % 7 < 5, 20.0, 0.0) + np.random.default_rng(0).standard_normal(len(day))
    assert fed(weekly).moved() == []
    (moved,) = fed(weekly + ramp(70, 40, 0.3)).moved()
    assert abs(moved.since / DAY - (T0 / DAY + 40)) <= 3  # type: ignore[operator]


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000), st.floats(0, 10), st.floats(0, 10), st.sampled_from([0.0, 0.5, 0.9, 0.98]),
    st.floats(-1e5, 1e5), st.integers(0, 23),
)  # fmt: skip
def test_rhythms_and_noise_are_no_drift(
    seed: int, swing: float, week: float, phi: float, level: float, hour: int
) -> None:
    n = 63 * HOURS
    rhythm = swing * np.sin((np.arange(n) + hour) / HOURS * 2 * np.pi)
    rhythm += week * ((np.arange(n) + hour) // HOURS % 7 < 5)
    assert fed(level + rhythm + autoregressive(n, phi, seed)).moved() == []


@pytest.mark.parametrize("size", [0.5, 0.8, 5.0])
def test_a_step_is_a_matter_for_alerts_and_no_drift(size: float) -> None:
    values = 20 + np.random.default_rng(0).standard_normal(70 * HOURS)
    values[40 * HOURS + 7 :] += size
    drift = Drift(1)
    drift.resize(1)
    for day in range(70):
        fed(values[day * HOURS : (day + 1) * HOURS], drift=drift, first=day * HOURS)
        assert drift.moved() == []


def test_nothing_is_said_of_less_than_three_weeks() -> None:
    assert fed(ramp(19, 0, 3.0)).moved() == []
    assert len(fed(ramp(24, 0, 3.0) + daily(24)).moved()) == 1


def test_what_has_levelled_off_is_no_drift_any_more_after_eight_weeks() -> None:
    still = np.full((DAYS + 7) * HOURS, 22.0)
    values = np.append(ramp(60, 30, 0.1), still)
    values = values + np.random.default_rng(0).standard_normal(len(values))
    assert fed(values).moved() == []


def test_days_without_readings_and_missing_values_are_left_out() -> None:
    values = ramp(60, 30, 0.1) + daily(60)
    rng = np.random.default_rng(0)
    values[rng.random(len(values)) < 0.2] = np.nan
    values[35 * HOURS : 38 * HOURS] = np.nan
    assert len(fed(values).moved()) == 1


def test_each_channel_has_a_report_of_its_own() -> None:
    values = np.stack([20 + daily(60), ramp(60, 30, 0.1) + daily(60), 5 + daily(60)], 1)
    assert [m.channel for m in fed(values).moved()] == [1]


def test_a_level_far_from_the_training_data_is_told_after_three_days() -> None:
    values = np.stack([30 + daily(5), 20 + daily(5)], 1)
    mean, usual = np.array([20.0, 20.0]), np.array([2.0, 2.0])
    assert fed(values[: 2 * HOURS]).away(mean, usual) == []
    (moved,) = fed(values).away(mean, usual)
    assert (moved.channel, moved.kind, moved.since) == (0, "reference", None)
    assert moved.sizes == pytest.approx(5, abs=0.1)


@hypothesis_settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 2000), max_size=6), st.integers(0, 2000))
def test_any_split_gives_the_same_and_a_snapshot_goes_on(seed: int, cuts: list[int], save_at: int) -> None:
    rng = np.random.default_rng(seed)
    n = 2000
    series = np.sort(rng.integers(0, 2, n)).astype(np.int32)
    end = np.empty(n, np.int64)
    for s in (0, 1):
        rows = series == s
        end[rows] = T0 + np.cumsum(rng.integers(1, 2 * 45 * 60_000_000, rows.sum()))
    values = (20 + rng.standard_normal((n, 2)) + np.arange(n)[:, None] / 500).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan

    def run(edges: list[int], drift: Drift) -> Drift:
        order = np.argsort(end, kind="stable")  # as time goes by, both series at once
        for a, b in zip([0, *edges], [*edges, n], strict=True):
            rows = np.sort(order[a:b])
            drift.learn(series[rows], end[rows], values[rows])
        return drift

    def new() -> Drift:
        drift = Drift(2)
        drift.resize(2)
        return drift

    whole, saved = run([], new()), new()
    order = np.argsort(end, kind="stable")
    first = np.sort(order[:save_at])
    saved.learn(series[first], end[first], values[first])
    again = Drift(2)
    again.restore(copy.deepcopy(saved.snapshot()))
    rest = np.sort(order[save_at:])
    again.learn(series[rest], end[rest], values[rest])
    split = run(sorted(cuts), new())
    for drift in (whole, again, split):
        drift.settle()
    for name in Drift.fills:
        np.testing.assert_array_equal(getattr(split, name)[:2], getattr(whole, name)[:2], name)
        np.testing.assert_array_equal(getattr(again, name)[:2], getattr(whole, name)[:2], name)


def test_memory_is_bounded_below_300_bytes_a_channel() -> None:
    drift = Drift(100)
    drift.resize(16)
    assert sum(getattr(drift, name).nbytes for name in Drift.fills) / 1600 < 300


def test_a_clock_that_is_set_back_begins_the_days_anew() -> None:
    drift = fed(ramp(60, 30, 0.1) + daily(60))
    fed(ramp(1, 0, 0.0), drift=drift)
    assert drift.moved() == []


def test_extreme_values_leave_it_sane() -> None:
    values = 20 + daily(40)
    values[[100, 500]] = 3e38, -3e38
    drift = fed(values)
    assert drift.moved() == []
    assert np.isfinite(drift.variance[0]).all()


def test_the_size_of_a_constant_is_no_division_by_zero() -> None:
    assert np.isfinite(Moved(0, 0, "drift", 0, 1.0, 1.0, 0.0, 0.0).sizes)


def test_a_perfect_line_is_a_sure_trend_and_a_constant_none() -> None:
    found = trend(np.stack([np.arange(56.0), np.full(56, 7.0)]))
    assert found.certainty[0] > 1000
    assert found.certainty[1] == 0


def test_a_trained_model_s_input_is_held_against_the_training_data_and_its_score_is_one_more_channel() -> None:
    class Distance:
        sha256 = ""
        manifest = Manifest(
            name="distance", version="1", task="anomaly", family="none", channels=(Channel("x", "bar"), Channel("y")),
            length=1, reference=Reference((20.0, 20.0), (2.0, 2.0)),
        )  # fmt: skip

        def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
            size = np.abs(values[:, -1] - 20)
            return {"score": size.sum(1), "contribution": size, "expected": np.full_like(size, 20)}

    pipeline = Pipeline([(StreamSpec("s", "plant/{device}", budget=None, threshold=1e9), Distance())])
    rhythm = daily(30)
    for hour, (x, y) in enumerate(
        zip(30 + rhythm, 20 + rhythm + 4 * np.arange(30 * HOURS) / (30 * HOURS), strict=True)
    ):
        pipeline.process([Message("plant/a", f'{{"x":{x:.3f},"y":{y:.3f}}}'.encode(), T0 // 1000 + hour * 3_600_000)])
    count, reports = pipeline.drifting()
    assert count == len(reports)
    assert {(r.channel, r.kind) for r in reports} >= {("x", "reference"), ("y", "drift"), ("score", "drift")}
    assert pipeline.drifting(1)[1] == reports[:1]
    (away,) = [r for r in reports if r.kind == "reference"]
    assert (
        away.summary
        == "x is away from the training data: 20 bar there, 30 bar in the last week (5 of its usual spread)"
    )
