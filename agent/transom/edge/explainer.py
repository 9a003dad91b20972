"""Explanations for a running agent: computed one at a time beside the run loop, which only hands windows over.

Jobs in, answers out. A model call releases the interpreter's lock, and the thread asks for less of the processor than
the loop, so that no reading waits for an explanation.
"""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from transom.errors import TransomError

log = logging.getLogger(__name__)

WAITING = 4  # explanations that may wait
NICE = 10  # of the thread (Linux: a thread has its own)

Answer = tuple[str | int, dict[str, Any] | TransomError]
Job = Callable[[], dict[str, Any]]


class Explainer:
    """submit and done are for one thread, the run loop's."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[tuple[str | int, Job]] = queue.Queue(WAITING)
        self._done: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, request: str | int, job: Job) -> bool:
        """False when too many wait."""
        try:
            self._jobs.put_nowait((request, job))
        except queue.Full:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="transom-explain", daemon=True)
            self._thread.start()
        return True

    def done(self) -> list[Answer]:
        """What has been answered since the last call."""
        answers: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            while True:
                answers.append(self._done.get_nowait())
        return answers

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            request, job = self._jobs.get()
            try:
                self._done.put((request, job()))
            except TransomError as error:
                self._done.put((request, error))
            except Exception as error:  # a thread that dies in silence would answer nobody any more
                log.exception("an explanation failed (%s)", type(error).__name__)
                self._done.put((request, TransomError("explain", f"failed ({type(error).__name__})", "see the log")))
