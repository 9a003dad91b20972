"""Incremental models: a step gives the window's numbers, over gaps, new series, snapshots and any split."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from transom.cli import main
from transom.core.model import Channel, IncrementalModel, Manifest
from transom.core.readings import Steps
from transom.core.stepping import SteppedBuffers, advance, buffers_for, gather
from transom.errors import ModelError
from transom.runtimes import bundle, onnx, torchscript
from transom_models import twin
from transom_models.tasks import QUANTILES, Forecaster
from transom_models.tasks.stepping import SteppedForecaster, SteppedResidualDetector

LENGTH, CHANNELS = 64, 2
MEAN, SCALE = torch.tensor([10.0, -5.0]), torch.tensor([2.0, 0.5])
KINDS = ("residual", "forecast")
RUNTIMES = ("torchscript", "onnx")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], IncrementalModel]:
    folder, found = tmp_path_factory.mktemp("steps"), {}
    for kind in KINDS:
        torch.manual_seed(1)
        module: torch.nn.Module = SteppedResidualDetector("tcn", 8, MEAN, SCALE, LENGTH)
        task: dict[str, object] = {"task": "anomaly"}
        if kind == "forecast":
            module = SteppedForecaster("tcn", 8, MEAN, SCALE, 3, None, LENGTH)
            task = {"task": "forecast", "horizon": 3, "quantiles": QUANTILES}
        described = Manifest(
            name=kind, version="1", family="tcn", length=LENGTH, channels=(Channel("a"), Channel("b")),
            min_steps=5, state=module.state, **task,  # type: ignore[arg-type]
        )  # fmt: skip
        with bundle.quiet():
            bundle.write_bundle(torch.jit.script(module.eval()), described, folder / f"{kind}.pt")
        twin.make(folder / f"{kind}.pt", folder / f"{kind}.onnx")
        found[kind, "torchscript"] = torchscript.load(folder / f"{kind}.pt")
        found[kind, "onnx"] = onnx.load(folder / f"{kind}.onnx")
    return found


def series(count: int, steps: int, seed: int = 0) -> np.ndarray:
    """float32 [count, steps, C]: walks about the level, with single gaps and long ones."""
    rng = np.random.default_rng(seed)
    values = 0.3 * rng.normal(size=(count, steps, CHANNELS)).cumsum(1) * SCALE.numpy() + MEAN.numpy()
    values[rng.random(values.shape) < 0.05] = np.nan
    for i in range(count):
        begin = int(rng.integers(0, steps))
        values[i, begin : begin + int(rng.integers(3, 3 * LENGTH))] = np.nan
    return values.astype(np.float32)


def pushed(rows: list[tuple[int, int, np.ndarray]]) -> Steps:
    """(series, time, values) by series and time, as the grid gives them."""
    rows = sorted(rows, key=lambda r: r[:2])
    values = np.array([r[2] for r in rows], np.float32).reshape(len(rows), CHANNELS)
    return Steps(
        np.array([r[0] for r in rows], np.int32), np.array([r[1] for r in rows], np.int64), values,
        np.isfinite(values).any(1),
    )  # fmt: skip


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_steps_equal_the_windows_recomputed(
    models: dict[tuple[str, str], IncrementalModel], kind: str, runtime: str
) -> None:
    model, reference = models[kind, runtime], models[kind, "torchscript"]
    values = series(4, 2500)
    padded = np.concatenate([np.full((4, LENGTH - 1, CHANNELS), np.nan, np.float32), values], 1)
    state, worst = np.repeat(model.start[None], 4, 0), 0.0
    for t in range(2500):
        given, state = model.step(values[:, t], state)
        if t % 5 == 0 or t < 2 * LENGTH:
            wanted = reference.infer(np.ascontiguousarray(padded[:, t : t + LENGTH]))
            for key, array in given.items():
                worst = max(worst, float((np.abs(array - wanted[key]) / np.maximum(1, np.abs(wanted[key]))).max()))
    assert worst <= 1e-5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_has_the_same_bits_in_a_batch_of_any_size(
    models: dict[tuple[str, str], IncrementalModel], runtime: str
) -> None:
    model = models["residual", runtime]
    assert not model.step_alone, "each row has to run by itself"  # type: ignore[attr-defined]
    values, state = series(70, 6), np.repeat(model.start[None], 70, 0)
    for t in range(5):
        _, state = model.step(values[:, t], state)
    whole, after = model.step(values[:, 5], state)
    for size in (1, 2, 3, 5, 16, 17, 64, 65):
        for begin in range(0, 70, size):
            part, then = model.step(values[begin : begin + size, 5], state[begin : begin + size])
            assert same(part, {key: array[begin : begin + size] for key, array in whole.items()}), (begin, size)
            assert np.array_equal(then, after[begin : begin + size])


@pytest.mark.parametrize("stride", [1, 3])
def test_any_split_and_a_snapshot_between_give_the_same_outputs(
    models: dict[tuple[str, str], IncrementalModel], stride: int
) -> None:
    model = models["residual", "onnx"]
    values = series(3, 200, seed=1)
    rows = [(s, t, values[s, t]) for t in range(200) for s in range(3)]

    def run(sizes: list[int]) -> dict[tuple[int, int], float]:
        buffers, found, begin = buffers_for(model, stride), {}, 0
        for i, size in enumerate(sizes):
            buffers.resize(3)
            windows, told = gather(buffers, pushed(rows[begin : begin + size]))
            begin += size
            assert told is not None
            (outputs,) = advance(model, [told])
            for j in range(len(windows)):
                found[int(windows.series[j]), int(windows.end[j])] = float(outputs["score"][j])
            if i % 2:
                kept = buffers.snapshot()
                buffers = buffers_for(model, stride)
                buffers.restore(kept)
        return found

    whole = run([600])
    assert len(whole) > 300 // stride
    for sizes in ([1] * 600, [7] * 85 + [5], [250, 3, 347]):
        assert run(sizes) == whole


def test_a_series_that_was_forgotten_begins_anew(models: dict[tuple[str, str], IncrementalModel]) -> None:
    model, values = models["residual", "onnx"], series(1, 40, seed=2)[0]
    values = np.nan_to_num(values, nan=10.0)
    found = []
    buffers = SteppedBuffers(model)
    buffers.resize(1)
    for _ in range(2):
        _, told = buffers.gather(pushed([(0, t, values[t]) for t in range(40)]))
        found += advance(model, [told])
        buffers.reset(np.array([0], np.int32))
    assert same(*found)


def test_a_snapshot_of_an_older_version_still_fits(models: dict[tuple[str, str], IncrementalModel]) -> None:
    """Its states stood among the columns of the windows."""
    model, values = models["residual", "onnx"], np.nan_to_num(series(1, 30, seed=3)[0], nan=10.0)
    buffers = SteppedBuffers(model)
    buffers.resize(1)
    advance(model, [buffers.gather(pushed([(0, t, values[t]) for t in range(20)]))[1]])
    kept = buffers.snapshot()
    del kept["heard"]
    kept["state"] = kept.pop("states")["state"][: kept["size"]]
    restored = SteppedBuffers(model)
    restored.restore(kept)
    more = pushed([(0, t, values[t]) for t in range(20, 30)])
    assert same(*(advance(model, [b.gather(more)[1]])[0] for b in (buffers, restored)))


def test_a_model_of_whole_windows_takes_no_steps(tmp_path: Path) -> None:
    with bundle.quiet():
        compiled = torch.jit.script(Forecaster("tcn", 4, MEAN, SCALE, 2).eval())
    described = Manifest(
        name="m", version="1", task="forecast", family="tcn", length=20, channels=(Channel("a"), Channel("b")),
        horizon=2, quantiles=QUANTILES,
    )  # fmt: skip
    bundle.write_bundle(compiled, described, tmp_path / "m.pt")
    model = torchscript.load(tmp_path / "m.pt", batch_sizes=(4,))
    assert not isinstance(buffers_for(model, 1), SteppedBuffers)
    with pytest.raises(ModelError, match="it takes whole windows"):
        model.step(np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32))


def test_train_makes_it_and_a_replay_says_the_same_as_with_whole_windows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, t = np.random.default_rng(3), np.arange(700)
    flow = 20 + 3 * np.sin(t / 5) + 0.1 * rng.standard_normal(700)
    rows = [f"{1_700_000_000 + i},{flow[i]:.4f}\n" for i in t if not 400 <= i < 420]
    (tmp_path / "pump.csv").write_text("time,flow\n" + "".join(rows))
    (tmp_path / "a.toml").write_text(f'[agent]\nstate = "{tmp_path}"\n')
    words = ["train", "--data", str(tmp_path / "pump.csv"), "--family", "tcn", "--method", "residual", "--hidden", "8"]
    words += ["--epochs", "2"]
    found = []
    for name, choice, runtime in (("a", "--incremental", "auto"), ("a", "", "onnx"), ("b", "--no-incremental", "auto")):
        if choice:
            assert (
                main([*words, choice, "--no-onnx" if name == "b" else "--onnx", "--output", f"{tmp_path}/{name}.pt"])
                == 0
            )
        out = tmp_path / f"{name}{runtime}.jsonl"
        line = ["replay", str(tmp_path / "pump.csv"), "-c", str(tmp_path / "a.toml"), "--agent.runtime", runtime]
        assert main([*line, "--model", f"{tmp_path}/{name}.pt", "--output", str(out)]) == 0
        found.append([json.loads(text) for text in out.read_text().splitlines()])
    assert bundle.open_bundle(tmp_path / "a.pt").manifest.state > 0
    assert bundle.open_bundle(tmp_path / "b.pt").manifest.state == 0
    for stepped in found[:2]:
        assert [line["time"] for line in stepped] == [line["time"] for line in found[2]]
        for a, b in zip(stepped, found[2], strict=True):
            assert a["score"] == pytest.approx(b["score"], rel=1e-3, abs=1e-4)
    assert main([*words[:4], "lstm", *words[5:], "--incremental", "--output", str(tmp_path / "c.pt")]) == 1
    assert "--incremental: anomaly with lstm and windows of 64 steps needs whole windows" in capsys.readouterr().err
