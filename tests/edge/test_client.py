"""The quick client against real brokers: TLS, WebSocket, keep-alive, and plain paho in its place."""

import threading
from collections.abc import Callable

import pytest
from ports import free_port

from conftest import Mosquitto
from tests_support import Heard
from transom.edge import client, mqtt, receiver, wire
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection
from transom.edge.wire import BrokerOptions

COUNT = 2000
PROTOCOL = {"tcp": "mqtt", "websockets": "websockets"}  # as mosquitto names them


def connection(inbox: Inbox, **options: object) -> Connection:
    return Connection(BrokerOptions(**options), filters=["plant/#"], inbox=inbox, backoff=0.05)


def drained(inbox: Inbox, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count and inbox.wait(10):
        found += [m.payload for m in inbox.drain().messages]
    return found


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if paho were of a version that nobody has looked into."""
    monkeypatch.setattr(wire, "new", lambda *a, **k: client.new(*a, **k, quick=False))


@pytest.mark.mosquitto
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_many_messages_come_and_go_in_order(
    mosquitto: Callable[..., Mosquitto], transport: str, protocol: str, qos: int
) -> None:
    # A mosquitto of this age does not start with nothing but websockets.
    port = free_port()
    mosquitto(
        "allow_anonymous true", "max_queued_messages 0", f"listener {port} 127.0.0.1", f"protocol {PROTOCOL[transport]}"
    )
    _round_trip(port, transport=transport, protocol=protocol, qos=qos)


@pytest.mark.mosquitto
def test_plain_paho_does_the_same_where_its_version_is_unknown(mosquitto_broker: Mosquitto, plain: None) -> None:
    _round_trip(mosquitto_broker.port, qos=1)


def _round_trip(port: int, **options: object) -> None:
    inbox, back = Inbox(10 * COUNT), Inbox(10 * COUNT)
    one = connection(inbox, port=port, client_id="one", **options)
    other = Connection(
        BrokerOptions(port=port, client_id="other", **(options | {"qos": 0})), filters=["back/#"], inbox=back
    )
    one.start()
    other.start()
    try:
        assert one.wait_ready(10)
        assert other.wait_ready(10)
        sent = [b"%d" % i * (1 + i % 300) for i in range(COUNT)]
        for i, payload in enumerate(sent):
            assert other.publish(mqtt.Publication(f"plant/{i % 7}/x", payload, int(options["qos"]), False)) is not None  # type: ignore[call-overload]
        taken: list[bytes] = []
        while len(taken) < COUNT and inbox.wait(10):
            drain = inbox.drain()
            taken += [m.payload for m in drain.messages]
            one.acknowledge([t for t in drain.tokens if t is not None])
            one.publish_many([mqtt.Publication("back/x", m.payload, 0, False) for m in drain.messages])
        assert sorted(taken) == sorted(sent)
        assert taken == sent
        assert drained(back, COUNT) == sent
    finally:
        one.close(None, 0.1)
        other.close(None, 0.1)


@pytest.mark.mosquitto
def test_a_stream_of_readings_counts_as_a_sign_of_life(mosquitto_broker: Mosquitto) -> None:
    """Paho ends a connection on which it has heard nothing for two keep-alives: what we read for it must count."""
    inbox = Inbox(1000)
    one = connection(inbox, port=mosquitto_broker.port, keepalive=1)
    one.start()
    try:
        assert one.wait_ready(10)
        field = client.TESTED[client.PAHO]
        before = getattr(one._client, field)
        with Heard(mosquitto_broker.port, "t/#") as other:
            other.client.publish("plant/a/x", b"1", 0)
            assert inbox.wait(10)
        assert getattr(one._client, field) > before
    finally:
        one.close(None, 0.1)


@pytest.mark.mosquitto
def test_readings_that_trickle_in_are_read_after_a_moment_and_one_alone_at_once(
    mosquitto_broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(receiver, "time", _Clock(naps))
    inbox = Inbox(10_000)
    one = connection(inbox, port=mosquitto_broker.port)
    one.start()
    try:
        assert one.wait_ready(10)
        with Heard(mosquitto_broker.port, "t/#") as other:
            other.client.publish("plant/a/x", b"1", 0)
            assert inbox.wait(10)
            inbox.drain()
            assert naps == []
            for i in range(500):
                other.client.publish("plant/a/x", b"%d" % i, 0)
            assert len(drained(inbox, 500)) == 500
        assert all(nap <= receiver.NAP for nap in naps)
    finally:
        one.close(None, 0.1)


class _Clock:
    """time, with its naps written down."""

    def __init__(self, naps: list[float]) -> None:
        import time

        self._time, self._naps, self._thread = time, naps, threading.main_thread()

    def __getattr__(self, name: str) -> object:
        return getattr(self._time, name)

    def sleep(self, seconds: float) -> None:
        self._naps.append(seconds)
        self._time.sleep(seconds)
