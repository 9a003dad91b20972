"""A broker of the benchmark's own on a free port of 127.0.0.1: mosquitto where it is installed, else amqtt.

Gives the port and what the broker is good for; raises BenchError when neither starts.
"""

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transom.bench.processes import BenchError, Program

PLACES = ":/usr/sbin:/usr/local/sbin"  # where Debian and others have it, outside a user's PATH
TRIES = 5  # a port that was free may be taken a moment later
LISTENING = 10.0  # seconds
SETTINGS = (
    "allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 1000", "set_tcp_nodelay true",
    "log_dest stderr", "log_type error", "log_type warning", "log_type notice", "log_type information",
    "log_type subscribe",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Private:
    """port: on 127.0.0.1; name: for people; fast: False for amqtt, which is slower than what is measured."""

    port: int
    name: str
    fast: bool
    program: Program

    def wait_subscribed(self, client_id: str) -> None:
        """Returns once the broker has taken a subscription of this client (mosquitto says so in its log)."""
        if not self.program.wait_for(f"{client_id} ", LISTENING):
            raise BenchError(client_id, "does not subscribe", "see whether other programs use up this machine")


def find(name: str) -> str | None:
    """The path of a program of mosquitto, None when it is not installed."""
    return shutil.which(name, path=os.environ.get("PATH", "") + PLACES)


@contextmanager
def private(folder: Path, *, embedded: bool = False) -> Iterator[Private]:
    """embedded: amqtt although mosquitto is there."""
    binary = None if embedded else find("mosquitto")
    if binary is None:
        if importlib.util.find_spec("amqtt") is None:
            raise BenchError(
                "transom bench", "finds no broker: neither mosquitto nor amqtt is installed",
                "apt install mosquitto mosquitto-clients; or in Transom's folder: pip install '.[demo]'",
            )  # fmt: skip
        with Program([sys.executable, "-m", "transom.bench.embedded"], "port ") as program:
            port = int(next(line for line in program.said if line.startswith("port ")).split()[1])
            yield Private(port, "amqtt", False, program)
        return
    for left in reversed(range(TRIES)):
        port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text("\n".join((f"listener {port} 127.0.0.1", *SETTINGS)) + "\n")
        try:
            program = Program([binary, "-c", str(config)], " running").__enter__()
        except BenchError as error:
            if left:
                continue
            raise BenchError(f"{binary} on 127.0.0.1:{port}", error.problem) from None
        try:
            yield Private(port, "mosquitto", True, program)
        finally:
            program.end()
        return


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
