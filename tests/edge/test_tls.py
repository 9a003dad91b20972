"""TLS against a real mosquitto: what is right connects, what is wrong is one clear line."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Mosquitto, missing
from transom.edge.wire import check_connection
from transom.errors import BrokerError
from transom.settings import load_settings

pytestmark = [
    pytest.mark.mosquitto,
    # paho 2.2 leaves the socket of a failed handshake to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def openssl(*words: str, folder: Path) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """ca.pem, another.pem; server.pem for 127.0.0.1, client.pem, both signed by ca."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed (apt install openssl)")
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("ca", "another"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2",
                "-subj", f"/CN={name}", folder=folder)  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
            folder=folder,
        )
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "san", "-out", f"{name}.pem", folder=folder)  # fmt: skip
    return folder


@pytest.fixture
def broker(mosquitto: Callable[..., Mosquitto], authority: Path) -> Mosquitto:
    return mosquitto(
        "allow_anonymous true", f"cafile {authority}/ca.pem", f"certfile {authority}/server.pem",
        f"keyfile {authority}/server.key", "require_certificate true",
    )  # fmt: skip


def check(port: int, **tls: object) -> str:
    overrides = {"broker.port": str(port)} | {f"broker.tls.{key}": str(value) for key, value in tls.items()}
    return check_connection(load_settings(None, overrides, need_streams=False))


def test_the_right_authority_and_a_client_certificate_connect(broker: Mosquitto, authority: Path) -> None:
    said = check(
        broker.port, ca_file=authority / "ca.pem", cert_file=authority / "client.pem", key_file=authority / "client.key"
    )
    assert "by MQTT 5" in said


def test_an_unknown_authority_is_named_as_the_trouble(broker: Mosquitto, authority: Path) -> None:
    with pytest.raises(BrokerError, match=r"certificate is not accepted .*broker\.tls\.ca_file"):
        check(broker.port, ca_file=authority / "another.pem")


def test_a_plain_connection_to_a_tls_port_does_not_hang(broker: Mosquitto) -> None:
    with pytest.raises(BrokerError):
        check(broker.port)


def test_tls_to_a_plain_port_says_so(mosquitto_broker: Mosquitto, authority: Path) -> None:
    with pytest.raises(BrokerError, match="TLS"):
        check(mosquitto_broker.port, ca_file=authority / "ca.pem")
