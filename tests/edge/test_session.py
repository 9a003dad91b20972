"""What a kept session must not lose, and what it must not bring: restarts of the broker, notes that are gone, filters
that overlap or that nobody remembers, and stored messages."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from conftest import Mosquitto
from tests_support import Heard
from transom.core.pipeline import Message
from transom.edge import subscriptions
from transom.edge.client import Client
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection
from transom.edge.subscriptions import matching
from transom.edge.wire import BrokerOptions

pytestmark = pytest.mark.mosquitto
PROTOCOLS = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[Connection, Inbox]]]:
    open_ones: list[Connection] = []

    def make(
        filters: Sequence[str], subscribed: dict[str, int] | None = None, **options: object
    ) -> tuple[Connection, Inbox]:
        inbox = Inbox(1000)
        connection = Connection(
            BrokerOptions(**({"session": 600} | options)), filters=filters, inbox=inbox, backoff=0.05,
            subscribed=subscribed,
        )  # fmt: skip
        connection.start()
        open_ones.append(connection)
        assert connection.wait_ready(10)
        return connection, inbox

    yield make
    for connection in open_ones:
        connection.close(None, 0.5)


def drained(connection: Connection, inbox: Inbox, last: bytes) -> list[Message]:
    """All messages up to the one whose payload is `last`, acknowledged."""
    found: list[Message] = []
    while not found or found[-1].payload != last:
        assert inbox.wait(10), found
        messages, tokens, *_ = inbox.drain()
        found += messages
        connection.acknowledge([t for t in tokens if t is not None])
    return found


@PROTOCOLS
def test_the_first_session_of_an_agent_outlives_a_restart_of_the_broker(
    protocol: str, mosquitto: Callable[..., Mosquitto], connect, tmp_path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    broker = mosquitto("allow_anonymous true", "persistence true", f"persistence_location {kept}/")
    first, _ = connect(["plant/#"], port=broker.port, protocol=protocol)
    held = first.subscribed
    first.close()
    with Heard(broker.port, "t/#") as other:
        for i in range(20):
            other.client.publish("plant/a/x", b"%d" % i, 1).wait_for_publish(5)
    broker.stop()
    broker.start()
    second, inbox = connect(["plant/#"], held, port=broker.port, protocol=protocol)
    assert [m.payload for m in drained(second, inbox, b"19")] == [b"%d" % i for i in range(20)]


@PROTOCOLS
def test_a_session_of_which_nobody_knows_what_it_holds_keeps_what_waits_in_it(
    protocol: str, mosquitto_broker, connect
) -> None:
    first, _ = connect(["plant/#"], port=mosquitto_broker.port, protocol=protocol)
    first.close()
    with Heard(mosquitto_broker.port, "t/#") as other:
        for i in range(20):
            other.client.publish("plant/a/x", b"%d" % i, 1).wait_for_publish(5)
        second, inbox = connect(["plant/#"], None, port=mosquitto_broker.port, protocol=protocol)
        assert [m.payload for m in drained(second, inbox, b"19")] == [b"%d" % i for i in range(20)]
        assert second.subscribed == {"plant/#": 1}


@PROTOCOLS
@pytest.mark.parametrize("forgotten", ["plant/#", "plant/+/x", "+/a/#", "plant/a/x"])
def test_a_filter_that_nobody_remembers_is_given_back_when_it_shows(
    protocol: str, forgotten: str, mosquitto_broker, connect, monkeypatch
) -> None:
    monkeypatch.setattr(subscriptions, "GUESS_EVERY", 0.0)
    old, _ = connect([forgotten, "home/+"], port=mosquitto_broker.port, protocol=protocol)
    old.close()
    with Heard(mosquitto_broker.port, "t/#") as other:
        other.client.publish("home/a", b"kept", 1).wait_for_publish(5)
        new, inbox = connect(["home/+"], None, port=mosquitto_broker.port, protocol=protocol)
        assert [m.topic for m in drained(new, inbox, b"kept")] == ["home/a"]
        for i in range(100):
            other.client.publish("plant/a/x", b"?", 1)
            other.client.publish("home/a", b"%d" % i, 1)
            if [m.topic for m in drained(new, inbox, b"%d" % i)] == ["home/a"]:
                break
        else:
            pytest.fail("it still comes")


def test_the_filters_that_match_a_topic() -> None:
    assert sorted(matching("a/b")) == sorted(
        ["a/b", "a/+", "+/b", "+/+", "#", "a/#", "+/#", "a/b/#", "a/+/#", "+/b/#", "+/+/#"]
    )
    assert list(matching("/".join("abcdefghi"))) == []


@PROTOCOLS
def test_filters_that_overlap_bring_each_message_once(protocol: str, mosquitto_broker, connect) -> None:
    connection, inbox = connect(["o/+", "o/#", "p/+/x", "p/a/+"], port=mosquitto_broker.port, protocol=protocol)
    assert connection.subscribed == {"o/#": 1, "p/+/+": 1}
    with Heard(mosquitto_broker.port, "t/#") as other:
        for i in range(10):
            other.client.publish("o/a", b"%d" % i, 1)
            other.client.publish("p/a/x", b"%d" % i, 1)
        other.client.publish("o/a", b"end", 1)
        assert len(drained(connection, inbox, b"end")) == 21


def test_a_stored_message_is_marked_and_comes_only_with_a_new_subscription(mosquitto_broker, connect) -> None:
    with Heard(mosquitto_broker.port, "t/#") as other:
        other.client.publish("plant/a/x", b"old", 1, retain=True).wait_for_publish(5)
        first, inbox = connect(["plant/#"], port=mosquitto_broker.port)
        assert [m.retained for m in drained(first, inbox, b"old")] == [True]
        other.client.publish("plant/a/x", b"fresh", 1, retain=True)
        assert [m.retained for m in drained(first, inbox, b"fresh")] == [False]
        first.close()
        second, inbox = connect(["plant/#"], None, port=mosquitto_broker.port)
        other.client.publish("plant/b/x", b"end", 1)
        assert [m.payload for m in drained(second, inbox, b"end")] == [b"end"]


def test_an_answer_that_comes_before_its_packet_id_is_known_counts(mosquitto_broker, connect, monkeypatch) -> None:
    """Subscribing from the run loop, the network thread may have the answer first."""
    connection, _ = connect(["a/#"], port=mosquitto_broker.port)
    subscribe = Client.subscribe

    def slow(*args: object, **options: object) -> object:
        result = subscribe(*args, **options)
        threading.Event().wait(0.5)  # the answer comes meanwhile
        return result

    monkeypatch.setattr(Client, "subscribe", slow)
    connection.watch(["b/#"])
    assert connection.ready
    assert connection.subscribed == {"b/#": 1}
