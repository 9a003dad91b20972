"""config/mosquitto as it is shipped: with it all works, and each line that is taken out breaks what its comment says."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.reasoncodes import ReasonCode
from ports import free_port
from test_service import running

from conftest import Mosquitto, missing
from tests_support import Distance
from transom.core.pipeline import Pipeline
from transom.core.stream import StreamSpec
from transom.edge import homeassistant
from transom.edge.assembly import Assembly
from transom.edge.checkup import Finding, broker, trial
from transom.edge.service import Agent
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

SHIPPED = Path(__file__).parents[2] / "config" / "mosquitto"
USERS = ("transom", "dashboard", "operator", "homeassistant", "pump-1", "root")
BASE = "transom/gateway-7"
MINE = "homeassistant/device/transom-gateway-7"
ALL = {"readings", "publications", "calls", "announced", "announced anew", "tidied"}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all of them; each has the password "p"."""
    program = shutil.which("mosquitto_passwd") or missing("mosquitto_passwd is not installed (apt install mosquitto)")
    file = tmp_path_factory.mktemp("users") / "users"
    file.write_text("".join(f"{user}:p\n" for user in USERS))
    subprocess.run([str(program), "-U", str(file)], check=True, capture_output=True)
    return file


@pytest.fixture
def guarded(mosquitto: Callable[..., Mosquitto], users: Path, tmp_path: Path) -> Callable[..., int]:
    """Starts a broker with the shipped files, less the lines given; gives its port. The user root, who may do all,
    belongs to the test."""

    def start(*without: str) -> int:
        lines = (SHIPPED / "acl").read_text().splitlines()
        assert set(without) <= set(lines)
        acl = tmp_path / "acl"
        acl.write_text(
            "\n".join([line for line in lines if line not in without] + ["user root", "topic readwrite #", ""])
        )
        config = (SHIPPED / "transom.conf").read_text().split("# Everybody else")[0]
        config = config.replace("listener 1883 ", f"listener {free_port()} ")
        config = config.replace("/etc/mosquitto/transom.users", str(users)).replace(
            "/etc/mosquitto/transom.acl", str(acl)
        )
        return mosquitto(*config.splitlines(), f"persistence_location {tmp_path}/").port

    return start


class Person:
    """A client of MQTT 5 that logs in by name. heard: topic, payload, in order."""

    def __init__(self, port: int, user: str, *filters: str) -> None:
        self._changed = threading.Condition()
        self._answers: dict[int, ReasonCode] = {}
        self.heard: list[tuple[str, bytes]] = []
        self.client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set(user, "p")
        ready = threading.Event()
        client.on_connect = lambda c, *_: c.subscribe([(f, paho.SubscribeOptions(1)) for f in filters or ("none",)])
        client.on_subscribe = lambda *_: ready.set()
        client.on_message, client.on_publish = self._take, self._published
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert ready.wait(10)

    def _take(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.heard.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()

    def _published(self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _props: object) -> None:
        with self._changed:
            self._answers[mid] = reason
            self._changed.notify_all()

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Whether the broker took it."""
        mid = self.client.publish(topic, payload, 1, retain).mid
        with self._changed:
            assert self._changed.wait_for(lambda: mid in self._answers, 10)
            return not self._answers[mid].is_failure

    def hears(self, there: Callable[[list[tuple[str, bytes]]], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: there(self.heard), seconds)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client.on_connect = self.client.on_subscribe = self.client.on_message = self.client.on_publish = None


def configured(port: int, state: Path, **broker: Any) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gateway-7", "state": str(state), "health_every": "100ms", "commit_every": "50ms", "remote": ["ping"]},
        "broker": {"port": port, "username": "transom", "password": "p", **broker},
        "homeassistant": {"enabled": True}, "streams": {"s": {"topic": "plant/{site}/{device}/{channel}"}},
    })  # fmt: skip


def what_works(port: int, state: Path, patience: Callable[[str], float]) -> set[str]:
    """Runs an agent and tries all that it is for. patience: s that a thing is waited for."""
    chosen = configured(port, state)
    spec = StreamSpec("s", "plant/{site}/{device}/{channel}", threshold=20.0, budget=None)
    agent = Agent(chosen, Assembly(Pipeline([(spec, Distance())], own_prefix=f"{BASE}/"), {}))
    root = Person(port, "root", "transom/#", f"{MINE}/#")
    sensor, operator, home = (Person(port, user) for user in ("pump-1", "operator", "homeassistant"))
    found: set[str] = set()
    left = f"{MINE}/{homeassistant.ha.stream_mark('gone')}-0123456789/config"
    old = {"dev": {"ids": ["x"]}, "o": {"name": "Transom"}, "cmps": {"a": {"p": "sensor", "unique_id": "a"}}}

    def heard(name: str, there: Callable[[list[tuple[str, bytes]]], bool]) -> None:
        if root.hears(there, patience(name)):
            found.add(name)

    def told(topic: str, count: int = 1) -> Callable[[list[tuple[str, bytes]]], bool]:
        return lambda all_: sum(t == topic and bool(p) for t, p in all_) >= count

    try:
        assert root.send(left, json.dumps(old).encode(), retain=True)
        with running(agent):
            for value in (*range(5), 90):
                assert sensor.send("plant/hall/pump-1/x", b"%d" % value)
            of_agent = f"{MINE}/agent/config"
            heard("announced", told(of_agent))
            heard("tidied", lambda all_: (left, b"") in all_)
            assert home.send("homeassistant/status", b"online")
            heard("announced anew", told(of_agent, 2))
            heard("publications", lambda all_: {f"{BASE}/health", f"{BASE}/s/hall/pump-1/x/prediction",
                                                f"{BASE}/s/hall/pump-1/x/alert"} <= {t for t, _ in all_})  # fmt: skip
            assert operator.send(f"{BASE}/request/ping", b'{"id": 1}')
            heard("calls", told(f"{BASE}/response/ping"))
        if agent.pipeline.accounts()["s"]["accepted"] == 6:
            found.add("readings")
    finally:
        for one in (root, sensor, operator, home):
            one.close()
    return found


def findings(port: int, state: Path, **broker_: Any) -> list[Finding]:
    return list(broker.findings(configured(port, state, **broker_)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PACE", 0.0), ("SETTLE", 0.2), ("JITTER", 0.0), ("LOOK", 0.1)):
        monkeypatch.setattr(homeassistant, name, seconds)
    monkeypatch.setattr(trial, "LISTEN", 0.3)
    monkeypatch.setattr(broker, "mosquitto_findings", lambda _host: iter(()))


READ, WRITE, CALLS = "topic read plant/#", f"topic write {BASE}/#", f"topic read {BASE}/request/#"
BORN, DEVICES = "topic read homeassistant/status", f"topic readwrite {MINE}/#"


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("", set()),
        (READ, {"readings", "publications"}),  # of the publications those that tell of readings
        (WRITE, {"publications", "calls"}),
        (CALLS, {"calls"}),
        (BORN, {"announced anew"}),
        (DEVICES, {"announced", "announced anew", "tidied"}),
    ],
)  # fmt: skip
def test_each_line_for_the_agent_is_needed_and_the_doctor_names_the_one_that_lacks(
    guarded: Callable[..., int], quick: None, tmp_path: Path, line: str, broken: set[str]
) -> None:
    port = guarded(*([line] if line else []))
    assert what_works(port, tmp_path / "state", lambda name: 1.0 if name in broken else 15.0) == ALL - broken
    sensor = Person(port, "pump-1")
    assert sensor.send("plant/hall/pump-1/x", b"1", retain=True)  # so that there is something to be heard
    sensor.close()
    told = findings(port, tmp_path / "state")
    right = line.replace("plant/#", "plant/+/+/+")  # of the stream itself: the shipped file allows all of the plant
    named = [f for f in told if line and f"user transom, {right};" in f.mend]
    grave = [f for f in told if not f.note]
    if line in (
        "",
        READ,
        BORN,
    ):  # to be seen in a note: mosquitto does not say that something may not be read: these are notes
        assert grave == []
    else:
        assert grave == named
        assert named
    if line:
        assert len(named) == 1


def test_with_mqtt_3_1_1_the_doctor_finds_no_fault_with_the_shipped_rights(
    guarded: Callable[..., int], quick: None, tmp_path: Path
) -> None:
    assert [f for f in findings(guarded(), tmp_path / "state", protocol="3.1.1") if not f.note] == []


def test_a_sensor_writes_its_own_topics_only_and_a_dashboard_none(guarded: Callable[..., int]) -> None:
    port = guarded()
    root = Person(port, "root", "#")
    allowed = {
        ("pump-1", "plant/hall/pump-1/x"), ("transom", f"{BASE}/status"), ("operator", f"{BASE}/request/ping"),
        ("homeassistant", "homeassistant/status"), ("transom", f"{BASE}/request/ping"),
    }  # fmt: skip
    topics = [
        "plant/hall/pump-1/x", "plant/hall/pump-2/x", "plant/pump-1/x", "plant/hall/dashboard/x", "plant/hall/operator/x",
        "plant/hall/transom/x", "plant/hall/homeassistant/x", f"{BASE}/status", f"{BASE}/request/ping",
        "transom/gateway-8/status", "homeassistant/status", "homeassistant/device/other/config", "other",
    ]  # fmt: skip
    people = {user: Person(port, user, "#") for user in USERS if user != "root"}
    try:
        for user, one in people.items():
            for topic in topics:
                assert one.send(topic, user.encode()) == ((user, topic) in allowed), (user, topic)
        assert root.send("end", b"")
        assert root.hears(lambda all_: ("end", b"") in all_, 10)
        assert {(payload.decode(), topic) for topic, payload in root.heard if payload} == allowed
        # What a dashboard hears, and nothing else: mosquitto grants it the subscription to everything.
        assert root.send(f"{BASE}/end", b"")
        dashboard, sensor = people["dashboard"], people["pump-1"]
        assert dashboard.hears(lambda all_: (f"{BASE}/end", b"") in all_, 10)
        assert {topic for topic, _ in dashboard.heard} == {f"{BASE}/status", f"{BASE}/request/ping", f"{BASE}/end"}
        assert sensor.heard == []
    finally:
        for one in (root, *people.values()):
            one.close()
