"""Free ports for brokers, when several tests look for one at a time."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """One that nobody listens on, below those that the kernel gives to connections. Raises OSError after 100 tries."""
    for port in random.SystemRandom().sample(range(10_000, 32_000), 100):
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port in 100 tries")
