"""`transom run` as an operator has it: a process, a broker, signals, and a state that survives."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests_support import Heard
from transom.cli import main
from transom.edge import recordings

pytestmark = pytest.mark.mosquitto


class Process:
    """A running `transom run`, whose log lines can be waited for."""

    def __init__(self, config: Path) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "transom", "run", "-c", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        self._process.stderr.close()

    def wait_for(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in line for line in self.lines), 30), self.lines

    def stop(self, number: int = signal.SIGTERM) -> int:
        self._process.send_signal(number)
        status = self._process.wait(10)
        self._reader.join()
        return status


def config(folder: Path, port: int, stream: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(f'[agent]\nid = "gw"\nstate = "{folder / "state"}"\n[broker]\nport = {port}\n{stream}')
    return path


PUMPS = '[streams.pumps]\ntopic = "plant/{site}/{device}/{channel}"\nmodel = "universal"\n'


def test_a_terminated_agent_says_so_and_goes_on_where_it_was(mosquitto_broker, tmp_path: Path) -> None:
    path = config(tmp_path, mosquitto_broker.port, PUMPS)
    with Heard(mosquitto_broker.port, "transom/#") as other:
        agent = Process(path)
        agent.wait_for("ready: watching plant/+/+/+")
        assert json.loads(other.wait_for("transom/gw/status")) == {"state": "online"}
        info = json.loads(other.wait_for("transom/gw/info"))
        assert info["streams"][0]["model"] == "universal@1"
        begin = time.time_ns() // 1_000_000 - 60_000
        for i in range(20):
            other.client.publish("plant/a/b/x", json.dumps({"value": i % 3, "time": (begin + 1000 * i) / 1000}), 1)
        other.wait_for("transom/gw/pumps/a/b/x/prediction")
        other.wait_until(lambda heard: len(heard.get("transom/gw/pumps/a/b/x/prediction", [])) == 5)
        assert agent.stop() == 0
        assert json.loads(other.wait_for("transom/gw/status", b'{"state":"stopped"}')) == {"state": "stopped"}
        again = Process(path)
        again.wait_for("state restored: 1 series")
        again.wait_for("ready")
        other.client.publish("plant/a/b/x", json.dumps({"value": 1, "time": (begin + 21_000) / 1000}), 1)
        other.wait_until(lambda heard: len(heard["transom/gw/pumps/a/b/x/prediction"]) == 6)
        assert again.stop(signal.SIGINT) == 0
        health = json.loads(other.wait_for("transom/gw/health"))
    accounts = health["streams"]["pumps"]
    assert accounts["received"] == accounts["accepted"] == 21


def test_hostile_messages_are_counted_and_dead_lettered_and_the_agent_goes_on(mosquitto_broker, tmp_path: Path) -> None:
    path = config(tmp_path, mosquitto_broker.port, PUMPS)
    bad = [
        b"{",
        b"\xff\xfe",
        b'{"value": NaN}',
        b'{"value": "x"}',
        b"[" * 100_000,
        b"9" * 10_000_000,
        b'{"value":1,"time":"2500-01-01T00:00:00Z"}',
        b"",
        b"true",
    ]
    with Heard(mosquitto_broker.port, "transom/#") as other:
        agent = Process(path)
        agent.wait_for("ready")
        for payload in bad:
            other.client.publish("plant/a/b/x", payload, 1)
        other.client.publish("plant//b/x", b"1", 1)
        for i in range(16):
            other.client.publish("plant/a/good/x", str(i), 1)
        other.wait_for("transom/gw/pumps/a/good/x/prediction")
        letter = json.loads(other.wait_for("transom/gw/pumps/dead-letter"))
        assert {"topic", "reason", "payload"} <= set(letter)
        assert agent.stop() == 0
        accounts = json.loads(other.wait_for("transom/gw/health"))["streams"]["pumps"]
    assert accounts["invalid"] == len(bad) + 1
    assert accounts["accepted"] == 16
    assert accounts["received"] == accounts["accepted"] + accounts["invalid"]


@pytest.mark.data
@pytest.mark.parametrize("family", ["lstm", "cnn"])
def test_a_detector_trained_on_skab_judges_an_experiment_live(
    family: str, mosquitto_broker, tmp_path: Path, data_dir: Path
) -> None:
    normal = data_dir / "skab" / "anomaly-free" / "anomaly-free.csv"
    model = tmp_path / f"skab-{family}.pt"
    assert (
        main(
            [
                "train",
                "--data",
                str(normal),
                "--task",
                "anomaly",
                "--family",
                family,
                "--epochs",
                "1",
                "--hidden",
                "16",
                "--output",
                str(model),
            ]
        )
        == 0
    )
    path = config(
        tmp_path,
        mosquitto_broker.port,
        "[models]\nallow_unsigned = true\n"
        f'[streams.bed]\ntopic = "replay/{{series}}"\npayload = "object"\ntime = "time"\ntime_unit = "us"\nmodel = "{model}"\n',
    )
    experiment = data_dir / "skab" / "valve1" / "6.csv"
    opened = recordings.open_table(experiment, "six")
    messages = [m for batch in recordings.table_messages([opened]) for _, part in batch for m in part][:300]
    with Heard(mosquitto_broker.port, "transom/#") as other:
        agent = Process(path)
        agent.wait_for("ready")
        for message in messages:
            other.client.publish(message.topic, message.payload, 1)
        other.wait_until(lambda heard: len(heard.get("transom/gw/bed/six/prediction", [])) > 200)
        last = json.loads(other.wait_for("transom/gw/bed/six/prediction"))
        assert agent.stop() == 0
        accounts = json.loads(other.wait_for("transom/gw/health"))["streams"]["bed"]
    assert len(last["contribution"]) == 8
    assert accounts["accepted"] == accounts["received"] > 8 * 200
    assert accounts["windows"] > 200
