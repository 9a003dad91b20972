"""An agent beside a Home Assistant that runs. Optional: it needs a Python that has Home Assistant."""

import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_homeassistant import agent_of, configured
from test_service import running

from tests_support import Heard
from transom.edge.reload import Reload

pytestmark = pytest.mark.mosquitto

SCRIPT = Path(__file__).parents[1] / "homeassistant_run.py"
ANOMALY, SCORE = "binary_sensor.gw_d_x_anomaly", "sensor.gw_d_x_score"
WATCHED = "binary_sensor.transom_gw_connected"


class Home:
    """What a Home Assistant shows: `until` returns it as soon as it fits."""

    def __init__(self, told: Iterator[str]) -> None:
        self._told = told

    def until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for line in self._told:
            shown: dict[str, Any] = json.loads(line)
            if fits(shown):
                return shown
        pytest.fail("Home Assistant has ended")


@contextmanager
def home(port: int) -> Iterator[Home]:
    python = os.environ.get("TRANSOM_HOMEASSISTANT")
    if not python:
        pytest.skip("TRANSOM_HOMEASSISTANT names no Python that has Home Assistant")
    command = [python, str(SCRIPT), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Home(iter(process.stdout))
        finally:
            process.stdin.close()
            process.stdout.read()


def state(shown: dict[str, Any], entity: str) -> str | None:
    found = shown["states"].get(entity)
    return None if found is None else str(found[0])


class Sensor:
    """`with Sensor(other) as sensor`: 20, 21, 22 over and over, 20 times a second; Home Assistant subscribes when it
    has the time."""

    def __init__(self, other: Heard) -> None:
        self._other, self._ended, self.fault = other, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for i in itertools.count():
            value = 90 if self.fault.is_set() else 20 + i % 3
            self.fault.clear()
            self._other.client.publish("plant/d/x", json.dumps(value), 1)
            if self._ended.wait(0.05):
                return

    def __enter__(self) -> "Sensor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)


def test_it_shows_the_series_the_alert_its_end_and_the_agents_going(mosquitto_broker, tmp_path: Path) -> None:
    port = mosquitto_broker.port
    current = [configured(tmp_path, port)]
    reload = Reload(lambda: current[0], None)
    with Heard(port, "transom/#") as other, home(port) as shown:
        with running(agent_of(current[0], reload)):
            shown.until(lambda s: state(s, WATCHED) == "on")
            with Sensor(other) as sensor:
                assert "d/x" in shown.until(lambda s: ANOMALY in s["states"])["devices"]
                shown.until(lambda s: state(s, ANOMALY) == "off" and state(s, SCORE) not in (None, "unknown"))
                other.wait_until(lambda heard: len(heard["transom/gw/s/d/x/prediction"]) > 90)
                sensor.fault.set()
                alert = shown.until(lambda s: state(s, ANOMALY) == "on" and "summary" in s["states"][ANOMALY][1])
                assert alert["states"][ANOMALY][1]["summary"].startswith("x 90, expected 2")
                shown.until(lambda s: state(s, ANOMALY) == "off")
            current[0] = configured(tmp_path, port, other="other/{device}")
            reload.ask()
            shown.until(lambda s: "d/x" not in s["devices"] and ANOMALY not in s["states"])
        shown.until(lambda s: state(s, WATCHED) == "off")


def test_after_its_restart_it_shows_at_once_what_was_there(mosquitto_broker, tmp_path: Path) -> None:
    port = mosquitto_broker.port
    with Heard(port, "transom/#") as other, running(agent_of(configured(tmp_path, port))):
        begun = time.time() - 101
        for i, value in enumerate([*(20 + i % 3 for i in range(100)), 90]):  # one a second, which came at once
            other.client.publish("plant/d/x", json.dumps({"value": value, "time": begun + i}), 1)
        other.wait_for("transom/gw/s/d/x/alert")
        for _ in range(2):
            with home(port) as shown:
                shown.until(lambda s: state(s, ANOMALY) == "on" and state(s, WATCHED) == "on")
