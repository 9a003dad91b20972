"""`transom run` with ONNX models alone: the alerts of the main job, and no torch in the process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_support import Heard

pytestmark = pytest.mark.mosquitto

HEAVY = ("torch", "onnx", "rich", "psutil", "numpy.random", "transom_models")


def test_an_agent_on_onnx_alone_raises_its_alert_and_never_imports_torch(
    mosquitto: Callable[..., object], tmp_path: Path
) -> None:
    broker = mosquitto()
    port = broker.port  # type: ignore[attr-defined]
    config = tmp_path / "a.toml"
    config.write_text(
        f'[agent]\nid = "gw"\nstate = "{tmp_path}/s"\nruntime = "onnx"\nhealth_every = "100ms"\n[broker]\nport = {port}\n'
        '[streams.pumps]\ntopic = "plant/{device}/{channel}"\nmodel = "universal"\nfalse_alarms = "1/hour"\n'
    )
    with Heard(port, "transom/gw/#") as other, (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "transom", "run", "-c", str(config)], stderr=log,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            other.wait_for("transom/gw/status", b'{"state":"online"}', 60)
            other.wait_until(lambda h: len(h.get("transom/gw/health", [])) > 1, 30)  # by then it has subscribed
            for i in range(100):
                other.client.publish("plant/p1/vibration", str(20 + i % 3), qos=1)
            other.client.publish("plant/p1/vibration", "90", qos=1)
            alert = json.loads(other.wait_for("transom/gw/pumps/p1/vibration/alert", seconds=30))
        finally:
            agent.send_signal(signal.SIGTERM)
            status = agent.wait(20)
    assert status == 0
    assert (alert["event"], alert["value"]) == ("raise", {"vibration": 90.0})
    imported = {line.rpartition("|")[2].strip() for line in (tmp_path / "log").read_text().splitlines() if "|" in line}
    assert "onnxruntime" in imported
    heavy = sorted(m for m in imported if m.startswith(tuple(f"{h}." for h in HEAVY)) or m in HEAVY)
    assert heavy == [], "an agent on a small board pays for what it does not use"
