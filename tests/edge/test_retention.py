"""What the journal holds goes when its time or its room is over, also from the bytes of the file."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.dialects.plain import Publication
from transom.edge import retention as retaining
from transom.edge.inbox import Token
from transom.edge.journal import NAME, Journal
from transom.edge.keeper import Keeper
from transom.edge.outbox import Outbox
from transom.edge.retention import Dropped, Retention, tidied

T0 = 1_700_000_000_000


class Quiet:
    sha256 = ""
    manifest = Manifest(name="q", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=4)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.past = 0.0
        real = time.monotonic, time.time
        monkeypatch.setattr(retaining.time, "monotonic", lambda: real[0]() + self.past)
        monkeypatch.setattr(retaining.time, "time", lambda: real[1]() + self.past)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def alert(i: int, size: int = 10) -> Publication:
    return Publication("t", f"{i}".encode().ljust(size - 1), 1, True)


def journal_of(tmp_path: Path, alerts: int = 0) -> Journal:
    journal = Journal(tmp_path, "process", secure=True)
    journal.open()
    journal.commit([], [], [alert(i) for i in range(alerts)], [], {})
    return journal


def test_readings_leave_the_journal_and_its_bytes_when_their_time_is_over(tmp_path: Path, clock: Clock) -> None:
    pipe = Pipeline([(StreamSpec("s", "plant/{device}/{channel}"), Quiet())])  # type: ignore[list-item]
    keeper = Keeper(Journal(tmp_path, "process", secure=True), 60.0, Retention(3600.0, None))
    keeper.start(pipe)
    turn = Turn([Message("plant/a/x", os.urandom(200).hex().encode(), T0)], T0)
    pipe.take(turn)
    keeper.add(turn, [Token(1, 1)], [], [])
    keeper.commit(pipe, ())
    assert keeper.journal is not None
    (kept,) = keeper.journal._run("SELECT turns FROM turns").fetchone()
    files = [tmp_path / NAME, tmp_path / f"{NAME}-wal"]
    mark = bytes(kept)[-60:]
    assert any(mark in file.read_bytes() for file in files)
    assert keeper.wait() is None  # nobody has sent anything since
    clock.past = 3601.0
    assert keeper.wait() == 0.0
    assert keeper.wants_pipeline
    keeper.commit(pipe, ())
    assert keeper.snapshots == 1
    assert not any(mark in file.read_bytes() for file in files)
    assert keeper.wait() is None


def test_nothing_is_forced_where_nothing_is_configured(tmp_path: Path, clock: Clock) -> None:
    keeper = Keeper(Journal(tmp_path, "process"), 60.0)
    keeper.start(Pipeline([]))
    keeper.retention.wrote()
    clock.past = 1e9
    assert (keeper.wait(), keeper.retention.tidy_due) == (None, False)


def test_alerts_that_waited_too_long_are_dropped_and_counted(tmp_path: Path, clock: Clock) -> None:
    journal, retention = journal_of(tmp_path, 3), Retention(3600.0, None)
    assert tidied(retention, journal, ()) == Dropped(0, 0)
    clock.past = 3601.0
    assert retention.tidy_due
    assert tidied(retention, journal, [2]) == Dropped(3, 2)  # the second is on its way
    assert [i for i, _ in journal.waiting(0, 10)] == [2]


def test_the_oldest_alerts_go_when_they_are_too_many(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, 5)  # ten bytes each
    assert tidied(Retention(None, 35), journal, ()) == Dropped(2, 2)
    assert [alert.payload.strip() for _, alert in journal.waiting(0, 10)] == [b"2", b"3", b"4"]
    assert tidied(Retention(None, 35), journal, ()) == Dropped(0, 0)


def test_an_alert_that_is_dropped_is_not_sent_from_memory(tmp_path: Path) -> None:
    box = Outbox(10, 1000, lambda after, limit: [])
    box._on_disk = False
    box.alert([(i, alert(i)) for i in (1, 2, 3)])
    box.forget(Dropped(2, 2))
    assert box.waiting["alerts_waiting"] == 1
    assert box.counts["alerts_dropped"] == 2


def test_files_set_aside_go_too(tmp_path: Path, clock: Clock) -> None:
    journal = journal_of(tmp_path)
    for name in (f"{NAME}.damaged-1", f"{NAME}-wal.damaged-1"):
        (tmp_path / name).write_bytes(b"x")
    tidied(Retention(3600.0, None), journal, ())
    assert len(list(tmp_path.glob("*.damaged-*"))) == 2
    clock.past = 3601.0
    tidied(Retention(3600.0, None), journal, ())
    assert [p.name for p in tmp_path.iterdir() if "damaged" in p.name] == []
    assert journal.path.exists()


def test_a_journal_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    journal_of(tmp_path, 2).close()
    with sqlite3.connect(tmp_path / NAME) as old:
        old.execute("ALTER TABLE outbox DROP COLUMN made")
    old.close()
    journal = Journal(tmp_path, "process")
    journal.open()
    assert len(journal.waiting(0, 10)) == 2
    assert tidied(Retention(3600.0, None), journal, ()) == Dropped(0, 0)
    journal.commit([], [], [alert(3)], [], {})
    assert len(journal.waiting(0, 10)) == 3


def test_a_disk_that_refuses_is_tried_again(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, 1)
    journal.close()
    assert tidied(Retention(3600.0, None), journal, ()) == Dropped(0, 0)
