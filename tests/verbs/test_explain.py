"""`transom explain` on recordings: which window it takes, what it prints, and what it refuses."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runtimes.samples import LENGTH, sample
from transom.cli import main
from transom.runtimes import bundle
from transom.verbs import heat

RAISED = 150


def time(second: int) -> str:
    return f"2024-01-01T00:{second // 60:02}:{second % 60:02}.000Z"


def value(i: int) -> float:
    return math.sin(i / 3) + 0.01 * (i * 7919 % 13) + (9 if RAISED <= i < RAISED + 5 else 0)


@pytest.fixture
def pump(tmp_path: Path) -> Path:
    """Two columns; one has a fault."""
    path = tmp_path / "pump.csv"
    path.write_text("time,flow,heat\n" + "".join(f"{time(i)},{value(i):.4f},{i % 5}\n" for i in range(200)))
    return path


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    names = ("lstm", "gru", "cnn")
    for name in names:
        bundle.write_bundle(*sample(name), tmp_path / f"{name}.pt")
    return {name: tmp_path / f"{name}.pt" for name in names}


def explained(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["explain", *map(str, words), "--json"]) == 0, capsys.readouterr().err
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    return body


def test_the_window_of_the_first_alert_is_explained_and_adds_up(pump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, pump)
    assert (found["series"], found["time"]) == ("pump/flow", time(RAISED))
    assert found["method"] == "integrated gradients"
    assert found["reference"] == "an ordinary window before it"
    assert found["value"] > 3 > found["reference_value"]
    assert found["sum"] == pytest.approx(found["value"] - found["reference_value"], rel=0.15)
    assert found["gap"] == pytest.approx(found["sum"] - found["value"] + found["reference_value"], abs=1e-5)
    assert found["summary"].endswith("raised by flow, most of it in the last step")
    assert len(found["share"]["flow"]) == len(found["window"]["flow"]) == 128
    assert "series' own past" in found["note"]


def test_the_sheet_has_a_sentence_a_table_a_picture_and_a_check(pump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(pump), "--series", "pump/flow"]) == 0
    out = capsys.readouterr().out
    assert "raised by flow" in out
    for word in ("channel", "reference", "+100.0", "█", "check: the shares add up to"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_a_time_and_a_series_choose_the_window(pump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(capsys, pump, "--at", "2024-01-01T00:01:40.5", "--series", "replay/pump/heat")["time"] == time(100)
    calm = explained(capsys, pump, "--series", "pump/heat")  # raises nothing: the largest score
    assert calm["series"] == "pump/heat"


def test_the_models_file_decides_what_is_explained(
    pump: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pump.write_text(pump.read_text().replace("heat", "temperature").replace(f"{time(198)},", f"{time(198)},,#"))
    pump.write_text("\n".join(line.split("#")[0] for line in pump.read_text().splitlines()) + "\n")  # a missing reading
    detector = explained(capsys, pump, "--model", models["lstm"])
    assert {c["channel"] for c in detector["channels"]} == {"flow", "temperature"}
    assert {c["unit"] for c in detector["channels"]} == {"l/min", "°C"}
    assert all("contribution" in c for c in detector["channels"])
    forecast = explained(capsys, pump, "--model", models["gru"], "--target", "temperature@2")
    assert forecast["target"] == "temperature, step 2 of 3"
    assert forecast["reference"] == "each channel at its median"
    assert forecast["time"] == time(199)
    assert len(forecast["share"]["flow"]) == LENGTH
    kind = explained(capsys, pump, "--model", models["cnn"], "--target", "leak", "--method", "occlusion")
    assert (kind["target"], kind["method"]) == ("probability of leak", "occlusion")


def test_a_recording_goes_through_the_configured_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('[streams.pumps]\ntopic = "plant/{device}/{channel}"\nstep = "1s"\n')
    day = tmp_path / "day.jsonl"
    day.write_text("".join(
        json.dumps({"time": time(i), "topic": "plant/a/x", "payload": f"{value(i):.4f}"}) + "\n" for i in range(200)
    ))  # fmt: skip
    found = explained(capsys, day, "-c", config)
    assert (found["stream"], found["series"], found["time"]) == ("pumps", "a/x", time(RAISED))
    assert found["times"][-2:] == [time(RAISED - 1), time(RAISED)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no recording is named"),
        (["{}", "--at", "noon"], "'noon' is no time"),
        (["{}", "--at", "2020-01-01"], "no window ends by 2020-01-01; there: replay/pump/flow, replay/pump/heat"),
        (["{}", "--series", "pump/level"], "no window of 'pump/level'; there: replay/pump/flow"),
        (["{}", "--steps", "5"], "choose 16 to 64"),
        (["{}", "--target", "x"], "a detector has a score"),
        (["{}", "--live"], "leave INPUT, --at, --model and --stream out"),
        (["--live"], "write stream/series"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    words: list[str], sentence: str, pump: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *(w.format(pump) for w in words)]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("transom: ") == 1


def test_the_sheet_of_many_channels_shows_those_that_matter() -> None:
    names = [f"c{i}" for i in range(40)]
    body = {
        "stream": "s", "series": "x\x1b[31m", "time": None, "model": "m@1", "summary": "it is", "target": "score",
        "method": "occlusion", "pieces": 8, "value": 2.0, "reference_value": 1.0, "sum": 1.0, "times": None,
        "share": {n: [0.0, None, 1.0] for n in names}, "window": {n: [1.0, None, 2.0] for n in names},
        "channels": [{"channel": n, "unit": "", "share": 0.1, "percent": 2.5, "value": 1.0, "mean": None,
                      "reference_mean": 1.0} for n in names],
    }  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=60).print(heat.sheet(body, 60))
    shown = out.getvalue()
    assert "shown are 16 of 40 channels" in shown
    assert "c15" in shown
    assert "c16" not in shown
    assert "x\\u001b[31m" in shown
    assert "shares of occlusion need not add up" in " ".join(shown.split())
