"""The connection to real brokers: log in, subscribe, fall back, will, and what a person is told when it fails."""

import base64
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from conftest import missing
from tests_support import Heard
from transom.dialects.plain import Publication
from transom.edge.broker import EmbeddedBroker
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection
from transom.edge.redelivered import Redelivered
from transom.edge.wire import BrokerOptions, TlsOptions, check_connection
from transom.errors import BrokerError
from transom.settings import load_settings

BIRTH = Publication("t/status", b"online", 1, True)
WILL = Publication("t/status", b"offline", 1, True)
LAST = Publication("t/status", b"stopped", 1, True)


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[Connection, Inbox]]]:
    open_ones: list[Connection] = []

    def make(subscribed: dict[str, int] | None = None, **options: object) -> tuple[Connection, Inbox]:
        inbox = Inbox(1000)
        connection = Connection(
            BrokerOptions(**options),
            filters=["plant/#"],
            inbox=inbox,
            will=WILL,
            birth=lambda: [BIRTH],
            backoff=0.05,
            subscribed=subscribed,
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
    inbox.wait_turn(15)  # woken once it is subscribed
    assert connection.ready
    with Heard(port, "t/#") as other:
        other.client.publish("plant/a/x", b"21.5", 1)
        assert inbox.wait(10)
        (message,), _, shed, _ = inbox.drain()
        assert (message.topic, message.payload, shed) == ("plant/a/x", b"21.5", {})
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
def test_two_agents_with_one_id_are_told_what_the_broker_does_not_say(
    mosquitto_broker, connect, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = connect(port=mosquitto_broker.port)
    assert first.wait_ready(15)
    connect(port=mosquitto_broker.port)  # each ends the other's session when it comes back
    with Heard(mosquitto_broker.port, "t/status") as other:
        other.wait_until(lambda heard: len(heard.get("t/status", [])) > 20 or "agent.id" in caplog.text, 30)
    assert (
        "3 times soon after it began: does another client use the id transom? Give each agent an agent.id"
        in caplog.text
    )


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


def test_without_a_connection_nothing_is_taken_and_it_is_counted() -> None:
    connection = Connection(BrokerOptions(port=1), filters=[], inbox=Inbox(1))
    assert connection.publish(Publication("a", b"1", 0, False)) is None
    assert connection.publish(Publication("b", b"2", 1, True)) is None
    assert connection.counters()["dropped"] == 2


@pytest.mark.mosquitto
def test_a_subscription_that_the_broker_refuses_is_named(mosquitto, connect, tmp_path: Path) -> None:
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"), None)
    if plugin is None:
        missing("mosquitto has no dynamic security plugin")
    salt = b"0123456789ab"
    password = base64.b64encode(hashlib.pbkdf2_hmac("sha512", b"secret", salt, 101)).decode()
    me = {"username": "me", "salt": base64.b64encode(salt).decode(), "password": password, "iterations": 101}
    allowed = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    rights = tmp_path / "rights.json"
    rights.write_text(json.dumps({"defaultACLAccess": allowed, "clients": [me], "groups": [], "roles": []}))
    broker = mosquitto("allow_anonymous false", f"plugin {plugin}", f"plugin_opt_config_file {rights}")
    connection, _ = connect(port=broker.port, username="me", password="secret")
    assert connection.wait_ready(10)
    assert connection.refused == {"plant/#": "Not authorized"}


@pytest.mark.mosquitto
def test_a_kept_session_delivers_what_came_meanwhile_and_is_not_subscribed_to_again(mosquitto_broker, connect) -> None:
    first, _ = connect(port=mosquitto_broker.port, session=60)
    assert first.wait_ready(10)
    first.close()
    with Heard(mosquitto_broker.port, "t/#") as other:
        other.client.publish("plant/a/x", b"1", 1).wait_for_publish(5)
        second, inbox = connect(port=mosquitto_broker.port, session=60, subscribed=first.subscribed)
        assert inbox.wait(10)
        (message,), (token,), *_ = inbox.drain()
        assert (message.payload, second.counters()["resumed"]) == (b"1", 1)
        second.acknowledge([token])
        second.close()
        third, inbox = connect(port=mosquitto_broker.port, session=60, subscribed=first.subscribed)
        assert third.wait_ready(10)
        assert len(inbox) == 0


@pytest.mark.mosquitto
def test_what_is_not_acknowledged_comes_again_and_is_recognised(mosquitto_broker, connect) -> None:
    seen = Redelivered()
    first, inbox = connect(port=mosquitto_broker.port, session=60)
    assert first.wait_ready(10)
    with Heard(mosquitto_broker.port, "t/#") as other:
        for i in range(30):
            other.client.publish("plant/a/x", b"same" if i % 2 else str(i).encode(), 1)
        taken: list[bool] = []
        while len(taken) < 30:
            assert inbox.wait(10)
            messages, tokens, *_ = inbox.drain()
            taken += [seen.seen(token.mid, m) for m, token in zip(messages, tokens, strict=True)]
        assert not any(taken)
        first.close()
        _, inbox = connect(port=mosquitto_broker.port, session=60, subscribed=first.subscribed)
        again: list[bool] = []
        while len(again) < 30:
            assert inbox.wait(10)
            messages, tokens, *_ = inbox.drain()
            again += [seen.seen(token.mid, m) for m, token in zip(messages, tokens, strict=True)]
        assert all(again)
        assert seen.count == 30


@pytest.mark.mosquitto
def test_filters_that_are_gone_are_unsubscribed_from_in_a_kept_session(mosquitto_broker, connect) -> None:
    old, _ = connect(port=mosquitto_broker.port, session=60)
    assert old.wait_ready(10)
    old.close()
    inbox = Inbox(10)
    new = Connection(
        BrokerOptions(port=mosquitto_broker.port, session=60), filters=["home/#"], inbox=inbox,
        subscribed=old.subscribed, backoff=0.05,
    )  # fmt: skip
    new.start()
    try:
        assert new.wait_ready(10)
        with Heard(mosquitto_broker.port, "t/#") as other:
            other.client.publish("plant/a/x", b"1", 1).wait_for_publish(5)
            other.client.publish("home/a", b"2", 1).wait_for_publish(5)
            assert inbox.wait(10)
        assert [m.topic for m in inbox.drain().messages] == ["home/a"]
    finally:
        new.close()


def test_a_port_that_is_taken_is_an_error_with_a_remedy(amqtt_broker: EmbeddedBroker) -> None:
    with pytest.raises(BrokerError, match="choose another --port"), EmbeddedBroker(amqtt_broker.port):
        pass


def test_the_packet_id_of_a_publication_at_qos_0_confirms_no_other() -> None:
    """There are 65,535 packet ids: one comes again while an alert with it is still on its way."""

    class Wrapping:
        quick = False

        def is_connected(self) -> bool:
            return True

        def publish(self, *_: object) -> paho.MQTTMessageInfo:
            info = paho.MQTTMessageInfo(7)
            info.rc = paho.MQTT_ERR_SUCCESS
            return info

    connection = Connection(BrokerOptions(), filters=[], inbox=Inbox(10))
    connection._client = Wrapping()  # type: ignore[assignment]
    fleeting = Publication("t/health", b"{}", 0, True)
    assert connection.publish(Publication("t/alert", b"{}", 1, True)) == 7
    connection.publish(fleeting)
    connection._on_publish(connection._client, None, 7, None, None)  # type: ignore[arg-type]
    assert connection.confirmed() == []
    connection.publish_many([fleeting])
    connection._on_publish(connection._client, None, 7, None, None)  # type: ignore[arg-type]
    assert connection.confirmed() == []
    connection._on_publish(connection._client, None, 7, None, None)  # type: ignore[arg-type]
    assert connection.confirmed() == [7]
