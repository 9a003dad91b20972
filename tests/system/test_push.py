"""Models sent over a real broker: to one agent, to a group, through kills of each of the three, and from strangers."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from test_service import running

from conftest import Mosquitto
from tests_arrival import FOREIGN, Noted, agent_of, configured, first_on, offer_of, signed
from tests_support import Heard
from transom.core.pipeline import Message
from transom.dialects import updates
from transom.dialects.plain import Publication
from transom.dialects.updates import Offer
from transom.edge import pushing
from transom.edge.arrival.arrivals import CHUNKS, Arrivals
from transom.edge.pushing import Sending
from transom.settings import Settings

pytestmark = pytest.mark.mosquitto

DATA = random.Random(5).randbytes(120_000)


class Held(Sending):
    """Sends no more than `most` chunks, as if the line were cut there."""

    most = 1_000_000

    def due(self, now: float) -> Iterator[Publication]:
        for publication in super().due(now) if self.chunks < self.most else ():
            yield publication
            if self.chunks >= self.most:
                return


def sending_of(offer: Offer, data: bytes, base: str = "transom/gw", most: int = 1_000_000) -> Held:
    sending = Held(offer, data, "s", base, single="/group/" not in base, rate=1e9)
    sending.most = most
    return sending


def finished(agents: Mapping[str, pushing.Heard], seconds: float, count: int = 1) -> bool:
    assert seconds < 30, {name: heard.now for name, heard in agents.items()}
    return len(agents) == count and all(heard.now.final for heard in agents.values())


def pushed(settings: Settings, sending: Sending, count: int = 1) -> dict[str, str]:
    """The last word of each agent."""
    pushing.push(settings, sending, lambda agents, s: finished(agents, s, count), threading.Event())
    return {name: heard.now.state for name, heard in sending.agents.items()}


def test_a_model_reaches_one_agent_while_readings_go_on(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    settings, store, offer = configured(tmp_path, mosquitto_broker.port), Noted(), offer_of(DATA)
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent_of(settings, store)):
        for n in range(50):
            other.client.publish("plant/d/x", b"%d" % n, 1)
        assert pushed(settings, sending_of(offer, DATA)) == {"gw": "offered"}
        assert store.offers == [("s", DATA, signed(DATA), "mqtt")]
        other.wait_until(lambda heard: len(heard.get("transom/gw/s/d/x/prediction", [])) >= 47)

        other.wait_until(lambda heard: updates_told(heard).get("offered") == 1)
        health = json.loads(other.messages["transom/gw/health"][-1])
        assert (health["updates"]["chunks"], health["unmatched"]) == (offer.chunks, 0)
        assert health["streams"]["s"]["received"] == 50
    announced = updates.decode_offer(first_on(mosquitto_broker.port, "transom/gw/update/offer/s"))
    assert (announced.version, announced.sha256) == ("3", offer.sha256)


def test_a_group_of_two_hears_each_chunk_once(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    stores = Noted(), Noted()
    ours = [configured(tmp_path, mosquitto_broker.port, name, groups=["hall"]) for name in ("one", "two")]
    sending = sending_of(offer_of(DATA), DATA, "transom/group/hall")
    with ExitStack() as stack:
        for settings, store in zip(ours, stores, strict=True):
            stack.enter_context(running(agent_of(settings, store)))
        stack.enter_context(running(agent_of(configured(tmp_path, mosquitto_broker.port, "stranger"), Noted())))
        assert pushed(ours[0], sending, 2) == {"one": "offered", "two": "offered"}
    assert [store.offers[0][1] for store in stores] == [DATA, DATA]
    assert sending.chunks < 1.5 * sending.offer.chunks


@contextmanager
def serving(settings: Settings, sending: Sending) -> Iterator[threading.Event]:
    """A sender in the background, until it is stopped."""
    stop = threading.Event()
    args = (settings, sending, lambda *_: False, stop)
    thread = threading.Thread(target=pushing.push, args=args)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(10)


def until(there: object, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not there():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


CHILD = """
import sys, threading
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from tests_arrival import Noted, agent_of, configured
agent_of(configured(Path(sys.argv[1]), int(sys.argv[2])), Noted()).run(threading.Event())
"""


def updates_told(heard: dict[str, list[bytes]]) -> dict[str, int]:
    """What the latest BASE/health counts of updates."""
    last = heard.get("transom/gw/health", [])
    return dict(json.loads(last[-1])["updates"]) if last else {}


def test_an_agent_that_is_killed_half_way_goes_on_where_it_was(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    settings, store, offer = configured(tmp_path, mosquitto_broker.port), Noted(), offer_of(DATA)
    sending = sending_of(offer, DATA, most=20)
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(mosquitto_broker.port), *sys.path]
    with Heard(mosquitto_broker.port, "transom/gw/health") as other, serving(settings, sending):
        first = subprocess.Popen(command)
        try:
            other.wait_until(lambda heard: updates_told(heard).get("chunks") == 20, 30)
        finally:
            first.kill()
            first.wait(10)
        sending.most = 1_000_000
        again = agent_of(settings, store)
        with running(again):
            store.wait()
            assert again.arrivals.desk.counts["chunks"] == offer.chunks - 20
    assert store.offers[0][1] == DATA


def test_a_sender_that_ends_half_way_is_called_again(mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    settings, store = configured(tmp_path, mosquitto_broker.port), Noted()
    agent, first, second = agent_of(settings, store), offer_of(DATA), offer_of(DATA)
    with running(agent):
        with serving(settings, sending_of(first, DATA, most=20)):
            until(lambda: agent.arrivals.desk.counts["chunks"] == 20)
        again = sending_of(second, DATA)
        assert pushed(settings, again) == {"gw": "offered"}
        assert second.chunks - 20 <= again.chunks < second.chunks  # on a busy machine some are asked for twice
    assert store.offers[0][1] == DATA


def test_a_broker_that_restarts_half_way_and_forgets_all_costs_no_chunk(
    mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    settings, store, offer = configured(tmp_path, mosquitto_broker.port), Noted(), offer_of(DATA)
    agent, sending = agent_of(settings, store), sending_of(offer, DATA, most=20)
    with running(agent), serving(settings, sending):
        until(lambda: agent.arrivals.desk.counts["chunks"] == 20)
        mosquitto_broker.stop()
        mosquitto_broker.start()
        sending.most = 1_000_000
        store.wait()
        until(lambda: sending.agents["gw"].now.state == "offered")
        assert agent.arrivals.desk.counts["chunks"] == offer.chunks
    assert store.offers[0][1] == DATA


def test_a_stranger_who_floods_costs_neither_the_model_nor_a_reading(
    mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    """Chunks that are wrong or not wanted, offers that nobody signed, and a request for everything without end."""
    settings, store, offer = configured(tmp_path, mosquitto_broker.port), Noted(), offer_of(DATA)
    agent, sending = agent_of(settings, store), sending_of(offer, DATA, most=20)
    with Heard(mosquitto_broker.port, "transom/gw/#") as other, running(agent), serving(settings, sending):
        until(lambda: agent.arrivals.desk.counts["chunks"] == 20)
        for n in range(600):
            other.client.publish(
                updates.chunk_topic("transom/gw", offer.sha256, n % offer.chunks), os.urandom(100), n % 2
            )
            other.client.publish(updates.chunk_topic("transom/gw", "0" * 64, n), b"x" * 1000, 0)
            other.client.publish(
                f"transom/gw/update/offer/{'st'[n % 2]}",
                updates.encode(offer_of(b"x" * n, FOREIGN)) if n and n % 100 == 0 else b"{",
                1,
            )
        other.client.publish("plant/d/x", b"1", 1)
        sending.most = 1_000_000
        store.wait()
        other.wait_until(lambda heard: any(b'"offered"' in p for p in heard.get("transom/gw/update/progress", [])))
        until(lambda: agent.pipeline.accounts()["s"]["received"] == 1)
        counts = agent.arrivals.desk.counts
        assert counts["strange"] >= 600
        assert counts["unreadable"] > 0
    assert [o[1] for o in store.offers] == [DATA]


def test_an_offer_that_waits_at_the_broker_is_seen_by_an_agent_that_starts(
    mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    settings, store, offer = configured(tmp_path, mosquitto_broker.port), Noted(), offer_of(DATA)
    with running(agent_of(settings, Noted())):
        pass  # its session at the broker holds the filters from now on
    with serving(settings, sending_of(offer, DATA)), running(agent_of(settings, store)):
        store.wait()
    with Heard(mosquitto_broker.port, "transom/gw/update/want") as other, running(agent_of(settings, store)):
        other.client.publish("transom/gw/update/want", b"end", 1)
        other.wait_for("transom/gw/update/want", b"end")
        assert other.messages["transom/gw/update/want"] == [b"end"]  # it has it already
    assert len(store.offers) == 1


def test_nothing_is_subscribed_to_unless_updates_are_allowed(tmp_path: Path) -> None:
    arrivals = Arrivals(configured(tmp_path, updates=[]), Noted())
    assert (arrivals.filters, arrivals.stored) == ([], [])
    assert Arrivals(configured(tmp_path), None).filters == []
    arrivals.configure(configured(tmp_path, groups=["a"]))  # a reload
    assert arrivals.filters == [
        "transom/gw/update/offer/+", "transom/gw/update/chunk/#",
        "transom/group/a/update/offer/+", "transom/group/a/update/chunk/#",
    ]  # fmt: skip
    assert arrivals.stored == ["transom/gw/update/offer/+", "transom/group/a/update/offer/+"]


def test_a_full_queue_drops_chunks_and_keeps_offers(tmp_path: Path) -> None:
    arrivals, offer = Arrivals(configured(tmp_path), Noted()), offer_of(DATA)
    topic = updates.offer_topic("transom/gw", "s")
    arrivals.take([Message(topic, updates.encode(offer), 0)])
    arrivals._step()
    flood = [Message(updates.chunk_topic("transom/gw", offer.sha256, 1), b"x", 0)] * 1000
    reading = Message("plant/d/x", b"1", 0)
    assert arrivals.take([*flood, reading, Message(topic, b"", 0)]) == [reading]
    assert len(arrivals._chunks) == CHUNKS
    assert arrivals.desk.counts["dropped"] == 1000 - CHUNKS
    arrivals._step()
    assert arrivals.desk.counts["bad_chunks"] == CHUNKS
    assert arrivals._receiver is not None
    assert arrivals._receiver.active == ""  # withdrawn
    assert arrivals.shed({topic: 3, "plant/d/x": 2}) == {"plant/d/x": 2}
