"""/metrics, /healthz and /readyz over HTTP: the latest snapshot of the agent in, answers out. Reads, never changes.

The live page (`live`) is at the same port. The run loop calls `tend` and `show`; the listener's threads ask for
answers.
"""

import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from transom.core.events import Events
from transom.core.stream import Stream
from transom.dialects.privacy import Privacy, Rule
from transom.edge.listener import Answer, Listener, Request, local, text
from transom.edge.observe import Snapshot
from transom.settings import HttpSettings

if TYPE_CHECKING:
    from transom.edge.live.page import Page

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two snapshots
STUCK = 30.0  # seconds without a turn of the run loop after which the agent is not healthy
AGAIN = 30.0  # seconds between two attempts to listen
NO_PAGE = {"viewers": 0, "dropped": 0, "refused": 0, "skipped": 0, "wrong_tokens": 0}


class Web:
    """What listens for HTTP, if anything does. problem: why it does not although it should, else empty."""

    def __init__(self, settings: HttpSettings, agent: str = "", privacy: Privacy | None = None) -> None:
        """agent: its id, for the page's title; privacy: what the page may show, all if None."""
        self._privacy = privacy or Privacy(Rule())
        self.settings, self.problem, self._agent = settings, "", agent
        self._snapshot: Snapshot | None = None
        self._turned: float | None = None  # when the run loop turned last; None before it begins and when it has ended
        self._stopping = False
        self._retry = 0.0
        self._listener: Listener | None = None
        self._page: Page | None = None
        self._encode: Callable[[Snapshot, float, str], tuple[bytes, str]] | None = None

    # --- for the run loop ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Listens, if a port is set; a failure is kept in `problem` and tried again by `tend`."""
        host, port = self.settings.host, self.settings.port
        if port is None:
            return
        # Only now: an agent without a port starts without it.
        from transom.edge.exposition import encode

        self._encode = encode
        if self.settings.page and self._page is None:
            from transom.edge.live.page import Page

            token = self.settings.token
            self._page = Page(self._agent, None if token is None else token.get_secret_value())
        try:
            self._listener = Listener(host, port, self.answer)
        except OSError as error:
            self._retry = time.monotonic() + AGAIN
            problem = f"http.port: cannot listen at {host}:{port}: {error.strerror or error}"
            if problem != self.problem:
                log.warning("%s; choose another http.port or http.host. Trying again every %g s", problem, AGAIN)
            self.problem = problem
            return
        self.problem = ""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        log.info("metrics at http://%s/metrics", where)
        if self._page is not None:
            log.info("live page at http://%s/live/", where)
        if not local(host):
            log.warning("http.host: whoever reaches %s:%s can read the metrics; there is no log-in", host, port)

    def tend(self, snapshot: Callable[[], Snapshot]) -> None:
        """At each turn. snapshot: makes one, asked for at most once a second and only while somebody may read it."""
        now = self._turned = time.monotonic()
        if self._listener is not None:
            if self._snapshot is None or now - self._snapshot.made >= EVERY:
                self._snapshot = snapshot()
                if self._page is not None:
                    self._page.tend(self._snapshot)
        elif self.problem and now >= self._retry:
            self.open()

    def show(self, events: Events, streams: Mapping[str, Stream]) -> None:
        """What has just happened, for the live page if there is one. streams: another mapping when they are others."""
        if self._page is not None:
            self._page.take(self._privacy.page(events), streams)

    def viewers(self) -> dict[str, int]:
        """What BASE/health says of the live page."""
        return self._page.counts() if self._page is not None else dict(NO_PAGE)

    def change(self, settings: HttpSettings) -> None:
        """Listens elsewhere, or no more, if the settings are others."""
        if settings != self.settings:
            self._shut()
            self.settings, self.problem = settings, ""
            self.open()

    def stopping(self) -> None:
        """The end begins: not ready any more."""
        self._stopping, self._turned = True, None

    def close(self) -> None:
        self._shut()

    def _shut(self) -> None:
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # --- for the threads that answer ----------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """What is at a path."""
        path = request.path
        if path == "/metrics":
            return self._metrics(request.accept)
        if path == "/healthz":
            return self._health()
        if path == "/readyz":
            return self._ready()
        page = self._page
        found = page.answer(request) if page is not None else None
        also = ", /live/" if page is not None else ""
        return found or text(HTTPStatus.NOT_FOUND, f"there are /metrics{also}, /healthz and /readyz")

    def _metrics(self, accept: str) -> Answer:
        snapshot = self._snapshot
        if snapshot is None or self._encode is None:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "starting")
        body, kind = self._encode(snapshot, time.monotonic() - snapshot.made, accept)
        return Answer(HTTPStatus.OK, kind, body)

    def _health(self) -> Answer:
        """Whether it is worth to leave it alone: a restart mends a loop that is stuck, and no broker that is away."""
        still = self._still()
        if still >= STUCK:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, f"the run loop has not turned for {still:.0f} s")
        return text(HTTPStatus.OK, "stopping" if self._stopping else "ok" if self._turned else "starting")

    def _ready(self) -> Answer:
        """Whether it watches all that it should."""
        snapshot, still = self._snapshot, self._still()
        if self._stopping:
            reasons = ["stopping"]
        elif snapshot is None:
            reasons = ["starting"]
        else:
            reasons = [] if snapshot.ready else [
                "not subscribed yet" if snapshot.connected else "no connection to the broker"
            ]  # fmt: skip
            reasons += snapshot.problems
            reasons += [f"the run loop has not turned for {still:.0f} s"] if still >= STUCK else []
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return text(status, "\n".join(reasons) or "ready")

    def _still(self) -> float:
        turned = self._turned
        return 0.0 if turned is None else time.monotonic() - turned
