"""What each runtime must give for each model, as one function: `check_model(model)`."""

import numpy as np
import pytest
from numpy.typing import NDArray

from transom.core.model import PROMISED, Model
from transom.errors import ModelError

SPLITS = (1, 2, 3, 5, 16, 17, 64, 65)


def windows(model: Model, count: int, seed: int = 0) -> NDArray[np.float32]:
    """float32 [count, T, C]: random walks, some of whose values are missing."""
    m = model.manifest
    random = np.random.default_rng(seed)
    values = np.cumsum(random.normal(size=(count, m.length, len(m.channels))), axis=1).astype(np.float32)
    values[random.random(values.shape) < 0.05] = np.nan
    return values


def check_model(model: Model, values: NDArray[np.float32] | None = None) -> None:
    """Holds a loaded model against the seam. values: float32 [B, T, C], B >= 70, of the kind that it was made for."""
    values = windows(model, 70) if values is None else values
    whole = model.infer(values)
    _gives_what_the_task_promises(model, values, whole)
    _gives_the_same_bits_in_any_split(model, values, whole)
    _keeps_nothing_from_call_to_call(model, values, whole)
    _leaves_its_input_alone(model, values)
    _lets_a_silent_row_spoil_only_itself(model, values)
    _refuses_another_shape(model, values)


def same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """To the bit, NaN included."""
    return a.shape == b.shape and a.dtype == b.dtype and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def _gives_what_the_task_promises(model: Model, values: NDArray[np.float32], outputs: dict) -> None:  # type: ignore[type-arg]
    m, count = model.manifest, len(values)
    channels = len(m.channels)
    shapes = {
        "forecast": (m.horizon, channels, len(m.quantiles)), "score": (), "contribution": (channels,),
        "expected": (channels,), "interval": (channels, 2), "probability": (len(m.classes),),
    }  # fmt: skip
    assert set(PROMISED[m.task]) <= set(outputs)
    for key, array in outputs.items():
        assert array.shape == (count, *shapes[key]), key
        assert array.dtype == np.float32, key
        assert np.isfinite(array).all(), f"{key} is not finite for windows with some values missing"
    if m.task == "anomaly":
        assert (outputs["score"] >= 0).all()
        np.testing.assert_allclose(outputs["contribution"].sum(1), outputs["score"], rtol=1e-3, atol=1e-5)
    if m.task == "classify":
        assert (outputs["probability"] >= 0).all()
        np.testing.assert_allclose(outputs["probability"].sum(1), 1, rtol=1e-4)
    if m.task == "forecast":
        assert (np.diff(outputs["forecast"], axis=3) >= 0).all(), "quantiles cross"


def _gives_the_same_bits_in_any_split(model: Model, values: NDArray[np.float32], whole: dict) -> None:  # type: ignore[type-arg]
    for size in SPLITS:
        for start in range(0, len(values), size):
            part = model.infer(values[start : start + size])
            for key, array in part.items():
                assert same(array, whole[key][start : start + size]), f"{key} at {start} in batches of {size}"


def _keeps_nothing_from_call_to_call(model: Model, values: NDArray[np.float32], whole: dict) -> None:  # type: ignore[type-arg]
    before = {key: array.copy() for key, array in whole.items()}
    model.infer(values[::-1])
    again = model.infer(values)
    for key, array in before.items():
        assert same(array, again[key]), key
        assert same(array, whole[key]), f"a later call changed {key} of an earlier one"


def _leaves_its_input_alone(model: Model, values: NDArray[np.float32]) -> None:
    locked = values.copy()
    locked.flags.writeable = False
    model.infer(locked)
    assert same(locked, values)


def _lets_a_silent_row_spoil_only_itself(model: Model, values: NDArray[np.float32]) -> None:
    silent = values[:5].copy()
    silent[2] = np.nan
    with_it, without = model.infer(silent), model.infer(values[:5])
    for key, array in with_it.items():
        assert same(np.delete(array, 2, axis=0), np.delete(without[key], 2, axis=0)), key


def _refuses_another_shape(model: Model, values: NDArray[np.float32]) -> None:
    for wrong in (values[:, 1:], values[:, :, :0], values[0], values.astype(np.float64)):
        with pytest.raises(ModelError, match="it takes float32"):
            model.infer(wrong)
