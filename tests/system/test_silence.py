"""Who is silent, and who is late: sensors, the link, or the agent itself."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_run import Process
from test_service import counts_of, running, settings

from tests_support import Heard, Line
from transom.core.pipeline import Pipeline
from transom.edge.assembly import Assembly, build_pipeline
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection
from transom.edge.service import Agent
from transom.edge.wire import WINDOW, BrokerOptions

pytestmark = pytest.mark.mosquitto

WATCHED = {"topic": "plant/{device}/{channel}", "step": "100ms", "max_gap": "2s", "no_data": True}


@contextmanager
def sensors(other: Heard, names: str) -> Iterator[None]:
    """Each publishes ten times a second."""
    stop = threading.Event()

    def go() -> None:
        while not stop.wait(0.1):
            for name in names:
                other.client.publish(f"plant/{name}/x", b"1", 1)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def alerts(heard: Heard) -> list[str]:
    return [topic for topic in heard.messages if topic.endswith("/alert")]


def test_a_link_that_is_half_open_is_no_silence_of_the_sensors(mosquitto_broker, tmp_path: Path) -> None:
    with Line(mosquitto_broker.port) as line, Heard(mosquitto_broker.port, "transom/#") as other:
        chosen = settings(tmp_path, line.port, s=WATCHED)
        agent = Agent(chosen, build_pipeline(chosen))
        with running(agent), sensors(other, "ab"):
            counts_of(other, lambda c: c["accepted"] > 20)
            line.silent = True
            time.sleep(4)  # twice max_gap
            line.silent = False
            before = len(other.messages["transom/gw/health"])
            other.wait_until(lambda m: len(m["transom/gw/health"]) > before + 15)
            assert counts_of(other, lambda c: c["accepted"] > 40)["stale"] == 0
            assert alerts(other) == []
            with sensors(other, "c"):
                counts_of(other, lambda c: c["series"] == 3)
            raised = json.loads(other.wait_for("transom/gw/s/c/x/alert"))  # now it is the sensor, and others go on
            assert (raised["event"], raised["kind"]) == ("raise", "no-data")
            assert alerts(other) == ["transom/gw/s/c/x/alert"]


def test_a_sensor_that_stops_on_a_link_without_other_traffic_is_told_of(mosquitto_broker, tmp_path: Path) -> None:
    """Nothing else arrives, so the broker is asked for a sign of life."""
    chosen = settings(tmp_path, mosquitto_broker.port, s=WATCHED)
    chosen = chosen.model_copy(update={"agent": chosen.agent.model_copy(update={"health_every": 60_000})})
    with Heard(mosquitto_broker.port, "transom/gw/s/#") as other, running(Agent(chosen, build_pipeline(chosen))):
        other.client.publish("plant/a/x", b"1", 1)
        raised = json.loads(other.wait_for("transom/gw/s/a/x/alert"))
        assert (raised["event"], raised["kind"]) == ("raise", "no-data")


def test_a_stopped_process_takes_no_sensor_for_silent_and_tells_its_health_once(
    mosquitto_broker, tmp_path: Path
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[agent]\nid = "gw"\nstate = "{tmp_path / "state"}"\nhealth_every = "1s"\n'
        f"[broker]\nport = {mosquitto_broker.port}\n"
        '[streams.s]\ntopic = "plant/{device}/{channel}"\nstep = "100ms"\nmax_gap = "2s"\nno_data = true\n'
    )
    with Heard(mosquitto_broker.port, "transom/#") as other:
        agent = Process(path)
        agent.wait_for("ready")
        with sensors(other, "ab"):
            counts_of(other, lambda c: c["accepted"] > 20)
            told = len(other.messages["transom/gw/health"])
            agent._process.send_signal(signal.SIGSTOP)
            time.sleep(6)
            agent._process.send_signal(signal.SIGCONT)
            accepted = json.loads(other.messages["transom/gw/health"][-1])["streams"]["s"]["accepted"]
            counts = counts_of(other, lambda c: c["accepted"] > accepted + 60)
            assert len(other.messages["transom/gw/health"]) - told < 5  # not one for each second that it was stopped
            assert counts["stale"] == 0
            assert alerts(other) == []
        assert agent.stop() == 0


class Slow:
    """A model that cannot keep up with readings that come faster than once in a while."""

    def __init__(self, model: Any) -> None:
        self._model, self.manifest, self.sha256 = model, model.manifest, model.sha256

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(1.2)
        return self._model.infer(values)


@pytest.mark.parametrize("qos", [0, 1])
def test_an_agent_that_cannot_keep_up_says_so_and_says_when_it_can_again(
    qos: int, mosquitto_broker, tmp_path: Path
) -> None:
    chosen = settings(tmp_path, mosquitto_broker.port)
    chosen = chosen.model_copy(update={"broker": chosen.broker.model_copy(update={"qos": qos})})
    built = build_pipeline(chosen).pipeline
    pipeline = Pipeline([(s.spec, Slow(s.model)) for s in built.streams.values()], built.own_prefix)

    def overloaded(health: list[bytes]) -> bool:
        return any(json.loads(h)["overloaded"] for h in health)

    with Heard(mosquitto_broker.port, "transom/gw/health") as other, running(Agent(chosen, Assembly(pipeline, {}))):
        with sensors(other, "abc"):
            other.wait_until(lambda m: overloaded(m.get("transom/gw/health", [])), 60)
        other.wait_until(lambda m: not overloaded(m["transom/gw/health"][-1:]), 60)


@pytest.mark.parametrize(("protocol", "window"), [("5", WINDOW), ("3.1.1", 20)])
def test_a_broker_that_has_to_wait_for_acknowledgements_is_noticed(protocol: str, window: int, mosquitto) -> None:
    broker = mosquitto("allow_anonymous true", "max_inflight_messages 20", "max_queued_messages 0")
    inbox, count = Inbox(10_000), window + 10
    options = BrokerOptions(port=broker.port, session=60, protocol=protocol)  # type: ignore[arg-type]
    connection = Connection(options, filters=["plant/#"], inbox=inbox)
    connection.start()
    try:
        assert connection.wait_ready(10)
        assert connection.held_back == 0
        with Heard(broker.port, "t/#") as other:
            for i in range(count):
                other.client.publish("plant/a/x", b"%d" % i, 1)
            taken: list[Any] = []
            while len(taken) < count:
                assert inbox.wait(10)
                _, tokens, *_ = inbox.drain()
                taken += tokens
                if len(taken) == window:
                    assert connection.held_back == 1
                    connection.acknowledge(taken)
            connection.acknowledge(taken[window:])
            assert connection.held_back == 0
    finally:
        connection.close(None, 1.0)


def test_closing_over_a_link_that_takes_nothing_keeps_to_its_time(mosquitto_broker) -> None:
    with Line(mosquitto_broker.port) as line:
        connection = Connection(BrokerOptions(port=line.port), filters=["plant/#"], inbox=Inbox(10))
        connection.start()
        assert connection.wait_ready(10)
        line.silent = True
        ended = threading.Event()
        closing = threading.Thread(target=lambda: (connection.close(("t/status", b"x", 1, True), 0.5), ended.set()))  # type: ignore[func-returns-value]
        closing.start()
        assert ended.wait(1.5)  # the promise is a time: a third as much again for a slow machine
        closing.join()
