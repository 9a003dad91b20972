"""The models of city and vehicles: made again from what they were made of, and on real recordings."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transom.cli import main
from transom.runtimes import bundle

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.data


def lines(path: Path) -> list[dict[str, dict[str, list[list[float]]]]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_recipe_of_a_real_recording_gives_the_shipped_file(data_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "motion.pt"
    # In a process of its own: TorchScript gives a class that was compiled before another name, and so another digest.
    command = [sys.executable, "-m", "transom", "train", "--recipe", "motion", "--data", str(data_dir)]
    subprocess.run([*command, "--output", str(output)], check=True, timeout=120)
    made, shipped = (bundle.open_bundle(p).manifest for p in (output, bundle.shipped_models()["motion"]))
    assert made.metrics == pytest.approx(shipped.metrics)
    if made.torch == shipped.torch:  # another version has other last digits
        assert made.content_sha256 == shipped.content_sha256


def test_recorded_motions_are_recognised_in_a_replay(data_dir: Path, tmp_path: Path) -> None:
    cases, output = tmp_path / "cases", tmp_path / "out.jsonl"
    file = data_dir / "basic_motions" / "BasicMotions_TRAIN.ts.gz"
    command = [sys.executable, str(ROOT / "scripts" / "as_csv.py"), str(file), str(cases), "--step", "0.1"]
    subprocess.run([*command, "--channels", "ax", "ay", "az", "gx", "gy", "gz"], check=True, timeout=60)
    files = sorted(map(str, cases.glob("*.csv")))
    assert main(["replay", *files, "--model", "motion", "--output", str(output)]) == 0
    named = [(max(d["probability"], key=d["probability"].get), str(d["series"])) for d in lines(output)]  # type: ignore[arg-type]
    assert len(named) == 40
    assert sum(series.endswith(name) for name, series in named) >= 38


def test_a_recorded_road_is_forecast_better_than_by_its_last_value(data_dir: Path, tmp_path: Path) -> None:
    """The last quarter of the recording, which the model has not learned from."""
    output = tmp_path / "out.jsonl"
    file = data_dir / "nab" / "realTraffic" / "occupancy_6005.csv"
    assert main(["replay", str(file), "--model", "city-traffic", "--output", str(output)]) == 0
    said = lines(output)
    values = {np.datetime64(str(d["time"])[:-1], "s"): d["value"]["value"] for d in said}
    errors, naive = [], []
    for d in said[3 * len(said) // 4 :]:
        begin = np.datetime64(str(d["time"])[:-1], "s")
        for step, quantiles in enumerate(d["forecast"]["value"], 1):
            truth = values.get(begin + np.timedelta64(300 * step, "s"))
            if truth is not None:
                errors.append(quantiles[2] - truth)  # type: ignore[operator]
                naive.append(d["value"]["value"] - truth)  # type: ignore[operator]
    assert len(errors) > 1000
    assert np.std(errors) < 0.85 * np.std(naive)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--channels", "lat", "lon"], "forecasts two channels"),
        (["--channels", "lon", "lat", "--target", "lat", "lon"], "give the position first"),
    ],
)
def test_what_is_no_position_is_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "way.csv"
    rows = [f"{1_700_000_000 + i},{50 + i / 1e4},{8 + i / 1e4}" for i in range(300)]
    table.write_text("\n".join(["time,lat,lon", *rows]) + "\n")
    common = ["train", "--data", str(table), "--task", "forecast", "--method", "path", "--family", "gru"]
    short = ["--length", "8", "--horizon", "2", "--output", str(tmp_path / "m.pt")]
    assert main([*common, *short, *words]) == 1
    assert sentence in capsys.readouterr().err


def test_irregular_rows_make_a_model_of_even_steps(tmp_path: Path) -> None:
    random, table, output = np.random.default_rng(0), tmp_path / "road.csv", tmp_path / "road.pt"
    times = 1_700_000_000 + np.cumsum(random.integers(100, 900, 900))
    wave = 5 + np.sin(2 * np.pi * times / 43_200) + random.normal(0, 0.1, 900)
    table.write_text("\n".join(["time,flow", *(f"{t},{v:.3f}" for t, v in zip(times, wave, strict=True))]) + "\n")
    words = ["--family", "scales", "--step", "600", "--period", "72", "--length", "80", "--horizon", "3"]
    common = ["train", "--data", str(table), "--task", "forecast", "--epochs", "30", "--min-steps", "20"]
    assert main([*common, *words, "--output", str(output)]) == 0
    manifest = bundle.open_bundle(output).manifest
    assert (manifest.step, manifest.aggregate, manifest.family) == (600_000, "mean", "scales")
    assert manifest.metrics["mse"] < manifest.metrics["mse_naive"]
