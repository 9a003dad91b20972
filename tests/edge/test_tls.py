"""TLS against real servers: what is right connects, and each thing that is wrong is one clear line.

One mosquitto with a listener for each case; certificates are made once.
"""

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ports import free_port

from conftest import Mosquitto
from tests_support import Heard
from transom.dialects.plain import Publication
from transom.edge import certificates
from transom.edge.certificates import Certificates
from transom.edge.checkup import broker as checkup
from transom.edge.checkup import trial
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection
from transom.edge.tls import TlsOptions
from transom.edge.wire import BrokerOptions, check_connection
from transom.errors import BrokerError, SettingsError
from transom.settings import load_settings

pytestmark = pytest.mark.mosquitto

HOUR = dt.timedelta(hours=1)
YEAR = 366 * 24 * HOUR


class Authority:
    """Makes certificates in a folder: `authority.write("client")` gives client.pem and client.key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        built = self._builder(self.name, self.key, -HOUR, YEAR).add_extension(usage, critical=True)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file.write_bytes(built.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begin: dt.timedelta, end: dt.timedelta
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def write(
        self, name: str, host: str = "127.0.0.1", begin: dt.timedelta = -HOUR, end: dt.timedelta = YEAR,
        password: bytes | None = None,
    ) -> x509.Certificate:  # fmt: skip
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host[0].isdigit():
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        built = self._builder(subject, key, begin, end).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        made = built.sign(self.key, hashes.SHA256())
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (self.folder / f"{name}.pem").write_bytes(made.public_bytes(pem))
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, hidden))
        return made

    def revoke(self, *revoked: x509.Certificate) -> Path:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - HOUR).next_update(now + YEAR)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now - HOUR)
            builder = builder.add_revoked_certificate(entry.build())
        file = self.folder / "crl.pem"
        file.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return file


class Place:
    """The certificates, and a mosquitto whose listeners are `ports`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, dict[str, int]()
        self.ca, self.other = Authority(folder, "ca"), Authority(folder, "other")
        self.ca.write("server")
        self.ca.write("elsewhere", host="broker.example")
        self.ca.write("short", end=10.5 * 24 * HOUR)
        self.ca.write("old", begin=-YEAR, end=-HOUR)
        self.ca.write("future", begin=24 * HOUR)
        self.ca.write("client")
        self.ca.write("locked", password=b"geheim")
        self.ca.write("client-old", begin=-YEAR, end=-HOUR)
        self.other.write("stranger")
        self.crl = self.ca.revoke(self.ca.write("revoked"))

    def lines(self) -> list[str]:
        """Of mosquitto.conf: the first listener, {port}, has no TLS."""
        lines = ["per_listener_settings true", "allow_anonymous true"]
        for name in ("server", "elsewhere", "short", "old", "future", "mutual", "websockets"):
            self.ports[name] = free_port()
            certificate = name if (self.folder / f"{name}.pem").exists() else "server"
            lines += [f"listener {self.ports[name]} 127.0.0.1", "allow_anonymous true"]
            lines += [f"certfile {self.folder}/{certificate}.pem", f"keyfile {self.folder}/{certificate}.key"]
            if name == "mutual":
                lines += [f"cafile {self.ca.file}", "require_certificate true", f"crlfile {self.crl}"]
            if name == "websockets":
                lines += ["protocol websockets"]
        return lines

    def check(self, port: str | int, trust: str | None = "ca", own: str | None = None, **more: str) -> str:
        tls = {"ca_file": f"{self.folder}/{trust}.pem"} if trust else {}
        if own is not None:
            tls |= {"cert_file": f"{self.folder}/{own}.pem", "key_file": f"{self.folder}/{own}.key"}
        number = self.ports[port] if isinstance(port, str) else port
        overrides = {f"broker.tls.{k}": v for k, v in tls.items()} | {f"broker.{k}": v for k, v in more.items()}
        return check_connection(load_settings(None, overrides | {"broker.port": str(number)}, need_streams=False))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def place(shared: Place, mosquitto: Callable[..., Mosquitto]) -> Place:
    shared.ports["plain"] = mosquitto(*shared.lines()).port
    return shared


# --- the matrix -------------------------------------------------------------------------------------------------------


def test_the_right_authority_connects(place: Place) -> None:
    assert "by MQTT 5" in place.check("server")


def test_a_client_certificate_connects(place: Place) -> None:
    assert "by MQTT 5" in place.check("mutual", own="client")


def test_websockets_over_tls_connect(place: Place) -> None:
    assert "by MQTT 5" in place.check("websockets", transport="websockets")


def test_the_port_without_tls_is_for_those_without(place: Place) -> None:
    assert "by MQTT 5" in place.check("plain", trust=None)


@pytest.mark.parametrize(
    ("case", "port", "own", "sentence"),
    [
        ("wrong authority", "server", None, r"not accepted \(unable to get local issuer certificate\); check broker\.tls\.ca_file"),
        ("no authority", "server", None, r"not accepted \(unable to get local issuer certificate\); check broker\.tls\.ca_file"),
        ("expired", "old", None, r"not accepted \(certificate has expired\); it has expired: renew it at the broker"),
        ("of the future", "future", None, r"not accepted \(certificate is not yet valid\); .*check this machine's clock"),
        ("wrong name", "elsewhere", None, r"not accepted \(IP address mismatch.*\); write broker\.host as the certificate"),
        ("no client certificate", "mutual", None, r"the broker wants a client certificate; set broker\.tls\.cert_file"),
        ("revoked client", "mutual", "revoked", r"refuses our certificate, which is revoked; get another"),
        ("expired client", "mutual", "client-old", r"refuses our certificate, which has expired; renew broker\.tls\.cert_file"),
        ("foreign client", "mutual", "stranger", r"refuses our certificate, whose authority it does not know"),
        ("TLS to a plain port", "plain", None, r"the broker closes the connection; (is this the TLS port|does this port want TLS)"),
        ("plain to a TLS port", "server", None, r"the broker closes the connection; does this port want TLS"),
    ],
)  # fmt: skip
def test_each_failure_is_one_clear_line(place: Place, case: str, port: str, own: str | None, sentence: str) -> None:
    trust = {"wrong authority": "other", "no authority": None, "plain to a TLS port": None}.get(case, "ca")
    more = {"tls.enabled": "true"} if case == "no authority" else {}
    with pytest.raises(BrokerError, match=sentence) as refusal:
        place.check(port, trust, own, **more)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"127.0.0.1:{place.ports[port]}: ")


def test_the_agent_says_the_same_while_it_tries(place: Place) -> None:
    tls = TlsOptions(place.ca.file, place.folder / "revoked.pem", place.folder / "revoked.key")
    connection = Connection(BrokerOptions(port=place.ports["mutual"], tls=tls), filters=[], inbox=Inbox(1))
    told = threading.Event()
    real = connection._closing.wait

    def wait(seconds: float | None = None) -> bool:
        told.set()
        return real(seconds)

    connection._closing.wait = wait  # type: ignore[method-assign]
    connection.start()
    try:
        assert told.wait(10)
        assert connection.problem.startswith("the broker refuses our certificate, which is revoked")
    finally:
        connection.close()


class Server:
    """A TLS server that shakes hands once. alpn: what it agreed on."""

    def __init__(self, folder: Path, *, alpn: list[str] | None = None, newest: ssl.TLSVersion | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem", folder / "server.key")
        if alpn:
            self._context.set_alpn_protocols(alpn)
        if newest is not None:
            self._context.set_ciphers("DEFAULT:@SECLEVEL=0")
            self._context.minimum_version, self._context.maximum_version = ssl.TLSVersion.TLSv1, newest
        self.alpn: str | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            sock.settimeout(5)
            try:
                with self._context.wrap_socket(sock, server_side=True) as safe:
                    self.alpn = safe.selected_alpn_protocol()
            except OSError:
                sock.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_a_broker_with_nothing_newer_than_tls_1_1_is_refused(shared: Place) -> None:
    server = Server(shared.folder, newest=ssl.TLSVersion.TLSv1_1)
    try:
        with pytest.raises(BrokerError, match=r"speaks no TLS 1\.2 or newer, and older is not used; update the broker"):
            shared.check(server.port)
    finally:
        server.close()


def test_the_protocol_of_alpn_is_offered(shared: Place) -> None:
    server = Server(shared.folder, alpn=["http/1.1", "mqtt"])
    try:
        with pytest.raises(BrokerError, match="closes the connection"):  # it is no broker
            shared.check(server.port, **{"tls.alpn": '["x-amzn-mqtt-ca", "mqtt"]'})
    finally:
        server.close()
    assert server.alpn == "mqtt"


def test_a_name_that_alpn_cannot_carry_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"alpn.*is no protocol's name"):
        load_settings(None, {"broker": {"tls": {"alpn": ["é"]}}}, need_streams=False)


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_encrypted_key_is_opened_with_its_password(place: Place) -> None:
    secret = place.folder / "secret"
    secret.write_text("geheim\n")
    assert "by MQTT 5" in place.check("mutual", own="locked", **{"tls.key_password_file": str(secret)})


def test_files_that_cannot_be_used_are_named(shared: Place) -> None:
    folder = shared.folder
    (folder / "wrong").write_text("falsch")
    (folder / "nonsense.pem").write_text("nonsense")
    own = {"cert_file": folder / "client.pem", "key_file": folder / "server.key"}
    locked = {"cert_file": folder / "locked.pem", "key_file": folder / "locked.key"}
    for tls, sentence in (
        (TlsOptions(**own), "key_file: .*server.key is not the key of the certificate in .*client.pem"),
        (TlsOptions(**locked), "locked.key is encrypted; set broker.tls.key_password_file"),
        (
            TlsOptions(**locked, key_password_file=folder / "wrong"),
            "key_password_file: .*wrong does not open .*locked.key",
        ),
        (TlsOptions(ca_file=folder / "nonsense.pem"), "ca_file: .*nonsense.pem cannot be used"),
        (TlsOptions(cert_file=folder / "nonsense.pem"), "cert_file: .*nonsense.pem"),
        (TlsOptions(ca_file=folder / "none.pem"), "none.pem is no file"),
    ):
        with pytest.raises(BrokerError, match=sentence):
            Certificates(tls)


# --- rotation ---------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def own(shared: Place, tmp_path: Path) -> Callable[..., TlsOptions]:
    """Writes a pair into place, and says where it is."""

    def write(name: str = "agent", **how: dt.timedelta) -> TlsOptions:
        shared.ca.write(name, **how)
        for end in ("pem", "key"):
            (shared.folder / f"{name}.{end}").replace(tmp_path / f"own.{end}")
        return TlsOptions(shared.ca.file, tmp_path / "own.pem", tmp_path / "own.key")

    return write


def settled(watched: Certificates, clock: Clock) -> bool:
    """Whether the connection should be made anew, after the files were looked at twice."""
    watched.look()
    clock.now += certificates.LOOK
    watched.look()
    clock.now += certificates.SETTLE
    return watched.look()


def test_a_new_pair_is_taken_once_it_is_whole_and_a_half_written_one_is_refused(own: Callable[..., TlsOptions]) -> None:
    clock = Clock()
    tls = own()
    watched = Certificates(tls, clock)
    assert watched.context is not None
    first = watched.context.current
    assert tls.cert_file is not None
    assert tls.key_file is not None
    old_key = tls.key_file.read_bytes()
    own()
    new_key = tls.key_file.read_bytes()
    tls.key_file.write_bytes(old_key)  # as it is when only the certificate was written yet
    settled(watched, clock)
    assert watched.context.current is first
    (line,) = watched.problems
    assert line.startswith("the new certificates are refused, the old ones go on: broker.tls.key_file: ")
    tls.key_file.write_bytes(new_key)
    assert not settled(watched, clock)  # the one in use, none yet, need not go
    assert watched.context.current is not first
    assert watched.problems == ()


def test_files_that_still_change_are_not_read(own: Callable[..., TlsOptions]) -> None:
    clock = Clock()
    watched = Certificates(own(), clock)
    assert watched.context is not None
    first = watched.context.current
    own()
    clock.now += certificates.LOOK
    watched.look()
    clock.now += certificates.SETTLE / 2
    watched.look()
    assert watched.context.current is first
    own()
    clock.now += certificates.SETTLE
    watched.look()
    assert watched.context.current is first
    clock.now += certificates.SETTLE
    watched.look()
    assert watched.context.current is not first


def test_a_touched_file_is_no_change(own: Callable[..., TlsOptions]) -> None:
    clock = Clock()
    tls = own()
    watched = Certificates(tls, clock)
    assert watched.context is not None
    first = watched.context.current
    assert tls.cert_file is not None
    tls.cert_file.write_bytes(tls.cert_file.read_bytes())
    settled(watched, clock)
    assert watched.context.current is first


def test_what_ends_is_told_of_from_21_days_before(
    own: Callable[..., TlsOptions], caplog: pytest.LogCaptureFixture
) -> None:
    for end, sentence in (
        (22 * 24 * HOUR, ""),
        (20.5 * 24 * HOUR, "our certificate ends in 20 days, on "),
        (2 * HOUR, "our certificate ends within a day, on "),
        (-HOUR / 2, "our certificate ended on "),
    ):
        caplog.clear()
        clock = Clock()
        watched = Certificates(own(end=end), clock)
        for _ in range(3):
            clock.now += certificates.LOOK
            watched.look()
        assert len(watched.problems) == bool(sentence)
        assert sentence in "".join(watched.problems)
        assert len(caplog.messages) == bool(sentence)  # once


def test_a_broker_whose_certificate_ends_soon_is_told_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK", 0.05)
    sentence = "the broker's certificate ends in 10 days"
    connection = Connection(
        BrokerOptions(port=place.ports["short"], tls=TlsOptions(place.ca.file)), filters=["a"], inbox=Inbox(9)
    )
    told, look = threading.Event(), connection.certificates.look

    def looked() -> bool:
        anew = look()
        if connection.certificates.problems:
            told.set()
        return anew

    connection.certificates.look = looked  # type: ignore[method-assign]
    connection.start()
    try:
        assert told.wait(10)
        assert sentence in connection.certificates.problems[0]
        assert connection.certificates.ends()["broker"] > 0
    finally:
        connection.close()
    flags = {"broker.port": str(place.ports["short"]), "broker.tls.ca_file": str(place.ca.file)}
    monkeypatch.setattr(trial, "LISTEN", 0.1)
    found = list(checkup.findings(load_settings(None, flags, need_streams=False)))
    assert any(sentence in f.what and f.mend == "renew it at the broker" for f in found)


@pytest.mark.parametrize(("end", "anew"), [(YEAR, False), (HOUR / 2, True)])
def test_a_connection_whose_certificate_is_about_to_end_is_made_anew_and_loses_nothing(
    place: Place, own: Callable[..., TlsOptions], monkeypatch: pytest.MonkeyPatch, end: dt.timedelta, anew: bool
) -> None:
    for name in ("LOOK", "SETTLE"):
        monkeypatch.setattr(certificates, name, 0.05)
    inbox = Inbox(10_000)
    options = BrokerOptions(port=place.ports["mutual"], tls=own(end=end), session=60, client_id="renews")
    will = Publication("will", b"gone", 1, False)
    connection = Connection(options, filters=["a"], inbox=inbox, will=will)
    with Heard(place.ports["plain"], "#") as other:
        connection.start()
        try:
            assert connection.wait_ready(10)
            assert connection.certificates.context is not None
            before = connection.certificates.context.current
            own()
            got: list[bytes] = []
            for i in range(1000):
                other.client.publish("a", b"%d" % i, 1)
                inbox.wait(0.02)
                drained = inbox.drain()
                got += [m.payload for m in drained.messages]
                connection.acknowledge(drained.tokens)
                done = connection.certificates.context.current is not before
                if done and (connection.counters()["connects"] == 2 or not anew) and connection.ready:
                    break
            other.client.publish("a", b"last", 1)
            while b"last" not in got:
                inbox.wait(5)
                drained = inbox.drain()
                assert drained.messages
                got += [m.payload for m in drained.messages]
                connection.acknowledge(drained.tokens)
            assert connection.counters()["connects"] == connection.counters()["resumed"] + 1 == 1 + anew
            assert set(got) == {*(b"%d" % n for n in range(i + 1)), b"last"}
            other.wait_for("a", b"last")
            assert "will" not in other.messages
        finally:
            connection.close()
