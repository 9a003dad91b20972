"""Where a vehicle will be: seen from the vehicle, so that no place and no direction matters."""

import numpy as np
import pytest
import torch

from transom_models.tasks import PathForecaster
from transom_models.tasks.path import LATITUDE, LONGITUDE, constant_velocity, distance


def forecaster(degrees: bool) -> PathForecaster:
    torch.manual_seed(3)
    return PathForecaster("gru", 8, torch.zeros(3), torch.ones(3), 5, degrees).eval()


def drive(turn: float = 0.0) -> np.ndarray:
    """[20, 3]: x and y in metres, and speed, of a bend; the whole turned by `turn` rad."""
    heading = turn + 0.05 * np.arange(20)
    steps = 10 * np.stack([np.cos(heading), np.sin(heading)], 1)
    return np.concatenate([np.cumsum(steps, 0), np.full((20, 1), 10.0)], 1)


def asked(module: PathForecaster, window: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(window.astype(np.float32))[None])["forecast"][0].numpy()  # [5, 2, Q]


def test_a_window_that_is_moved_moves_its_forecast() -> None:
    module, window = forecaster(False), drive()
    assert np.allclose(
        asked(module, window + np.array([300, -80, 0])) - [[[300], [-80]]], asked(module, window), atol=1e-2
    )


@pytest.mark.parametrize("turn", [0.7, 2.0, -3.0])
def test_a_window_that_is_turned_turns_its_forecast(turn: float) -> None:
    module = forecaster(False)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ asked(module, drive())[:, :, 2].T
    assert np.allclose(asked(module, drive(turn))[:, :, 2], turned.T, atol=1e-2)


@pytest.mark.parametrize("place", [(52.5, 13.4), (-33.0, 151.2), (0.0, -0.5)])
def test_degrees_are_metres_wherever_on_the_earth(place: tuple[float, float]) -> None:
    metres = np.array([LATITUDE, LONGITUDE * np.cos(np.radians(place[0]))])
    window = drive()
    on_earth = np.concatenate([window[:, :2] / metres + place, window[:, 2:]], 1)
    given = (asked(forecaster(True), on_earth)[:, :, 2] - on_earth[-1, :2]) * metres
    # A float32 of a longitude holds 0.8 m at 151°, and the velocity of the last two steps is taken to five ahead.
    assert np.abs(given - (asked(forecaster(False), window)[:, :, 2] - window[-1, :2])).max() < 5


def test_a_vehicle_without_a_past_or_a_position_gets_numbers() -> None:
    window = drive()
    window[:15] = np.nan
    assert np.isfinite(asked(forecaster(False), window)).all()
    assert np.isfinite(asked(forecaster(True), np.full((20, 3), np.nan))).all()


def test_the_interval_covers_what_it_says_of_the_windows_it_was_set_on() -> None:
    random, module = np.random.default_rng(0), forecaster(False)
    windows = np.stack([drive(a) for a in random.uniform(-3, 3, 400)]).astype(np.float32)
    truth = (constant_velocity(windows, 5) + random.normal(0, 3, (400, 5, 2))).astype(np.float32)
    with torch.no_grad():
        module.fit_spread(windows, truth)
        given = module(torch.from_numpy(windows))["forecast"].numpy()
    inside = (truth >= given[..., 0]) & (truth <= given[..., -1])
    assert inside.mean() == pytest.approx(0.8, abs=0.03)


def test_constant_velocity_goes_straight_on() -> None:
    straight = np.stack([5.0 * np.arange(6), np.zeros(6)], 1)[None]
    ahead = constant_velocity(straight, 3)
    assert np.allclose(ahead[0], [[30, 0], [35, 0], [40, 0]])
    assert distance(ahead[:, -1], np.array([[40.0, 3.0]]), degrees=False) == pytest.approx(3)
