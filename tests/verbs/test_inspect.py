"""`transom inspect`: a sheet that fits 80 columns, one JSON object, and one line for a file that is refused."""

import json
from pathlib import Path

import msgspec
import pytest

from runtimes.samples import sample
from transom.cli import main
from transom.core.model import ANY, Channel
from transom.runtimes import bundle


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module, described = sample("gru")
    described = msgspec.structs.replace(
        described, step=60_000, stride=3, min_steps=4, learning=20, max_gap=300_000,
        data="recordings of two pumps\x1b[31m, " + "a very long line " * 10, metrics={"pinball": 0.125, "mae": 2.5},
        created="2026-11-23T00:00:00Z",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("inspect") / "pump.pt"
    bundle.write_bundle(module, described, path)
    return path


def test_the_sheet_tells_what_the_file_says_and_fits_a_pipe(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file)]) == 0
    sheet = capsys.readouterr().out
    assert max(map(len, sheet.splitlines())) <= 80
    for text in (
        "sample@1", "forecast", "gru, ", "flow [l/min], temperature [°C]", "12 steps of 1m (last)",
        "a window every 3 steps", "3 steps", "0.1, 0.5, 0.9", "pinball 0.125", "µs a window in batches of 64",
        bundle.open_bundle(file).sha256, "alerts after 20 windows", "held for 5m",
    ):  # fmt: skip
        assert text in sheet
    assert "\x1b" not in sheet
    joined = " ".join(sheet.split())
    opened = bundle.open_bundle(file)
    assert f"{opened.sha256} of the file, as sha256sum" in joined
    assert f"{opened.manifest.content_sha256} SHA-256 of code and weights, without the manifest" in joined


def test_json_is_one_object_with_the_whole_manifest(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["manifest"]["metrics"] == {"pinball": 0.125, "mae": 2.5}
    assert said["sha256"] == bundle.open_bundle(file).sha256
    assert said["size"] == file.stat().st_size
    assert said["parameters"] > 0
    assert set(said["latency_us_per_window"]) == {"2", "64"}
    assert min(said["latency_us_per_window"].values()) > 0


def test_a_model_for_any_sensor_says_so() -> None:
    from transom.verbs.inspect import channels

    described = msgspec.structs.replace(sample("lstm")[1], channels=(Channel(ANY),))
    assert channels(described) == "any sensor"


def test_a_refused_file_is_one_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(file.read_bytes()[:1000])
    assert main(["inspect", str(damaged)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "damaged.pt: the archive is cut off after 1,000 bytes" in said.err


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "no-such-model"]) == 1
    assert "there is no model 'no-such-model'" in capsys.readouterr().err
