"""Training with differential privacy: units that share no reading, gradients that no unit outgrows, and what is told."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import missing
from transom.cli import main
from transom.core.model import Privacy
from transom.errors import ModelError
from transom.runtimes import torchscript
from transom_models import private
from transom_models.budget import Budget
from transom_models.tasks import Forecaster
from transom_models.training import Plan

HERE = find_spec("opacus") is not None


@pytest.fixture(autouse=True)
def _opacus(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(1)
    name = request.function.__name__
    if not HERE and "without_opacus" not in name and not name.startswith("test_units"):
        missing('no opacus (pip install "transom[private]")')


def table(tmp_path: Path, rows: int = 1200) -> Path:
    rng = np.random.default_rng(3)
    day = np.sin(np.arange(rows) * 2 * np.pi / 24)
    lines = [f"{1_700_000_000 + 3600 * i},{20 + 5 * day[i] + 0.3 * rng.normal():.3f}" for i in range(rows)]
    (tmp_path / "t.csv").write_text("\n".join(["time,x", *lines]) + "\n")
    return tmp_path / "t.csv"


def cut(rows: np.ndarray, length: int, gaps: list[int]) -> np.ndarray:
    """All windows [N, T, 1] of the stretches between the gaps."""
    parts = np.split(rows, gaps)
    found = [np.lib.stride_tricks.sliding_window_view(p, length)[..., None] for p in parts if len(p) >= length]
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, length, 1), np.float32)


@given(st.integers(4, 8), st.integers(0, 3), st.integers(0, 12), st.lists(st.integers(1, 199), max_size=4, unique=True))
def test_units_share_no_reading(length: int, horizon: int, more: int, gaps: list[int]) -> None:
    reach = length + horizon
    whole = cut(np.arange(200.0), reach, sorted(gaps))
    groups = private.units(whole[:, :length], reach + more, reach)
    readings = [set(whole[rows].ravel().tolist()) for rows in groups]
    assert sum(map(len, readings)) == len(set().union(*readings)) if readings else True
    assert all(len(one) <= reach + more for one in readings)


def test_units_hold_what_is_missing_for_equal_and_a_window_each_where_asked() -> None:
    rows = np.arange(40.0)
    rows[::3] = np.nan
    windows = cut(rows, 5, [])
    assert [len(rows) for rows in private.units(windows, 10, 5)] == [6, 6, 6, 6]
    assert len(private.units(windows, None, 5)) == len(windows)


def module() -> Forecaster:
    torch.manual_seed(0)
    return Forecaster("lstm", 4, torch.zeros(1), torch.ones(1), 2)


def parts(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    whole = cut(np.random.default_rng(1).normal(size=count + 9), 10, [])
    return np.ascontiguousarray(whole[:, :8]), np.ascontiguousarray(whole[:, 8:])


def learned(budget: Budget, part: tuple[np.ndarray, np.ndarray], chance: int | None = 1) -> tuple[Forecaster, Privacy]:
    made = module()
    _, privacy = private.learn(made, part, parts(50), Plan(epochs=1), budget, 10, chance)
    return made, privacy


def test_less_epsilon_takes_more_noise_and_is_kept_to() -> None:
    asked, rate, steps, delta = (8.0, 3.0, 1.0), 0.1, 100, 1e-4
    noises = [private.noise_for(epsilon, delta, rate, steps) for epsilon in asked]
    assert noises == sorted(noises)
    for epsilon, noise in zip(asked, noises, strict=True):
        assert 0.95 * epsilon < private.epsilon_of(noise, rate, steps, delta) <= epsilon
    assert private.epsilon_of(1.0, rate, 100, delta) < private.epsilon_of(1.0, rate, 200, delta)


def test_what_was_spent_is_told_with_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "noise_for", lambda *_: 4.0)  # more than is asked for: less is spent
    privacy = learned(Budget(8.0, 1e-3, 1.0), parts())[1]
    assert (privacy.noise, privacy.clip, privacy.delta, privacy.unit) == (4.0, 1.0, 1e-3, "block of 20 steps")
    assert 0 < privacy.epsilon < 8


def test_the_same_chance_gives_the_same_model_and_the_system_s_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "noise_for", lambda *_: 1.0)
    part, budget = parts(), Budget(3.0, 1e-3)
    one, same, other = (learned(budget, part, chance)[0].state_dict() for chance in (5, 5, None))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_no_unit_moves_the_sum_of_gradients_by_more_than_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.optimizers import DPOptimizer

    sums: list[torch.Tensor] = []

    def seen(optimiser: DPOptimizer) -> None:
        sums.append(torch.cat([p.summed_grad.flatten().clone() for p in optimiser.params]))
        plain(optimiser)

    plain = DPOptimizer.add_noise
    monkeypatch.setattr(DPOptimizer, "add_noise", seen)
    monkeypatch.setattr(private, "noise_for", lambda *_: 1.0)
    monkeypatch.setattr(private, "epsilon_of", lambda *_: 1.0)
    part = parts()
    wild = part[0].copy(), part[1].copy()
    first = private.units(part[0], 20, 10)[0]
    wild[1][first] = 1e6  # what one unit holds is replaced by the worst
    apart = []
    for seed in range(10):
        rounds = []
        for data in (part, wild):
            sums.clear()
            learned(Budget(8.0, 1e-3, 0.5), data, seed)
            rounds.append(sums[0])  # of the first step, before the weights differ
        apart.append(float((rounds[0] - rounds[1]).norm()))
    assert 0 < max(apart) <= 2 * 0.5 * 1.0001
    assert min(apart) == 0  # where the unit was not drawn


@pytest.mark.parametrize("family", ["lstm", "tcn"])
def test_a_family_learns_so_and_the_file_runs(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "--data", str(table(tmp_path)), "--method", "residual", "--family", family, "--hidden", "8"]
    args += ["--length", "8", "--epochs", "1", "--private", "--epsilon", "4", "--delta", "1e-3", "--no-onnx"]
    assert main([*args, "--output", str(tmp_path / "m.pt")]) == 0
    told = capsys.readouterr().out
    assert "epsilon" in told
    assert "not protected: scaling" in " ".join(told.split())
    privacy = torchscript.load(tmp_path / "m.pt").manifest.privacy
    assert isinstance(privacy, Privacy)
    assert (privacy.epsilon <= 4, privacy.delta, privacy.unit) == (True, 1e-3, "block of 16 steps")
    if family == "lstm":
        assert main(["inspect", str(tmp_path / "m.pt")]) == 0
        assert f"epsilon {privacy.epsilon:g} at delta 0.001 for a block of 16 steps" in " ".join(
            capsys.readouterr().out.split()
        )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--method", "level"], "LevelDetector is fitted to its data in more ways"),
        (["--method", "residual", "--family", "fcn"], "learns the mean of its batches too"),
        (["--method", "residual", "--delta", "0.05"], "protects nobody"),
        (["--method", "residual", "--block", "4"], "4 steps hold no window"),
        (["--method", "residual", "--block", "100"], "there are 8 units"),
        (["--method", "residual", "--epsilon", "0"], "0 is no budget"),
    ],
)
def test_what_gives_no_privacy_is_refused(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["train", "--data", str(table(tmp_path)), "--length", "8", "--epochs", "1", "--private", "--delta", "1e-3"]
    assert main([*args, *words, "--output", str(tmp_path / "m.pt")]) == 1
    assert problem in capsys.readouterr().err


def test_without_opacus_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transom_models import budget

    monkeypatch.setattr(budget, "find_spec", lambda name: None)
    assert main(["train", "--data", str(tmp_path / "x.csv"), "--private", "--output", str(tmp_path / "m.pt")]) == 1
    assert capsys.readouterr().err == (
        'transom: --private: opacus is not installed here; pip install "transom[private]"\n'
    )


def test_a_seed_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "train",
        "--data",
        str(tmp_path / "none.csv"),
        "--private",
        "--seed",
        "1",
        "--output",
        str(tmp_path / "m.pt"),
    ]
    assert main(args) == 1  # there is no such file
    assert "whoever knows it knows the noise" in capsys.readouterr().err


def test_other_models_say_nothing_of_privacy(tmp_path: Path) -> None:
    args = ["train", "--data", str(table(tmp_path, 300)), "--method", "residual", "--length", "8", "--epochs", "1"]
    assert main([*args, "--no-onnx", "--output", str(tmp_path / "m.pt")]) == 0
    assert b"privacy" not in (tmp_path / "m.pt").read_bytes()
    with pytest.raises(AttributeError):
        torchscript.load(tmp_path / "m.pt").manifest.privacy.epsilon  # type: ignore[union-attr]  # noqa: B018


def test_too_few_units_without_anything_in_common_are_refused() -> None:
    with pytest.raises(ModelError, match="units"):
        private.learn(module(), parts(60), parts(50), Plan(epochs=1), Budget(), 10)
