"""Shared fixtures: real brokers, and the recordings.

What is missing skips with its reason; with TRANSOM_NO_SKIP=1 it fails instead.
"""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from ports import free_port

from transom.edge.broker import EmbeddedBroker

settings.register_profile(
    "transom", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("transom")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, the file that waits longest comes first; the others fit in beside it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("fault") is None)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A verb that runs in the test's process sets up the log for a standard error that is the test's alone."""
    ours = logging.getLogger("transom")
    handlers, level, propagate = list(ours.handlers), ours.level, ours.propagate
    yield
    ours.handlers[:], ours.propagate = handlers, propagate
    ours.setLevel(level)


def missing(reason: str) -> None:
    """Skips the test, or fails it where nothing may be missing."""
    if os.environ.get("TRANSOM_NO_SKIP") == "1":
        pytest.fail(f"nothing may be missing here: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of recordings: $TRANSOM_DATA, else ../shared/data beside the project."""
    folder = Path(os.environ.get("TRANSOM_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not (folder / "nab").is_dir():
        missing(f"no recordings in {folder} (set TRANSOM_DATA)")
    return folder


@dataclass(frozen=True)
class Mosquitto:
    """A running mosquitto. stop and start as often as wanted, on the same port."""

    port: int
    folder: Path
    start: Callable[[], None]
    stop: Callable[[], None]


def _wait_listening(port: int) -> None:
    """It says that it runs before it accepts."""
    for _ in range(1000):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail("mosquitto does not listen")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Makes brokers: `mosquitto("allow_anonymous true", …)`; {port} in a line is the free port that it listens on."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        missing("mosquitto is not installed (apt install mosquitto)")
    running: list[Mosquitto] = []

    def make(*lines: str) -> Mosquitto:
        port = free_port()
        folder = tmp_path / f"mosquitto-{port}"
        folder.mkdir()
        config = folder / "mosquitto.conf"
        body = lines or ("allow_anonymous true",)
        log = ["log_type all", "connection_messages true", "user root"]
        config.write_text("\n".join([f"listener {port} 127.0.0.1", *log, *body]) + "\n")
        box: dict[str, subprocess.Popen[str]] = {}
        readers: list[threading.Thread] = []

        def start() -> None:
            process = subprocess.Popen([str(binary), "-c", str(config)], stderr=subprocess.PIPE, text=True)
            box["process"] = process
            up = threading.Event()

            def read() -> None:
                assert process.stderr is not None
                for line in process.stderr:
                    if "running" in line or "Error" in line:
                        up.set()
                up.set()

            readers.append(threading.Thread(target=read, daemon=True))
            readers[-1].start()
            assert up.wait(10), "mosquitto does not start"
            assert process.poll() is None, "mosquitto ended at once"
            _wait_listening(port)

        def stop() -> None:
            process = box.pop("process", None)
            if process is not None:
                for _ in range(20):  # one that has just begun does not hear the first
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(1)
                        break
                else:
                    process.kill()
                    process.wait(10)
                assert process.stderr is not None
                readers.pop().join(10)  # it reads to the end: a pipe that is closed under it would raise
                process.stderr.close()

        broker = Mosquitto(port, folder, start, stop)
        start()
        running.append(broker)
        return broker

    yield make
    for broker in running:
        broker.stop()


@pytest.fixture
def mosquitto_broker(mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A mosquitto that lets anyone in and queues without limit."""
    return mosquitto(
        "allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 200", "set_tcp_nodelay true"
    )


@pytest.fixture
def amqtt_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker
