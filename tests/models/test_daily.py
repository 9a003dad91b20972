"""Signals with habits that come irregularly: the forecaster, and rows that fall into the steps that a gateway has."""

import json

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from transom.core.admission import GridSpec
from transom.core.model import ANY, Channel, Manifest
from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom_models.recordings import Recording
from transom_models.stepping import stepped
from transom_models.tasks import DailyForecaster
from transom_models.training import Plan, train

PERIOD, LENGTH, HORIZON = 24, 30, 4
T0 = 1_700_000_000_000_000  # µs


def forecaster() -> DailyForecaster:
    torch.manual_seed(0)
    return DailyForecaster(torch.zeros(1), torch.ones(1), LENGTH, HORIZON, PERIOD)


def asked(module: DailyForecaster, window: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(torch.from_numpy(window.astype(np.float32)))["forecast"].numpy()


def habit(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows and what came then, of a day's wave with noise and holes, beginning anywhere."""
    random = np.random.default_rng(1)
    begin = random.uniform(0, PERIOD, (count, 1))
    wave = np.sin(2 * np.pi * (begin + np.arange(LENGTH + HORIZON)) / PERIOD) + random.normal(0, 0.1, (count, 34))
    wave[:, :LENGTH][random.random((count, LENGTH)) < 0.2] = np.nan
    both = wave[:, :, None].astype(np.float32)
    return both[:, :LENGTH], both[:, LENGTH:]


def test_a_habit_is_learned_from_what_was_a_day_before() -> None:
    torch.set_num_threads(1)
    module, (windows, truth) = forecaster(), habit(600)
    train(module, (windows[:500], truth[:500]), (windows[500:], truth[500:]), Plan(8, 16, 3 * module.rate, 8))
    error = asked(module, windows[500:])[:, :, 0, 2] - truth[500:, :, 0]
    last = np.nan_to_num(windows[500:, -1]) - truth[500:, :, 0]
    assert np.sqrt((error**2).mean()) < 0.25 < np.sqrt((last**2).mean())


def test_moving_and_stretching_a_window_moves_and_stretches_its_forecast() -> None:
    module, (windows, _) = forecaster(), habit(8)
    with torch.no_grad():
        module.quantiles += torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert np.allclose(asked(module, 40 * windows - 7), 40 * asked(module, windows) - 7, atol=1e-3)


def test_a_window_with_nothing_in_it_gets_numbers() -> None:
    assert np.isfinite(asked(forecaster(), np.full((2, LENGTH, 1), np.nan))).all()


@given(st.lists(st.integers(0, 900), min_size=1, max_size=60), st.sampled_from(["mean", "last", "max"]))
def test_steps_are_those_that_a_gateway_makes_of_the_same_rows(gaps: list[int], aggregate: str) -> None:
    """Irregular rows through the training side and through the pipeline: the same values in the same steps."""
    times = T0 + 1_000_000 * np.cumsum(gaps)
    times = np.unique(times)
    values = np.arange(len(times), dtype=np.float32)[:, None] % 7
    found = stepped(Recording("r", ("x",), times, values, np.full(len(times), np.nan)), 60_000, aggregate, LENGTH)  # type: ignore[arg-type]
    seen = []

    class Model:
        sha256 = ""
        manifest = Manifest(
            name="m", version="1", task="forecast", family="lstm", channels=(Channel(ANY),), length=LENGTH,
            step=60_000, horizon=1, quantiles=(0.5,),
        )  # fmt: skip

        def infer(self, windows: np.ndarray) -> dict[str, np.ndarray]:
            seen.append(windows[:, -1, 0].copy())
            return {"forecast": np.zeros((len(windows), 1, 1, 1), np.float32)}

    spec = StreamSpec("s", "r/{channel}", (), PayloadSpec(time_unit="us"), GridSpec(60_000, aggregate, max_ahead=None))  # type: ignore[arg-type]
    pipeline = Pipeline([(spec, Model())])
    for time, (value,) in zip(times.tolist(), values.tolist(), strict=True):
        body = json.dumps({"value": value, "time": time}).encode()
        pipeline.process([Message("r/x", body, time // 1000)])
    pipeline.flush()
    assert found.targets is not None
    came = np.isfinite(found.targets[:, 0])  # a gateway says something where something came
    assert np.array_equal(np.concatenate(seen), found.values[came, 0])
    assert np.isfinite(found.targets).sum() == len(np.unique(times // 60_000_000))
