"""A port on which HTTP is spoken: answers a few requests at a time, for a few seconds each, and reads nothing but GET.

What it answers is a function's business: a Request in, an Answer out. An answer may go on for as long as its function
likes (a stream of events); how many of those there are is that function's business too.
"""

import ipaddress
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import NamedTuple

log = logging.getLogger(__name__)

AT_ONCE = 16  # requests answered at a time; more are hung up on. A browser asks for six at a time
PATIENCE = 5.0  # seconds that a request may take in all, sent and answered
HERE = ("localhost", "localhost.localdomain", "ip6-localhost")


class Request(NamedTuple):
    """query: what stands behind the question mark, as it came; headers: by their names in lower case, the first of a
    name."""

    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def accept(self) -> str:
        return self.headers.get("accept", "")


class Answer(NamedTuple):
    """go_on: gets a function that sends, which raises OSError when nobody listens any more; the answer ends when it
    returns, and nobody knows before how long it is."""

    status: HTTPStatus
    kind: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    go_on: Callable[[Callable[[bytes], object]], None] | None = None


def text(status: HTTPStatus, body: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{body}\n".encode())


def local(host: str) -> bool:
    """Whether only this host reaches what listens at it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in HERE


class Listener(ThreadingMixIn, HTTPServer):
    """A port, and a thread that waits at it. Raises OSError when the port cannot be had."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True  # the port of an agent that ended a moment ago
    allow_reuse_port = False  # and never that of one that runs
    request_queue_size = AT_ONCE

    def __init__(self, host: str, port: int, answer: Callable[[Request], Answer]) -> None:
        self.answer, self.only_here = answer, local(host)
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._open: dict[socket.socket, float] = {}  # by connection: when it must be over
        self._lasting: set[socket.socket] = set()  # connections that may last
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, name="transom-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would ask the name server for this host's name

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._open[request] = time.monotonic() + PATIENCE
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._over(request)
            raise

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._over(request)

    def lasts(self, request: socket.socket) -> None:
        """This one may take its time and gives its place to others."""
        with self._lock:
            self._open.pop(request, None)
            self._lasting.add(request)
        self._free.release()

    def _over(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
            lasted = request in self._lasting
            self._lasting.discard(request)
        if not lasted:
            self._free.release()

    def service_actions(self) -> None:
        """Hangs up on those that dawdle; called at least twice a second."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, end in self._open.items() if now >= end]
            for request in late:
                del self._open[request]
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    log.debug("a slow HTTP client was gone already")

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # the base class's
        if isinstance(sys.exception(), OSError):
            log.debug("an HTTP request from %s broke off", client_address, exc_info=True)
        else:
            log.exception("an HTTP request from %s cannot be answered", client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    timeout = PATIENCE

    def version_string(self) -> str:
        return "transom"  # and no version of Python

    def do_GET(self) -> None:
        answer = self._answer()
        self.send_response(answer.status)
        length = () if answer.go_on is not None else (("Content-Length", str(len(answer.body))),)
        for name, value in (
            ("Content-Type", answer.kind), *length, ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), *answer.headers,
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(answer.body)
        if answer.go_on is not None:
            self.server.lasts(self.connection)
            answer.go_on(self.wfile.write)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> Answer:
        # A page on the web can have its own name point at this host; what listens for this host alone answers to none.
        if self.server.only_here and not local(_host(self.headers.get("Host", "localhost"))):
            return text(HTTPStatus.MISDIRECTED_REQUEST, "ask for localhost")
        path, _, query = self.path.partition("?")
        return self.server.answer(Request(path, query, {name.lower(): self.headers[name] for name in self.headers}))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
        # Without what stands behind a question mark: it may be a token.
        log.debug("HTTP from %s: %r", self.client_address[0], re.sub(r"\?[^\s\"']*", "?…", format % args))


def _host(header: str) -> str:
    """The Host header without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
