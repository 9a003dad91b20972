"""Models by HTTPS from a real server with a private authority: what is fetched, resumed, tried again and refused."""

import hashlib
import http.server
import logging
import random
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from tests_arrival import Noted, configured, progress_in, signed
from transom.dialects.updates import Progress
from transom.edge.arrival import fetching, https
from transom.edge.arrival.desk import Desk
from transom.edge.arrival.fetching import Fetching

DATA = random.Random(3).randbytes(200_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def openssl(*words: str, folder: Path) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem and another.pem; server.pem for 127.0.0.1, signed by the first."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed (apt install openssl)")
    folder = tmp_path_factory.mktemp("tls")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "another"):
        openssl("req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}",
                "-addext", "keyUsage=critical,keyCertSign", folder=folder)  # fmt: skip  # Python 3.13 demands it
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server", folder=folder)
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "san", "-out", "server.pem", folder=folder)  # fmt: skip
    return folder


class Server(http.server.ThreadingHTTPServer):
    """files: by path; cut: after how many bytes the first answer breaks off; asked: path and Range of each request."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.files: dict[str, bytes] = {"/pump.pt": DATA, "/pump.pt.minisig": signed(DATA).encode()}
        self.moved: dict[str, str] = {}
        self.ranges, self.cut, self.status = True, 0, 200
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}/pump.pt"

    def handle_error(self, *_: object) -> None:
        """A client that refuses our certificate is what is tested."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.asked.append((self.path, self.headers.get("Range") or ""))
        if path in server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = server.files.get(path)
        if data is None or server.status != 200:
            self.send_error(404 if data is None else server.status)
            return
        begin = 0
        if server.ranges and (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            begin = int(found[1])
            if begin >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if server.cut:
            self.wfile.write(data[begin : begin + server.cut])
            server.cut, self.close_connection = 0, True
        else:
            self.wfile.write(data[begin:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(authority: Path) -> Iterator[Server]:
    with Server(authority) as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.0)


class Client:
    """An agent's side."""

    def __init__(
        self, tmp_path: Path, server: Server, authority: Path | None, store: Noted | None = None, **changes: Any
    ) -> None:
        self.store = store or Noted()
        stream = {"update_url": server.url, "update_sha256": SHA256} | changes.pop("stream", {})
        ca = {} if authority is None else {"updates_ca_file": str(authority)}
        self.desk = Desk(configured(tmp_path, updates=["https"], stream=stream, **ca, **changes), self.store)
        self.fetching = Fetching(self.desk)
        self.parts = tmp_path / "gw" / "models" / "incoming" / "https"

    def step(self, times: int = 1) -> list[Progress]:
        for _ in range(times):
            self.fetching.step()
        return [p for p in progress_in(self.desk.unsent()) if p.final]


def test_a_pinned_file_is_fetched_once_with_its_signature(tmp_path: Path, server: Server, authority: Path) -> None:
    client = Client(tmp_path, server, authority / "ca.pem")
    assert [(p.stream, p.origin, p.state) for p in client.step()] == [("s", "https", "offered")]
    assert client.store.offers == [("s", DATA, signed(DATA), "https")]
    assert [path for path, _ in server.asked] == ["/pump.pt", "/pump.pt.minisig"]
    again = Client(tmp_path, server, authority / "ca.pem")
    assert client.step() + again.step() == []
    assert (len(server.asked), list(client.parts.iterdir())) == (2, [])


def test_a_file_without_a_signature_is_offered_without(tmp_path: Path, server: Server, authority: Path) -> None:
    del server.files["/pump.pt.minisig"]
    client = Client(tmp_path, server, authority / "ca.pem")
    client.step()
    assert client.store.offers == [("s", DATA, "", "https")]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on(tmp_path: Path, server: Server, authority: Path, *, ranges: bool) -> None:
    server.cut, server.ranges = 70_000, ranges
    assert Client(tmp_path, server, authority / "ca.pem").step() == []
    again = Client(tmp_path, server, authority / "ca.pem")  # a restart in between
    again.step()
    assert again.store.offers[0][1] == DATA
    assert server.asked[1:] == [("/pump.pt", "bytes=70000-"), ("/pump.pt.minisig", "")]


def test_a_download_that_was_whole_when_the_agent_ended_is_not_fetched_again(
    tmp_path: Path, server: Server, authority: Path
) -> None:
    client = Client(tmp_path, server, authority / "ca.pem")
    (client.parts / SHA256).mkdir(parents=True)
    (client.parts / SHA256 / "model.pt").write_bytes(DATA)
    client.step()
    assert client.store.offers[0][1] == DATA


def test_what_was_there_of_another_file_is_thrown_away(tmp_path: Path, server: Server, authority: Path) -> None:
    client = Client(tmp_path, server, authority / "ca.pem")
    (client.parts / SHA256).mkdir(parents=True)
    (client.parts / SHA256 / "model.pt").write_bytes(b"something else")
    client.step()
    assert client.store.offers[0][1] == DATA


def test_another_digest_is_refused_and_not_asked_for_again(tmp_path: Path, server: Server, authority: Path) -> None:
    server.files["/pump.pt"] = DATA[:-1] + b"x"
    client = Client(tmp_path, server, authority / "ca.pem")
    assert "and update_sha256 says" in client.step()[0].reason
    assert (client.step(3), client.store.offers, len(server.asked)) == ([], [], 1)


def test_a_server_of_an_unknown_authority_is_not_spoken_to(
    tmp_path: Path, server: Server, authority: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for ca in (None, authority / "another.pem"):
        client = Client(tmp_path, server, ca)
        client.step()
        assert client.store.offers == []
    assert caplog.text.count("certificate is not accepted") == 2
    assert server.asked == []


def test_a_redirect_to_http_is_refused(tmp_path: Path, server: Server, authority: Path) -> None:
    server.moved["/pump.pt"] = "http://127.0.0.1:1/pump.pt"
    client = Client(tmp_path, server, authority / "ca.pem")
    assert "let it lead to https only" in client.step()[0].reason


def test_redirects_to_https_are_followed_a_few_times(tmp_path: Path, server: Server, authority: Path) -> None:
    server.files["/there.pt"] = server.files.pop("/pump.pt")
    server.moved["/pump.pt"] = "/there.pt"
    client = Client(tmp_path, server, authority / "ca.pem")
    client.step()
    assert client.store.offers[0][1] == DATA
    server.moved["/pump.pt"] = "/pump.pt"
    other = Client(tmp_path / "other", server, authority / "ca.pem")
    other.step()
    assert other.store.offers == []
    assert len(server.asked) < 12


def test_a_file_that_is_too_large_is_not_fetched(tmp_path: Path, server: Server, authority: Path) -> None:
    client = Client(tmp_path, server, authority / "ca.pem", updates_largest="100KiB")
    assert "has 200,000 bytes" in client.step()[0].reason
    assert (client.store.offers, list(client.parts.iterdir())) == ([], [])


def test_a_server_in_trouble_is_asked_again_less_and_less_often_and_then_no_more(
    tmp_path: Path, server: Server, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TRIES", 4)
    server.status = 503
    client = Client(tmp_path, server, authority / "ca.pem")
    assert client.step(3) == []
    assert [p.state for p in client.step(3)] == ["refused"]
    assert len(server.asked) == 4


def test_the_pauses_grow(
    tmp_path: Path, server: Server, authority: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 100.0)
    server.status = 503
    client = Client(tmp_path, server, authority / "ca.pem")
    assert 99 < client.fetching.step() <= 100
    monkeypatch.setattr(client.fetching, "_tries", {w: t._replace(due=0.0) for w, t in client.fetching._tries.items()})
    assert 199 < client.fetching.step() <= 200
    assert "answers 503 (Service Unavailable)" in caplog.text


def test_no_log_shows_the_query_of_an_address(
    tmp_path: Path, server: Server, authority: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transom")
    client = Client(tmp_path, server, authority / "ca.pem", stream={"update_url": f"{server.url}?token=hush"})
    client.step()
    assert ("/pump.pt?token=hush", "") in server.asked
    assert ("/pump.pt.minisig?token=hush", "") in server.asked
    assert "/pump.pt" in caplog.text
    assert "hush" not in caplog.text


def test_no_other_scheme_is_opened(tmp_path: Path) -> None:
    director = https.opener(None)
    secret = tmp_path / "secret"
    secret.write_text("x")
    for url in (f"file://{secret}", "http://127.0.0.1:1/", "ftp://127.0.0.1:1/"):
        with pytest.raises(https.FetchError, match="unknown url type"):
            https.fetch(director, url, tmp_path / "target", 1000, lambda *_: True)
