"""The detector of contacts: whichever way it is wired, it says when and how long a door is open that should be shut."""

from pathlib import Path

import numpy as np
import pytest

from transom.runtimes import bundle, torchscript


@pytest.fixture(scope="module")
def model() -> torchscript.TorchScriptModel:
    return torchscript.load(bundle.find_model("home-contact", Path()))


def days(model: torchscript.TorchScriptModel, hour: float) -> np.ndarray:
    """[T] until an hour of the day: a door used for ten minutes at 7:30, 17:00 and 19:00, else shut."""
    length = model.manifest.length
    minute = (round(hour * 60) - 10 * np.arange(length - 1, -1, -1)) % 1440
    return np.isin(minute // 10, [45, 102, 114]).astype(np.float32)


def score(model: torchscript.TorchScriptModel, window: np.ndarray) -> float:
    return float(model.infer(window[None, :, None].astype(np.float32))["score"][0])


def test_an_opening_at_night_is_stranger_than_one_at_its_hour(model: torchscript.TorchScriptModel) -> None:
    night, usual = days(model, 3), days(model, 17)
    night[-1] = 1
    assert usual[-1] == 1
    assert score(model, night) > 1.5 * score(model, usual)


def test_what_stays_open_is_stranger_with_every_step(model: torchscript.TorchScriptModel) -> None:
    scores = []
    for steps in range(5):
        window = days(model, 21)
        window[len(window) - steps :] = 1
        scores.append(score(model, window))
    assert scores == sorted(scores)
    assert scores[-1] > 3 * scores[1]


def test_the_wiring_does_not_matter(model: torchscript.TorchScriptModel) -> None:
    window = days(model, 3)
    window[-2:] = 1
    assert score(model, 1 - window) == pytest.approx(score(model, window))


def test_what_is_missing_says_nothing(model: torchscript.TorchScriptModel) -> None:
    window = np.full(model.manifest.length, np.nan, np.float32)
    out = model.infer(window[None, :, None])
    assert out["score"][0] == 0
    assert np.isfinite(out["expected"]).all()
