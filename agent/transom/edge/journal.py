"""One SQLite file: turns since the last snapshot, the snapshot, and alerts that wait for the broker.

Each commit is one transaction. Decides nothing; raises sqlite3.Error when the disk or the file will not do, and
JournalBusyError when another agent has the file.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from transom.core.pipeline import Turn
from transom.dialects.plain import Publication
from transom.edge import packing
from transom.errors import TransomError

log = logging.getLogger(__name__)

NAME = "transom.db"
FORMAT = 1  # of the tables
PAGE = 1024  # bytes: most commits are small, and a commit writes whole pages
PAGES = 4096  # in the write-ahead log before they move to their places

Durability = Literal["process", "power", "none"]
Recent = list[tuple[int, int]]  # (packet id, checksum) of the latest QoS 1 messages

_TABLES = """
CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, turns BLOB NOT NULL, recent BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), upto INTEGER NOT NULL, state BLOB NOT NULL,
                                     recent BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
                                   qos INTEGER NOT NULL, retain INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class JournalBusyError(TransomError):
    """Another process has the state folder."""


class Recovered(NamedTuple):
    """snapshot: the last one, None when there is none; rows: how many rows of turns follow it; recent: of both."""

    snapshot: dict[str, Any] | None
    rows: int
    recent: Recent


class Journal:
    """What survives, in `folder`. durability: "process" survives a kill, "power" also a power cut."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.path = folder / NAME
        self._durability = durability
        self._db: sqlite3.Connection | None = None
        self._upto = 0
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
            self._set_aside(str(error))
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
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        db.executescript(_TABLES)
        saved = self.note("format")
        if saved is None:
            self.set_note("format", FORMAT)
        elif saved != FORMAT:
            raise sqlite3.DatabaseError(f"format {saved}, this version of transom writes {FORMAT}")
        row = db.execute("SELECT max(id) FROM turns").fetchone()
        kept = db.execute("SELECT upto FROM snapshot").fetchone()
        self._upto = max(row[0] or 0, kept[0] if kept else 0)

    def _set_aside(self, why: str) -> None:
        mark = f"damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        for suffix in ("", "-wal", "-shm"):
            path = Path(f"{self.path}{suffix}")
            if path.exists():
                path.rename(f"{path}.{mark}")
        log.error("state %s is damaged (%s): kept as %s.%s, starting without it", self.path, why, NAME, mark)

    def close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    # --- reading ------------------------------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """Raises sqlite3.DatabaseError when what is there cannot be understood."""
        row = self._run("SELECT state, recent FROM snapshot").fetchone()
        try:
            snapshot = packing.unpack(row[0]) if row else None
            recent: Recent = msgspec.msgpack.decode(row[1], type=Recent) if row else []
            for (more,) in self._run("SELECT recent FROM turns ORDER BY id"):
                recent += msgspec.msgpack.decode(more, type=Recent)
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
                yield last, packing.unpack_turns(row[1])
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
        return None if row is None else msgspec.msgpack.decode(row[0])

    # --- writing ------------------------------------------------------------------------------------------------------

    def commit(
        self, turns: Sequence[Turn], recent: Recent, alerts: Sequence[Publication], done: Sequence[int],
        notes: dict[str, Any],
    ) -> list[int]:  # fmt: skip
        """All of it or nothing. done: ids of alerts that the broker has; returns the ids of `alerts`."""
        ids: list[int] = []
        db = self._begin()
        try:
            if turns:
                data = packing.pack_turns(turns)
                db.execute("INSERT INTO turns VALUES (?, ?, ?)", (self._upto + 1, data, msgspec.msgpack.encode(recent)))
                self.bytes += len(data)
            for a in alerts:
                cursor = db.execute(
                    "INSERT INTO outbox (topic, payload, qos, retain) VALUES (?, ?, ?, ?)",
                    (a.topic, a.payload, a.qos, int(a.retain)),
                )
                ids.append(int(cursor.lastrowid or 0))
            db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in done])
            for name, value in notes.items():
                self._write_note(db, name, value)
            db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._upto += bool(turns)
        return ids

    def snapshot(self, state: dict[str, Any], recent: Recent, notes: dict[str, Any]) -> int:
        """Replaces the snapshot, and forgets the turns that it holds. Returns its size in bytes."""
        data = packing.pack(state)
        db = self._begin()
        try:
            db.execute("REPLACE INTO snapshot VALUES (1, ?, ?, ?)", (self._upto, data, msgspec.msgpack.encode(recent)))
            db.execute("DELETE FROM turns")
            for name, value in notes.items():
                self._write_note(db, name, value)
            db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.bytes += len(data)
        return len(data)

    def set_note(self, name: str, value: Any) -> None:
        self._write_note(self._connection(), name, value)

    def probe(self) -> None:
        """Raises sqlite3.Error while nothing can be written."""
        self.set_note("probe", time.time_ns())

    def _write_note(self, db: sqlite3.Connection, name: str, value: Any) -> None:
        db.execute("REPLACE INTO notes VALUES (?, ?)", (name, msgspec.msgpack.encode(value)))

    def _begin(self) -> sqlite3.Connection:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        return db

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _run(self, text: str, *values: object) -> sqlite3.Cursor:
        return self._connection().execute(text, values)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the journal is closed")
        return self._db
