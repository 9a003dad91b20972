"""The run loop with its real parts in one process: poison, degraded starts, reloads, and outages that are no silence."""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests_support import Heard
from transom.core.pipeline import Message, Pipeline, Turn
from transom.edge import journal, service
from transom.edge.assembly import Assembly, build_pipeline
from transom.edge.reload import Reload
from transom.edge.service import Agent
from transom.edge.turns import Done
from transom.errors import SettingsError
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto


def settings(tmp_path: Path, port: int, **streams: dict[str, Any]) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gw", "state": str(tmp_path / "state"), "health_every": "200ms", "commit_every": "50ms"},
        "broker": {"port": port}, "streams": streams or {"s": {"topic": "plant/{device}/{channel}"}},
    })  # fmt: skip


@contextmanager
def running(agent: Agent) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        assert agent.ready.wait(30)
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def counts_of(heard: Heard, there: Callable[[dict[str, int]], bool], stream: str = "s") -> dict[str, int]:
    """The accounts as told on BASE/health, as soon as `there` holds of them."""

    def told(messages: dict[str, list[bytes]]) -> bool:
        last = messages.get("transom/gw/health", [])
        return bool(last) and there(json.loads(last[-1])["streams"][stream])

    heard.wait_until(told, 30)
    counts: dict[str, int] = json.loads(heard.messages["transom/gw/health"][-1])["streams"][stream]
    assert counts["received"] == sum(counts[k] for k in ("accepted", "invalid", "duplicate", "late", "shed"))
    return counts


class Poisoned:
    """A model that raises for one value: stands for any message that no code of ours can digest."""

    def __init__(self, model: Any) -> None:
        self._model, self.manifest, self.sha256 = model, model.manifest, model.sha256

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        if (values == 666).any():
            raise RuntimeError("cannot digest 666")
        return self._model.infer(values)


def test_a_poisonous_message_blocks_no_other(mosquitto_broker, tmp_path: Path) -> None:
    chosen = settings(tmp_path, mosquitto_broker.port)
    built = build_pipeline(chosen).pipeline
    pipeline = Pipeline([(s.spec, Poisoned(s.model)) for s in built.streams.values()], built.own_prefix)
    agent = Agent(chosen, Assembly(pipeline, {}))
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
        for i in range(60):
            other.client.publish(f"plant/d{i % 3}/x", b"666" if i == 55 else b"%d" % (i % 5), 1)
        counts = counts_of(other, lambda c: c["received"] == 60)
        assert (counts["accepted"], counts["invalid"]) == (59, 1)
        letter = json.loads(other.wait_for("transom/gw/s/dead-letter"))
        assert "cannot digest 666" in letter["reason"]
    again = Agent(chosen, build_pipeline(chosen))
    with running(again):
        assert again.pipeline.accounts()["s"]["accepted"] == 59


@pytest.mark.parametrize("durability", ["process", "none"])
def test_many_poisonous_messages_end_nothing_and_cost_no_window(
    mosquitto_broker, tmp_path: Path, durability: str
) -> None:
    chosen = settings(tmp_path, mosquitto_broker.port)
    chosen = chosen.model_copy(update={"agent": chosen.agent.model_copy(update={"durability": durability})})
    built = build_pipeline(chosen).pipeline
    pipeline = Pipeline([(s.spec, Poisoned(s.model)) for s in built.streams.values()], built.own_prefix)
    agent = Agent(chosen, Assembly(pipeline, {}))
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
        for i in range(60):
            other.client.publish(f"plant/d{i % 3}/x", b"%d" % (i % 5), 1)
        counts_of(other, lambda c: c["received"] == 60)
        for n in range(12):
            other.client.publish("plant/d0/x", b"666", 1)
            counts_of(other, lambda c, n=n: c["invalid"] == n + 1)
        other.client.publish("plant/d0/x", b"1", 1)
        counts = counts_of(other, lambda c: c["received"] == 73)
        assert (counts["accepted"], counts["invalid"], counts["series"]) == (61, 12, 3)


def test_an_error_that_escapes_saves_what_was_whole_and_no_more(mosquitto_broker, tmp_path: Path, monkeypatch) -> None:
    chosen = settings(tmp_path, mosquitto_broker.port)
    agent, stop, errors = Agent(chosen, build_pipeline(chosen)), threading.Event(), []

    def run() -> None:
        try:
            agent.run(stop)
        except SystemError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert agent.ready.wait(30)
    take, turns = agent.pipeline.take, agent._turns

    def half(turn: Turn) -> Any:
        result = take(turn)
        if any(m.payload == b"13" for m in turn.messages):
            raise SystemError("in the midst of it")
        return result

    with Heard(mosquitto_broker.port, "transom/#") as other:
        for i in range(10):
            other.client.publish("plant/a/x", b"%d" % i, 1)
        counts_of(other, lambda c: c["accepted"] == 10)
        monkeypatch.setattr(agent.pipeline, "take", half)
        monkeypatch.setattr(turns, "_whole", lambda work: Done(work, *turns._take(agent.pipeline, work.turn)))
        other.client.publish("plant/a/x", b"13", 1)
        thread.join(20)
    assert len(errors) == 1
    assert agent.pipeline.accounts()["s"]["accepted"] == 11
    again = Agent(chosen, build_pipeline(chosen))
    with Heard(mosquitto_broker.port, "transom/#") as other, running(again):
        counts_of(other, lambda c: c["accepted"] == 11)  # it was not acknowledged, comes again, and is no redelivery
        assert again.keeper.redelivered.count == 0


def test_a_stream_without_its_model_leaves_the_others_to_run_and_is_named(mosquitto_broker, tmp_path: Path) -> None:
    topic = {"topic": "plant/{device}/{channel}"}
    chosen = settings(tmp_path, mosquitto_broker.port, a=topic, b=topic | {"model": "missing.pt"}, c=topic)
    assembly = build_pipeline(chosen)
    assert (list(assembly.pipeline.streams), list(assembly.broken)) == (["a", "c"], ["b"])
    with Heard(mosquitto_broker.port, "transom/#") as other, running(Agent(chosen, assembly)):
        status = json.loads(other.wait_for("transom/gw/status"))
        assert status["state"] == "online"
        assert "streams.b" in status["problems"][0]
        info = json.loads(other.wait_for("transom/gw/info"))
        assert [s["stream"] for s in info["streams"] if "error" in s] == ["b"]
        other.client.publish("plant/d/x", b"1", 1)
        counts_of(other, lambda c: c["accepted"] == 1, "a")


def test_no_stream_that_can_run_is_a_refused_configuration(tmp_path: Path) -> None:
    topic = {"topic": "plant/{device}/{channel}", "model": "missing.pt"}
    with pytest.raises(SettingsError) as refused:
        build_pipeline(settings(tmp_path, 1883, a=topic, b=topic))
    assert len(refused.value.problems) == 2


def test_an_outage_of_the_broker_is_no_silence_of_the_sensors(mosquitto_broker, tmp_path: Path) -> None:
    stream = {"topic": "plant/{device}/{channel}", "step": "100ms", "max_gap": "1s", "no_data": True}
    chosen = settings(tmp_path, mosquitto_broker.port, s=stream)
    agent = Agent(chosen, build_pipeline(chosen))
    with running(agent):
        with Heard(mosquitto_broker.port, "transom/#") as other:
            other.client.publish("plant/a/x", b"1", 1)
            counts_of(other, lambda c: c["accepted"] == 1)
        mosquitto_broker.stop()
        gone = threading.Event()
        gone.wait(2.5)  # over max_gap: what is tested is that this time does not count
        mosquitto_broker.start()
        with Heard(mosquitto_broker.port, "transom/#") as other:
            other.wait_until(lambda heard: "transom/gw/status" in heard)
            for _ in range(1000):  # what comes before it has subscribed is nobody's
                if agent.connection is not None and agent.connection.ready:
                    break
                gone.wait(0.01)
            other.client.publish("plant/a/x", b"2", 1)
            assert counts_of(other, lambda c: c["accepted"] == 2)["stale"] == 0
            assert not any(topic.endswith("/alert") for topic in other.messages)
            raised = json.loads(other.wait_for("transom/gw/s/a/x/alert", seconds=20))  # now it is the sensor
            assert (raised["event"], raised["kind"]) == ("raise", "no-data")


def test_a_reload_changes_streams_and_keeps_the_windows_of_the_others(mosquitto_broker, tmp_path: Path) -> None:
    topic = {"topic": "plant/{device}/{channel}"}
    now = [settings(tmp_path, mosquitto_broker.port, s=topic)]
    reload = Reload(lambda: now[0], None)
    agent = Agent(now[0], build_pipeline(now[0]), reload=reload)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
        for i in range(20):
            other.client.publish("plant/a/x", b"%d" % i, 1)
        before = counts_of(other, lambda c: c["accepted"] == 20)
        now[0] = settings(tmp_path, mosquitto_broker.port, s=topic | {"threshold": 3.0}, t={"topic": "home/{room}"})
        reload.ask()
        counts_of(other, lambda c: c["received"] == 0, "t") if _told(other, "t") else None
        other.client.publish("plant/a/x", b"1", 1)
        after = counts_of(other, lambda c: c["accepted"] == 21)
        assert after["windows"] == before["windows"] + 1
        other.client.publish("home/kitchen", b"1", 1)
        counts_of(other, lambda c: c["accepted"] == 1, "t")


def test_a_reload_while_the_disk_refuses_ends_nothing(mosquitto_broker, tmp_path: Path, monkeypatch) -> None:
    topic = {"topic": "plant/{device}/{channel}"}
    now = [settings(tmp_path, mosquitto_broker.port, s=topic)]
    reload = Reload(lambda: now[0], None)
    agent = Agent(now[0], build_pipeline(now[0]), reload=reload)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(journal, "_write_notes", full)
            now[0] = settings(tmp_path, mosquitto_broker.port, s=topic, t={"topic": "home/{room}"})
            reload.ask()
            _told(other, "t")
            other.wait_until(lambda heard: b"disk is full" in heard["transom/gw/status"][-1])
            other.client.publish("home/kitchen", b"1", 1)
            counts_of(other, lambda c: c["accepted"] == 1, "t")
        agent.keeper._retry = 0.0
        other.wait_until(lambda heard: b"disk is full" not in heard["transom/gw/status"][-1])


def test_a_reload_applies_what_it_can_and_tells_of_the_rest(mosquitto_broker, tmp_path: Path, caplog) -> None:
    now = [settings(tmp_path, mosquitto_broker.port)]
    reload = Reload(lambda: now[0], None)
    agent = Agent(now[0], build_pipeline(now[0]), reload=reload)
    level = logging.getLogger("transom").level
    try:
        with running(agent):
            changed = {"commit_every": 7000, "outbox": 5, "max_age": 9000, "inbox": 12, "log_level": "error"}
            now[0] = now[0].model_copy(update={"agent": now[0].agent.model_copy(update=changed)})
            caplog.set_level("WARNING")
            reload.ask()
            end = time.monotonic() + 30
            while agent.settings is not now[0] and time.monotonic() < end:
                time.sleep(0.05)
            assert agent.keeper.linger.longest == 7.0
            assert (agent.outbox.limit, agent.outbox.max_age) == (5, 9000)
            assert logging.getLogger("transom").level == logging.ERROR
    finally:
        logging.getLogger("transom").setLevel(level)
    told = [r.getMessage() for r in caplog.records if "started again" in r.getMessage()]
    assert told == ["takes effect when the agent is started again: agent.inbox"]


def _told(heard: Heard, stream: str) -> bool:
    heard.wait_until(
        lambda m: bool(m.get("transom/gw/health")) and stream in json.loads(m["transom/gw/health"][-1])["streams"], 30
    )
    return True


def test_a_reload_that_cannot_be_read_changes_nothing_and_says_every_problem(tmp_path: Path, caplog) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[streams.s]\ntopic = "plant/{device}/{channel}"\n')
    reload = Reload(lambda: load_settings(path, {}), path)
    current = load_settings(path, {})
    path.write_text('[streams.s]\ntopik = "x"\n[agent]\nport = 1\n')
    reload.ask()
    deadline = time.monotonic() + 20

    def refused(key: str) -> bool:
        return any(key in line and "the old one goes on" in line for line in (r.getMessage() for r in caplog.records))

    while not (refused("topik") and refused("agent.port")) and time.monotonic() < deadline:
        assert reload.take(current) is None
    assert refused("topik")
    assert refused("agent.port")


def test_what_is_fixed_cannot_be_reloaded(tmp_path: Path, caplog) -> None:
    topic = {"s": {"topic": "plant/{device}/{channel}"}}
    current = load_settings(None, {"agent": {"id": "one"}, "streams": topic})
    reload = Reload(lambda: load_settings(None, {"agent": {"id": "two"}, "streams": topic}), None)
    reload.ask()
    deadline = time.monotonic() + 20
    while not any("agent.id" in r.getMessage() for r in caplog.records) and time.monotonic() < deadline:
        assert reload.take(current) is None
    assert any("restart the agent to change it" in r.getMessage() for r in caplog.records)


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(mosquitto_broker, tmp_path: Path) -> None:
    mosquitto_broker.stop()
    chosen = settings(tmp_path, mosquitto_broker.port)
    agent, stop = Agent(chosen, build_pipeline(chosen)), threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        assert not agent.ready.wait(0.5)
        mosquitto_broker.start()
        assert agent.ready.wait(30)
    finally:
        stop.set()
        thread.join(20)


def test_what_cannot_be_processed_before_the_end_is_counted(mosquitto_broker, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(service, "DRAIN", 0.0)
    monkeypatch.setattr(service, "PORTION", 10)
    chosen = settings(tmp_path, mosquitto_broker.port)
    agent = Agent(chosen, build_pipeline(chosen))
    with running(agent):
        pass
    messages = [Message("plant/a/x", b"1", 1_700_000_000_000 + i) for i in range(25)]
    late = Agent(chosen, build_pipeline(chosen))
    late._connect({})
    for message in messages:
        late.inbox.put(message)
    late._restore()
    late._close()
    counts = late.pipeline.accounts()["s"]
    assert (counts["received"], counts["accepted"], counts["shed"]) == (25, 10, 15)


def test_a_sensor_that_ages_is_told_of_on_health(mosquitto_broker, tmp_path: Path) -> None:
    chosen = settings(tmp_path, mosquitto_broker.port)
    agent = Agent(chosen, build_pipeline(chosen))

    def drifting(messages: dict[str, list[bytes]]) -> bool:
        return any(json.loads(m)["drift"]["channels"] for m in messages.get("transom/gw/health", [])[-1:])

    with Heard(mosquitto_broker.port, "transom/gw/health") as other, running(agent):
        for hour in range(30 * 24):
            value = 20 + hour % 24 / 12 + 3 * hour / 24 / 30
            body = json.dumps({"value": value, "time": 1_700_006_400 + 3600 * hour})
            other.client.publish("plant/tank/level", body, 1)
        other.wait_until(drifting, 120)
        (found,) = json.loads(other.messages["transom/gw/health"][-1])["drift"]["largest"]
        assert (found["stream"], found["series"], found["channel"]) == ("s", "tank/level", "level")
        assert found["since"].startswith("2023-11-1")
        assert found["summary"].startswith("level drifts: 2")
        assert found["moved"] == pytest.approx(found["now"] - found["before"], rel=1e-3)
    again = Agent(chosen, build_pipeline(chosen))
    with running(again):
        assert again.pipeline.drifting()[0] == 1
