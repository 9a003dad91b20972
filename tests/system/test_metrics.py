"""The agent as Prometheus sees it, with real brokers: the figures are those of health, and readiness follows the broker."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from conftest import Mosquitto
from tests_metrics import Samples, ask, samples_of
from tests_support import Heard
from transom.edge import web
from transom.edge.assembly import build_pipeline
from transom.edge.broker import EmbeddedBroker
from transom.edge.exposition import AGENT, FATES, STREAM
from transom.edge.reload import Reload
from transom.edge.service import Agent
from transom.settings import Settings, load_settings

ASK = 'import sys, urllib.request as u; print(u.urlopen("http://" + sys.argv[1]).read().decode(), end="")'
GUIDE = (Path(__file__).parents[2] / "docs" / "grafana.md").read_text()


def settings(tmp_path: Path, broker: int, http: int) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gw", "state": str(tmp_path / "state"), "health_every": "200ms", "commit_every": "50ms"},
        "broker": {"port": broker}, "http": {"port": http},
        "streams": {"s": {"topic": "plant/{device}/{channel}"}},
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


def until(there: Callable[[], Any], seconds: float = 30) -> Any:
    """What `there` gives, as soon as it is true; asks again several times a second."""
    for _ in range(int(seconds * 10)):
        found = there()
        if found:
            return found
        threading.Event().wait(0.1)
    raise AssertionError(f"not within {seconds} s")


def figures(port: int) -> Samples:
    status, body = ask(port, "/metrics")
    assert status == 200, body
    return samples_of(body.encode())


def received(port: int) -> float:
    return figures(port)["transom_readings_received_total", (("stream", "s"),)]


@pytest.mark.mosquitto
def test_the_figures_are_those_of_health(mosquitto_broker: Mosquitto, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(web, "EVERY", 0.05)
    port = free_port()
    chosen = settings(tmp_path, mosquitto_broker.port, port)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(Agent(chosen, build_pipeline(chosen))):
        for i in range(200):
            other.client.publish(f"plant/d{i % 4}/x", b"no" if i % 50 == 7 else b"%d" % (i % 5), 1)
        until(lambda: received(port) == 200)
        other.wait_until(lambda heard: health(heard)["streams"]["s"]["received"] == 200)
        before = len(other.messages["transom/gw/health"])
        other.wait_until(lambda heard: len(heard["transom/gw/health"]) > before)
        body, found = health(other.messages), figures(port)
        counts = body["streams"]["s"]
        assert (counts["accepted"], counts["invalid"], counts["series"]) == (196, 4, 4)
        for key, figure in STREAM.items():
            name = figure.name + "_total" * figure.counter
            assert found[name, (("stream", "s"),)] == counts[key], name
        for fate in FATES:
            assert found["transom_readings_total", (("fate", fate), ("stream", "s"))] == counts[fate]
        moving = {"cpu_s", "rss_bytes", "uptime_s", "published"}  # from one moment to the next
        for path, figure in AGENT.items():
            value = body[path[0]] if len(path) == 1 else body[path[0]][path[1]]
            if path[-1] not in moving:
                found_value = found.get((figure.name + "_total" * figure.counter, ()))  # no certificate, no figure
                assert found_value == value, path
        assert found["transom_latency_seconds_count", ()] == 200
        assert ask(port, "/readyz") == (200, "ready\n")
    assert_closed(port)


def health(heard: dict[str, list[bytes]]) -> dict[str, Any]:
    told = heard.get("transom/gw/health", [])
    body: dict[str, Any] = json.loads(told[-1]) if told else {"streams": {"s": {"received": -1}}}
    return body


def assert_closed(port: int) -> None:
    with pytest.raises(OSError, match="refused"):
        ask(port, "/healthz")


@pytest.mark.mosquitto
def test_readiness_follows_the_broker_and_health_does_not(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    port = free_port()
    chosen = settings(tmp_path, mosquitto_broker.port, port)
    with running(Agent(chosen, build_pipeline(chosen))):
        until(lambda: ask(port, "/readyz")[0] == 200)
        mosquitto_broker.stop()
        assert until(lambda: (a := ask(port, "/readyz"))[0] == 503 and a[1]) == "no connection to the broker\n"
        assert ask(port, "/healthz") == (200, "ok\n")
        assert figures(port)["transom_connected", ()] == 0
        mosquitto_broker.start()
        until(lambda: ask(port, "/readyz")[0] == 200)
        assert figures(port)["transom_broker_connects_total", ()] == 2


@pytest.mark.mosquitto
def test_a_port_that_is_taken_costs_no_reading_and_stands_on_status(
    mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = settings(tmp_path, mosquitto_broker.port, port)
        agent = Agent(chosen, build_pipeline(chosen))
        with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
            other.client.publish("plant/d/x", b"1", 1)
            other.wait_until(lambda heard: health(heard)["streams"]["s"]["received"] == 1)
            (problem,) = json.loads(other.wait_for("transom/gw/status"))["problems"]
            assert problem == f"http.port: cannot listen at 127.0.0.1:{port}: Address already in use"


@pytest.mark.mosquitto
def test_a_reload_takes_the_port_along(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    chosen = [settings(tmp_path, mosquitto_broker.port, port) for port in ports]
    reload = Reload(lambda: chosen[1], None)
    with running(Agent(chosen[0], build_pipeline(chosen[0]), reload=reload)):
        until(lambda: ask(ports[0], "/readyz")[0] == 200)
        reload.ask()

        def moved() -> bool:
            try:
                return ask(ports[1], "/readyz")[0] == 200
            except OSError:
                return False

        until(moved)
        assert_closed(ports[0])


def test_the_embedded_broker_does_as_well(amqtt_broker: EmbeddedBroker, tmp_path: Path) -> None:
    port = free_port()
    chosen = settings(tmp_path, amqtt_broker.port, port)
    with Heard(amqtt_broker.port, "transom/#") as other, running(Agent(chosen, build_pipeline(chosen))):
        for i in range(20):
            other.client.publish("plant/d/x", b"%d" % i, 1)
        until(lambda: received(port) == 20)


@pytest.mark.mosquitto
def test_the_guides_commands_run_and_its_table_names_every_metric(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    port = free_port()
    assert tomllib.loads(re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[0]) == {"http": {"port": 9099}}
    chosen = settings(tmp_path, mosquitto_broker.port, port)
    (block,) = [b for b in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) if "curl" in b]
    with running(Agent(chosen, build_pipeline(chosen))):
        until(lambda: ask(port, "/readyz")[0] == 200)
        command = block.replace(":9099", f":{port}")
        if shutil.which("curl") is None:
            command = f"curl() {{ {sys.executable} -c '{ASK}' \"$2\"; }}\n{command}"
        told = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, timeout=60, check=True).stdout
        assert told.endswith("\nok\nready\n")
        found = figures(port)
    table = GUIDE.partition("## The metrics")[2]
    named = set(re.findall(r"`((?:transom|process)_\w+)`", table))
    named |= {f"transom_messages{rest}" for rest in re.findall(r"`…(_\w+)`", table)}
    given = {re.sub(r"(?<=latency_seconds)_(bucket|sum|count)$", "", name) for name, _ in found}
    assert named == given
    of_stream = sum("stream" in dict(labels) for _, labels in found)
    assert f"{len(found) - of_stream} samples and {of_stream} for each stream" in GUIDE
