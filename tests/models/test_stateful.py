"""Models that carry their state: a step is what was trained, over gaps, months, snapshots and any split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.cli import main
from transom.core.admission import GridSpec
from transom.core.model import Channel, IncrementalModel, Manifest
from transom.core.pipeline import Message, Pipeline
from transom.core.readings import Steps
from transom.core.stepping import SteppedBuffers, advance
from transom.core.stream import StreamSpec
from transom.dialects.plain import publications
from transom.edge import packing
from transom.runtimes import bundle, onnx, torchscript
from transom_models import export, twin
from transom_models.families.carried import MOST
from transom_models.stretches import Stretch, lanes
from transom_models.tasks import QUANTILES
from transom_models.tasks.stateful import StatefulClassifier, StatefulDetector, StatefulForecaster

MEAN, SCALE = torch.tensor([10.0, -5.0]), torch.tensor([2.0, 0.5])
LENGTH, SECOND = 20, 1_000_000
TASKS = ("anomaly", "forecast", "targets", "classify")
T0 = 1_700_000_000_000


def make(family: str, task: str) -> tuple[torch.nn.Module, Manifest]:
    torch.manual_seed(1)
    module: torch.nn.Module = StatefulDetector(family, 8, MEAN, SCALE, LENGTH)
    more: dict[str, object] = {"task": "anomaly"}
    if task in ("forecast", "targets"):
        aim = (MEAN[:1], SCALE[:1]) if task == "targets" else None
        module = StatefulForecaster(family, 8, MEAN, SCALE, 3, aim, LENGTH)
        more = {"task": "forecast", "horizon": 3, "quantiles": QUANTILES, "targets": (Channel("x"),) if aim else ()}
    elif task == "classify":
        module = StatefulClassifier(family, 8, MEAN, SCALE, 3)
        more = {"task": "classify", "classes": ("x", "y", "z")}
    return module.eval(), Manifest(
        name=task, version="1", family=family, length=LENGTH, channels=(Channel("a"), Channel("b")), min_steps=3,
        state=module.state, stateful=True, **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, IncrementalModel]:
    """An LSTM detector on both runtimes."""
    folder = tmp_path_factory.mktemp("stateful")
    module, described = make("lstm", "anomaly")
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(module), described, folder / "m.pt")
    twin.make(folder / "m.pt", folder / "m.onnx")
    return {"torchscript": torchscript.load(folder / "m.pt"), "onnx": onnx.load(folder / "m.onnx")}


def series(count: int, steps: int, seed: int = 0) -> np.ndarray:
    """float32 [count, steps, C]: about the level, with single gaps, a long one, and a channel that is off for long."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, steps, 2)) * SCALE.numpy() + MEAN.numpy()
    values[rng.random(values.shape) < 0.05] = np.nan
    values[0, steps // 3 : steps // 2] = np.nan
    values[1 % count, steps // 4 :, 1] = np.nan
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("family", "task"),
    [*(("lstm", task) for task in TASKS), ("gru", "anomaly"), ("rnn", "forecast"), ("gru", "classify")],
)
def test_a_step_a_stretch_and_a_window_say_the_same(family: str, task: str) -> None:
    module, _ = make(family, task)
    values = torch.from_numpy(series(3, 3 * LENGTH))
    with bundle.quiet(), torch.no_grad():
        scripted = torch.jit.script(module)
        state, said = torch.zeros(3, module.state), []
        for t in range(values.shape[1]):
            outputs, state = scripted.step(values[:, t], state)
            said.append(outputs)
        first, between = module.outputs(values[:, :17], torch.zeros(3, module.state))
        second, after = module.outputs(values[:, 17:], between)
        window = scripted(values)
    assert torch.allclose(state, after, atol=1e-5)
    for key, last in said[-1].items():
        steps = torch.stack([s[key] for s in said], 1)
        assert torch.isfinite(steps).all(), key
        assert torch.allclose(steps[:, :17].flatten(0, 1), first[key], atol=1e-5), key
        assert torch.allclose(steps[:, 17:].flatten(0, 1), second[key], atol=1e-5), key
        assert torch.allclose(last, window[key], atol=1e-5), key


@pytest.mark.parametrize(("family", "task"), [("gru", "forecast"), ("rnn", "classify")])
def test_the_twin_carries_the_same_state_for_thousands_of_steps(family: str, task: str, tmp_path: Path) -> None:
    module, described = make(family, task)
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(module), described, tmp_path / "m.pt")
    assert twin.make(tmp_path / "m.pt", tmp_path / "m.onnx")[1] <= 1e-5
    a, b = torchscript.load(tmp_path / "m.pt", batch_sizes=(4,)), onnx.load(tmp_path / "m.onnx", batch_sizes=(4,))
    assert b.manifest.stateful
    assert not a.start.any()
    values, one, other = series(4, 2000), np.repeat(a.start[None], 4, 0), np.repeat(b.start[None], 4, 0)
    for t in range(2000):
        wanted, one = a.step(values[:, t], one)
        given, other = b.step(values[:, t], other)
        for key, array in given.items():
            np.testing.assert_allclose(array, wanted[key], rtol=1e-5, atol=1e-5, err_msg=f"{key} at {t}")


def test_residuals_of_a_thousandth_have_a_proof_and_a_twin(tmp_path: Path) -> None:
    """Of a signal without noise: float32's last digit in what is expected is 1e-4 of such a score."""
    module, described = make("gru", "anomaly")
    module.usual = torch.full((2,), 1e-3)
    values = 10 + 0.002 * series(40, LENGTH)
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(module), described, tmp_path / "m.pt")
    assert export.prove_steps(tmp_path / "m.pt", values, export.usual(module)) <= 1e-5
    assert twin.make(tmp_path / "m.pt", tmp_path / "m.onnx", values)[1] <= 1e-5


def test_a_hundred_thousand_steps_leave_the_state_finite_and_bounded(tmp_path: Path) -> None:
    """With gates that never let go of anything, and values that no sensor should send."""
    module, described = make("lstm", "anomaly")
    with torch.no_grad():
        module.body.bias_x += 50.0
    strange = np.array([[10, -5], [np.nan, np.inf], [1e30, -1e30], [np.nan, np.nan], [10, -5e6]], np.float32)
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(module), described, tmp_path / "m.pt")
    twin.make(tmp_path / "m.pt", tmp_path / "m.onnx")
    before, stretch = torch.zeros(1, module.state), torch.from_numpy(np.tile(strange, (100, 1)))[None]
    with torch.inference_mode():
        for t in range(0, 100_000, 500):
            given, before = module.outputs(stretch, before)
            assert torch.isfinite(before).all(), t
            assert all(torch.isfinite(value).all() for value in given.values()), t
    for model in (
        onnx.load(tmp_path / "m.onnx", batch_sizes=(4,)),
        torchscript.load(tmp_path / "m.pt", batch_sizes=(4,)),
    ):
        state = before.numpy()
        for t in range(1000):  # alone, from there on
            said, state = model.step(strange[t % 5][None], state)
            assert np.isfinite(state).all(), t
            assert all(np.isfinite(value).all() for value in said.values()), t
        assert (state[:, 8:16] == MOST).all(), "the gates are not saturated, or the cell is not held"


@pytest.mark.parametrize("runtime", ["torchscript", "onnx"])
def test_a_row_has_the_same_bits_in_a_batch_of_any_size(models: dict[str, IncrementalModel], runtime: str) -> None:
    model = models[runtime]
    values, state = series(300, 3), np.repeat(model.start[None], 300, 0)
    for t in range(2):
        _, state = model.step(values[:, t], state)
    whole, after = model.step(values[:, 2], state)
    for size in (1, 3, 5, 17, 40, 65, 100, 150, 257):
        for begin in range(0, 300, size):
            part, then = model.step(values[begin : begin + size, 2], state[begin : begin + size])
            for key, array in part.items():
                assert np.array_equal(array, whole[key][begin : begin + size]), (key, begin, size)
            assert np.array_equal(then, after[begin : begin + size])


def pushed(rows: list[tuple[int, int, list[float]]]) -> Steps:
    """(series, second, values) as the grid gives them."""
    rows = sorted(rows, key=lambda r: r[:2])
    values = np.array([r[2] for r in rows], np.float32)
    return Steps(
        np.array([r[0] for r in rows], np.int32), np.array([r[1] * SECOND for r in rows], np.int64), values,
        np.isfinite(values).any(1),
    )  # fmt: skip


def told(model: IncrementalModel, seconds: list[int], sizes: list[int], max_gap: int | None) -> dict[int, float]:
    """Scores by second of a series whose n-th reading does not depend on when it comes."""
    buffers, found, begin = SteppedBuffers(model, 1, max_gap), {}, 0
    buffers.resize(2)
    for size in sizes:
        some = seconds[begin : begin + size]
        rows = [(1, second, [10.0 + (begin + i) % 5, -5.0]) for i, second in enumerate(some)]
        begin += size
        windows, steps = buffers.gather(pushed(rows))
        (outputs,) = advance(model, [steps])
        found |= {int(e) // SECOND: float(s) for e, s in zip(windows.end, outputs.get("score", []), strict=True)}
    return found


def test_the_state_begins_anew_after_a_gap_and_only_then(models: dict[str, IncrementalModel]) -> None:
    model = models["onnx"]
    close = list(range(10)) + list(range(19, 30))  # nine seconds without a reading
    far = list(range(10)) + list(range(21, 32))
    kept, anew = told(model, close, [21], 10 * SECOND), told(model, far, [21], 10 * SECOND)
    assert len(kept) == 19, "warmed up again without need"
    assert list(anew) == [2, 3, 4, 5, 6, 7, 8, 9, 23, 24, 25, 26, 27, 28, 29, 30, 31], "not warmed up again"
    again = told(model, list(range(21, 32)), [11], 10 * SECOND)
    # The readings are those of the 11th on, so the values are the same: 5 divides 10.
    assert {t: s for t, s in anew.items() if t > 20} == again
    assert {t: s for t, s in kept.items() if t > 20} != {t - 2: s for t, s in again.items()}
    assert len(told(model, far, [21], None)) == 19
    for sizes in ([1] * 21, [10, 11], [9, 3, 9]):
        assert told(model, far, sizes, 10 * SECOND) == anew
    assert list(told(model, [100, 101, 102, 5, 6, 7], [3, 3], 10 * SECOND)) == [102, 7], "a clock that was set back"


def test_what_is_missing_fills_no_gap(models: dict[str, IncrementalModel]) -> None:
    model = models["onnx"]
    buffers = SteppedBuffers(model, 1, 3 * SECOND)
    buffers.resize(1)
    nothing = [np.nan, np.nan]
    rows = [(0, t, [10.0, -5.0] if t < 4 or t > 7 else nothing) for t in range(12)]
    windows, steps = buffers.gather(pushed(rows))
    assert np.flatnonzero(steps.anew).tolist() == [8]
    assert (windows.end // SECOND).tolist() == [2, 3, 10, 11]


def pipelines(model: IncrementalModel) -> Pipeline:
    specs = [
        StreamSpec(
            name, f"{name}/{{device}}/{{channel}}", grid=GridSpec(step=1000, max_gap=4000), budget=1e-9, stride=s
        )
        for name, s in (("p", 1), ("q", 2))
    ]
    return Pipeline([(spec, model) for spec in specs])


def messages() -> list[Message]:
    """Two streams that share the model, three series each, one of them off for some seconds."""
    made = []
    for t in range(40):
        for k in range(6):
            if k != 2 or not 12 <= t < 22:
                name, channel = "pq"[k % 2], "ab"[t % 3 == 0]
                made.append(Message(f"{name}/d{k // 2}/{channel}", b"%d" % (t * (k + 1) % 7), T0 + 1000 * t + k))
    return made


def split(model: IncrementalModel, sizes: list[int], restarts: set[int]) -> tuple[list[tuple[str, bytes]], bytes]:
    """What is said of all messages, by series, and the states after them; restarts: portions after which a pipeline
    takes the snapshot of the one before."""
    pipe, made, begin, said = pipelines(model), messages(), 0, []
    for i, size in enumerate([*sizes, len(made)]):
        said += [(p.topic, p.payload) for p in publications(pipe.process(made[begin : begin + size]), "b")]
        begin += size
        if i in restarts:
            kept = packing.unpack(packing.pack(pipe.snapshot()))
            pipe = pipelines(model)
            assert pipe.restore(kept) == []
    states = {name: stream.buffers.snapshot()["states"]["state"][:3] for name, stream in pipe.streams.items()}
    return sorted(said, key=lambda s: s[0]), packing.pack(states)


@pytest.fixture(scope="module")
def whole(models: dict[str, IncrementalModel]) -> tuple[list[tuple[str, bytes]], bytes]:
    return split(models["onnx"], [], set())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.sets(st.integers(0, 11)))
def test_any_split_of_messages_and_any_restart_give_the_same_bits(
    models: dict[str, IncrementalModel], whole: tuple[list[tuple[str, bytes]], bytes], sizes: list[int],
    restarts: set[int],
) -> None:  # fmt: skip
    assert len(whole[0]) > 100
    assert split(models["onnx"], sizes, restarts) == whole


def test_lanes_hold_each_row_once_and_warm_up_where_a_stretch_or_a_lane_begins() -> None:
    part = [
        Stretch(np.arange(a, b, dtype=np.float32)[:, None], np.arange(a, b, dtype=np.int64))
        for a, b in ((0, 130), (130, 133), (133, 205))
    ]
    laid = lanes(part, 10, 4)
    assert laid.values.shape == (3, 8, 10, 1)  # 13 + 1 + 8 chunks, and two of nothing
    there = np.isfinite(laid.values[..., 0])
    assert sorted(laid.values[there].ravel().tolist()) == list(range(205))
    assert (laid.target[there] == laid.values[there][:, 0]).all()
    assert (laid.target[~there] == -1).all()
    assert laid.begins[0].tolist() == [True] + [False] * 7
    assert laid.begins[1].tolist() == [True] + [False] * 4 + [True, True, False], "a lane, then two stretches"
    counted = laid.values[laid.counts > 0].ravel().tolist()
    assert counted == [*range(4, 80), *range(84, 130), *range(137, 153), *range(157, 205)]
    assert lanes(part, 10, 4, offset=7).values[0, 0, 0, 0] == 7


def latch(path: Path, rows: int) -> Path:
    """A valve's state, told by the last pulse, which may lie 60 rows back."""
    rng = np.random.default_rng(0)
    level, lines, until = 0, [], 0
    for i in range(rows):
        pulse = 0.0
        if i == until:
            level, until = int(rng.integers(0, 2)), i + int(rng.integers(20, 60))
            pulse = 2.0 * level - 1
        lines.append(f"{1_700_000_000 + i},{pulse + 0.05 * rng.standard_normal():.4f},{level}\n")
    path.write_text("time,flow,label\n" + "".join(lines))
    return path


def test_what_lies_further_back_than_a_window_is_known(tmp_path: Path) -> None:
    source = latch(tmp_path / "valve.csv", 2000)
    words = ["train", "--data", str(source), "--task", "classify", "--label", "label", "--family", "gru"]
    words += ["--length", "16", "--min-steps", "1", "--hidden", "8", "--epochs", "5", "--no-onnx"]
    found = []
    for name, more in (("carried", ["--stateful"]), ("windows", [])):
        assert main([*words, *more, "--output", str(tmp_path / f"{name}.pt")]) == 0
        found.append(bundle.open_bundle(tmp_path / f"{name}.pt").manifest)
    carried, windows = found
    assert (carried.state, carried.stateful, windows.state, windows.stateful) == (8, True, 0, False)
    assert carried.metrics["accuracy"] > 0.85 > windows.metrics["accuracy"] + 0.1


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    source = latch(tmp_path / "valve.csv", 400)
    words = ["train", "--data", str(source), "--family", "rnn", "--stateful", "--length", "16", "--hidden", "4"]
    words += ["--epochs", "1", "--no-onnx"]
    found = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main([*words, "--seed", seed, "--output", str(tmp_path / f"{name}.pt")]) == 0
        found.append(bundle.open_bundle(tmp_path / f"{name}.pt").manifest.content_sha256)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("words", [["--task", "anomaly"], ["--task", "forecast", "--horizon", "3"]])
def test_train_makes_a_detector_and_a_forecaster_that_learned(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, t = np.random.default_rng(3), np.arange(1600)
    flow = 20 + 3 * np.sin(t / 5) + 0.1 * rng.standard_normal(1600)
    rows = [f"{1_700_000_000 + i},{flow[i]:.4f}\n" for i in t if not 400 <= i < 430]
    (tmp_path / "pump.csv").write_text("time,flow\n" + "".join(rows))
    line = ["train", "--data", str(tmp_path / "pump.csv"), *words, "--family", "lstm", "--stateful", "--length", "24"]
    assert main([*line, "--hidden", "8", "--epochs", "5", "--output", str(tmp_path / "pump.pt")]) == 0
    made = bundle.open_bundle(tmp_path / "pump.pt").manifest
    assert onnx.open_bundle(tmp_path / "pump.onnx").manifest.stateful
    if "forecast" in words:
        assert made.metrics["mse"] < 0.3 * made.metrics["mse_naive"]
        assert 0.6 < made.metrics["coverage"] < 0.95
    else:
        assert made.metrics["mae"] < 0.2
        assert made.metrics["over_1_percent"] < 0.06
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "pump.pt")]) == 0
    assert "carried from step to step, for ever" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--family", "tcn"], "--stateful: tcn has no state to carry; --family lstm, gru, rnn"),
        (["--family", "gru", "--method", "level"], "--stateful: --method level needs whole windows; --method residual"),
        (["--family", "gru", "--length", "90"], "too few rows behind the first 90 of each stretch"),
    ],
)
def test_what_cannot_carry_its_state_is_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("time,flow\n" + "".join(f"{1_700_000_000 + i},{i % 7}\n" for i in range(200)))
    line = ["train", "--data", str(tmp_path / "a.csv"), "--stateful", "--output", str(tmp_path / "m.pt")]
    assert main([*line, *words]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "m.pt").exists()
