"""The live page over real sockets: who may see it, what guards it, and that no viewer can hold the agent up."""

import hashlib
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port

from tests_metrics import ask
from transom.core.events import Alert, Events, Predictions
from transom.dialects.live import notices, rings
from transom.dialects.live.board import LISTED, ROOM, Board, Seen
from transom.edge import listener
from transom.edge.listener import Answer, Listener, Request
from transom.edge.live import hub as hub_module
from transom.edge.live.files import FILES
from transom.edge.live.hub import BEHIND, FOLD, GIVEN_UP, MOST, Hub
from transom.edge.web import Web
from transom.errors import SettingsError
from transom.settings import HttpSettings, load_settings

TOKEN = "0123456789abcdef-secret"
STREAMS: dict[str, Any] = {}
GUIDE = (Path(__file__).parents[2] / "docs" / "live-page.md").read_text()
STATIC = resources("transom.edge.live") / "static"


def events(value: float, *series: str, at: int = 0) -> Events:
    n = len(series)
    column = np.full((n, 1), value, np.float32)
    return Events(
        [Predictions("s", "m@1", series, [("t",)] * n, np.full(n, at, np.int64), column, np.ones(n, np.uint8))]
    )


@contextmanager
def serving(**given: Any) -> Iterator[tuple[Web, int]]:
    port = free_port()
    web = Web(HttpSettings(port=port, page=True, **given), "gw")
    web.open()
    try:
        yield web, port
    finally:
        web.close()


@pytest.fixture
def page() -> Iterator[tuple[Web, int]]:
    with serving() as served:
        yield served


class Viewer:
    """An EventSource: reads server-sent events."""

    def __init__(self, port: int, query: str = "", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.request("GET", f"/live/events{query}", headers=headers)
        self.answer = self.connection.getresponse()
        self.end = time.monotonic() + 30

    def read(self) -> tuple[str, Any]:
        """The next event's name and data; ("", None) at the end."""
        name = "message"
        assert time.monotonic() < self.end, "nothing of what was awaited"
        while line := self.answer.readline().decode():
            if line.startswith("event: "):
                name = line[7:].strip()
            if line.startswith("data: "):
                return name, json.loads(line[6:])
        return "", None

    def until(self, key: str) -> Any:
        """What is said of it next."""
        while True:
            name, data = self.read()
            assert name == "message", f"ended before {key}"
            if key in data:
                return data[key]

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def counted(web: Web, key: str, wanted: int) -> None:
    """Awaits a count of the page."""
    for _ in range(500):
        if web.viewers()[key] == wanted:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{key}: {web.viewers()}")


# --- what is told -------------------------------------------------------------------------------------------------


def test_without_the_setting_there_is_no_page_and_no_thread_for_it() -> None:
    port = free_port()
    web = Web(HttpSettings(port=port))
    web.open()
    web.show(events(1.0, "a"), STREAMS)
    assert ask(port, "/live/") == (404, "there are /metrics, /healthz and /readyz\n")
    assert ask(port, "/")[0] == 404
    assert not any(t.name == "transom-live" for t in threading.enumerate())
    web.close()


def test_a_viewer_is_told_all_there_is_and_then_what_happens(page: tuple[Web, int]) -> None:
    web, port = page
    web.show(events(20.0, "a", "b"), STREAMS)
    with closing(Viewer(port, "?stream=s&series=b")) as viewer:
        assert viewer.answer.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        first = viewer.read()[1]
        assert first["head"]["agent"] == "gw"
        assert first["list"]["total"] == 2
        assert (first["chart"]["series"], first["chart"]["value"]) == ("b", [[20.0]])
        raised = Alert("1", "raise", "anomaly", "critical", "s", "b", "m@1", 1, 1, "t 25 °C, expected 20")
        web.show(Events(events(25.0, "b", at=1_000_000).predictions, [raised]), STREAMS)
        news: dict[str, Any] = {}
        while not {"chart", "alerts"} <= set(news):  # in one message or in two
            news |= viewer.read()[1]
        assert news["chart"]["value"] == [[25.0]]
        assert news["alerts"][0]["summary"] == "t 25 °C, expected 20"


def test_who_connects_again_is_told_all_again_and_takes_no_second_place(page: tuple[Web, int]) -> None:
    web, port = page
    web.show(events(20.0, "a"), STREAMS)
    with closing(Viewer(port, "?viewer=tab1")) as left:
        left.until("chart")  # it is served: the other one comes after it
        with closing(Viewer(port, "?viewer=tab1")) as again:
            assert again.until("chart")["value"] == [[20.0]]
            while left.read()[0]:
                pass
            assert web.viewers()["viewers"] == 1


def test_only_so_many_are_served_and_metrics_go_on(page: tuple[Web, int]) -> None:
    web, port = page
    viewers = [Viewer(port) for _ in range(MOST)]
    for viewer in viewers:
        viewer.until("head")
    with closing(Viewer(port)) as more:
        assert more.read() == ("full", MOST)
        assert more.read() == ("", None)
    assert web.viewers()["refused"] == 1
    assert ask(port, "/healthz")[0] == 200
    viewers[0].close()
    counted(web, "viewers", MOST - 1)  # it is noticed at the next word
    with closing(Viewer(port)) as more:
        assert more.read()[0] == "message"
    for viewer in viewers[1:]:
        viewer.close()


def test_an_agent_that_ends_or_moves_hangs_up_on_its_viewers() -> None:
    with serving() as (web, port):
        with closing(Viewer(port)) as viewer:
            viewer.until("head")
            web.change(HttpSettings(port=port, page=False))
            while viewer.read()[0]:
                pass
        assert ask(port, "/live/")[0] == 404
    assert not any(t.name == "transom-live" for t in threading.enumerate())


# --- what it costs ------------------------------------------------------------------------------------------------


def test_the_run_loop_only_appends_and_nobody_sorts_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    told = threading.Event()

    def take(self: Board, predictions: Any, alerts: Any) -> None:
        taken.append(sum(map(len, predictions)))
        told.set()

    monkeypatch.setattr(Board, "take", take)
    hub = Hub(dict)
    for i in range(FOLD - 1):
        hub.take(events(float(i), "a"))
    assert taken == []
    hub.take(events(0.0, "a"))
    assert told.wait(20)
    assert sum(taken) == FOLD
    hub.close()


def test_what_comes_too_fast_is_left_out_and_counted() -> None:
    hub = Hub(dict)
    with hub._lock:  # the thread cannot go on
        for _ in range(GIVEN_UP // 1000 + 3):
            hub.take(events(0.0, *map(str, range(1000))))
        assert hub.counts()["skipped"] >= 1000
        assert sum(map(len, hub._pending)) <= GIVEN_UP + 1000
    hub.close()


def test_a_viewer_that_falls_behind_is_hung_up_on_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "EVERY", 0.02)
    monkeypatch.setattr(hub_module, "REST", 0.01)
    monkeypatch.setattr(hub_module, "BEAT", 0.0)
    hub = Hub(dict)
    slow, quick = hub.join("slow", Seen()), hub.join("quick", Seen())
    assert slow is not None
    assert quick is not None
    for _ in range(3 * BEHIND):
        assert quick.messages.get(timeout=20) is not None
    assert slow.gone
    assert slow.messages.qsize() <= BEHIND
    last = [slow.messages.get_nowait() for _ in range(slow.messages.qsize())][-1]
    assert last is None  # so that its thread ends
    assert hub.counts() == {"viewers": 1, "dropped": 1, "refused": 0, "skipped": 0}
    hub.close()


def test_one_that_takes_nothing_from_its_socket_is_left_and_its_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener._Handler, "timeout", 0.2)
    ended: list[BaseException] = []
    over = threading.Event()

    def go_on(send: Any) -> None:
        try:
            while True:
                send(bytes(1 << 16))
        except OSError as error:
            ended.append(error)
        finally:
            over.set()

    port = free_port()
    server = Listener("127.0.0.1", port, lambda r: Answer(http.HTTPStatus.OK, "text/event-stream", b"", go_on=go_on))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert over.wait(20)
    assert [type(error) for error in ended] == [TimeoutError]
    server.close()


def test_streams_take_no_place_of_short_requests() -> None:
    port, held, begun = free_port(), threading.Event(), threading.Semaphore(0)

    def answer(request: Request) -> Answer:
        def go_on(send: Any) -> None:
            begun.release()
            held.wait(20)

        return Answer(http.HTTPStatus.OK, "text/plain", b"", go_on=go_on if request.path == "/long" else None)

    server = Listener("127.0.0.1", port, answer)
    threads = [threading.Thread(target=ask, args=(port, "/long")) for _ in range(2 * listener.AT_ONCE)]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=20)
    assert ask(port, "/short")[0] == 200
    held.set()
    for thread in threads:
        thread.join(20)
    server.close()


def test_an_error_of_ours_costs_the_viewers_a_connection_and_the_agent_nothing(
    page: tuple[Web, int], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    web, port = page
    with monkeypatch.context() as broken:
        broken.setattr(Board, "tell", lambda *_: 1 / 0)
        with closing(Viewer(port)) as viewer:
            assert viewer.read() == ("", None)
    assert "the live page cannot be told what is new" in caplog.text
    web.show(events(1.0, "a"), STREAMS)
    with closing(Viewer(port)) as viewer:
        assert viewer.until("chart")["value"] == [[1.0]]


# --- what guards it -----------------------------------------------------------------------------------------------


def test_every_answer_of_the_page_is_guarded(page: tuple[Web, int]) -> None:
    _, port = page
    names = [name for name in FILES if not name.endswith(".html")]
    with closing(Viewer(port)) as viewer:
        answers = [("events", viewer.answer)]
        for name in ["", *names]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", f"/live/{name}", headers={"Origin": "http://evil.example"})
            answers.append((name, connection.getresponse()))
            answers[-1][1].read()
            connection.close()
        for name, answer in answers:
            assert answer.status == 200, name
            policy = answer.getheader("Content-Security-Policy") or ""
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy, name
            assert "unsafe" not in policy
            assert answer.getheader("X-Content-Type-Options") == "nosniff"
            assert not [key for key, _ in answer.getheaders() if key.lower().startswith("access-control")]


def test_the_page_fetches_only_what_the_package_brings_and_has_nothing_inline() -> None:
    known = {name for name in FILES if not name.endswith(".html")}
    for name in FILES:
        text = (STATIC / name).read_text()
        if name.endswith(".html"):
            assert set(re.findall(r'(?:src|href)="([^"]+)"', text)) <= known
            assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|style=", text)
        if name.endswith(".js") and name != "uplot.js":
            assert set(re.findall(r'from "\./([^"]+)"', text)) <= known
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
            assert "//" not in re.sub(r"(^|\s)// .*", "", text), "no address of another host"


def test_the_chart_library_is_the_one_that_is_named() -> None:
    named = dict(
        re.findall(r"^(uplot\.\w+) .*sha256 ([0-9a-f]{64})$", (STATIC / "uplot.txt").read_text(), re.MULTILINE)
    )
    assert set(named) == {"uplot.js", "uplot.css"}
    for name, digest in named.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


def test_other_paths_are_not_there(page: tuple[Web, int]) -> None:
    for path in (
        "/live/../../../etc/passwd", "/live/%2e%2e/door.py", "/live/../door.py", "/live/index.html/", "/live/uplot.txt",
        "/live/index.html", "/live//", "/live/\\", "/livex", "/live/" + "x" * 5000,
    ):  # fmt: skip
        assert ask(page[1], path) == (404, "there are /metrics, /live/, /healthz and /readyz\n"), path


def test_the_root_leads_to_the_page(page: tuple[Web, int]) -> None:
    for path in ("/", "/live"):
        status, body = ask(page[1], path)
        assert status == 200
        assert "<title>Transom</title>" in body


def test_a_query_without_sense_harms_nothing(page: tuple[Web, int], caplog: Any) -> None:
    many = "?" + "&".join(f"a{i}=1" for i in range(100))
    for query in ("?%ff%00", "?series=%F0%28&stream=%", many, "?search=" + "%C3%A4" * 5000):
        with closing(Viewer(page[1], query)) as viewer:
            assert viewer.read()[0] == "message", query
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_a_web_page_whose_name_points_here_sees_nothing(page: tuple[Web, int]) -> None:
    for path in ("/live/", "/live/events", "/live/live.js"):
        assert ask(page[1], path, Host="evil.example") == (421, "ask for localhost\n")


def test_another_site_cannot_take_a_viewers_place(page: tuple[Web, int]) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        assert ask(page[1], "/live/events", **headers) == (403, "not for other sites\n")
    assert page[0].viewers()["viewers"] == 0


# --- the token ----------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[tuple[Web, int]]:
    """A page with a token; whatever a test does, no log has it."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    log = logging.getLogger("transom")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        with serving(token=TOKEN, host="0.0.0.0") as served:
            yield served
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert any("HTTP from" in line for line in lines)
    assert not [line for line in lines if TOKEN in line]
    assert TOKEN not in repr(served[0].settings)


def test_without_the_token_there_is_a_form_and_nothing_else(guarded: tuple[Web, int]) -> None:
    web, port = guarded
    status, body = ask(port, "/live/")
    assert status == 401
    assert '<input id="token"' in body
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Cookie": "transom=wrong"},
        {"Cookie": "transom=\xe9; =;;"},
    ):
        assert ask(port, "/live/events", **headers)[0] == 401
    assert ask(port, "/live/?token=wrong")[0] == 401
    assert ask(port, "/live/login", Authorization=f"Bearer {TOKEN}x")[0] == 401
    assert web.viewers()["wrong_tokens"] == 3
    assert web.viewers()["viewers"] == 0


@pytest.mark.parametrize("way", ["address", "form"])
def test_the_token_gives_a_cookie_that_opens_the_page_and_does_not_hold_the_token(
    guarded: tuple[Web, int], way: str
) -> None:
    _, port = guarded
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if way == "address":
        connection.request("GET", f"/live/?token={TOKEN}")
    else:
        connection.request("GET", "/live/login", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    cookie = answer.getheader("Set-Cookie") or ""
    assert answer.status == (200 if way == "address" else 204)
    answer.read()
    connection.close()
    assert cookie.endswith("; Path=/live; HttpOnly; SameSite=Strict")
    assert TOKEN not in cookie
    pair = cookie.partition(";")[0]
    assert "<title>Transom</title>" in ask(port, "/live/", Cookie=f"other=1; {pair}")[1]
    with closing(Viewer(port, Cookie=pair)) as viewer:
        assert viewer.read()[0] == "message"
    with serving(token="another-token-of-16") as (_, other):
        assert ask(other, "/live/", Cookie=pair)[0] == 401


def test_a_program_may_send_the_token_with_each_request(guarded: tuple[Web, int]) -> None:
    with closing(Viewer(guarded[1], Authorization=f"Bearer {TOKEN}")) as viewer:
        assert viewer.read()[0] == "message"


def test_a_request_that_is_no_request_does_not_get_its_token_logged(guarded: tuple[Web, int]) -> None:
    for line in (
        f"GET /live/?token={TOKEN} HTTP/9.9",
        f"POST /live/?token={TOKEN} HTTP/1.0",
        f"GET /live/?token={TOKEN} x y",
    ):
        with socket.create_connection(("127.0.0.1", guarded[1]), timeout=20) as client:
            client.sendall(f"{line}\r\n\r\n".encode())
            while client.recv(65_536):
                pass


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "place", "said"),
    [
        ({"page": True}, "http", "there is no port"),
        ({"page": True, "port": 9099, "host": "0.0.0.0"}, "http", "other hosts reach 0.0.0.0; set http.token_file"),
        ({"page": True, "port": 9099, "host": "::"}, "http", "other hosts reach ::"),
        ({"token": "short"}, "http.token", "is too short"),
        ({"token": "with space in it, long"}, "http.token", "other characters"),
        ({"token": 1234567890123456}, "http.token", "must be text, not what it is"),
        ({"token_file": "/nonexistent"}, "http.token_file", "cannot be read"),
        ({"token": TOKEN, "token_file": "/nonexistent"}, "http.token_file", "token is set too"),
        ({"page": "perhaps"}, "http.page", "true or false"),
    ],
)  # fmt: skip
def test_settings_that_would_leave_the_page_open_are_refused(given: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(None, {"http": given, "streams": {"s": {"topic": "a/{d}"}}})
    problems = [p for p in refusal.value.problems if said in f"{p.problem}; {p.remedy}"]
    assert [p.place.removeprefix("flag --") for p in problems] == [place]
    assert "with space" not in str(refusal.value)
    assert "1234567890123456" not in str(refusal.value)


def test_the_token_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "page-token").write_text(f"{TOKEN}\n")
    (tmp_path / "agent.toml").write_text(
        '[http]\nport = 9099\nhost = "0.0.0.0"\npage = true\ntoken_file = "page-token"\n[streams.s]\ntopic = "a/{d}"\n'
    )
    settings = load_settings(tmp_path / "agent.toml", STREAMS)
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings)


def test_the_guides_configurations_are_right(tmp_path: Path) -> None:
    (tmp_path / "page-token").write_text(f"{TOKEN}\n")
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "agent.toml").write_text(f'{block}[streams.s]\ntopic = "a/{{d}}"\n')
        assert load_settings(tmp_path / "agent.toml", {}).http.page


def test_the_guide_says_the_bounds_that_hold() -> None:
    for bound in (f"| {MOST}; one more is told so", f"| {BEHIND}; one that is further behind", f"every {FOLD:,}\npredictions",
                  f"the {LISTED} worst first", f"{ROOM >> 20} MiB: {rings.MOST} points", f"{rings.LEAST} at least",
                  f"| {notices.MOST}, those"):  # fmt: skip
        assert bound in GUIDE, bound
