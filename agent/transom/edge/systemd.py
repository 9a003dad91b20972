"""What systemd is told of this process: that it is ready, what it does, and that its run loop still turns.

The protocol of sd_notify(3): a datagram to the socket that systemd names. Where it names none every call does nothing.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

from transom.core.printable import printable

log = logging.getLogger(__name__)

STATUS_EVERY = 5.0  # seconds between two status texts
START_EVERY = 10.0  # seconds between two requests for more time to start
START_MORE = 90.0  # seconds that each of them asks for: a loop that is stuck for so long while starting is ended
PER_WATCHDOG = 4  # signs of life in the time that the watchdog allows


class Supervisor:
    """The process that has started this one, if it is systemd. ready: whether it was told that we are."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """environment: that of this process if None. Sends nothing yet."""
        given = os.environ if environment is None else environment
        self.address = given.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(given)  # seconds, None when nobody watches
        self.ready = False
        self._clock, self._fed, self._asked, self._told = clock, -1e9, -1e9, -1e9
        self._text = ""
        self._failed = False

    def __bool__(self) -> bool:
        return bool(self.address)

    def alive(self) -> None:
        """To be called by the run loop itself, once a turn and by nobody else: whoever calls this is not stuck."""
        if not self.address:
            return
        now = self._clock()
        if not self.ready and now - self._asked >= START_EVERY:  # the watchdog begins when the start has ended
            self._asked = now
            self._send(f"EXTEND_TIMEOUT_USEC={START_MORE * 1e6:.0f}")
        if self.ready and self.watchdog is not None and now - self._fed >= self.watchdog / PER_WATCHDOG:
            self._fed = now
            self._send("WATCHDOG=1")

    @property
    def asks(self) -> bool:
        """Whether it is time for another status text."""
        return bool(self.address) and self._clock() - self._told >= STATUS_EVERY

    def say(self, text: str) -> None:
        """What `systemctl status` shows. text: one line."""
        self._told = self._clock()
        if text != self._text:
            self._text = text
            self._send(f"STATUS={printable(' '.join(text.split()))}")

    def say_ready(self, text: str) -> None:
        """The start has ended: subscribed, and every model has run once."""
        self.ready, self._told, self._text = True, self._clock(), text
        self._send(f"READY=1\nSTATUS={printable(' '.join(text.split()))}")

    def say_stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=finishing")

    def _send(self, message: str) -> None:
        if not self.address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(1.0)  # a manager that is stuck must not hold the run loop
                address = self.address
                out.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd cannot be told how it goes ($NOTIFY_SOCKET %s): %s", self.address, error)
            self._failed = True
        else:
            self._failed = False


def _watchdog(environment: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        pid = int(environment.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 and pid == os.getpid() else None
