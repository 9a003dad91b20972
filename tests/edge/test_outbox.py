"""What waits for the broker: in order, at a bounded rate, young predictions only, alerts always."""

from collections.abc import Sequence

import pytest

from transom.dialects.plain import Publication
from transom.edge import outbox as box
from transom.edge.outbox import Outbox

MINUTE = 60_000


class Wire:
    """Stands for the connection: remembers what was published and confirms it when asked to."""

    def __init__(self) -> None:
        self.ready = self.can_publish = True
        self.sent: list[Publication] = []
        self._confirm: list[int] = []

    def publish(self, publication: Publication) -> int | None:
        if not self.can_publish:
            return None
        self.sent.append(publication)
        return len(self.sent)

    def publish_many(self, publications: Sequence[Publication]) -> None:
        self.sent += publications

    def confirm_all(self) -> None:
        self._confirm = list(range(1, len(self.sent) + 1))

    def confirmed(self) -> list[int]:
        confirmed, self._confirm = self._confirm, []
        return confirmed

    @property
    def topics(self) -> list[str]:
        return [p.topic for p in self.sent]


def alert(i: int) -> Publication:
    return Publication(f"a{i}", b"", 1, True)


def prediction(i: int) -> Publication:
    return Publication(f"p{i}", b"", 0, False)


def nothing(_after: int, _limit: int) -> Sequence[tuple[int, Publication]]:
    return ()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_predictions_go_at_once_when_nothing_is_in_the_way(wire: Wire) -> None:
    Outbox(10, MINUTE, nothing).predict([prediction(0), prediction(1)], 0, wire)
    assert wire.topics == ["p0", "p1"]


def test_predictions_wait_in_order_the_oldest_are_dropped_and_the_old_expire(wire: Wire) -> None:
    outbox = Outbox(3, MINUTE, nothing)
    wire.ready = wire.can_publish = False
    outbox.predict([prediction(0), prediction(1)], 0, wire)
    outbox.predict([prediction(2), prediction(3)], MINUTE, wire)
    wire.ready = wire.can_publish = True
    outbox.predict([prediction(4)], MINUTE + 1, wire)
    outbox.flush(MINUTE + 1, wire)
    assert wire.topics == ["p3", "p4"] or wire.topics == ["p2", "p3", "p4"]
    assert outbox.counts["predictions_dropped"] + outbox.counts["predictions_expired"] + len(wire.sent) == 5


def test_alerts_are_done_only_when_the_broker_has_them(wire: Wire) -> None:
    outbox = Outbox(3, MINUTE, nothing)
    outbox.flush(0, wire)
    outbox.alert([(7, alert(7)), (8, alert(8))])
    outbox.flush(0, wire)
    assert (wire.topics, outbox.done()) == (["a7", "a8"], [])
    wire.confirm_all()
    outbox.flush(0, wire)
    assert (outbox.done(), outbox.waiting["alerts_waiting"]) == ([7, 8], 0)


def test_a_backlog_on_disk_goes_out_in_order_and_at_a_bounded_rate(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(box.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(box, "RATE", 10.0)
    monkeypatch.setattr(box, "HELD", 4)
    disk = [(i, alert(i)) for i in range(1, 41)]

    def read(after: int, limit: int) -> Sequence[tuple[int, Publication]]:
        return [one for one in disk if one[0] > after][:limit]

    outbox = Outbox(3, MINUTE, read)
    for second in range(10):
        clock[0] = float(second)
        before = len(wire.sent)
        outbox.flush(0, wire)
        assert len(wire.sent) - before <= 10
        if second == 1:
            disk.append((41, alert(41)))
            outbox.alert([disk[-1]])  # new while older ones wait
        wire.confirm_all()
    outbox.flush(0, wire)
    assert wire.topics == [f"a{i}" for i in range(1, 42)]
    assert sorted(outbox.done()) == list(range(1, 42))


def test_alerts_that_could_not_be_saved_go_out_from_memory_and_can_be_rescued(wire: Wire) -> None:
    outbox = Outbox(3, MINUTE, nothing)
    wire.ready = wire.can_publish = False
    outbox.unsaved([alert(1), alert(2)])
    outbox.flush(0, wire)
    assert outbox.rescue() == [alert(1), alert(2)]
    outbox.unsaved([alert(1)])
    wire.ready = wire.can_publish = True
    outbox.flush(0, wire)
    wire.confirm_all()
    outbox.flush(0, wire)
    assert (wire.topics, outbox.done()) == (["a1"], [])
