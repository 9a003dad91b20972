"""/metrics, /healthz and /readyz: what is answered when, and that no client can hold the agent up."""

import http.client
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from ports import free_port

from tests_metrics import ask
from transom.edge import listener, web
from transom.edge.listener import Answer, Listener, Request, text
from transom.edge.observe import Histogram, Snapshot
from transom.edge.web import Web
from transom.errors import SettingsError
from transom.settings import HttpSettings, load_settings

BODY = {"streams": {}, "calls": {}, "uptime_s": 1.0, "journal": {"on": True}}


def snapshot(**given: Any) -> Snapshot:
    usual = {
        "health": BODY, "latency": Histogram((0,) * 16, 0.0), "models": (), "problems": (), "ready": True,
        "connected": True, "made": time.monotonic(),
    }  # fmt: skip
    return Snapshot(**{**usual, **given})


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def page(port: int) -> Iterator[Web]:
    page = Web(HttpSettings(port=port))
    page.open()
    yield page
    page.close()


def test_nothing_listens_and_no_snapshot_is_made_without_a_port() -> None:
    page = Web(HttpSettings())
    page.open()
    page.tend(lambda: pytest.fail("nobody reads it"))
    assert not any(t.name == "transom-http" for t in threading.enumerate())
    page.close()


def test_only_this_host_reaches_it_unless_told_otherwise(page: Web) -> None:
    assert page.settings.host == "127.0.0.1"
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", page.settings.port)) != 0


def test_while_the_agent_starts_it_is_alive_and_not_ready(page: Web, port: int) -> None:
    assert ask(port, "/healthz") == (200, "starting\n")
    assert ask(port, "/readyz") == (503, "starting\n")
    assert ask(port, "/metrics") == (503, "starting\n")


def test_once_it_watches_it_is_ready_and_tells_figures(page: Web, port: int) -> None:
    page.tend(snapshot)
    assert ask(port, "/healthz") == (200, "ok\n")
    assert ask(port, "/readyz") == (200, "ready\n")
    status, body = ask(port, "/metrics?x=1")
    assert status == 200
    assert "\ntransom_ready 1.0\n" in body


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ready": False, "connected": False}, "no connection to the broker\n"),
        ({"ready": False}, "not subscribed yet\n"),
        ({"problems": ("the journal is off: disk full",)}, "the journal is off: disk full\n"),
    ],
)
def test_it_says_why_it_is_not_ready_and_stays_alive(page: Web, port: int, given: Any, reason: str) -> None:
    page.tend(lambda: snapshot(**given))
    assert ask(port, "/readyz") == (503, reason)
    assert ask(port, "/healthz")[0] == 200


def test_a_run_loop_that_stands_still_is_not_alive(page: Web, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    page.tend(snapshot)
    now = time.monotonic()
    monkeypatch.setattr(web.time, "monotonic", lambda: now + 31)
    status, body = ask(port, "/healthz")
    assert (status, body) == (503, "the run loop has not turned for 31 s\n")
    assert ask(port, "/readyz")[0] == 503
    assert "transom_snapshot_age_seconds 31." in ask(port, "/metrics")[1]


def test_an_agent_that_stops_is_alive_and_not_ready(page: Web, port: int) -> None:
    page.tend(snapshot)
    page.stopping()
    assert ask(port, "/healthz") == (200, "stopping\n")
    assert ask(port, "/readyz") == (503, "stopping\n")


def test_a_snapshot_is_made_once_a_second_at_most(page: Web) -> None:
    made = []
    for _ in range(100):
        page.tend(lambda: made.append(1) or snapshot())  # type: ignore[func-returns-value]
    assert len(made) == 1


def test_a_port_that_is_taken_is_told_and_tried_again(port: int, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    with socket.create_server(("127.0.0.1", port)):
        page = Web(HttpSettings(port=port))
        page.open()
        assert f"http.port: cannot listen at 127.0.0.1:{port}: Address already in use" in page.problem
        page.tend(snapshot)
        page.open()
        assert len(caplog.records) == 1  # said once
    monkeypatch.setattr(web, "AGAIN", 0.0)
    page.open()
    page.tend(snapshot)
    assert page.problem == ""
    assert ask(port, "/healthz") == (200, "ok\n")
    page.close()


def test_an_address_that_is_not_ours_is_told_and_ends_nothing(port: int) -> None:
    page = Web(HttpSettings(port=port, host="192.0.2.1"))
    page.open()
    assert f"cannot listen at 192.0.2.1:{port}" in page.problem
    page.close()


def test_a_change_of_port_is_followed_and_no_port_ends_it(page: Web, port: int) -> None:
    other = free_port()
    page.change(HttpSettings(port=other))
    page.tend(snapshot)
    assert ask(other, "/readyz")[0] == 200
    page.change(HttpSettings())
    for gone in (port, other):
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", gone)) != 0


def test_wider_than_this_host_is_warned_of(port: int, caplog: Any) -> None:
    page = Web(HttpSettings(port=port, host="0.0.0.0"))
    page.open()
    page.tend(snapshot)
    assert ask(port, "/readyz", Host="gateway.example") == (200, "ready\n")
    page.close()
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"http.host: whoever reaches 0.0.0.0:{port} can read the metrics; there is no log-in"
    ]


def test_ipv6(port: int) -> None:
    page = Web(HttpSettings(port=port, host="::1"))
    page.open()
    if page.problem:
        pytest.skip(page.problem)  # a host without IPv6
    page.tend(snapshot)
    assert ask(port, "/readyz", host="[::1]")[0] == 200
    page.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "[2001:db8::1]:80", "127.0.0.1.evil.example"])
def test_a_web_page_whose_name_points_here_reads_nothing(page: Web, port: int, host: str) -> None:
    page.tend(snapshot)
    assert ask(port, "/metrics", Host=host) == (421, "ask for localhost\n")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:9"])
def test_names_of_this_host_are_answered(page: Web, port: int, host: str) -> None:
    page.tend(snapshot)
    assert ask(port, "/readyz", Host=host)[0] == 200


def test_it_is_read_only(page: Web, port: int) -> None:
    page.tend(snapshot)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, "/metrics")
        assert connection.getresponse().status == 501
        connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("HEAD", "/metrics")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert answer.getheader("Server") == "transom"
    connection.close()


def test_other_paths_are_not_there(page: Web, port: int) -> None:
    for path in ("/", "/metrics/", "/../../etc/passwd", "/%00", "/" + "x" * 5000):
        assert ask(port, path)[0] == 404


@pytest.mark.parametrize(
    "said",
    [b"", b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET " + b"x" * 70_000, b"GET / HTTP/9.9\r\n\r\n", b"\xff" * 100],
)
def test_what_is_no_http_ends_nothing(page: Web, port: int, said: bytes, caplog: Any) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as other:
        other.sendall(said)
        other.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # it hung up with some of it unread
            while other.recv(65_536):
                pass
    page.tend(snapshot)
    assert ask(port, "/readyz")[0] == 200
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, port: int) -> Iterator[Listener]:
    monkeypatch.setattr(listener, "PATIENCE", 0.2)
    server = Listener("127.0.0.1", port, lambda request: text(http.HTTPStatus.OK, "here"))
    yield server
    server.close()


def test_clients_that_dawdle_are_hung_up_on_and_others_have_their_turn(quick: Listener, port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(listener.AT_ONCE)]
    for one in slow:
        one.sendall(b"GET /metrics HT")
    drip = threading.Event()

    def go_on() -> None:  # each byte within the socket's own patience
        while not drip.wait(0.05):
            for one in slow:
                try:
                    one.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=go_on)
    thread.start()
    for one in slow:
        with suppress(ConnectionResetError):
            assert one.recv(1000) == b""
    drip.set()
    thread.join()
    for one in slow:
        one.close()
    assert ask_until_answered(port) == (200, "here\n")


def ask_until_answered(port: int) -> tuple[int, str]:
    """The places of those who were hung up on are given back a moment later."""
    for _ in range(200):
        try:
            return ask(port, "/")
        except (OSError, http.client.HTTPException):
            threading.Event().wait(0.02)
    raise AssertionError("never answered")


def test_more_clients_than_places_are_turned_away(port: int) -> None:
    held, asked = threading.Event(), threading.Semaphore(0)

    def answer(request: Request) -> Answer:
        asked.release()
        held.wait(20)
        return text(http.HTTPStatus.OK, "at last")

    server = Listener("127.0.0.1", port, answer)
    told: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda: told.append(ask(port, "/"))) for _ in range(listener.AT_ONCE)]
    for thread in threads:
        thread.start()
        assert asked.acquire(timeout=20)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(port, "/")
    held.set()
    for thread in threads:
        thread.join(20)
    assert told == [(200, "at last\n")] * listener.AT_ONCE
    server.close()


def test_an_error_of_ours_is_logged_and_the_next_request_is_answered(port: int, caplog: Any) -> None:
    answers = iter([ZeroDivisionError("ours"), text(http.HTTPStatus.OK, "here")])

    def answer(request: Request) -> Answer:
        given = next(answers)
        if isinstance(given, Exception):
            raise given
        return given

    server = Listener("127.0.0.1", port, answer)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(port, "/")
    assert ask(port, "/") == (200, "here\n")
    assert "cannot be answered" in caplog.text
    server.close()


@pytest.mark.parametrize(
    "given", [{"port": 0}, {"port": 70_000}, {"host": "http://x"}, {"host": "gateway.example"}, {"prot": 1}]
)
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        load_settings(None, {"http": given, "streams": {"s": {"topic": "a/{d}"}}})
