"""A thread that does one thing again and again, at a lower priority than the run loop, and never dies in silence."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

NICE = 10  # of the thread (Linux: a thread has its own)
LONGEST = 3600.0  # seconds between two steps
AFTER_FAULT = 30.0  # seconds of rest after a step that failed in a way that nobody foresaw


class Worker:
    """step: does what is due and returns the seconds after which it wants to be called again."""

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        self._step, self._closing, self._wake = step, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def pause(self, seconds: float) -> bool:
        """For a step: waits; True when it should end."""
        return self._closing.wait(seconds)

    def start(self) -> None:
        """No harm where it runs already."""
        if not self._thread.is_alive() and not self._closing.is_set():
            self._thread.start()

    def wake(self) -> None:
        """The next step at once."""
        self._wake.set()

    def stop(self) -> None:
        """It ends after the step that is under way."""
        self._closing.set()
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """True once it has ended."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._closing.is_set():
            self._wake.clear()
            try:
                pause = self._step()
            except Exception as error:  # it would bring nothing any more, and nobody would know
                log.exception("%s: failed (%s), goes on in %g s", self._thread.name, type(error).__name__, AFTER_FAULT)
                self._closing.wait(AFTER_FAULT)
                continue
            self._wake.wait(min(max(pause, 0.0), LONGEST))
