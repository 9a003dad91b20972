"""Explanations: shares that add up, methods that say what they are, and ordinary windows to compare with."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests_support import T0, Distance, reading
from transom.core.admission import GridSpec
from transom.core.explain import Explanation, choose_target, explain, reference, stretch
from transom.core.model import Channel, Manifest, Target
from transom.core.ordinary import Ordinary
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects.explanations import Place, body
from transom.errors import TransomError

CHANNELS = (Channel("flow", "l/min"), Channel("heat", "°C"))


class Squares:
    """score: the sum over known steps of weight * value²; gradients by hand."""

    sha256 = ""
    manifest = Manifest(name="squares", version="1", task="anomaly", family="none", channels=CHANNELS, length=6)
    weight = np.array([1.0, 10.0])

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        parts = (np.nan_to_num(values) ** 2).sum(1) * self.weight
        return {"score": parts.sum(1).astype(np.float32), "contribution": parts.astype(np.float32)}


class SlopedSquares(Squares):
    bad = False

    def gradients(self, values: np.ndarray, target: Target) -> np.ndarray:
        assert target.key == "score"
        slopes = 2 * values * self.weight
        return np.full_like(slopes, np.nan) if self.bad else slopes.astype(np.float32)


def window(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(6, 2)).astype(np.float32)


def test_the_shares_of_a_score_of_squares_are_its_parts_and_add_up() -> None:
    x = window()
    found = explain(SlopedSquares(), x, np.zeros_like(x))
    assert (found.method, found.pieces) == ("integrated gradients", 32)
    np.testing.assert_allclose(found.share, x**2 * Squares.weight, rtol=1e-5)
    assert abs(found.gap) < 1e-4
    assert found.own is not None


@hypothesis_settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.sets(st.integers(0, 11), max_size=8))
def test_shares_add_up_to_the_difference_whatever_is_missing(seed: int, other: int, missing: set[int]) -> None:
    x, against = window(seed), window(other)
    x.reshape(-1)[list(missing)] = np.nan
    found = explain(SlopedSquares(), x, against)
    assert abs(found.gap) <= 1e-3 * max(1.0, abs(found.value), abs(found.reference_value))
    assert (found.share.reshape(-1)[list(missing)] == 0).all()
    assert np.isfinite(found.share).all()


def test_a_model_without_gradients_is_explained_by_occlusion_and_says_so() -> None:
    x = window()
    found = explain(Squares(), x, np.zeros_like(x))
    assert found.method == "occlusion"
    np.testing.assert_allclose(found.share, x**2 * Squares.weight, atol=1e-4)
    with pytest.raises(TransomError, match="gives no gradients"):
        explain(Squares(), x, np.zeros_like(x), method="integrated gradients")


def test_gradients_that_are_no_numbers_are_not_believed() -> None:
    model = SlopedSquares()
    model.bad = True
    assert explain(model, window(), window(1)).method == "occlusion"


def test_a_reference_with_gaps_says_what_the_window_does_there() -> None:
    x, against = window(), np.full((6, 2), np.nan, np.float32)
    against[:, 0] = 0
    found = explain(SlopedSquares(), x, against)
    assert (found.share[:, 1] == 0).all()
    assert (found.share[:, 0] > 0).all()


@pytest.mark.parametrize(
    ("task", "wanted", "target"),
    [
        ("anomaly", None, Target("score", (), "score")),
        ("classify", None, Target("probability", (1,), "probability of run")),
        ("classify", "idle", Target("probability", (0,), "probability of idle")),
        ("forecast", None, Target("forecast", (2, 0, 1), "flow, step 3 of 3")),
        ("forecast", "heat@1", Target("forecast", (0, 1, 1), "heat, step 1 of 3")),
        ("forecast", "heat", Target("forecast", (2, 1, 1), "heat, step 3 of 3")),
    ],
)
def test_what_is_explained_may_be_named(task: Any, wanted: str | None, target: Target) -> None:
    m = Manifest(name="m", version="1", task=task, family="", channels=CHANNELS, length=6, horizon=3,
                 quantiles=(0.1, 0.5, 0.9), classes=("idle", "run"))  # fmt: skip
    assert choose_target(m, wanted, {"probability": np.array([[0.2, 0.8]], np.float32)}) == target
    for wrong in ("nothing", "flow@4", "flow@x", "@"):
        with pytest.raises(TransomError):
            choose_target(m, wrong, {"probability": np.array([[0.2, 0.8]], np.float32)})


def test_a_detector_is_compared_with_an_ordinary_window_and_a_forecast_with_no_shape() -> None:
    x = window()
    x[0, 0] = np.nan
    ordinary, words = reference(Squares.manifest, x, window(1))
    assert (ordinary == window(1)).all()
    assert words == "an ordinary window before it"
    half, words = reference(Squares.manifest, x, None)
    np.testing.assert_array_equal(half, np.concatenate([x[:3], x[:3][::-1]]))
    assert words == "its own older half, twice"
    flat, words = reference(
        Manifest(name="", version="", task="forecast", family="", channels=CHANNELS, length=6), x, None
    )
    np.testing.assert_allclose(flat, np.broadcast_to(np.nanmedian(x, 0), x.shape))
    x[:3, 1] = np.nan  # nothing of the older half is known
    assert reference(Squares.manifest, x, None)[1] == "each channel at its median"


def test_the_stretch_that_matters_is_the_shortest_with_two_thirds() -> None:
    assert stretch(np.array([0.0, 0, 0, 1])) == (3, 3)
    assert stretch(np.array([0.0, 1, 1, 1, 0.1])) == (1, 3)
    assert stretch(np.array([0.0, -5, 0, 0])) == (1, 1)
    assert stretch(np.zeros(4)) == (0, 0)


def told(share: list[list[float]], channels: tuple[str, ...], step: int | None = 1000) -> dict[str, Any]:
    array = np.array(share)
    flat = np.zeros(array.shape, np.float32)
    found = Explanation(Target("score", (), "score"), "occlusion", 6.5, 0.5, flat, flat, array, None, 16)
    units = ("mm/s",) * len(channels)
    return body(found, Place("pumps", "hall/1", "m@1", channels, units, 1_000_000_000_000, step, "an ordinary window"))


def test_the_sentence_names_channels_and_when() -> None:
    two = told([[0, 0], [0, 0], [0, 1], [4, 1]], ("flow", "heat"))
    assert two["summary"] == "score 6.5, 0.5 for an ordinary window; 67 % from flow, most of it in the last step"
    assert [c["channel"] for c in two["channels"]] == ["flow", "heat"]
    assert (two["sum"], two["gap"], two["times"][-1]) == (6.0, 0.0, "1970-01-12T13:46:40.000Z")
    one = told([[0], [3], [3], [0]], ("flow",))
    assert one["summary"].endswith(
        "raised by flow, most of it from 1970-01-12T13:46:38.000Z to 1970-01-12T13:46:39.000Z"
    )
    assert told([[0], [3], [3], [0]], ("flow",), None)["summary"].endswith("most of it 1 to 2 steps before the end")
    assert "nothing in the window makes a difference" in told([[0], [0]], ("flow",))["summary"]


def test_the_windows_kept_are_from_before_an_alert() -> None:
    p = Pipeline([(StreamSpec("s", "plant/{device}/{channel}", threshold=20.0, budget=None), Distance())])
    ordinary = Ordinary(p.streams["s"])
    values = [*range(1, 13), 100, 100, 101, 102, 103, 104, 105, 106]
    for begin in range(0, len(values), 3):
        p.process([reading(v, 1000 * i) for i, v in enumerate(values)][begin : begin + 3])
    ended = ordinary.window(0)
    assert ended is not None
    np.testing.assert_array_equal(ended[0][:, 0], [103, 104, 105, 106])
    assert ended[1] == 1000 * (reading(0, 19_000).received)
    kept = ordinary.reference(0)
    assert kept is not None
    assert np.nanmax(kept) <= 12


def test_a_series_that_was_forgotten_leaves_no_window_behind() -> None:
    spec = StreamSpec("s", "plant/{device}/{channel}", threshold=20.0, budget=None, grid=GridSpec(forget_after=60_000))
    p = Pipeline([(spec, Distance())])
    ordinary = Ordinary(p.streams["s"])
    p.process([reading(i, 1000 * i) for i in range(12)])
    assert ordinary.reference(0) is not None
    p.process([], T0 + 600_000)
    p.process([reading(i, 700_000 + 1000 * i, "plant/b/x") for i in range(2)])
    assert p.streams["s"].intake.names[0] == "b/x"
    again = ordinary.reference(0)
    assert again is not None
    assert np.nanmax(again) <= 1


def test_windows_are_taken_over_by_a_pipeline_that_goes_on() -> None:
    spec = StreamSpec("s", "plant/{device}/{channel}", threshold=20.0, budget=None)
    p, q, other = (Pipeline([(spec, Distance(length=n))]) for n in (4, 4, 5))
    ordinary = Ordinary(p.streams["s"])
    p.process([reading(i, 1000 * i) for i in range(12)])
    kept = ordinary.reference(0)
    assert kept is not None
    q.restore(p.snapshot())
    after = Ordinary(q.streams["s"])
    after.take_over(ordinary)
    np.testing.assert_array_equal(after.reference(0), kept)
    anew = Ordinary(other.streams["s"])
    anew.take_over(ordinary)
    assert anew.reference(0) is None


def test_series_of_one_batch_do_not_mix_and_a_fresh_look_knows_the_last_window_only() -> None:
    p = Pipeline([(StreamSpec("s", "plant/{device}/{channel}", threshold=20.0, budget=None), Distance())])
    ordinary = Ordinary(p.streams["s"])
    messages = [Message(f"plant/{d}/x", b"%d" % (i * (1 + 9 * (d == "b"))), 1000 * i) for i in range(8) for d in "ab"]
    p.process(messages)
    for series, scale in ((0, 1), (1, 10)):
        (values, _end) = ordinary.window(series) or (None, None)
        assert values is not None
        np.testing.assert_array_equal(values[:, 0], scale * np.arange(4, 8))
    later = Ordinary(p.streams["s"])
    assert later.reference(0) is None
    last = later.window(0)
    assert last is not None
    assert last[1] is None
    np.testing.assert_array_equal(last[0][:, 0], np.arange(4, 8))
