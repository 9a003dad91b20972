"""Replay of files as people have them: gzip, odd separators, bad cells, our own recordings."""

import gzip
import json
import math
from datetime import date, timedelta
from pathlib import Path

import pytest

from transom.cli import main

ROWS = "".join(f"2024-01-01T00:{i // 60:02}:{i % 60:02}Z;{i % 5};{i % 7}\n" for i in range(90))


def replayed(folder: Path, *words: str) -> list[dict[str, object]]:
    out = folder / "out.jsonl"
    assert main(["replay", *words, "--output", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_each_column_is_a_series_for_a_model_of_one_channel(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("time;flow;pressure\n" + ROWS)
    lines = replayed(tmp_path, str(path))
    assert {line["series"] for line in lines} == {"pump/flow", "pump/pressure"}
    assert len(lines) == 2 * (90 - 15)


def test_files_that_share_a_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.csv").write_text("time;x;y\n" + ROWS)
    lines = replayed(tmp_path, str(tmp_path / "a" / "0.csv"), str(tmp_path / "b" / "0.csv"))
    assert {line["series"] for line in lines} == {"a.0/x", "a.0/y", "b.0/x", "b.0/y"}


def test_a_bad_cell_is_told_with_its_place_and_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pump.csv"
    path.write_text("time;flow;pressure\n" + ROWS.replace("00:00:30Z;0;2", "00:00:30Z;oops;2"))
    lines = replayed(tmp_path, str(path))
    assert len([line for line in lines if line["series"] == "pump/flow"]) == 89 - 15
    assert "first in line 32, column flow: 'oops'" in " ".join(capsys.readouterr().err.split())


def test_a_recording_of_ours_goes_through_the_configured_streams(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('[streams.pumps]\ntopic = "plant/{device}/{channel}"\n')
    recording = tmp_path / "day.jsonl"
    recording.write_text(
        "".join(json.dumps({"time": f"2024-01-01T00:00:{i:02}.000Z", "topic": "plant/a/x", "payload": str(i % 4)}) + "\n" for i in range(40))
        + json.dumps({"time": "2024-01-01T00:00:41Z", "topic": "other/x", "base64": "AAA="}) + "\n"
    )  # fmt: skip
    lines = replayed(tmp_path, str(recording), "-c", str(config))
    assert {(line["stream"], line["series"]) for line in lines} == {("pumps", "a/x")}
    assert len(lines) == 40 - 15


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "x,y\n1,2\n", "not a time"),
        ("a.jsonl", "{}\n", "no stream says what they mean"),
        ("none.csv", None, "No such file"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    name: str, text: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["replay", str(tmp_path / name), "--output", str(tmp_path / "out.jsonl")]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("transom: ") == 1


def test_the_summary_tells_of_a_sensor_that_ages_with_its_beginning_and_its_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["time,fresh,aged\n"]
    for hour in range(45 * 24):
        day = date(2024, 1, 1) + timedelta(hour // 24)
        rhythm = math.sin(hour / 24 * 2 * math.pi) + (hour * 7919 % 101) / 101
        rows.append(
            f"{day}T{hour % 24:02}:00:00Z,{20 + rhythm:.3f},{20 + rhythm + 2 * max(hour / 24 - 15, 0) / 30:.3f}\n"
        )
    (tmp_path / "tank.csv").write_text("".join(rows))
    replayed(tmp_path, str(tmp_path / "tank.csv"))
    said = " ".join(capsys.readouterr().err.split())
    assert "drift: 1 at the end of the recording" in said
    assert "tank/aged: aged drifts: 20." in said
    assert " on 2024-01-" in said.split("drift:")[1]
    assert "tank/fresh" not in said.split("drift:")[1]
