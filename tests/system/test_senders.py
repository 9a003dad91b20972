"""Imitators at a real broker: what they send is no reading, is told as a dead letter, and is logged once."""

import json
import logging
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from test_service import counts_of, running

from conftest import missing
from tests_support import T0, Heard
from transom import cli
from transom.core import recorded
from transom.core.pipeline import Message
from transom.edge.assembly import build_pipeline
from transom.edge.reload import Reload
from transom.edge.service import Agent
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

KEY, NEW = "0f" * 32, "a1" * 32
GUIDE = (Path(__file__).parents[2] / "docs" / "senders.md").read_text()
SHELL = re.search(r"```sh\n(topic=.*?)```", GUIDE, re.DOTALL)
PYTHON = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def settings(folder: Path, port: int, stream: dict[str, str], **broker: str) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gw", "state": str(folder / "state"), "health_every": "100ms", "commit_every": "50ms"},
        "broker": {"port": port, **broker}, "streams": {"s": {"topic": "plant/{device}/{channel}", **stream}},
    })  # fmt: skip


@pytest.mark.parametrize("quick", [True, False])
def test_who_publishes_on_the_topic_of_another_is_noticed(
    mosquitto_broker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    if not quick:
        monkeypatch.setattr("transom.edge.wire.new", _plain)
    chosen = settings(tmp_path, mosquitto_broker.port, {"sender": "{device}"}, sender_property="device")
    agent = Agent(chosen, build_pipeline(chosen))
    caplog.set_level(logging.WARNING, "transom")
    sensor = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
        sensor.connect("127.0.0.1", mosquitto_broker.port)
        sensor.loop_start()
        for i in range(30):
            said = Properties(PacketTypes.PUBLISH)
            said.UserProperty = [("device", "pump" if i % 3 else "fan")]
            sensor.publish("plant/pump/x", b"%d" % (i % 5), 1, properties=said if i != 10 else None)
        counts = counts_of(other, lambda c: c["received"] == 30)
        sensor.disconnect()
        sensor.loop_stop()
        assert (counts["accepted"], counts["invalid_sender"], counts["invalid"]) == (19, 11, 11)
        letter = json.loads(other.wait_for("transom/gw/s/dead-letter"))
        assert letter["topic"] == "plant/pump/x"
    reasons = [json.loads(p)["reason"] for p in other.messages["transom/gw/s/dead-letter"]]
    assert "the sender says that it is 'fan', the topic is that of 'pump'" in reasons
    lines = [r.getMessage() for r in caplog.records if "is refused" in r.getMessage()]
    assert lines == [
        "streams.s: 'plant/pump/x' is refused: the sender says that it is 'fan', the topic is that of 'pump'"
    ]


def by_the_shell(topic: str, body: str, number: int, key: str) -> bytes:
    """With the lines of the guide, and other words in them."""
    assert SHELL is not None
    _, _, mac, send = SHELL[1].splitlines()
    script = f'mosquitto_pub() {{ printf %s "$6"; }}; topic=$1 body=$2 number=$3 key=$4\n{mac}\n{send}'
    return subprocess.run(
        ["sh", "-c", script, "sh", topic, body, str(number), key], capture_output=True, check=True
    ).stdout


def by_python(topic: str, body: str, number: int, key: str) -> bytes:
    assert PYTHON is not None
    found: dict[str, Any] = {}
    exec(PYTHON[1], found)
    made = found["signed"](topic.encode(), body.encode(), number, bytes.fromhex(key))
    assert isinstance(made, bytes)
    return made


def _plain(client_id, **more):
    from transom.edge import client

    return client.new(client_id, quick=False, **more)


def test_a_signed_reading_counts_once_and_keys_are_changed_without_a_restart(mosquitto_broker, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        missing("openssl is not installed")
    file = tmp_path / "keys.toml"
    file.write_text(f'pump = "{KEY}"\n')
    file.chmod(0o600)
    now = time.time_ns() // 1_000_000

    def signed(body: str, number: int, key: str = KEY) -> bytes:
        made = by_the_shell("plant/pump/x", body, number, key)
        assert made == by_python("plant/pump/x", body, number, key)
        return made

    def read() -> Settings:
        return settings(tmp_path, mosquitto_broker.port, {"keys_file": str(file)})

    reload = Reload(read, None)
    agent = Agent(read(), build_pipeline(read()), reload=reload)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):

        def send(payload: bytes, count: int) -> dict[str, int]:
            other.client.publish("plant/pump/x", payload, 1)
            return counts_of(other, lambda c: c["received"] == count)

        first = signed('{"value": 21.5}', now)
        assert send(first, 1)["accepted"] == 1
        assert send(first, 2)["duplicate"] == 1
        assert send(signed("22", now + 1, NEW), 3)["invalid_signature"] == 1
        file.write_text(f'pump = ["{NEW}", "{KEY}"]\n')
        reload.ask()
        old = agent.pipeline
        for _ in range(1000):
            if agent.pipeline is not old:
                break
            time.sleep(0.01)
        assert send(signed("22", now + 2, NEW), 4)["accepted"] == 2
        assert send(signed("23", now + 3, KEY), 5)["accepted"] == 3
    again = Agent(read(), build_pipeline(read()))
    with Heard(mosquitto_broker.port, "transom/#") as other, running(again):
        other.client.publish("plant/pump/x", first, 1)  # of before the restart
        counts = counts_of(other, lambda c: c["received"] == 6)
        assert (counts["accepted"], counts["invalid_signature"]) == (3, 2)
        reason = json.loads(other.wait_for("transom/gw/s/dead-letter"))["reason"]
        assert reason == f"sent again, or out of order: its number is {now}, the last was {now + 3}"


def test_a_replay_checks_a_recording_by_its_own_clock_and_a_table_not_at_all(tmp_path: Path, capsys) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'pump = "{KEY}"\n')
    keys.chmod(0o600)
    (tmp_path / "agent.toml").write_text(
        '[streams.s]\ntopic = "plant/{device}/{channel}"\nkeys_file = "keys.toml"\nstep = "reading"\n'
    )
    long_ago = T0 - 400 * 86_400_000
    messages = [
        Message("plant/pump/x", by_python("plant/pump/x", str(20 + i % 3), long_ago + i, KEY), long_ago + i)
        for i in range(30)
    ]
    forged = Message("plant/pump/x", messages[0].payload[:-1] + b"!", long_ago + 40)
    told = {"s": {"topic": "plant/{device}/{channel}", "keys_file": "/etc/shadow", "sender": "{device}"}}
    log, table = tmp_path / "day.jsonl", tmp_path / "pump.csv"
    log.write_bytes(
        recorded.word("begin", long_ago, filters=["plant/#"], streams=told)
        + b"".join(recorded.line(m) for m in [*messages, forged, messages[3]])
    )
    table.write_text("time,x\n" + "".join(f"{(T0 + 1000 * i) / 1000},{i % 3}\n" for i in range(30)))
    out = ["--output", str(tmp_path / "out.jsonl")]
    for words, accounts in (
        ([str(log), "-c", str(tmp_path / "agent.toml")], "30 accepted  2 invalid"),
        ([str(log)], "0 accepted  32 invalid"),  # nobody here has the keys: what is signed is no number
        ([str(table), "-c", str(tmp_path / "agent.toml")], "30 accepted"),
    ):
        assert cli.main(["replay", *words, *out]) == 0
        assert accounts in capsys.readouterr().err
