"""Every family in every task, held to the same properties; training learns; the shipped model keeps its promises."""

import csv
import hashlib
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from transom.cli import main
from transom.core.model import PROMISED
from transom.runtimes import bundle, torchscript
from transom_models import cli, data, export, making
from transom_models.families import FAMILIES
from transom_models.tasks import Classifier, Forecaster, ReconstructionDetector, ResidualDetector

CHANNELS, LENGTH = 3, 16
MEAN, SCALE = torch.tensor([10.0, -5.0, 0.0]), torch.tensor([2.0, 0.5, 1.0])


def make(family: str, task: str) -> torch.nn.Module:
    torch.manual_seed(1)
    module: torch.nn.Module
    if task == "forecast":
        module = Forecaster(family, 8, MEAN, SCALE, 4)
    elif task == "classify":
        module = Classifier(family, 8, MEAN, SCALE, 3)
    elif task == "reconstruction":
        module = ReconstructionDetector(family, 8, MEAN, SCALE, LENGTH)
    else:
        module = ResidualDetector(family, 8, MEAN, SCALE)
    return module.eval()


def windows(count: int = 6) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(count, LENGTH, CHANNELS) * SCALE + MEAN


@pytest.mark.parametrize("task", ["forecast", "residual", "reconstruction", "classify"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_keeps_the_promises_of_its_task(family: str, task: str) -> None:
    module, batch = make(family, task), windows()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(module)
        whole = scripted(batch)
        for key, value in module(batch).items():
            assert torch.allclose(value, whole[key], atol=1e-5), "scripting changed the numbers"
        single = scripted(batch[2:3])
        again = make(family, task)(batch)
    promised = "anomaly" if task in ("residual", "reconstruction") else task
    assert set(PROMISED[promised]) <= set(whole)
    for key, value in whole.items():
        assert torch.allclose(value[2:3], single[key], atol=1e-5), "a row depends on its neighbours"
        assert torch.equal(again[key], module(batch)[key]), "the seed does not repeat"
    if promised == "anomaly":
        assert torch.allclose(whole["contribution"].sum(1), whole["score"], rtol=1e-5)
        assert (whole["score"] >= 0).all()
    if promised == "forecast":
        assert (whole["forecast"].diff(dim=-1) >= 0).all(), "quantiles cross"


@pytest.mark.parametrize("task", ["forecast", "residual", "reconstruction", "classify"])
@pytest.mark.parametrize("family", FAMILIES)
def test_missing_and_huge_values_never_spoil_the_output(family: str, task: str) -> None:
    module, batch = make(family, task), windows()
    batch[0, :, 1] = float("nan")
    batch[1] = float("nan")
    batch[2, -1] = float("nan")
    batch[3] = 1e30
    with torch.no_grad():
        given = module(batch)
    for key, value in given.items():
        assert torch.isfinite(value).all(), key
    if task in ("residual", "reconstruction"):
        assert given["contribution"][0, 1] == 0
        assert given["score"][1] == 0


def table(path: Path, rows: int, spoiled: bool = False) -> Path:
    """A pump's recording: two channels that swing together, a second apart."""
    rng = np.random.default_rng(3)
    t = np.arange(rows)
    a = np.sin(t / 5) + 0.05 * rng.standard_normal(rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["time", "flow", "pressure"])
        for i in range(rows):
            writer.writerow([f"2024-01-01T{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}Z", 20 + 3 * a[i], 5 - a[i]])
    return path


@pytest.mark.parametrize(("task", "family"), [("anomaly", "lstm"), ("anomaly", "cnn"), ("forecast", "gru")])
def test_train_makes_a_model_that_learned_and_repeats(task: str, family: str, tmp_path: Path) -> None:
    source = table(tmp_path / "pump.csv", 1200)
    command = [
        "train",
        "--data",
        str(source),
        "--task",
        task,
        "--family",
        family,
        "--epochs",
        "20",
        "--length",
        "24",
        "--hidden",
        "16",
        "--horizon",
        "3",
    ]
    assert main([*command, "--output", str(tmp_path / "a.pt")]) == 0
    assert main([*command, "--output", str(tmp_path / "b.pt")]) == 0
    a, b = (bundle.open_bundle(tmp_path / name) for name in ("a.pt", "b.pt"))
    assert a.manifest.content_sha256 == b.manifest.content_sha256
    assert a.manifest.step == 1000
    metrics = a.manifest.metrics
    if task == "forecast":
        assert metrics["mse"] < 0.5 * metrics["mse_naive"]
    else:
        assert metrics["mae"] < 0.5
        assert metrics["over_1_percent"] < 0.1


def test_train_classifies_rows_that_carry_a_label(tmp_path: Path) -> None:
    path = tmp_path / "moves.csv"
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("timestamp,x,label\n")
        for i in range(2400):
            label = i // 100 % 2
            file.write(
                f"{1_700_000_000 + i},{(np.sin(i) if label else np.sin(i / 7)) + 0.1 * rng.standard_normal()},{label}\n"
            )
    output = tmp_path / "moves.pt"
    assert (
        main(
            [
                "train",
                "--data",
                str(path),
                "--task",
                "classify",
                "--label",
                "label",
                "--family",
                "cnn",
                "--length",
                "32",
                "--epochs",
                "10",
                "--output",
                str(output),
            ]
        )
        == 0
    )
    manifest = bundle.open_bundle(output).manifest
    assert manifest.classes == ("0", "1")
    assert manifest.metrics["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "not a time"),
        ("time,x\n", "no rows"),
        ("time,x\n2024-01-01,1\n2024-01-02,oops\n2024-01-03,3\n", "'oops' in column 'x'"),
        ("time,x\n2024-01-01,1\n2024-01-02,2\n", "too few windows"),
    ],
)
def test_a_recording_that_cannot_be_learned_from_is_refused_in_one_line(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert main(["train", "--data", str(path), "--output", str(tmp_path / "m.pt")]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_an_output_that_cannot_be_written_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "make", lambda args: pytest.fail("trained all the same"))
    words = ["train", "--data", str(table(tmp_path / "pump.csv", 300)), "--output"]
    assert main([*words, str(tmp_path / "no" / "m.pt")]) == 1
    said = capsys.readouterr().err
    assert said == f"transom: --output: there is no folder '{tmp_path}/no'; make it: mkdir -p {tmp_path}/no\n"
    assert main([*words, str(tmp_path)]) == 1
    assert "is a folder; name a file" in capsys.readouterr().err
    assert main(["train", "--recipe", "universal", "--output", str(tmp_path / "no" / "m.pt")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_an_unknown_family_is_told_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table(tmp_path / "pump.csv", 300)
    assert main(["train", "--data", str(source), "--family", "lstn", "--output", str(tmp_path / "m.pt")]) == 1
    assert "--family: there is no family 'lstn'; choose from lstm, gru, rnn, cnn, tcn" in capsys.readouterr().err


def test_the_help_of_train_names_every_family_and_needs_no_torch() -> None:
    assert tuple(FAMILIES) == cli.SHIPPED
    code = (
        "import sys; from transom.cli import main; assert main(['train', '--help']) == 0;"
        "assert main(['train', '--output', 'm.pt']) == 1; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"{', '.join(cli.SHIPPED)} (default: lstm)" in " ".join(done.stdout.split())
    assert "--data: is missing" in done.stderr


def test_windows_never_cross_a_gap() -> None:
    times = np.concatenate([np.arange(20), np.arange(100, 120)]) * 1_000_000
    values = np.arange(40, dtype=np.float32)[:, None]
    found, ends = data.windows(data.Recording("r", ("x",), times, values, np.full(40, np.nan)), 5)
    assert len(found) == 32
    assert (np.diff(found[:, :, 0], axis=1) == 1).all()
    assert ends.tolist() == [*range(4, 20), *range(24, 40)]


def test_a_calibration_table_gives_back_the_share_of_normal_scores() -> None:
    scores = np.random.default_rng(0).exponential(size=20_000).astype(np.float32)
    made = export.calibrate(scores)
    assert list(made.scores) == sorted(made.scores)
    for s, p in zip(made.scores, made.p_values, strict=True):
        assert p == pytest.approx(np.exp(-s), abs=0.02)
    assert made.tail_scale == pytest.approx(1, rel=0.2)


class TestUniversal:
    @pytest.fixture
    def model(self) -> torchscript.TorchScriptModel:
        return torchscript.load(bundle.find_model("universal", Path()))

    def test_it_is_small_and_is_the_file_that_was_listed(self) -> None:
        path = bundle.shipped_models()["universal"]
        assert path.stat().st_size < 2_000_000
        assert hashlib.sha256(path.read_bytes()).hexdigest() in (path.parent / "SHA256SUMS").read_text()

    def score(self, model: torchscript.TorchScriptModel, series: np.ndarray) -> np.ndarray:
        view = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), model.manifest.length)
        return model.infer(np.ascontiguousarray(view[:, :, None]))["score"]

    def test_units_do_not_matter(self, model: torchscript.TorchScriptModel) -> None:
        series = np.sin(np.arange(400) / 9) + 0.1 * np.random.default_rng(0).standard_normal(400)
        celsius, fahrenheit = self.score(model, series), self.score(model, 1.8 * series)
        assert np.allclose(celsius, fahrenheit, atol=2e-3)

    def test_a_spike_stands_out(self, model: torchscript.TorchScriptModel) -> None:
        series = np.sin(np.arange(400) / 9) + 0.05 * np.random.default_rng(1).standard_normal(400)
        series[300] += 4
        score = self.score(model, series)
        assert score.argmax() == 300 - model.manifest.length + 1
        assert score.max() > 3 * np.quantile(score, 0.99)

    @pytest.mark.parametrize("level", [0.0, 1.0, -273.15, 1e6])
    def test_a_constant_is_no_surprise_and_its_first_change_is(
        self, model: torchscript.TorchScriptModel, level: float
    ) -> None:
        series = np.full(200, level)
        assert self.score(model, series).max() < 0.7
        series[-1] += max(1.0, abs(level))
        assert self.score(model, series)[-1] > 2

    def test_nothing_known_gives_nothing(self, model: torchscript.TorchScriptModel) -> None:
        given = model.infer(np.full((4, model.manifest.length, 1), np.nan, np.float32))
        assert all(np.isfinite(v).all() for v in given.values())
        assert (given["score"] == 0).all()
