"""What waits for the broker: in order, at a bounded rate, young predictions only, alerts always."""

from collections.abc import Sequence

import pytest

from transom.dialects.plain import Publication
from transom.edge import outbox as box
from transom.edge import overflow
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
    wire.ready = wire.can_publish = True
    outbox.flush(0, wire)
    wire.confirm_all()
    outbox.flush(0, wire)
    assert (wire.topics, outbox.done()) == (["a1", "a2"], [])


def test_a_backlog_after_an_outage_goes_out_at_a_bounded_rate(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(box.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(box, "RATE", 10.0)
    outbox = Outbox(10_000, MINUTE, nothing)
    wire.ready = wire.can_publish = False
    for second in range(300):
        clock[0] = float(second)
        outbox.predict([prediction(i) for i in range(20)], 0, wire)
        outbox.flush(0, wire)
    wire.ready = wire.can_publish = True
    for second in range(300, 310):
        clock[0] = float(second)
        before = len(wire.sent)
        outbox.predict([prediction(0)], 0, wire)
        outbox.flush(0, wire)
        assert 0 < len(wire.sent) - before <= 11  # ten of the backlog, and as many as are new


def test_what_the_broker_has_is_said_again_when_it_could_not_be_written(wire: Wire) -> None:
    outbox = Outbox(3, MINUTE, nothing)
    outbox.flush(0, wire)
    outbox.alert([(7, alert(7))])
    outbox.flush(0, wire)
    wire.confirm_all()
    outbox.flush(0, wire)
    outbox.undone(outbox.done())
    assert outbox.done() == [7]


def test_rescued_alerts_are_sent_once_and_done_on_disk(wire: Wire) -> None:
    disk: list[tuple[int, Publication]] = [(1, alert(0))]
    outbox = Outbox(3, MINUTE, lambda after, limit: [one for one in disk if one[0] > after][:limit])
    outbox.flush(0, wire)
    outbox.unsaved([alert(1)])
    outbox.flush(0, wire)  # a0 and a1 are on their way
    wire.ready = False
    outbox.unsaved([alert(2)])
    assert outbox.rescue() == [alert(1), alert(2)]
    assert outbox.rescue() == [alert(1), alert(2)]  # asking takes nothing out
    disk += [(2, alert(1)), (3, alert(2))]
    outbox.rescued([2, 3])
    assert outbox.rescue() == []
    wire.ready = True
    outbox.flush(0, wire)
    assert wire.topics == ["a0", "a1", "a2"]
    wire.confirm_all()
    outbox.flush(0, wire)
    assert sorted(outbox.done()) == [1, 2, 3]


def test_in_another_file_ids_begin_anew_and_no_alert_is_missed(wire: Wire) -> None:
    disk = [(i, alert(i)) for i in range(1, 21)]
    outbox = Outbox(3, MINUTE, lambda after, limit: [one for one in disk if one[0] > after][:limit])
    outbox.flush(0, wire)
    wire.confirm_all()
    outbox.flush(0, wire)
    outbox.moved()
    assert outbox.done() == []  # its ids could be those of other alerts now
    disk[:] = [(1, alert(100))]
    outbox.alert(disk)
    outbox.flush(0, wire)
    assert wire.topics[20:] == ["a100"]


def told(event: str, number: int) -> Publication:
    return Publication("t", b'{"id":"%d","event":"%s"}' % (number, event.encode()), 1, True)


def test_alerts_in_memory_are_bounded_and_no_alert_that_is_up_is_dropped(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box, "MEMORY", 100)
    wire.ready = False
    outbox = Outbox(3, MINUTE, nothing)
    up = [told("raise", n) for n in range(40)]
    outbox.unsaved(up)
    outbox.unsaved([told("clear", -1)])  # its raise has gone out long since
    for n in range(1000, 2000):
        outbox.unsaved([told("raise", n), told("update", n), told("clear", n)])
        assert outbox.waiting["alerts_waiting"] <= 113
    left = outbox.rescue()
    assert left[:41] == [*up, told("clear", -1)]
    assert told("clear", 1999) in left
    assert outbox.counts["alerts_dropped"] == 3041 - len(left)
    for n in range(2000, 2200):
        outbox.unsaved([told("raise", n)])
    assert len([one for one in outbox.rescue() if b"raise" in one.payload]) >= 240  # more than the limit, but up


def test_updates_go_before_alerts_that_are_over() -> None:
    alerts = [told("raise", 1), told("update", 1), told("clear", 1), told("raise", 2), told("update", 2)]
    assert overflow.thin(alerts, 5) == [True] * 5
    assert overflow.thin(alerts, 4) == [True, False, True, True, True]
    assert overflow.thin(alerts, 2) == [False, False, False, True, False]
