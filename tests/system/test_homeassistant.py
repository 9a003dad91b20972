"""Home Assistant over a real broker: what a restart finds, what a return of either side brings, what it costs others."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_service import running

from conftest import missing
from discovery_rules import problems
from tests_support import Heard
from transom.core.pipeline import Message
from transom.dialects import homeassistant as ha
from transom.dialects.plain import Publication
from transom.edge import homeassistant
from transom.edge.assembly import build_pipeline
from transom.edge.reload import Reload
from transom.edge.service import Agent
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

DOCS = (Path(__file__).parents[2] / "docs" / "home-assistant.md").read_text()
PLACE = ha.Place("homeassistant", "gw", "transom/gw", 0.2)
AGENT = PLACE.topic(ha.AGENT)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch) -> None:
    monkeypatch.setattr(homeassistant, "SETTLE", 0.2)
    monkeypatch.setattr(homeassistant, "JITTER", 0.0)
    monkeypatch.setattr(homeassistant.Discovery.__init__, "__defaults__", (0.0,))


def configured(tmp_path: Path, port: int, *, enabled: bool = True, broker: Any = None, **streams: str) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gw", "state": str(tmp_path / "state"), "health_every": "200ms", "commit_every": "50ms"},
        "broker": {"port": port} | (broker or {}), "homeassistant": {"enabled": enabled},
        "streams": {name: {"topic": topic} for name, topic in (streams or {"s": "plant/{device}/{channel}"}).items()},
    })  # fmt: skip


def agent_of(chosen: Settings, reload: Reload | None = None) -> Agent:
    return Agent(chosen, build_pipeline(chosen), reload=reload)


def device(series: str, stream: str = "s") -> str:
    return PLACE.topic(ha.Watched(stream, series, "", "anomaly", (), ()).device)


def test_a_series_is_announced_and_its_entities_have_what_they_name(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "#") as other, running(agent_of(chosen)):
        other.client.publish("plant/d/x", b"1", 1)
        made = json.loads(other.wait_for(device("d/x")))
        assert problems(Publication(device("d/x"), json.dumps(made).encode(), 1, True)) == []
        agent = json.loads(other.wait_for(AGENT))
        assert made["device"]["via_device"] in agent["device"]["identifiers"]
        for i in range(30):
            other.client.publish("plant/d/x", b"%d" % (i % 3), 1)
        prediction = json.loads(other.wait_for(made["components"]["score"]["state_topic"]))
        assert prediction["expected"].keys() == {"x"}
        health = json.loads(other.wait_for(agent["components"]["readings"]["state_topic"]))
        assert health["readings_per_s"] >= 0
        assert health["unmatched"] == 0  # our own announcements come back and are no readings
        assert other.wait_for(agent["components"]["connected"]["state_topic"], b'{"state":"online"}')


def test_when_home_assistant_returns_all_is_announced_again(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "homeassistant/#") as other, running(agent_of(chosen)):
        other.client.publish("plant/d/x", b"1", 1)
        other.wait_for(device("d/x"))
        before = len(other.messages[AGENT]), len(other.messages[device("d/x")])
        other.client.publish("homeassistant/status", b"online", 1)
        other.wait_until(
            lambda heard: len(heard[AGENT]) > before[0] and len(heard[device("d/x")]) > before[1]
        )  # fmt: skip


def test_when_the_broker_returns_without_what_it_had_all_is_announced_again(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port)
    with running(agent_of(chosen)):
        with Heard(mosquitto_broker.port, "homeassistant/#") as other:
            other.client.publish("plant/d/x", b"1", 1)
            other.wait_for(device("d/x"))
        mosquitto_broker.stop()
        mosquitto_broker.start()
        with Heard(mosquitto_broker.port, "homeassistant/#") as other:
            other.wait_for(AGENT, seconds=60)
            other.wait_for(device("d/x"), seconds=60)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_stream_removed_while_the_agent_was_away_leaves_no_ghost(
    mosquitto_broker, tmp_path: Path, protocol: str
) -> None:  # fmt: skip
    port, spoken = mosquitto_broker.port, {"protocol": protocol}
    with Heard(port, "homeassistant/#") as other:
        both = configured(tmp_path, port, broker=spoken, s="plant/{device}/{channel}", old="old/{device}")
        with running(agent_of(both)):
            other.client.publish("plant/d/x", b"1", 1)
            other.client.publish("old/e", b"1", 1)
            other.wait_for(device("d/x"))
            other.wait_for(device("e", "old"))
        with running(agent_of(configured(tmp_path, port, broker=spoken))):  # its session is still there
            other.wait_for(device("e", "old"), b"")
            assert b"" not in other.messages[device("d/x")]
    with Heard(port, "homeassistant/#") as late:
        late.wait_for(device("d/x"))
        late.wait_for(AGENT)
        assert device("e", "old") not in late.messages


def test_a_reload_removes_the_devices_of_a_stream_and_all_when_switched_off(mosquitto_broker, tmp_path: Path) -> None:
    port = mosquitto_broker.port
    current = [configured(tmp_path, port, s="plant/{device}/{channel}", old="old/{device}")]
    reload = Reload(lambda: current[0], None)
    with Heard(port, "homeassistant/#") as other, running(agent_of(current[0], reload)):
        other.client.publish("plant/d/x", b"1", 1)
        other.client.publish("old/e", b"1", 1)
        other.wait_for(device("d/x"))
        other.wait_for(device("e", "old"))
        current[0] = configured(tmp_path, port)
        reload.ask()
        other.wait_for(device("e", "old"), b"")
        current[0] = configured(tmp_path, port, enabled=False)
        reload.ask()
        other.wait_for(device("d/x"), b"")
        other.wait_for(AGENT, b"")


def test_nothing_of_it_reaches_a_stream_that_reads_everything(mosquitto_broker, tmp_path: Path) -> None:
    chosen = configured(tmp_path, mosquitto_broker.port, s="{room}/#")
    agent = agent_of(chosen)
    with Heard(mosquitto_broker.port, "homeassistant/#") as other, running(agent):
        other.client.publish("hall/t", b"1", 1)
        other.client.publish("homeassistant/status", b"online", 1)
        other.wait_for(AGENT)
        other.wait_for(device("hall"))
    assert agent.pipeline.accounts()["s"]["invalid"] == 0
    assert [n for n in agent.pipeline.streams["s"].intake.names if n] == ["hall"]


def test_without_it_the_agent_subscribes_to_its_streams_only(mosquitto_broker, tmp_path: Path) -> None:
    agent = agent_of(configured(tmp_path, mosquitto_broker.port, enabled=False))
    assert agent._filters() == ["plant/+/+"]
    message = Message("homeassistant/status", b"online", 0)
    assert list(agent._discovery.take([message])) == [message]


def block(language: str, holds: str) -> str:
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if holds in b]
    return str(found)


def test_the_guides_configuration_is_one_and_its_command_removes_what_is_left(mosquitto_broker, tmp_path: Path) -> None:
    if shutil.which("mosquitto_pub") is None:
        missing("mosquitto_pub is not installed (apt install mosquitto-clients)")
    (tmp_path / "plant.toml").write_text(block("toml", "[homeassistant]"))
    port = mosquitto_broker.port
    chosen = load_settings(tmp_path / "plant.toml", {
        "agent.id": "gateway-7", "agent.state": str(tmp_path / "state"), "broker.port": port
    })  # fmt: skip
    topic = "homeassistant/device/transom-gateway-7/agent/config"
    with Heard(port, "homeassistant/#") as other:
        with running(agent_of(chosen)):
            other.wait_for(topic)
        here = "".join(f'{n}() {{ command {n} -p {port} "$@"; }}\n' for n in ("mosquitto_pub", "mosquitto_sub"))
        subprocess.run(["sh", "-c", here + block("sh", "mosquitto_sub")], timeout=60, check=False)
        other.wait_for(topic, b"")
