"""What systemd hears of the agent, over a real socket."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.edge.assembly import build_pipeline
from transom.edge.reports import Sentence
from transom.edge.service import Agent
from transom.edge.systemd import START_EVERY, Supervisor
from transom.settings import load_settings


class Manager:
    """Where systemd would listen."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(20)

    def heard(self) -> list[str]:
        """All that waits."""
        self._socket.setblocking(False)
        told: list[str] = []
        while True:
            try:
                told += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return told

    def wait_for(self, start: str) -> list[str]:
        """All up to a line that starts so, as soon as that has come."""
        self._socket.settimeout(20)
        told: list[str] = []
        while not any(line.startswith(start) for line in told):
            told += self._socket.recv(4096).decode().splitlines()
        return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def test_without_systemd_nothing_is_sent_and_nobody_watches() -> None:
    supervisor = Supervisor({})
    supervisor.alive()
    supervisor.say_ready("watching")
    assert not supervisor
    assert not supervisor.asks
    assert supervisor.watchdog is None


def test_signs_of_life_come_four_times_in_the_time_of_the_watchdog_and_only_after_the_start(
    manager: Manager, tmp_path: Path
) -> None:
    present = [0.0]
    given = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())}
    supervisor = Supervisor(given, lambda: present[0])
    for present[0] in (0.0, 1.0, START_EVERY):
        supervisor.alive()
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=90000000"] * 2
    supervisor.say_ready("watching")
    assert manager.heard() == ["READY=1", "STATUS=watching"]
    for tenth in range(101, 161):
        present[0] = tenth / 10
        supervisor.alive()
    assert manager.heard() == ["WATCHDOG=1"] * 3


def test_a_watchdog_for_another_process_is_not_fed() -> None:
    assert Supervisor({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog is None
    assert Supervisor({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000"}).watchdog == 1.0


def test_an_abstract_socket_is_reached() -> None:
    name = f"transom-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    try:
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}).say("one\nline")
        assert manager.heard() == ["STATUS=one line"]
    finally:
        manager.close()


def test_a_socket_that_is_gone_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "none")})
    with caplog.at_level(logging.WARNING, "transom"):
        for word in ("a", "b", "c"):
            supervisor.say(word)
    assert len(caplog.records) == 1


def agent(port: int, folder: Path, supervisor: Supervisor) -> Agent:
    settings = load_settings(None, {
        "agent": {"id": "gw", "state": str(folder / "state")}, "broker": {"port": port},
        "streams": {"s": {"topic": "plant/{device}/{channel}"}},
    })  # fmt: skip
    return Agent(settings, build_pipeline(settings), supervisor=supervisor)


def test_the_agent_says_ready_when_it_is_subscribed(mosquitto_broker, manager: Manager, tmp_path: Path) -> None:
    mosquitto_broker.stop()
    given = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    one, stop = agent(mosquitto_broker.port, tmp_path, Supervisor(given)), threading.Event()
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    try:
        before = manager.wait_for("STATUS=waiting for the broker: 127.0.0.1")
        assert not {"READY=1", "WATCHDOG=1"} & set(before)
        assert "EXTEND_TIMEOUT_USEC=90000000" in before
        mosquitto_broker.start()
        manager.wait_for("READY=1")
        assert one.ready.is_set() or one.ready.wait(10)
        manager.wait_for("WATCHDOG=1")
    finally:
        stop.set()
        thread.join(20)
    assert "STOPPING=1" in manager.heard()


def test_the_sentence_tells_of_load_and_problems() -> None:
    sentence, nan = Sentence(), float("nan")
    counts = {"s": {"received": 10, "series": 2, "alerts": 1}}
    assert sentence.running(counts, nan, [], 0.0) == "watching 2 series in 1 stream, 1 alert raised so far"
    counts["s"]["received"] = 30
    told = sentence.running(counts, 8.4, ["the journal is off: disk full"], 5.0)
    assert told == (
        "watching 2 series in 1 stream, 4.0 readings/s, p50 8 ms, 1 alert raised so far; the journal is off: disk full"
    )
    assert sentence.waiting("h:1", "refused", before=True) == "connection lost, trying again: h:1: refused"
