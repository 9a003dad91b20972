"""An agent that is killed at any step of an update runs one model when it comes back, with all of its windows."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import rollout_models as made
from tests_support import Heard
from transom_models import twin

pytestmark = pytest.mark.mosquitto

AGENT = Path(__file__).with_name("rollout_agent.py")
PREDICTIONS = "transom/gw/pumps/a/x/prediction"


class Plant:
    """One agent after another over the same state, and a sensor that misses none of them."""

    def __init__(self, folder: Path, port: int, heard: Heard) -> None:
        self.config, self.heard, self.sent = folder / "agent.toml", heard, 0
        for version in ("1", "2", "3"):
            twin.make(made.detector(folder, version), folder / f"v{version}.onnx")
        self.config.write_text(
            f'[agent]\nid = "gw"\nstate = "{folder / "state"}"\nhealth_every = "100ms"\nremote = ["rollback"]\n'
            f'[broker]\nport = {port}\n[models]\nallow_unsigned = true\nshadow = 0\ntrial = "1h"\n'
            f'[streams.pumps]\ntopic = "plant/{{device}}/{{channel}}"\nmodel = "v1.onnx"\nchannels = ["x"]\n'
        )

    def start(self, kill_at: str = "") -> None:
        ready = len(self.heard.messages.get("transom/gw/info", []))
        self.process = subprocess.Popen(
            [sys.executable, str(AGENT), "-c", str(self.config)], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"KILL_AT": kill_at},
        )  # fmt: skip
        self.lines: list[str] = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True)
        self.reader.start()
        self.heard.wait_until(lambda h: len(h.get("transom/gw/info", [])) > ready, 30)

    def offer(self, version: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"pumps {self.config.parent / f'v{version}.onnx'}\n")
        self.process.stdin.flush()

    def ended(self) -> int:
        """What it ended with, once it has."""
        status = self.process.wait(20)
        self.reader.join()
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        self.process.stderr.close()
        return status

    def kill(self) -> None:
        self.process.kill()
        self.ended()

    def readings(self, model: str) -> None:
        """Ten more, and this model has told of the last."""
        for _ in range(10):
            time = 1_700_000_000 + self.sent
            self.heard.client.publish("plant/a/x", json.dumps({"value": self.sent % 3, "time": time}), 1)
            self.sent += 1
        last = f"{model}"
        self.heard.wait_until(
            lambda h: any(
                f'"model":"{last}"'.encode() in p and self._of(p) == self.sent - 1 for p in h.get(PREDICTIONS, [])
            ),
            20,
        )

    @staticmethod
    def _of(prediction: bytes) -> int:
        from datetime import datetime

        return round(datetime.fromisoformat(json.loads(prediction)["time"]).timestamp()) - 1_700_000_000

    def events(self) -> list[dict[str, Any]]:
        """Each once: what was on its way when the agent was killed comes again."""
        told = [json.loads(p) for p in self.heard.messages.get("transom/gw/models", [])]
        return list({(e["event"], e["time"]): e for e in told}.values())

    def wait_for(self, *events: str) -> None:
        self.heard.wait_until(lambda _: [e["event"] for e in self.events()][-len(events) :] == list(events), 20)

    def accounts(self) -> dict[str, int]:
        self.heard.wait_until(
            lambda h: json.loads(h["transom/gw/health"][-1])["streams"]["pumps"]["windows"] == self.sent
        )
        found: dict[str, int] = json.loads(self.heard.messages["transom/gw/health"][-1])["streams"]["pumps"]
        return found


def test_a_kill_at_any_step_leaves_one_model_that_runs_and_every_window(mosquitto_broker: Any, tmp_path: Path) -> None:
    with Heard(mosquitto_broker.port, "transom/gw/#") as heard:
        plant = Plant(tmp_path, mosquitto_broker.port, heard)
        killed = -signal.SIGKILL
        plant.start("switch:before")
        plant.readings("pump@1")
        plant.offer("2")
        assert plant.ended() == killed  # all is written but the word of it
        plant.start("switch:after")  # it goes on with the shadow
        assert plant.ended() == killed  # the word is written, no snapshot with the newer model
        plant.start()
        plant.wait_for("offered", "switched")
        plant.readings("pump@2")
        assert plant.accounts()["accepted"] == plant.sent
        plant.kill()  # on trial for the second time: the first was right after the switch
        plant.start("renew:after")
        plant.wait_for("rolled-back")
        assert "died 2 times" in plant.events()[-1]["reason"]
        plant.readings("pump@1")
        plant.offer("3")
        assert plant.ended() == killed  # all is written
        plant.start("give_up:after")
        plant.readings("pump@3")
        heard.client.publish("transom/gw/request/rollback", json.dumps({"id": 1, "stream": "pumps"}), 1)
        assert plant.ended() == killed  # back, but for the snapshot
        plant.start()
        plant.wait_for("offered", "switched", "rolled-back")
        plant.readings("pump@1")
        accounts = plant.accounts()
        assert accounts["received"] == accounts["accepted"] == accounts["windows"] == plant.sent == 50
        plant.process.terminate()
        assert plant.ended() == 0
        assert not list((tmp_path / "state" / "models").glob("*.onnx"))
