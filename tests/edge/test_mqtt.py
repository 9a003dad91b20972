"""The connection to real brokers: log in, subscribe, fall back, will, and what a person is told when it fails."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests_support import Heard
from transom.core.pipeline import Message
from transom.dialects.plain import Publication
from transom.edge.broker import EmbeddedBroker
from transom.edge.inbox import Inbox
from transom.edge.mqtt import BrokerOptions, Connection, TlsOptions, check_connection
from transom.errors import BrokerError
from transom.settings import load_settings

BIRTH = Publication("t/status", b"online", 1, True)
WILL = Publication("t/status", b"offline", 1, True)
LAST = Publication("t/status", b"stopped", 1, True)


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[Connection, Inbox]]]:
    open_ones: list[Connection] = []

    def make(**options: object) -> tuple[Connection, Inbox]:
        inbox = Inbox(1000)
        connection = Connection(
            BrokerOptions(**options), filters=["plant/#"], inbox=inbox, will=WILL, birth=lambda: [BIRTH], backoff=0.05
        )
        connection.start()
        open_ones.append(connection)
        return connection, inbox

    yield make
    for connection in open_ones:
        connection.close(None, 0.1)


@pytest.mark.parametrize("broker", ["amqtt_broker", pytest.param("mosquitto_broker", marks=pytest.mark.mosquitto)])
def test_what_is_published_arrives_in_the_inbox(
    broker: str, request: pytest.FixtureRequest, connect: Callable[..., tuple[Connection, Inbox]]
) -> None:
    port = request.getfixturevalue(broker).port
    connection, inbox = connect(port=port)
    assert connection.wait_ready(15)
    with Heard(port, "t/#") as other:
        other.client.publish("plant/a/x", b"21.5", 1)
        assert inbox.wait(10)
        (message,), shed = inbox.drain()
        assert (message.topic, message.payload, shed) == ("plant/a/x", b"21.5", [])
        assert other.wait_for("t/status") == b"online"
        connection.close(LAST)
        assert other.wait_for("t/status", b"stopped") == b"stopped"


@pytest.mark.mosquitto
def test_a_connection_that_dies_leaves_its_will(mosquitto_broker, connect) -> None:
    connection, _ = connect(port=mosquitto_broker.port)
    assert connection.wait_ready(10)
    with Heard(mosquitto_broker.port, "t/#") as other:
        assert other.wait_for("t/status") == b"online"
        connection._closing.set()
        connection._client.socket().close()
        assert other.wait_for("t/status", b"offline") == b"offline"


@pytest.mark.mosquitto
def test_a_broker_that_comes_back_is_subscribed_to_again(mosquitto_broker, connect) -> None:
    connection, inbox = connect(port=mosquitto_broker.port)
    assert connection.wait_ready(10)
    mosquitto_broker.stop()
    mosquitto_broker.start()
    with Heard(mosquitto_broker.port, "t/#") as other:
        assert other.wait_for("t/status", b"online") == b"online"
        assert connection.wait_ready(10)
        other.client.publish("plant/a/x", b"1", 1)
        assert inbox.wait(10)
    assert connection.counters()["connects"] == 2


@pytest.mark.mosquitto
def test_a_wrong_password_is_one_clear_line(mosquitto, connect, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("me:$7$101$c2FsdHNhbHRzYWx0$AAAA\n")
    broker = mosquitto("allow_anonymous false", f"password_file {passwords}")
    said, lines = threading.Event(), []
    handler = logging.Handler()

    def emit(record: logging.LogRecord) -> None:
        lines.append(record.getMessage())
        said.set()

    handler.emit = emit  # type: ignore[method-assign]
    log = logging.getLogger("transom.edge.mqtt")
    log.addHandler(handler)
    try:
        connect(port=broker.port, username="me", password="wrong-secret")
        assert said.wait(10)
    finally:
        log.removeHandler(handler)
    assert "refuses the log-in" in lines[0]
    assert not any("wrong-secret" in line for line in lines)
    settings = load_settings(
        None, {"broker.port": str(broker.port), "broker.username": "me", "broker.password": "x"}, need_streams=False
    )
    with pytest.raises(BrokerError, match="refuses the log-in"):
        check_connection(settings)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"broker.port": "1"}, "nothing listens there"),
        ({"broker.host": "no-such-host.invalid"}, "the name is not known"),
    ],
)
def test_a_broker_that_cannot_be_reached_is_told_in_plain_words(overrides: dict[str, str], sentence: str) -> None:
    with pytest.raises(BrokerError, match=sentence):
        check_connection(load_settings(None, overrides, need_streams=False))


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="nothing.pem is no file"):
        Connection(BrokerOptions(tls=TlsOptions(ca_file=tmp_path / "nothing.pem")), filters=[], inbox=Inbox(1))


def test_without_a_connection_predictions_are_dropped_and_counted_and_alerts_wait() -> None:
    connection = Connection(BrokerOptions(port=1), filters=[], inbox=Inbox(1))
    sent = connection.publish([Publication("a", b"1", 0, False), Publication("b", b"2", 1, True)])
    assert sent == 1
    assert connection.counters()["dropped"] == 1


def test_a_port_that_is_taken_is_an_error_with_a_remedy(amqtt_broker: EmbeddedBroker) -> None:
    with pytest.raises(BrokerError, match="choose another --port"), EmbeddedBroker(amqtt_broker.port):
        pass


def test_a_full_inbox_sheds_the_oldest_and_keeps_them_for_the_accounts() -> None:
    inbox = Inbox(2)
    for i in range(5):
        inbox.put(Message(f"t{i}", b"", i))
    messages, shed = inbox.drain()
    assert [m.topic for m in messages] == ["t3", "t4"]
    assert [m.topic for m in shed] == ["t0", "t1", "t2"]
    assert inbox.drain() == ([], [])
    assert inbox.wait(0) is False
