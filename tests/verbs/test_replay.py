"""Replay of files as people have them: gzip, odd separators, bad cells, our own recordings."""

import gzip
import json
import math
import xml.etree.ElementTree as ET
from datetime import date, timedelta
from pathlib import Path

import pytest

from transom.cli import main
from transom.core import recorded
from transom.core.pipeline import Message

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


def wave(folder: Path, name: str = "pump.csv", fault: int = 400, rows: int = 500) -> Path:
    """A value that repeats every 20 minutes, with a fault of ten readings."""
    path = folder / name
    lines = [f"2024-01-01T{i // 60 % 24:02}:{i % 60:02}:00Z" for i in range(1440)]
    lines = [line.replace("01-01", f"01-{d:02}") for d in (1, 2) for line in lines][:rows]
    path.write_text(
        "time,flow\n"
        + "".join(f"{t},{20 + i % 20 + (60 if fault <= i < fault + 10 else 0)}\n" for i, t in enumerate(lines))
    )
    return path


def test_a_picture_needs_no_lines_and_shows_the_alert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(wave(tmp_path)), "--plot", str(tmp_path / "out.svg")]) == 0
    root = ET.parse(tmp_path / "out.svg").getroot()
    said = " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith(("text", "title")))
    assert "pump.csv: 2024-01-01 00:15 to 08:19 UTC" in said
    assert "2024-01-01 06:40" in said
    assert "flow 80, expected" in said
    assert "p-value, raises at" in said


def test_budgets_side_by_side_are_a_table_and_lines_that_name_their_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts, path = tmp_path / "alerts.jsonl", wave(tmp_path)
    variants = ["false_alarms=10/day", "false_alarms=1/year", "threshold=1e9, raise_after=2 of 3"]
    assert (
        main(
            ["replay", str(path), "--alerts", str(alerts), "--plot", str(tmp_path / "out.svg"), "--compare", *variants]
        )
        == 0
    )
    told = capsys.readouterr().out
    raised = [json.loads(line) for line in alerts.read_text().splitlines()]
    for variant in variants:
        count = sum(a["variant"] == variant and a["event"] == "raise" for a in raised)
        assert f"with {variant} it would have alerted {count} time{'s' * (count != 1)} in 8.07 h" in told
    assert variants[0] in {a["variant"] for a in raised}
    assert variants[2] not in {a["variant"] for a in raised}
    drawn = (tmp_path / "out.svg").read_text()
    assert all(variant in drawn for variant in variants)


def test_a_variant_says_what_a_replay_with_its_settings_says(tmp_path: Path) -> None:
    config = tmp_path / "plant.toml"
    config.write_text('[streams.pumps]\ntopic = "plant/{device}/{channel}"\nthreshold = 4.0\n')
    path, out = wave(tmp_path), tmp_path / "both.jsonl"
    words = ["replay", str(path), "-c", str(config), "--output", str(out)]
    assert main([*words, "--compare", "false_alarms=1/day", "threshold=2.5, hold_off=1h"]) == 0
    both = [json.loads(line) for line in out.read_text().splitlines()]
    for variant, changes in (
        ("false_alarms=1/day", 'false_alarms = "1/day"'),
        ("threshold=2.5, hold_off=1h", 'threshold = 2.5\nhold_off = "1h"'),
    ):
        config.write_text(f'[streams.pumps]\ntopic = "plant/{{device}}/{{channel}}"\n{changes}\n')
        alone = tmp_path / "alone.jsonl"
        assert main(["replay", str(path), "-c", str(config), "--output", str(alone)]) == 0
        assert [{"variant": variant} | json.loads(line) for line in alone.read_text().splitlines()] == [
            line for line in both if line["variant"] == variant
        ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing is asked for"),
        (["--compare", "false_alarm=1/day"], "did you mean false_alarms?"),
        (["--compare", "false_alarms=1/fortnight"], "'1/fortnight' is not an alarm budget"),
        (["--compare", "topic=x"], "has no key 'topic'"),
        (["--compare", "sooner"], "is no key=value"),
        (["--compare", "model=unversal"], "did you mean 'universal'?"),
        (["--compare", "threshold=3", "threshold=3"], "given twice"),
        (["--compare", *(f"threshold={i}" for i in range(1, 20))], "19 variants are too many"),
        (["--plot", "pump.csv"], "is also an input"),
        (["--plot", "x", "--output", "x"], "one file"),
        (["--plot", "x.svg", "--plot-series", "0"], "at least 1"),
        (["--plot", "none/x.svg"], "No such file"),
        (["--output", "x.jsonl", "--stream", "pumps"], "no stream 'pumps' is configured"),
    ],
)
def test_what_cannot_be_compared_or_drawn_is_one_line_and_writes_nothing_over(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = wave(tmp_path, rows=50).read_text()
    assert main(["replay", "pump.csv", *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("transom: ") == 1
    assert (tmp_path / "pump.csv").read_text() == before


def test_recordings_are_replayed_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    """A shell names day.10 before day.2."""
    for name, begin in (("day.jsonl", 0), ("day.2.jsonl", 20), ("day.10.jsonl", 40)):
        first = recorded.word(
            "begin", 1000 * begin, filters=["plant/+/+"], streams={"pumps": {"topic": "plant/{device}/{channel}"}}
        )
        lines = [recorded.line(Message("plant/a/x", b"%d" % (i % 4), 1000 * i)) for i in range(begin, begin + 20)]
        (tmp_path / name).write_bytes(b"".join([first, *lines]))
    lines = replayed(tmp_path, *map(str, sorted(tmp_path.glob("day*"))))
    assert [line["time"] for line in lines] == [f"1970-01-01T00:00:{i:02}.000Z" for i in range(15, 60)]


def test_what_a_killed_recorder_left_of_a_compressed_recording_is_replayed(tmp_path: Path) -> None:
    first = recorded.word("begin", 0, filters=["plant/+/+"], streams={"pumps": {"topic": "plant/{device}/{channel}"}})
    whole = gzip.compress(
        first + b"".join(recorded.line(Message("plant/a/x", b"%d" % (i * i % 17), 1000 * i)) for i in range(400))
    )
    (tmp_path / "day.jsonl.gz").write_bytes(whole[:-600])
    assert 50 < len(replayed(tmp_path, str(tmp_path / "day.jsonl.gz"))) < 385


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        ({"topic": "plant/{device}/{channel}", "model": "/etc/passwd", "model_sha256": "0" * 64}, 0),
        ({"topic": "plant/{device}/{channel}", "model": ["universal"]}, 0),
        ({"topic": "plant/{device}/{channel}", "password": "x"}, 2),
        ({"topic": 5}, 2),
    ],
)
def test_a_recording_opens_no_file_and_its_streams_are_checked_like_any(
    stream: dict[str, object], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [recorded.line(Message("plant/a/x", b"%d" % (i % 4), 1000 * i)) for i in range(30)]
    path, out = tmp_path / "day.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"".join([recorded.word("begin", 0, filters=["plant/#"], streams={"pumps": stream}), *lines]))
    assert main(["replay", str(path), "--output", str(out)]) == status
    if status == 0:
        assert len(out.read_text().splitlines()) == 30 - 15
    else:
        assert "streams.pumps" in capsys.readouterr().err


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
