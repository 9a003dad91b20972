"""The detector of levels: what it sees, what it is not led astray by, whom it blames, and a start from another model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from transom.cli import main
from transom.core.model import PROMISED
from transom.runtimes import bundle, torchscript
from transom_models.families import FAMILIES
from transom_models.tasks import LevelDetector

LENGTH, CHANNELS, BAR = 48, 4, 2.25
TAIL = 8


def recording(rows: int, seed: int = 0) -> np.ndarray:
    """float32 [rows, 4]: two that jitter and are related, one that wanders, one in coarse steps."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(rows)
    wander = np.cumsum(rng.standard_normal(rows)) * 0.2
    coarse = np.round(rng.standard_normal(rows))
    x = [
        10 + common + 0.15 * rng.standard_normal(rows),
        -common + 0.15 * rng.standard_normal(rows),
        50 + wander,
        coarse,
    ]
    return np.stack(x, 1).astype(np.float32)


def written(path: Path, x: np.ndarray) -> Path:
    rows = [f"{1_700_000_000 + i},{','.join(map(str, row))}" for i, row in enumerate(x.tolist())]
    path.write_text("\n".join(["time,a,b,c,d", *rows, ""]))
    return path


def windows(x: np.ndarray) -> torch.Tensor:
    view = np.lib.stride_tricks.sliding_window_view(x, LENGTH, axis=0)
    return torch.from_numpy(np.ascontiguousarray(view.transpose(0, 2, 1)))


def fitted(family: str = "lstm") -> LevelDetector:
    torch.manual_seed(0)
    x = recording(1500)
    module = LevelDetector(family, 8, torch.from_numpy(x.mean(0)), torch.from_numpy(x.std(0)), LENGTH)
    module.fit_persistence(windows(x))
    module.fit_scales(windows(x))
    return module.eval()


@pytest.fixture(scope="module")
def detector() -> LevelDetector:
    return fitted()


@pytest.fixture
def normal() -> np.ndarray:
    """What comes after the recording: its last window but with new noise."""
    return recording(1600)[-LENGTH:]


def outputs(module: torch.nn.Module, window: np.ndarray) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {k: v[0] for k, v in module(torch.from_numpy(window)[None]).items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_keeps_the_promises_of_an_anomaly_model_with_every_family(family: str) -> None:
    module, batch = fitted(family), windows(recording(120, 5))
    batch[0, :, 1] = float("nan")
    batch[1] = float("nan")
    batch[2, -1] = float("nan")
    batch[3] = 1e30
    with torch.no_grad(), bundle.quiet():
        given, scripted = module(batch), torch.jit.script(module)(batch)
        single = module(batch[5:6])
    assert set(PROMISED["anomaly"]) <= set(given)
    for key, value in given.items():
        assert torch.isfinite(value).all(), key
        assert torch.allclose(value, scripted[key], rtol=1e-4, atol=1e-4), "scripting changed the numbers"
        assert torch.allclose(value[5:6], single[key], atol=1e-5), "a row depends on its neighbours"
    assert torch.allclose(given["contribution"].sum(1), given["score"], rtol=1e-4)
    assert given["contribution"][0, 1] == 0, "a channel that says nothing is to blame for nothing"
    assert given["score"][1] == 0


def test_normal_running_stays_under_the_bar(detector: LevelDetector) -> None:
    with torch.no_grad():
        score = detector(windows(recording(3000, seed=9)))["score"]
    assert (score > BAR).float().mean() < 0.02


FAULTS = {
    "a channel that jitters has another level": (0, lambda x: x + 3),
    "a small shift, for long enough": (3, lambda x: x + 2.5),
    "a channel that wanders jumps": (2, lambda x: x + 12),
    "stuck": (1, lambda x: np.full_like(x, x[0])),
    "noisy": (2, lambda x: x + 3 * np.random.default_rng(1).standard_normal(len(x))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_and_its_channel_named_first(name: str, detector: LevelDetector, normal: np.ndarray) -> None:
    channel, spoil = FAULTS[name]
    begin = -2 * TAIL if name in ("stuck", "noisy") else -TAIL
    normal[begin:, channel] = spoil(normal[begin:, channel])
    given = outputs(detector, normal)
    assert given["score"] > BAR
    assert given["contribution"].argmax() == channel


def test_a_single_spike_is_seen_at_once_and_gone_soon(detector: LevelDetector) -> None:
    x = recording(1700)[1500:]
    x[100, 0] += 15
    with torch.no_grad():
        over = detector(windows(x))["score"].numpy() > BAR
    at = 100 - LENGTH + 1
    assert over[at]
    assert not over[at + 4 :].any()


def test_two_faults_are_the_first_two_named(detector: LevelDetector, normal: np.ndarray) -> None:
    normal[-TAIL:, 3] += 4
    normal[-TAIL:, 2] += 25
    first = outputs(detector, normal)["contribution"].argsort(descending=True)[:2]
    assert set(first.tolist()) == {2, 3}


def test_a_broken_relation_between_channels_that_look_normal_is_seen(
    detector: LevelDetector, normal: np.ndarray
) -> None:
    """Each channel moves by what is usual for it; together, they have never moved so."""
    together, apart = normal.copy(), normal.copy()
    together[-TAIL:, :2] = [11.0, -1.0]
    apart[-TAIL:, :2] = [11.0, 1.0]
    assert outputs(detector, apart)["score"] > 1.2 * outputs(detector, together)["score"]


def test_a_fault_for_hours_is_still_one_where_the_channel_never_wandered(
    detector: LevelDetector, normal: np.ndarray
) -> None:
    normal[:, 3] += 4
    assert outputs(detector, normal)["score"] > BAR


def test_a_channel_that_wanders_may_be_anywhere(detector: LevelDetector, normal: np.ndarray) -> None:
    normal[:, 2] += 8 * float(detector.scaling.scale[2])
    assert outputs(detector, normal)["score"] < BAR


def test_a_large_fault_leaves_no_mark_on_what_comes_after_it(detector: LevelDetector, normal: np.ndarray) -> None:
    normal[: LENGTH // 2, 0] = 1e4
    assert outputs(detector, normal)["score"] < BAR


def test_a_few_hundred_rows_are_enough_to_train_on(tmp_path: Path) -> None:
    source = written(tmp_path / "short.csv", recording(400))
    output = tmp_path / "m.pt"
    assert main(["train", "--data", str(source), "--epochs", "3", "--output", str(output)]) == 0
    model = torchscript.load(output)
    given = model.infer(recording(64, seed=4)[None])
    assert np.isfinite(given["score"]).all()


@pytest.mark.parametrize("task", ["anomaly", "forecast"])
def test_training_goes_on_from_a_model(task: str, tmp_path: Path) -> None:
    t = np.arange(1200)[:, None] / 5 + np.arange(4)
    swinging = np.sin(t) + 0.05 * np.random.default_rng(3).standard_normal((1200, 4))
    source, model, again = written(tmp_path / "pump.csv", swinging), tmp_path / "pump.pt", tmp_path / "again.pt"
    shape = ["--task", task, "--family", "gru", "--length", "24", "--hidden", "16", "--horizon", "3", "--epochs", "12"]
    assert main(["train", "--data", str(source), *shape, "--output", str(model)]) == 0
    assert main(["train", "--data", str(source), "--from", str(model), "--epochs", "1", "--output", str(again)]) == 0
    first, second = bundle.open_bundle(model).manifest, bundle.open_bundle(again).manifest
    assert second.label == "pump@2"
    assert (second.family, second.length, second.horizon, second.task) == ("gru", 24, first.horizon, task)
    name = "mse" if task == "forecast" else "mae"
    assert second.metrics[name] < 1.2 * first.metrics[name], "one epoch keeps what was learned"


def test_a_model_that_does_not_fit_the_data_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = written(tmp_path / "pump.csv", recording(400)), str(tmp_path / "m.pt")
    assert (
        main(["train", "--data", str(source), "--from", str(bundle.shipped_models()["universal"]), "--output", output])
        == 1
    )
    assert "no start for training" in capsys.readouterr().err
    assert main(["train", "--data", str(source), "--from", str(tmp_path / "none.pt"), "--output", output]) == 1
    assert "none.pt" in capsys.readouterr().err
