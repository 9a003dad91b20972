"""What is kept on disk, when it is written, and what happens when it cannot be."""

import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, StreamSpec, Turn
from transom.dialects.plain import Publication
from transom.edge import keeper as keeping
from transom.edge import packing
from transom.edge.inbox import Token
from transom.edge.journal import NAME, Journal, JournalBusyError
from transom.edge.keeper import Keeper

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
    keeper.add(turn(1, keeping.TOGETHER), [], [], [])
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
    assert keeper.try_again(pipe, [ALERT]) is None
    blocked.unlink()
    stored = keeper.try_again(pipe, [ALERT])
    assert stored is not None
    assert [pub for _, pub in stored] == [ALERT]
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


def test_a_message_comes_back_with_its_marks_and_one_of_an_earlier_version_without(tmp_path: Path) -> None:
    marked = Turn([Message("plant/a/x", b"1", T0, redelivered=True, retained=True)])
    assert [Message(*m) for t in packing.unpack_turns(packing.pack_turns([marked])) for m in t.messages] == [
        marked.messages[0]
    ]
    earlier = zlib.compress(msgspec.msgpack.encode([[[["plant/a/x", b"1", T0, True]], T0, 0, None, []]]))
    ((message,),) = (t.messages for t in packing.unpack_turns(earlier))
    assert message == Message("plant/a/x", b"1", T0, redelivered=True, retained=False)
