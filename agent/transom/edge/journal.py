"""One SQLite file: turns since the last snapshot, the snapshot, and alerts that wait for the broker.

Each commit is one transaction. Decides nothing; raises sqlite3.Error when the disk or the file will not do, and
JournalBusyError when another agent has the file.
"""

import itertools
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from transom.core.pipeline import Turn
from transom.dialects.plain import Publication
from transom.edge import packing
from transom.errors import TransomError

log = logging.getLogger(__name__)

NAME = "transom.db"
FORMAT = 2  # of the tables
PAGE = 1024  # bytes: most commits are small, and a commit writes whole pages
PAGES = 4096  # in the write-ahead log before they move to their places

Durability = Literal["process", "power", "none"]
Recent = list[tuple[int, int]]  # (packet id, checksum) of the latest QoS 1 messages

_TABLES = """
CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, turns BLOB NOT NULL, recent BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), upto INTEGER NOT NULL, state BLOB NOT NULL,
                                     recent BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
                                   qos INTEGER NOT NULL, retain INTEGER NOT NULL,
                                   made INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class JournalBusyError(TransomError):
    """Another process has the state folder."""


class OtherFormatError(sqlite3.DatabaseError):
    """A sound file of another version of Transom."""


class Recovered(NamedTuple):
    """snapshot: the last one, None when there is none; rows: how many rows of turns follow it; recent: of both."""

    snapshot: dict[str, Any] | None
    rows: int
    recent: Recent


class Journal:
    """What survives, in `folder`. durability: "process" survives a kill, "power" also a power cut; secure: what is
    deleted is overwritten."""

    def __init__(self, folder: Path, durability: Durability, *, secure: bool = False) -> None:
        self.path = folder / NAME
        self._durability, self._secure = durability, secure
        self._db: sqlite3.Connection | None = None
        self._upto = 0
        self._identity = (0, 0)
        self.space = 0  # of the alerts' ids: another file has another one
        self.bytes = 0  # of turns and snapshots written since the start

    # --- open and close ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or makes the file; one that is damaged is set aside, never deleted."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self.close()
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise JournalBusyError(
                    f"agent.state {self.path.parent}", "another agent uses this folder",
                    "stop it, or give this one a folder and an agent.id of its own",
                ) from None  # fmt: skip
            raise
        except sqlite3.DatabaseError as error:
            self.close()
            what = "is of another version" if isinstance(error, OtherFormatError) else "is damaged"
            self._set_aside(f"{what} ({error})")
            self._open()

    def _open(self) -> None:
        fresh = not self.path.exists()
        db = self._db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        if fresh:
            self.path.chmod(0o600)
            db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA locking_mode=EXCLUSIVE")  # one agent a folder, and no shared memory file
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if self._durability == 'power' else 'NORMAL'}")
        db.execute(f"PRAGMA wal_autocheckpoint={PAGES}")
        if self._secure:
            db.execute("PRAGMA secure_delete=ON")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version != FORMAT and tables:
            raise OtherFormatError(f"format {version or 1}, this version of transom writes {FORMAT}")
        if version != FORMAT:
            db.execute(f"PRAGMA user_version={FORMAT}")
        db.executescript(_TABLES)
        if "made" not in [column[1] for column in db.execute("PRAGMA table_info(outbox)")]:  # of an earlier version
            now = round(time.time() * 1000)
            db.execute(f"ALTER TABLE outbox ADD COLUMN made INTEGER NOT NULL DEFAULT {now}")
        if self.note("space") is None:
            self.set_note("space", secrets.randbits(63))
        self.space = self.note("space")
        stat = self.path.stat()
        self._identity = stat.st_dev, stat.st_ino
        row = db.execute("SELECT max(id) FROM turns").fetchone()
        kept = db.execute("SELECT upto FROM snapshot").fetchone()
        self._upto = max(row[0] or 0, kept[0] if kept else 0)

    def _set_aside(self, why: str) -> None:
        stamp = f"damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        marks = (stamp if n == 0 else f"{stamp}-{n}" for n in itertools.count())
        mark = next(m for m in marks if not Path(f"{self.path}.{m}").exists())  # two in one second are two
        for suffix in ("", "-wal", "-shm"):
            path = Path(f"{self.path}{suffix}")
            if path.exists():
                path.rename(f"{path}.{mark}")
        log.error("state %s %s: kept as %s.%s, starting without it", self.path, why, NAME, mark)

    def replace(self, why: str, *, with_alerts: bool) -> None:
        """Sets the file aside and begins a new one. with_alerts: takes over those that wait, as far as they can be
        read."""
        alerts: list[Publication] = []
        try:
            alerts += [alert for _, alert in self.waiting(0, -1)] if with_alerts else []
        except sqlite3.Error as error:
            log.error("alerts that waited in it cannot be read (%s)", error)  # noqa: TRY400
        self.close()
        self._set_aside(why)
        self._open()
        self.commit([], [], alerts, [], {})

    def look(self) -> None:
        """Raises sqlite3.OperationalError when the folder does not hold the file that is open any more: SQLite writes
        on into a file that has been deleted."""
        try:
            stat = self.path.stat()
        except OSError as error:
            raise sqlite3.OperationalError(f"the file is gone: {error.strerror}") from None
        if (stat.st_dev, stat.st_ino) != self._identity:
            raise sqlite3.OperationalError("the file was replaced by another one")

    def close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    @property
    def holds_state(self) -> bool:
        """True when there is something that a pipeline could be made of."""
        (some,) = self._run("SELECT EXISTS (SELECT 1 FROM snapshot) OR EXISTS (SELECT 1 FROM turns)").fetchone()
        return bool(some)

    # --- reading ------------------------------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """Raises sqlite3.DatabaseError when what is there cannot be understood."""
        row = self._run("SELECT state, recent, upto FROM snapshot").fetchone()
        try:
            snapshot = packing.unpack(packing.unseal(row[0], row[2])) if row else None
            recent = _recent(row[1], row[2]) if row else []
            for i, more in self._run("SELECT id, recent FROM turns ORDER BY id"):
                recent += _recent(more, i)
        except (ValueError, msgspec.DecodeError) as error:
            raise sqlite3.DatabaseError(str(error)) from None
        (rows,) = self._run("SELECT count(*) FROM turns").fetchone()
        return Recovered(snapshot, rows, recent)

    def turns(self) -> Iterator[tuple[int, list[Turn]]]:
        """(row, its turns) since the last snapshot, in their order."""
        last = 0
        while True:  # a cursor of its own for each: the caller may write in between
            row = self._run("SELECT id, turns FROM turns WHERE id > ? ORDER BY id LIMIT 1", last).fetchone()
            if row is None:
                return
            last = row[0]
            try:
                yield last, packing.unpack_turns(packing.unseal(row[1], last))
            except ValueError as error:
                raise sqlite3.DatabaseError(str(error)) from None

    def waiting(self, after: int, limit: int) -> list[tuple[int, Publication]]:
        """Alerts that the broker has not acknowledged, oldest first, with ids above `after`."""
        rows = self._run(
            "SELECT id, topic, payload, qos, retain FROM outbox WHERE id > ? ORDER BY id LIMIT ?", after, limit
        )
        return [(i, Publication(topic, payload, qos, bool(retain))) for i, topic, payload, qos, retain in rows]

    def note(self, name: str) -> Any:
        row = self._run("SELECT value FROM notes WHERE name = ?", name).fetchone()
        if row is None:
            return None
        try:
            return msgspec.msgpack.decode(packing.unseal(row[0]))
        except (ValueError, msgspec.DecodeError) as error:
            raise sqlite3.DatabaseError(f"note {name}: {error}") from None

    # --- writing ------------------------------------------------------------------------------------------------------

    def commit(
        self, turns: Sequence[Turn], recent: Recent, alerts: Sequence[Publication], done: Sequence[int],
        notes: dict[str, Any],
    ) -> list[int]:  # fmt: skip
        """All of it or nothing. done: ids of alerts that the broker has; returns the ids of `alerts`."""
        row, data = self._upto + 1, packing.pack_turns(turns)
        with self._transaction() as db:
            if turns:
                marks = packing.seal(msgspec.msgpack.encode(recent), row)
                db.execute("INSERT INTO turns VALUES (?, ?, ?)", (row, packing.seal(data, row), marks))
            ids = _write_alerts(db, alerts, done)
            _write_notes(db, notes)
        if turns:
            self._upto, self.bytes = row, self.bytes + len(data)
        return ids

    def snapshot(
        self, state: dict[str, Any], recent: Recent, notes: dict[str, Any], alerts: Sequence[Publication] = (),
        done: Sequence[int] = (),
    ) -> tuple[int, list[int]]:  # fmt: skip
        """Replaces the snapshot, and forgets the turns that it holds; alerts and done as in `commit`, all of it or
        nothing. Returns its size in bytes, and the ids of `alerts`."""
        data, upto = packing.pack(state), self._upto
        with self._transaction() as db:
            marks = packing.seal(msgspec.msgpack.encode(recent), upto)
            db.execute("REPLACE INTO snapshot VALUES (1, ?, ?, ?)", (upto, packing.seal(data, upto), marks))
            db.execute("DELETE FROM turns")
            ids = _write_alerts(db, alerts, done)
            _write_notes(db, notes)
        if self._secure:  # the log holds older pages until it is cut
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")
        self.bytes += len(data)
        return len(data), ids

    def asked(self, query: str, *values: object) -> Any:
        """The first value of the first row."""
        return self._run(query, *values).fetchone()[0]

    def drop_alerts(self, upto: int, but: Collection[int]) -> int:
        """Forgets alerts with ids up to `upto`, but for some. Returns how many."""
        marks = ", ".join("?" * len(but))
        return self._run(f"DELETE FROM outbox WHERE id <= ? AND id NOT IN ({marks})", upto, *but).rowcount

    def set_note(self, name: str, value: Any) -> None:
        _write_notes(self._connection(), {name: value})

    def probe(self) -> None:
        """Raises sqlite3.Error while nothing can be written."""
        self.set_note("probe", time.time_ns())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _run(self, text: str, *values: object) -> sqlite3.Cursor:
        return self._connection().execute(text, values)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the journal is closed")
        return self._db


def _write_alerts(db: sqlite3.Connection, alerts: Sequence[Publication], done: Sequence[int]) -> list[int]:
    ids: list[int] = []
    for a in alerts:
        cursor = db.execute(
            "INSERT INTO outbox (topic, payload, qos, retain, made) VALUES (?, ?, ?, ?, ?)",
            (a.topic, a.payload, a.qos, int(a.retain), round(time.time() * 1000)),
        )
        ids.append(int(cursor.lastrowid or 0))
    db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in done])
    return ids


def _write_notes(db: sqlite3.Connection, notes: dict[str, Any]) -> None:
    for name, value in notes.items():
        db.execute("REPLACE INTO notes VALUES (?, ?)", (name, packing.seal(msgspec.msgpack.encode(value))))


def _recent(data: bytes, place: int) -> Recent:
    return msgspec.msgpack.decode(packing.unseal(data, place), type=Recent)
