"""When Home Assistant is told what: pace, return of either side, ghosts, changed devices."""

from typing import Any

import pytest

from discovery_rules import problems
from tests_support import T0, Distance
from transom.core.admission import GridSpec
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects import homeassistant as ha
from transom.dialects.plain import Publication
from transom.edge import homeassistant
from transom.edge.homeassistant import GRACE, JITTER, PACE, SETTLE, Discovery
from transom.errors import SettingsError
from transom.settings import Settings, load_settings

PLACE = ha.Place("homeassistant", "gw", "transom/gw", 30.0)


class Broker:
    """A connection that keeps what is retained, and the time at which each message came."""

    def __init__(self) -> None:
        self.ready = self.can_publish = True
        self.connects = 1
        self.now = 0.0
        self.sent: list[tuple[float, Publication]] = []
        self.retained: dict[str, bytes] = {}

    def counters(self) -> dict[str, int]:
        return {"connects": self.connects}

    def publish(self, publication: Publication) -> int | None:
        assert problems(publication) == []
        assert publication.qos == 1
        self.sent.append((self.now, publication))
        if publication.payload:
            self.retained[publication.topic] = publication.payload
        else:
            self.retained.pop(publication.topic, None)
        return len(self.sent)

    def stored(self) -> list[Message]:
        return [Message(topic, payload, T0, retained=True) for topic, payload in self.retained.items()]


def settings(**changes: Any) -> Settings:
    return load_settings(None, {
        "agent": {"id": "gw"}, "homeassistant": {"enabled": True} | changes,
        "streams": {"s": {"topic": "plant/{device}"}},
    })  # fmt: skip


def pipeline(*names: str, channels: tuple[str, ...] | None = None, stream: str = "s") -> Pipeline:
    model = Distance() if channels is None else Distance(channels)
    topic = "plant/{device}" if channels is None else "plant/{device}/{channel}"
    made = Pipeline([(StreamSpec(stream, topic, grid=GridSpec(forget_after=1000)), model)])
    speak(made, *names)
    return made


def speak(made: Pipeline, *names: str) -> None:
    made.process([Message(f"plant/{name}", b"1", T0) for name in names])


def go(discovery: Discovery, made: Pipeline, broker: Broker, seconds: float) -> list[Publication]:
    """What is sent within that time by a loop that turns often."""
    before, end = len(broker.sent), broker.now + seconds
    while broker.now < end:
        broker.now = round(broker.now + 0.05, 6)
        discovery.speak(made, broker, broker.now)  # type: ignore[arg-type]
    return [publication for _, publication in broker.sent[before:]]


def devices(sent: list[Publication]) -> list[str]:
    """As they are called, "-" before one that is removed."""
    found = []
    for one in sent:
        name = PLACE.device_of(one.topic)
        assert name is not None
        found.append(("" if one.payload else "-") + (name if name == ha.AGENT else name.partition("-")[0]))
    return found


@pytest.fixture
def discovery() -> Discovery:
    return Discovery(settings())


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_all_series_are_told_of_after_the_agent_and_no_faster_than_the_pace(discovery, broker) -> None:
    names = [f"d{i}" for i in range(40)]
    sent = go(discovery, pipeline(*names), broker, SETTLE + 60)
    assert devices(sent) == ["agent", *names]
    times = [at for at, _ in broker.sent]
    assert min(b - a for a, b in zip(times, times[1:], strict=False)) >= PACE - 1e-6
    assert times[0] >= SETTLE


def test_nothing_is_told_or_subscribed_to_unless_enabled(broker) -> None:
    off = Discovery(settings(enabled=False))
    message = Message("homeassistant/status", b"online", T0)
    assert (off.filters, off.stored, off.take([message])) == ([], [], [message])
    assert go(off, pipeline("a"), broker, 60) == []


def test_a_series_that_comes_later_is_told_of_and_others_are_not_told_again(discovery, broker) -> None:
    made = pipeline("a")
    go(discovery, made, broker, SETTLE + 5)
    assert go(discovery, made, broker, 60) == []
    speak(made, "b")
    assert devices(go(discovery, made, broker, 5)) == ["b"]


def test_a_series_that_is_forgotten_is_removed_at_once(discovery, broker) -> None:
    made = pipeline("a", "b")
    go(discovery, made, broker, SETTLE + 5)
    made.process([Message("plant/b", b"1", T0 + 5000)], now=T0 + 5500)  # a has been silent for longer than a second
    assert [n for n in made.streams["s"].intake.names if n] == ["b"]
    assert devices(go(discovery, made, broker, 5)) == ["-a"]


def test_when_home_assistant_comes_all_is_told_again_within_the_jitter(discovery, broker) -> None:
    made = pipeline("a")
    go(discovery, made, broker, SETTLE + 5)
    other = Message("plant/a", b"1", T0)
    assert discovery.take([Message("homeassistant/status", b"online", T0), other]) == [other]
    assert devices(go(discovery, made, broker, JITTER + 2)) == ["agent", "a"]
    discovery.take([Message("homeassistant/status", b"offline", T0)])
    assert go(discovery, made, broker, JITTER + 60) == []


def test_agents_do_not_answer_home_assistant_all_at_once(monkeypatch, broker) -> None:
    asked = []
    monkeypatch.setattr(homeassistant.random, "uniform", lambda low, high: asked.append((low, high)) or high)
    discovery, made = Discovery(settings()), pipeline("a")
    go(discovery, made, broker, SETTLE + 5)
    discovery.take([Message("homeassistant/status", b"online", T0)])
    assert go(discovery, made, broker, JITTER - 0.1) == []
    assert devices(go(discovery, made, broker, 2)) == ["agent", "a"]
    assert asked == [(0.0, JITTER)]


def test_after_a_new_connection_all_is_told_again(discovery, broker) -> None:
    made = pipeline("a")
    go(discovery, made, broker, SETTLE + 5)
    broker.ready = False
    assert go(discovery, made, broker, 60) == []
    broker.ready, broker.connects, broker.retained = True, 2, {}
    assert devices(go(discovery, made, broker, SETTLE + JITTER + 2)) == ["agent", "a"]


def test_a_connection_lost_while_there_is_something_to_tell_loses_none_of_it(discovery, broker) -> None:
    made = pipeline(*"abcdef")
    go(discovery, made, broker, SETTLE + 0.6)
    broker.ready = False
    go(discovery, made, broker, 30)
    broker.ready, broker.connects = True, 2
    assert devices(go(discovery, made, broker, SETTLE + JITTER + 5)) == ["agent", *"abcdef"]


def test_a_device_of_a_stream_that_is_gone_is_removed(broker) -> None:
    go(Discovery(settings()), pipeline("a", stream="old"), broker, SETTLE + 5)
    after = Discovery(settings())
    assert after.take(broker.stored()) == []
    sent = go(after, pipeline("b"), broker, SETTLE + 5)
    assert sorted(devices(sent)) == ["-a", "agent", "b"]


def test_a_device_whose_series_may_still_come_has_a_day_for_it(broker) -> None:
    go(Discovery(settings()), pipeline("a", "b"), broker, SETTLE + 5)
    after, made = Discovery(settings()), pipeline()  # it starts with nothing: no state, or no journal
    after.take(broker.stored())
    assert devices(go(after, made, broker, 60)) == ["agent"]
    speak(made, "b")
    assert devices(go(after, made, broker, 60)) == ["b"]
    broker.now += GRACE
    assert devices(go(after, made, broker, 5)) == ["-a"]


def test_a_device_that_has_lost_an_entity_goes_before_it_comes_again(broker) -> None:
    go(Discovery(settings()), pipeline("a/x", channels=("x", "y")), broker, SETTLE + 5)
    after = Discovery(settings())
    after.take(broker.stored())
    sent = go(after, pipeline("a/x", channels=("x", "z")), broker, SETTLE + 5)
    assert devices(sent) == ["agent", "-a", "a"]
    after = Discovery(settings())
    after.take(broker.stored())
    assert devices(go(after, pipeline("a/x", channels=("x", "z", "zz")), broker, SETTLE + 5)) == ["agent", "a"]


def test_what_cannot_be_read_under_our_name_is_replaced_or_removed(broker) -> None:
    known = ha.Watched("s", "a", "distance@1", "anomaly", ("value",), ("",)).device
    junk = [
        Message(PLACE.topic(known), b"\xff", T0, retained=True), Message(PLACE.topic("x"), b"[]", T0, retained=True)
    ]  # fmt: skip
    discovery = Discovery(settings())
    discovery.take(junk)
    sent = go(discovery, pipeline("a"), broker, SETTLE + 5)
    assert sorted(devices(sent)) == ["-a", "-x", "a", "agent"]


def test_switched_off_by_a_reload_it_takes_back_what_it_told(discovery, broker) -> None:
    made = pipeline("a", "b")
    go(discovery, made, broker, SETTLE + 5)
    discovery.configure(settings(enabled=False))
    assert sorted(devices(go(discovery, made, broker, SETTLE + 5))) == ["-a", "-agent", "-b"]
    assert broker.retained == {}
    discovery.configure(settings())
    assert devices(go(discovery, made, broker, SETTLE + 5)) == ["agent", "a", "b"]


def test_another_prefix_is_told_to_need_a_restart(discovery, caplog) -> None:
    discovery.configure(settings(prefix="ha"))
    assert "takes effect when the agent is started again: homeassistant.prefix" in caplog.text
    assert discovery.filters[0] == "homeassistant/status"


def test_devices_of_former_runs_are_bounded(monkeypatch, discovery) -> None:
    monkeypatch.setattr(homeassistant, "MOST", 10)
    discovery.take([Message(PLACE.topic(f"x{i}"), b"{}", T0) for i in range(50)])
    assert len(discovery._held) == 10


def test_prefix_is_a_topic() -> None:
    with pytest.raises(SettingsError, match="is no topic to publish under"):
        settings(prefix="home/#")
