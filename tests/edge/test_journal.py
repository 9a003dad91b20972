"""What is kept on disk, when it is written, and what happens when it cannot be."""

import shutil
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from transom.core.attention import Call
from transom.core.events import Events
from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.dialects.plain import Publication
from transom.edge import journal as journalling
from transom.edge import keeper as keeping
from transom.edge import packing
from transom.edge.inbox import Token
from transom.edge.journal import NAME, Journal, JournalBusyError
from transom.edge.keeper import Keeper
from transom.edge.linger import TOGETHER

ALERT = Publication("transom/gw/s/a/alert", b'{"id":"1"}', 1, True)
T0 = 1_700_000_000_000


class Last:
    sha256 = ""
    manifest = Manifest(name="last", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=4)

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        last = values[:, -1]
        return {"score": np.abs(last[:, 0]), "contribution": np.ones_like(last), "expected": last}


def pipeline() -> Pipeline:
    return Pipeline([(StreamSpec("s", "plant/{device}/{channel}"), Last())])


def turn(i: int, messages: int = 3) -> Turn:
    return Turn(
        [Message("plant/a/x", b"%d" % (i + k), T0 + 1000 * i + k, redelivered=k == 1) for k in range(messages)], T0
    )


def same(one: Pipeline, other: Pipeline) -> bool:
    return packing.pack(one.snapshot()) == packing.pack(other.snapshot())


def feed(keeper: Keeper, pipe: Pipeline, turns: list[Turn]) -> None:
    for i, t in enumerate(turns):
        pipe.take(t)
        keeper.add(t, [Token(1, i)], [(i, 7)], [])
        keeper.commit(pipe, ())


def test_turns_and_alerts_come_back_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "process")
    journal.open()
    turns = [turn(0), Turn((), T0, -500, {"plant/b/x": 2}, [(Message("plant/a/x", b"?", T0), "why")])]
    (first,) = journal.commit(turns, [(1, 2)], [ALERT], [], {"now": 5})
    journal.close()
    again = Journal(tmp_path, "process")
    again.open()
    assert [t for _, row in again.turns() for t in row] == [Turn(*map(_plain, t)) for t in turns]
    assert again.waiting(0, 10) == [(first, ALERT)]
    assert again.recover() == (None, 1, [(1, 2)])
    again.commit([], [], [], [first], {})
    assert (again.waiting(0, 10), again.note("now")) == ([], 5)
    again.close()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("snapshot_at", [None, 0, 4, 9])
def test_a_start_goes_on_exactly_where_the_last_commit_was(tmp_path: Path, snapshot_at: int | None) -> None:
    before, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(before)
    for i in range(10):
        feed(keeper, before, [turn(10 * i)])
        if i == snapshot_at:
            keeper.snapshot(before)
    assert keeper.journal is not None
    keeper.journal.close()  # no snapshot at the end: as after a kill
    after, resumed = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    fresh, last = resumed.start(after)
    assert fresh == []
    assert last == T0 or snapshot_at == 9
    assert same(before, after)
    assert resumed.redelivered.seen(0, Message("t", b"", 0)) is False
    resumed.close(after)


def test_a_start_after_a_clean_end_has_nothing_to_replay(tmp_path: Path) -> None:
    before, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(before)
    feed(keeper, before, [turn(i) for i in range(5)])
    keeper.close(before)
    journal = Journal(tmp_path, "process")
    journal.open()
    assert journal.recover().rows == 0
    journal.close()
    after = pipeline()
    Keeper(Journal(tmp_path, "process"), 1.0).start(after)
    assert same(before, after)


def test_the_journal_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SNAPSHOT_BYTES", 3000)
    monkeypatch.setattr(keeping, "SNAPSHOT_TIMES", 0)
    pipe, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(pipe)
    feed(keeper, pipe, [turn(10 * i, 100) for i in range(100)])
    assert keeper.snapshots >= 5
    assert keeper.journal is not None
    assert keeper.journal.recover().rows < 60
    keeper.close(pipe)


def test_a_few_messages_wait_for_more_and_many_do_not(tmp_path: Path) -> None:
    pipe, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 60.0)
    keeper.start(pipe)
    assert keeper.wait() is None
    keeper.add(turn(0), [], [], [])
    waiting = keeper.wait()
    assert waiting is not None
    assert waiting > 50
    keeper.add(turn(1, TOGETHER), [], [], [])
    assert keeper.wait() == 0.0
    keeper.commit(pipe, ())
    keeper.add(turn(2), [], [], [ALERT])
    assert keeper.wait() == 0.0


def test_a_broker_that_waits_for_acknowledgements_is_not_kept_waiting(tmp_path: Path) -> None:
    pipe, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 60.0)
    keeper.start(pipe)
    for i in range(8):  # three messages, and after each acknowledgement at once three more: its window is three
        keeper.add(turn(10 * i), [Token(1, i)], [], [])
        keeper.commit(pipe, ())
    keeper.add(turn(100), [Token(1, 9)], [], [])
    waiting = keeper.wait()
    assert waiting is not None
    assert waiting < 1.0


def test_a_damaged_file_is_set_aside_and_never_deleted(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    journal = Journal(tmp_path, "process")
    journal.open()
    journal.commit([turn(0)], [], [], [], {})
    journal.close()
    aside = [p for p in tmp_path.iterdir() if ".damaged-" in p.name]
    assert [p.read_bytes()[16:23] for p in aside] == [b"rubbish"]


def test_a_folder_that_cannot_be_written_switches_the_journal_off_and_acknowledges_on(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    pipe, keeper = pipeline(), Keeper(Journal(blocked, "process"), 1.0)
    keeper.start(pipe)
    assert keeper.problem
    keeper.add(turn(0), [Token(1, 1)], [], [ALERT])
    assert keeper.wait() == 0.0
    committed = keeper.commit(pipe, ())
    assert (committed.tokens, committed.alerts, committed.unsaved) == ([Token(1, 1)], [], [ALERT])
    assert keeper.reopen() is None
    blocked.unlink()
    assert keeper.reopen()
    ids = keeper.resume(pipe, [ALERT], ())
    assert ids is not None
    assert keeper.waiting(0, 10) == [(ids[0], ALERT)]
    assert not keeper.problem
    keeper.close(pipe)
    after = pipeline()
    Keeper(Journal(blocked, "process"), 1.0).start(after)
    assert after.accounts()["s"]["received"] == 0 or same(pipe, after)


def test_a_second_agent_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from transom.edge.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]), 'process'); j.open(); j.probe(); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(JournalBusyError, match="another agent uses this folder"):
            Journal(tmp_path, "process").open()
        other.stdin.close()


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "power")
    journal.open()
    with pytest.raises(sqlite3.Error):
        journal.commit([turn(0)], [], [Publication("t", b"", None, True)], [], {})  # type: ignore[arg-type]
    assert journal.recover().rows == 0
    journal.commit([turn(0)], [], [], [], {})
    assert journal.recover().rows == 1
    journal.close()


@pytest.mark.parametrize("data", [b"", b"\x93", b"\xc1", packing.pack({"a": np.arange(3)})[:-1]])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no snapshot"):
        packing.unpack(data)


def refused(folder: Path) -> tuple[Pipeline, Keeper]:
    """A pipeline after a turn, and its keeper, whose journal has just refused it."""
    pipe, keeper = pipeline(), Keeper(Journal(folder, "process"), 1.0)
    keeper.start(pipe)
    assert keeper.journal is not None
    keeper.journal.close()
    feed(keeper, pipe, [turn(0)])
    assert keeper.problem
    return pipe, keeper


def flip(folder: Path, statement: str) -> None:
    """Changes what the file holds as a bad card would: SQLite has nothing to say against it."""
    db = sqlite3.connect(folder / NAME)
    for table, column, key in (("snapshot", "state", "id"), ("turns", "turns", "id"), ("turns", "recent", "id")):
        if f"{table}.{column}" == statement:
            ((i, data),) = db.execute(f"SELECT {key}, {column} FROM {table} LIMIT 1").fetchall()
            middle = len(data) // 2
            changed = data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (changed, i))
    db.commit()
    db.close()


@pytest.mark.parametrize("where", ["snapshot.state", "turns.turns", "turns.recent"])
def test_a_flipped_bit_is_noticed_and_the_file_set_aside_with_its_alerts_taken_over(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(before)
    feed(keeper, before, [turn(0, 50)])
    keeper.snapshot(before)
    feed(keeper, before, [turn(100, 50)])
    assert keeper.journal is not None
    keeper.journal.commit([], [], [ALERT], [], {})
    keeper.journal.close()
    flip(tmp_path, where)
    after, resumed = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    assert resumed.start(after) == ([], None)
    assert same(after, pipeline())
    assert not resumed.problem
    assert [alert for _, alert in resumed.waiting(0, 10)] == [ALERT]
    assert len([p for p in tmp_path.iterdir() if ".damaged-" in p.name]) == 1
    assert any("is damaged" in r.getMessage() and "checksum" in r.getMessage() for r in caplog.records)
    resumed.close(after)


def test_a_snapshot_of_another_version_is_set_aside_and_not_written_over(tmp_path: Path) -> None:
    before, journal = pipeline(), Journal(tmp_path, "process")
    journal.open()
    journal.snapshot(before.snapshot() | {"version": 99}, [], {})
    journal.close()
    keeper = Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(before)
    keeper.close(before)
    (aside,) = (p for p in tmp_path.iterdir() if ".damaged-" in p.name)
    db = sqlite3.connect(aside)
    ((data,),) = db.execute("SELECT state FROM snapshot").fetchall()
    db.close()
    assert packing.unpack(data[4:])["version"] == 99


def test_a_file_of_another_format_is_set_aside_and_said_to_be_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, "process")
    journal.open()
    for _ in range(3):
        journal._run("PRAGMA user_version=7")
        journal.close()
        journal.open()
    journal.close()
    assert len([p for p in tmp_path.iterdir() if ".damaged-" in p.name]) == 3  # none was written over
    assert "is of another version (format 7," in caplog.records[0].getMessage()


def test_what_could_not_be_read_at_the_start_is_not_written_over_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(before)
    feed(keeper, before, [turn(0)])
    assert keeper.journal is not None
    keeper.journal.commit([], [], [ALERT], [], {})
    keeper.close(before)

    def refuse(_self: Journal) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    after, again = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "open", refuse)
        assert again.start(after) == ([], None)
    assert again.reopen() is True
    assert again.resume(after, [], ()) == []
    assert [alert for _, alert in again.waiting(0, 10)] == [ALERT]
    again.close(after)
    (aside,) = (p for p in tmp_path.iterdir() if ".damaged-" in p.name)
    aside.rename(tmp_path / NAME)
    found = pipeline()
    Keeper(Journal(tmp_path, "process"), 1.0).start(found)
    assert same(found, before)


def test_a_turn_that_can_no_longer_be_taken_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    class Picky(Pipeline):
        def take(self, turn: Turn) -> Events:
            if turn.messages:
                raise RuntimeError("not these")
            return super().take(turn)

    before, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(before)
    feed(keeper, before, [turn(0)])
    assert keeper.journal is not None
    keeper.journal.close()
    picky = Picky([(StreamSpec("s", "plant/{device}/{channel}"), Last())])
    again = Keeper(Journal(tmp_path, "process"), 1.0)
    assert again.start(picky) == ([], None)
    assert len([p for p in tmp_path.iterdir() if ".damaged-" in p.name]) == 1
    again.close(picky)


def test_what_the_broker_has_is_given_back_when_it_cannot_be_written(tmp_path: Path) -> None:
    pipe, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    keeper.start(pipe)
    keeper.add(turn(0), [], [], [ALERT])
    ((first, _),) = keeper.commit(pipe, ()).alerts
    assert keeper.journal is not None
    keeper.journal.close()  # each write fails from now on
    feed(keeper, pipe, [turn(10)])
    assert keeper.problem
    keeper.add(turn(20), [], [], [])
    assert keeper.commit(pipe, [first]).undone == [first]
    assert keeper.reopen() is False  # the same file: its ids still hold
    assert keeper.resume(pipe, [], [first]) == []
    assert keeper.waiting(0, 10) == []
    keeper.close(pipe)


def test_alerts_that_are_rescued_are_written_once_however_often_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, keeper = refused(tmp_path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(journalling, "_write_notes", full)
        for _ in range(5):
            keeper.reopen()
            assert keeper.resume(pipe, [ALERT], ()) is None
    assert keeper.reopen() is not None
    assert keeper.resume(pipe, [ALERT], ()) is not None
    assert len(keeper.waiting(0, 10)) == 1
    keeper.close(pipe)


def test_a_state_folder_that_is_deleted_is_noticed_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK", 0.0)
    folder = tmp_path / "state"
    pipe, keeper = pipeline(), Keeper(Journal(folder, "process"), 1.0)
    keeper.start(pipe)
    feed(keeper, pipe, [turn(0)])
    assert not keeper.problem
    shutil.rmtree(folder)
    pipe.take(turn(10))
    keeper.add(turn(10), [], [], [ALERT])
    assert keeper.commit(pipe, ()).unsaved == [ALERT]
    assert "gone" in keeper.problem
    assert keeper.retry_due  # at once: there is nothing to wait for
    assert keeper.reopen() is True  # another file: ids begin anew
    assert keeper.resume(pipe, [ALERT], ()) is not None
    keeper.close(pipe)
    after = pipeline()
    again = Keeper(Journal(folder, "process"), 1.0)
    again.start(after)
    assert same(pipe, after)
    assert len(again.waiting(0, 10)) == 1
    again.close(after)


def test_another_agent_that_took_the_folder_meanwhile_does_not_end_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, keeper = refused(tmp_path)
    other = Journal(tmp_path, "process")
    other.open()
    other.probe()
    assert keeper.reopen() is None
    assert "another agent uses this folder" in keeper.problem
    other.close()
    assert keeper.reopen() is not None
    assert keeper.resume(pipe, [], ()) is not None
    keeper.close(pipe)


def test_an_end_after_an_error_saves_what_was_taken_and_nothing_half_changed(tmp_path: Path) -> None:
    before, keeper = pipeline(), Keeper(Journal(tmp_path, "process"), 60.0)
    keeper.start(before)
    for t in (turn(0), turn(10)):
        before.take(t)
        keeper.add(t, [], [(5, 7)], [])
    keeper.abandon(())  # it is given no pipeline that it could save
    after, again = pipeline(), Keeper(Journal(tmp_path, "process"), 1.0)
    again.start(after)
    assert same(before, after)
    again.close(after)


def test_a_message_comes_back_with_its_marks_and_one_of_an_earlier_version_without(tmp_path: Path) -> None:
    marked = Turn([Message("plant/a/x", b"1", T0, redelivered=True, retained=True)])
    assert [Message(*m) for t in packing.unpack_turns(packing.pack_turns([marked])) for m in t.messages] == [
        marked.messages[0]
    ]
    earlier = zlib.compress(msgspec.msgpack.encode([[[["plant/a/x", b"1", T0, True]], T0, 0, None, []]]))
    ((message,),) = (t.messages for t in packing.unpack_turns(earlier))
    assert message == Message("plant/a/x", b"1", T0, redelivered=True, retained=False)


def test_turns_of_a_version_that_knew_no_calls_are_read() -> None:
    before = zlib.compress(msgspec.msgpack.encode([[[["t", b"1", 5, False, False]], None, 0, None, []]]), 1)
    assert packing.unpack_turns(before) == [Turn([Message("t", b"1", 5)], refused=[])]
    turn = Turn([Message("t", b"1", 5)], calls=[Call("mute", "s", "x", 1, 2, kind="anomaly")], refused=[])
    assert packing.unpack_turns(packing.pack_turns([turn])) == [turn]
