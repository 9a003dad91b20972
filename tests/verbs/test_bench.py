"""`transom bench` runs through on real brokers and programs, gives every figure, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from conftest import missing
from transom.bench import report, subjects
from transom.bench.load import Load, publish
from transom.bench.picture import picture
from transom.bench.private import find, private
from transom.bench.processes import BenchError, Program
from transom.bench.readings import of_stream, plain
from transom.cli import main
from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline
from transom.edge import packets
from transom.edge.assembly import stream_spec
from transom.settings import StreamSettings

STAMP = 1_764_000_000_123_456
POINTS = [
    {"series": n, "rate": r, "cpu_us": 30.0, "p50_ms": 1.2, "p95_ms": 3.0, "p99_ms": 9.0}
    for n, r in ((10, 31_000.0), (1000, 30_000.0), (10_000, 24_000.0))
]


def bench(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "transom", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ | (env or {}))


def manifest(*names: str) -> Manifest:
    return Manifest(
        name="m", version="1", task="anomaly", family="none", channels=tuple(Channel(n) for n in names), length=4
    )


class Silent:
    sha256 = ""

    def __init__(self, *names: str) -> None:
        self.manifest = manifest(*names)

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        last = np.nan_to_num(values[:, -1])
        return {"score": last[:, 0] * 0, "contribution": last * 0, "expected": last}


def test_every_figure_is_there_and_nothing_is_left_behind(tmp_path: Path) -> None:
    if find("mosquitto") is None or find("mosquitto_sub") is None:
        missing("mosquitto or mosquitto_sub is not installed")
    picture_file = tmp_path / "p.svg"
    done = bench(
        "--json", "--seconds", "0.2", "--series", "50", "--svg", str(picture_file), env={"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing but the figures in a pipe"
    told = json.loads(done.stdout)
    assert told["failed"] == {}
    assert told["host"].keys() == {"system", "machine", "cpu", "cpus", "memory_bytes", "python"}
    both = told["end_to_end"]
    assert {"naive", "transom", "transom_process", "ratio", "journal_cost", "onnx_ratio"} <= both.keys()
    for who in ("naive", "transom", "transom_process"):
        assert all(both[who][key] > 0 for key in ("rate", "cpu_us", "rss_bytes", "ready_s"))
    assert both["ratio"] == pytest.approx(both["transom"]["rate"] / both["naive"]["rate"])
    for qos in ("qos0", "qos1"):
        assert all(told["receive"][qos][who]["rate"] > 0 for who in ("transom", "mosquitto_sub"))
        assert told["receive"][qos]["rate_ratio"] > 0
        assert told["receive"][qos]["cpu_ratio"] > 0
    assert told["latency"]["timed_by"] == "reading"
    for rate in ("100", "10000"):
        at = told["latency"]["at"][rate]
        assert 0 < at["p50_ms"] <= at["p95_ms"] <= at["p99_ms"]
        assert at["heard"] > 0
    assert [at["series"] for at in told["series"]] == [10, 100, 1000, 10_000]
    core = told["core"]
    assert set(core["stages_us"]) == {
        "parse",
        "inbox",
        "decode",
        "align",
        "windows",
        "infer",
        "judge",
        "encode",
        "packets",
        "journal",
    }
    assert list(core["total_us_by_series"]) == ["10", "100", "1000", "10000"]
    assert all(core[key] > 0 for key in ("own_us", "infer_us", "growth", "own_growth", "bytes_a_series"))
    assert told["start"]["ready_s"] > 0
    assert told["start"]["import_torch_s"] > 0
    assert len(list(report.rows(told))) > 15
    assert ET.fromstring(picture_file.read_text()).tag.endswith("svg")
    assert list(tmp_path.glob("transom-*")) == []


def test_an_interrupt_ends_every_program_and_removes_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transom", "bench", "--seconds", "1"]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
    while not list(tmp_path.glob("transom-bench-*/v.csv")):
        assert process.poll() is None
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.glob("transom-*")) == []
    assert [pid for pid in _pids() if str(tmp_path).encode() in _command_line(pid)] == []


def _pids() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_without_any_broker_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transom.bench.private.find", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BenchError, match="apt install mosquitto"), private(tmp_path):
        pass


def test_a_broker_that_does_not_start_is_told_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "mosquitto"
    broken.write_text("#!/bin/sh\necho 'Error: Address already in use' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("transom.bench.private.find", lambda _: str(broken))
    with pytest.raises(BenchError, match="Address already in use"), private(tmp_path):
        pass


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--seconds", "0"), "must be more than 0"),
        (("--svg", "/nowhere/p.svg"), "no such folder"),
        (("-c", "/nowhere/plant.toml"), "plant.toml"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) in (1, 2)
    assert sentence in capsys.readouterr().err


def test_a_load_hears_what_it_publishes_through_the_broker_inside(tmp_path: Path) -> None:
    source = plain()
    with private(tmp_path, embedded=True) as broker:
        assert (broker.name, broker.fast) == ("amqtt", False)
        load = Load(broker.port, [source], 10, ["plant/#"], ending=b"/v")
        load.fill(3, 0, 500, "the load")
        assert load.heard == 30
        load.close()


@pytest.mark.parametrize(("count", "qos"), [(1, 0), (3, 1), (300, 1)])
def test_packets_of_the_load_are_read_by_our_parser(count: int, qos: int) -> None:
    made = [(f"plant/d{i}/v", b"x" * i) for i in range(count)]
    found, _, _ = packets.parse(publish(made, qos, 65_530), 0, False)
    assert [(t.decode(), p) for t, p, *_ in found] == made
    assert [mid for *_, mid, _ in found][:7] == ([65_530, 65_531, 65_532, 65_533, 65_534, 65_535, 1] if qos else [0])[
        :count
    ]


@pytest.mark.parametrize(
    ("stream", "names"),
    [
        ({"topic": "plant/{device}/{channel}"}, (ANY,)),
        ({"topic": "plant/{device}/{channel}", "payload": "number"}, (ANY,)),
        ({"topic": "a/{site}/+/{device}", "value": "data.value", "time": "data.time", "time_unit": "ms"}, (ANY,)),
        ({"topic": "a/{device}", "payload": "cbor", "value": "v", "sequence": "n"}, (ANY,)),
        ({"topic": "a/{device}", "payload": "array", "value": "samples[].v"}, (ANY,)),
        ({"topic": "a/{device}", "payload": "object", "channels": ["temperature", "humidity"]}, (ANY,)),
        ({"topic": "a/{device}", "time_unit": "iso"}, ("flow", "pressure")),
        ({"topic": "a/{device}/{channel}", "time_unit": "arrival"}, ("flow", "pressure")),
        ({"topic": "a/{device}", "channels": {"door": {"switch": True, "path": "contact.state"}}}, (ANY,)),
        ({"topic": "home/kitchen/door"}, (ANY,)),
    ],
)  # fmt: skip
def test_made_up_readings_are_what_the_stream_reads(stream: dict[str, object], names: tuple[str, ...]) -> None:
    """As many predictions as are counted on, none refused."""
    settings, model = StreamSettings.model_validate({**stream, "step": "reading", "stride": 1}), Silent(*names)
    source = of_stream("s", settings, model.manifest)
    pipeline = Pipeline([(stream_spec("s", settings, model.manifest), model)])
    count = source.series or 6
    sent = 0
    for nth in range(8):
        made = [
            Message(
                source.topic(i),
                source.make(i)(STAMP + 1000 * (nth * count + i), nth * count + i, nth),
                STAMP // 1000 + nth * count + i,
            )
            for i in range(count)
        ]
        events = pipeline.process(made)
        sent += len(made) * source.predictions
    counts = pipeline.accounts()["s"]
    assert (counts["invalid"], counts["late"], counts["duplicate"], events.dead_letters) == (0, 0, 0, [])
    late = 0 if not source.open else len({tuple(source.topic(i).split("/")[:-1]) for i in range(count)})
    assert counts["windows"] == sent - late  # more channels may belong to the latest reading


def test_a_picture_has_a_point_for_each_number_of_series_and_serves_light_and_dark() -> None:
    drawn = picture(POINTS, "LSTM(32) & <friends>")
    root = ET.fromstring(drawn)
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 3 * len(POINTS)
    assert all(0 <= float(c.attrib["cx"]) <= 720 and 0 <= float(c.attrib["cy"]) <= 300 for c in circles)
    assert "prefers-color-scheme:dark" in drawn
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert {"10", "1,000", "10,000", "p50", "p99"} <= set(texts)


def test_a_program_that_ends_before_it_is_ready_is_told_with_what_it_said() -> None:
    command = [sys.executable, "-c", "print('no such port'); raise SystemExit(3)"]
    with pytest.raises(BenchError, match="no such port"), Program(command, "ready"):
        pass


def test_tables_inline_are_toml() -> None:
    import tomllib

    body = {"topic": 'plant/{device}/é"', "channels": {"a.b": {"switch": True, "on": ["AUF"]}}, "threshold": 4.5}
    assert tomllib.loads(f"x = {subjects.toml(body)}")["x"] == body
