"""The live page at /live/: what a request gets there. Requests in, answers out; the run loop hands its events over.

Reads, never changes: whoever may see it can look at every series and do nothing to any.
"""

import queue
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from transom import __version__
from transom.core.events import Events
from transom.core.stream import Stream
from transom.dialects.live.board import Seen
from transom.dialects.live.chart import About
from transom.edge.listener import Answer, Request, text
from transom.edge.live.door import Door
from transom.edge.live.files import FILES, GUARDS, file
from transom.edge.live.hub import MOST, Hub, Viewer
from transom.edge.observe import Snapshot

RETRY = 2000  # ms after which a browser connects again
FIELDS = 8  # of a query that are read
NAME = 64  # characters of a viewer's name
SILENT = 30.0  # seconds without a message for a viewer after which something is wrong here
STUCK = 30.0  # seconds without a snapshot after which the page says so


class Page:
    def __init__(self, agent: str, token: str | None) -> None:
        """agent: its id; token: what viewers must know, None where all that reach the port may see the page."""
        self.agent, self._door = agent, Door(token)
        self._hub = Hub(self._head)
        self._snapshot: Snapshot | None = None
        self._streams: Mapping[str, Stream] | None = None

    # --- for the run loop ---------------------------------------------------------------------------------------------

    def take(self, events: Events, streams: Mapping[str, Stream]) -> None:
        """streams: those that there are; another mapping when they have changed."""
        if streams is not self._streams:
            self._streams = streams
            self._hub.configure({name: _about(stream) for name, stream in streams.items()})
        self._hub.take(events)

    def tend(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def counts(self) -> dict[str, int]:
        return {**self._hub.counts(), "wrong_tokens": self._door.refused}

    def close(self) -> None:
        self._hub.close()

    # --- for the threads that answer ----------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer | None:
        """None for a path that is not the page's."""
        path = request.path
        if path in ("/", "/live"):
            return Answer(HTTPStatus.TEMPORARY_REDIRECT, "text/plain", b"", (("Location", "live/"),))
        if not path.startswith("/live/"):
            return None
        name = path.removeprefix("/live/")
        if name == "":
            return self._front(request)
        if name == "login":
            return self._log_in(request)
        if name == "events":
            return self._events(request)
        return file(name) if name in FILES and not name.endswith(".html") else None

    def _front(self, request: Request) -> Answer:
        given = _query(request.query).get("token")
        if given is None and self._door.opens(request.headers):
            return file("index.html")
        if given is not None and self._door.fits(given):  # the page takes it out of the address
            return file("index.html", headers=(("Set-Cookie", self._door.cookie),))
        return file("login.html", HTTPStatus.UNAUTHORIZED)

    def _log_in(self, request: Request) -> Answer:
        """For the form, whose token comes in a header: no address, and so no log of a proxy, has it."""
        if not self._door.opens(request.headers):
            return _refusal(HTTPStatus.UNAUTHORIZED, "wrong token")
        return Answer(HTTPStatus.NO_CONTENT, "text/plain", b"", (("Set-Cookie", self._door.cookie),))

    def _events(self, request: Request) -> Answer:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _refusal(HTTPStatus.FORBIDDEN, "not for other sites")
        if not self._door.opens(request.headers):
            return _refusal(HTTPStatus.UNAUTHORIZED, "open /live/ with the token, or send Authorization: Bearer TOKEN")
        return Answer(HTTPStatus.OK, "text/event-stream; charset=utf-8", b"retry: %d\n\n" % RETRY, GUARDS, _Stream(
            self._hub, _query(request.query)))  # fmt: skip

    def _head(self) -> dict[str, Any]:
        """What each message says of the agent itself."""
        snapshot = self._snapshot
        head: dict[str, Any] = {"agent": self.agent, "version": __version__, "now": round(time.time() * 1000)}
        if snapshot is None:
            return {**head, "ready": False, "connected": False, "problems": ["starting"]}
        still, problems = time.monotonic() - snapshot.made, list(snapshot.problems)
        if still >= STUCK:
            problems.append(f"the run loop has not turned for {still:.0f} s")
        return {
            **head, "ready": snapshot.ready, "connected": snapshot.connected, "problems": problems,
            "series": sum(counts["series"] for counts in snapshot.health.get("streams", {}).values()),
            "readings_per_s": snapshot.health.get("readings_per_s"),
            "latency_ms": snapshot.health.get("latency_ms", {}).get("p50"),
        }  # fmt: skip


class _Stream:
    """Server-sent events for one viewer (https://html.spec.whatwg.org/multipage/server-sent-events.html): all that
    there is at first, then what is new. Each connection begins anew, so nothing is lost by losing one."""

    def __init__(self, hub: Hub, query: Mapping[str, str]) -> None:
        self._hub, self._query = hub, query

    def __call__(self, send: Callable[[bytes], object]) -> None:
        """Sends until the viewer, or the agent, is gone. Raises OSError."""
        stream, series = self._query.get("stream"), self._query.get("series")
        key = (stream, series) if stream is not None and series is not None else None
        viewer = self._hub.join(self._query.get("viewer", "")[:NAME], Seen(self._query.get("search", ""), key))
        if viewer is None:
            send(b"event: full\ndata: %d\n\n" % MOST)
            return
        try:
            self._send(viewer, send)
        except TimeoutError:
            self._hub.leave(viewer, slow=True)
        finally:
            self._hub.leave(viewer)

    @staticmethod
    def _send(viewer: Viewer, send: Callable[[bytes], object]) -> None:
        while True:
            try:
                message = viewer.messages.get(timeout=SILENT)
            except queue.Empty:
                return
            if message is None:
                return
            send(b"data: " + message + b"\n\n")


def _query(query: str) -> dict[str, str]:
    """The first few fields; what is no query is none."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=FIELDS))
    except ValueError:
        return {}


def _refusal(status: HTTPStatus, body: str) -> Answer:
    return text(status, body)._replace(headers=GUARDS)


def _about(stream: Stream) -> About:
    manifest, spec = stream.model.manifest, stream.spec
    units = {c.name: c.unit for c in manifest.channels}
    units |= {c.name: c.unit for c in spec.payload.channels if c.unit}
    step = None if spec.grid.step is None else 1000 * spec.grid.step
    return About(units, step, manifest.task, manifest.label)
