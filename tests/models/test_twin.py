"""The ONNX twins of what `transom train` makes: every family, every task, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from transom.cli import main
from transom.core.model import Channel, Manifest
from transom.runtimes import bundle, onnx
from transom_models import twin
from transom_models.families import FAMILIES
from transom_models.tasks import (
    QUANTILES,
    Classifier,
    Forecaster,
    LevelDetector,
    PeriodicForecaster,
    ReconstructionDetector,
    ResidualDetector,
)
from transom_models.tasks.common import rising

LENGTH = 25  # odd: no whole number of vectors
MEAN, SCALE = torch.tensor([10.0, -5.0, 0.0]), torch.tensor([2.0, 0.5, 1.0])
TASKS = ("forecast", "residual", "reconstruction", "level", "classify")
CASES = [(family, TASKS[i % 5]) for i, family in enumerate(FAMILIES)] + [("lstm", task) for task in TASKS[1:]] + [
    ("rocket", "classify"), ("tcn", "forecast"), ("cnn", "periodic"),
]  # fmt: skip


def make(family: str, task: str) -> tuple[torch.nn.Module, Manifest]:
    torch.manual_seed(1)
    module: torch.nn.Module
    if task == "forecast":
        module = Forecaster(family, 8, MEAN, SCALE, 4)
    elif task == "periodic":
        module = PeriodicForecaster(MEAN, SCALE, LENGTH, 4, 7)
    elif task == "classify":
        module = Classifier(family, 8, MEAN, SCALE, 3)
    elif task == "level":
        module = LevelDetector(family, 8, MEAN, SCALE, LENGTH)
    elif task == "reconstruction":
        module = ReconstructionDetector(family, 8, MEAN, SCALE, LENGTH)
    else:
        module = ResidualDetector(family, 8, MEAN, SCALE)
    kind = {"forecast": "forecast", "periodic": "forecast", "classify": "classify"}.get(task, "anomaly")
    return module.eval(), Manifest(
        name="m", version="1", task=kind, family=family, length=LENGTH,  # type: ignore[arg-type]
        channels=tuple(Channel(c) for c in "abc"), horizon=4 if kind == "forecast" else 0,
        quantiles=QUANTILES if kind == "forecast" else (), classes=("x", "y", "z") if kind == "classify" else (),
    )  # fmt: skip


@pytest.mark.parametrize(("family", "task"), CASES)
def test_every_family_and_task_has_a_twin_with_its_numbers(family: str, task: str, tmp_path: Path) -> None:
    module, described = make(family, task)
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(module), described, tmp_path / "m.pt")
    manifest, worst = twin.make(tmp_path / "m.pt", tmp_path / "m.onnx")
    assert worst <= 1e-5
    loaded = onnx.load(tmp_path / "m.onnx", batch_sizes=(4, 16))
    assert not loaded.alone, "each row has to run by itself"
    assert manifest.twin_of == bundle.open_bundle(tmp_path / "m.pt").sha256


def test_the_rising_largest_is_that_of_cummax() -> None:
    scripted = torch.jit.script(rising)
    for count in range(1, 9):
        x = torch.randn(5, 4, count)
        assert torch.equal(scripted(x), torch.cummax(x, -1)[0])


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pump")
    rng, t = np.random.default_rng(3), np.arange(900)
    flow = 20 + 3 * np.sin(t / 5) + 0.1 * rng.standard_normal(900)
    rows = "".join(f"{1_700_000_000 + i},{flow[i]:.4f}\n" for i in t)
    (folder / "pump.csv").write_text("time,flow\n" + rows)
    words = ["train", "--data", str(folder / "pump.csv"), "--family", "gru", "--method", "residual", "--length", "24"]
    assert main([*words, "--hidden", "8", "--epochs", "3", "--output", str(folder / "pump.pt")]) == 0
    return folder


def test_train_writes_the_twin_beside_the_model_unless_told_not_to(
    pump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert onnx.open_bundle(pump / "pump.onnx").manifest.twin_of == bundle.open_bundle(pump / "pump.pt").sha256
    (tmp_path / "m.onnx").write_bytes((pump / "pump.onnx").read_bytes())
    words = ["train", "--data", str(pump / "pump.csv"), "--family", "gru", "--length", "24", "--hidden", "8"]
    assert main([*words, "--epochs", "1", "--no-onnx", "--output", str(tmp_path / "m.pt")]) == 0
    assert not (tmp_path / "m.onnx").exists(), "an older model's twin stays beside the new model"
    assert main([*words, "--output", str(tmp_path / "m.onnx")]) == 1
    assert "names the twin; write m.pt" in capsys.readouterr().err


def test_a_replay_says_the_same_on_both_runtimes(pump: Path, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'[agent]\nstate = "{tmp_path}"\n')
    found = {}
    for runtime in ("torchscript", "onnx"):
        out = tmp_path / f"{runtime}.jsonl"
        words = ["replay", str(pump / "pump.csv"), "--model", str(pump / "pump.pt"), "--output", str(out)]
        assert main([*words, "-c", str(tmp_path / "a.toml"), "--agent.runtime", runtime]) == 0
        found[runtime] = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found["onnx"]) == len(found["torchscript"]) > 800
    for a, b in zip(found["onnx"], found["torchscript"], strict=True):
        assert a["time"] == b["time"]
        assert a["score"] == pytest.approx(b["score"], rel=1e-3, abs=1e-4)
        assert a["expected"]["flow"] == pytest.approx(b["expected"]["flow"], rel=1e-4)


def test_convert_writes_beside_the_model_or_where_it_is_told(
    pump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.pt").write_bytes((pump / "pump.pt").read_bytes())
    assert main(["convert", str(tmp_path / "p.pt")]) == 0
    assert "p.onnx: pump@1 for ONNX Runtime" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "p.pt"), "--output", str(tmp_path / "q.onnx")]) == 0
    assert (tmp_path / "p.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes(), "the same model, another file"
    capsys.readouterr()
    for words, sentence in (
        (["convert", str(tmp_path / "p.onnx")], "is an ONNX file already; name the .pt"),
        (["convert", str(tmp_path / "p.pt"), "--output", str(tmp_path / "q.pt")], "does not end in .onnx"),
        (["convert", str(tmp_path / "p.pt"), "--output", str(tmp_path / "no" / "q.onnx")], "there is no folder"),
        (["convert", str(tmp_path / "none.pt")], "there is no such model file"),
    ):
        assert main(words) == 1
        assert sentence in capsys.readouterr().err


def test_inspect_tells_the_runtime_and_where_a_twin_comes_from(pump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(pump / "pump.onnx")]) == 0
    said = capsys.readouterr().out
    assert "ONNX Runtime" in said
    assert bundle.open_bundle(pump / "pump.pt").sha256 in said


def test_a_model_that_predicts_very_well_has_a_twin(tmp_path: Path) -> None:
    rng, t = np.random.default_rng(0), np.arange(4000)
    level = 21 + np.sin(t / 20) + 0.002 * rng.standard_normal(len(t))
    (tmp_path / "x.csv").write_text("time,v\n" + "".join(f"{1_700_000_000 + i},{level[i]:.5f}\n" for i in t))
    words = ["train", "--data", str(tmp_path / "x.csv"), "--family", "lstm", "--method", "residual", "--epochs", "8"]
    assert main([*words, "--output", str(tmp_path / "x.pt")]) == 0
    assert (tmp_path / "x.onnx").exists(), "its score is the square of a residual that is a last digit"


def test_what_is_trained_anew_can_be_a_higher_version(
    pump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(pump / "pump.csv"), "--family", "gru", "--length", "24", "--epochs", "1"]
    words += ["--no-onnx", "--output", str(tmp_path / "m.pt"), "--name", "pump", "--model-version"]
    assert main([*words, "2026.11"]) == 0
    assert bundle.open_bundle(tmp_path / "m.pt").manifest.label == "pump@2026.11"
    assert main([*words, "a/b"]) == 1
    assert "--model-version: 'a/b' must be a word without / + # @" in capsys.readouterr().err
