"""What the broker sends, to a file as it comes: a session of its own, gaps noted, size bounded.

Messages in; lines of `core/recorded` in files out. Knows nothing of streams; decodes nothing.
"""

import contextlib
import gzip
import itertools
import logging
import os
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from transom.core import recorded
from transom.edge.hearing import Absence
from transom.edge.inbox import Drained, Inbox
from transom.edge.mqtt import Connection
from transom.edge.wire import BrokerOptions
from transom.errors import BrokerError, RecordingError

log = logging.getLogger(__name__)

INBOX = 100_000  # messages that may wait for the disk
LOOK = 0.2  # seconds between two looks at the connection
FLUSH = 1.0  # seconds that a message may wait for the file
PATIENCE = 20.0  # seconds of a silent link before it counts as a gap
CONNECTED = 30.0  # seconds that the first subscription may take
LEAST_FREE = 64 << 20  # bytes that the disk keeps
LEAST_SIZE = 64 << 10  # bytes, the smallest limit of a file
KEPT = 20  # gaps that are told one by one


@dataclass(slots=True)
class Heard:
    """What has been recorded so far. gaps: (ms since 1970 at their end, seconds, reason), the first of them."""

    messages: int = 0
    shed: int = 0
    size: int = 0
    topics: int = 0
    gap_count: int = 0
    gap_seconds: float = 0.0
    gaps: list[tuple[int, float, str]] = field(default_factory=list)


class Files:
    """The file that is written, and those after it: `day.jsonl.gz`, `day.2.jsonl.gz`, …"""

    def __init__(
        self, path: Path, begin: Callable[[int], bytes], *, append: bool = False, limit: int | None = None,
        keep: int | None = None,
    ) -> None:  # fmt: skip
        """begin: the first line of each, at a time; limit: bytes of a file; keep: begin another at the limit, and keep
        so many. Raises RecordingError for a file that is there (without `append`) or cannot be written."""
        self._path, self._begin, self._limit, self._keep = path, begin, limit, keep
        self.paths: list[Path] = []
        self.written = 0  # bytes of all files before this one
        self.full = False  # the limit is reached, and no other file may be begun
        self._numbers = itertools.count(2)
        self._open(path, append=append)

    @property
    def size(self) -> int:
        """Bytes of this file; for .gz, what is on its way counts before compression."""
        return self._base + self._waiting

    def _open(self, path: Path, *, append: bool) -> None:
        try:
            if path.exists() and path.stat().st_size and not append:
                raise RecordingError(
                    str(path),
                    "is there already, and a recording cannot be made again",
                    "choose another name, or --append",
                )
            self._raw: BinaryIO = path.open("ab")
        except OSError as error:
            raise RecordingError(str(path), error.strerror or str(error), "choose a file that can be written") from None
        self._gzip: Any = gzip.GzipFile(fileobj=self._raw, mode="ab", compresslevel=6) if path.suffix == ".gz" else None
        self._base, self._waiting = self._raw.tell(), 0
        self.paths.append(path)
        self._put(self._begin(time.time_ns() // 1_000_000))

    def _put(self, line: bytes) -> None:
        (self._gzip or self._raw).write(line)
        self._waiting += len(line)

    def write(self, line: bytes) -> bool:
        """False when there is no room for it, and no other file may be begun."""
        if self._limit is not None and self.size + len(line) > self._limit:
            self.flush()
            if self.size + len(line) > self._limit and self.size > LEAST_SIZE // 2:
                if self._keep is None:
                    self.full = True
                    return False
                self._next()
        self._put(line)
        return True

    def flush(self) -> None:
        """What was written is on its way to the disk, and can be read though this process dies."""
        if self._gzip is not None:
            self._gzip.flush(zlib.Z_SYNC_FLUSH)
        self._raw.flush()
        self._base, self._waiting = self._raw.tell(), 0
        room = os.statvfs(self.paths[-1].absolute().parent)
        if room.f_bavail * room.f_frsize < LEAST_FREE:
            raise RecordingError(
                str(self.paths[-1]), f"the disk has less than {LEAST_FREE >> 20} MiB left", "what is there is whole"
            )

    def _next(self) -> None:
        self.close()
        self.written += self._base
        name, dot, endings = self._path.name.partition(".")
        self._open(
            next(p for n in self._numbers if not (p := self._path.with_name(f"{name}.{n}{dot}{endings}")).exists()),
            append=False,
        )
        while self._keep is not None and len(self.paths) > self._keep:
            oldest = self.paths.pop(0)
            self.written -= oldest.stat().st_size
            oldest.unlink()

    def close(self) -> None:
        """Ends the file; nothing where that has been done."""
        if self._raw.closed:
            return
        self._put(recorded.word("end", time.time_ns() // 1_000_000))
        if self._gzip is not None:
            self._gzip.close()
        self._raw.flush()
        self._base, self._waiting = self._raw.tell(), 0
        self._raw.close()


def record(
    options: BrokerOptions, filters: Sequence[str], files: Files, stop: threading.Event, *,
    seconds: float | None = None, on_look: Callable[[Heard], None] = lambda _: None,
    ready: threading.Event | None = None,
) -> Heard:  # fmt: skip
    """Blocks until `stop` is set, `seconds` have passed since the subscription, or the files are full.

    The session is its own, with an id of its own and nothing kept: the agent's stays as it is. on_look: told every LOOK
    seconds; ready: set when the subscription stands. Raises BrokerError when there is none, RecordingError when the
    disk refuses.
    """
    own = replace(options, client_id=f"transom-record-{secrets.token_hex(4)}", session=0)
    inbox = Inbox(INBOX)
    connection = Connection(own, filters=filters, inbox=inbox)
    connection.hearing.patience = PATIENCE
    heard, topics, absence = Heard(), set[str](), Absence()
    begun, flushed, connects = time.monotonic(), time.monotonic(), 0
    connection.start()
    try:
        while not stop.is_set() and not files.full:
            inbox.wait(LOOK)
            now = time.monotonic()
            if not connects and connection.ready:
                _refused(connection, own, filters)
                connects, begun = connection.counters()["connects"], now
                if ready is not None:
                    ready.set()
            elif not connects and now - begun > CONNECTED:
                raise BrokerError(
                    f"{own.host}:{own.port}", "no subscription within 30 s", "see `transom check --connect`"
                )
            if connects:
                gone = absence.look(now, connection.hearing.gaps(), away=not connection.ready)
                if connection.ready and connection.counters()["connects"] > connects:
                    connects = connection.counters()["connects"]
                    gone = max(gone, 0.001)
                if gone:
                    _gap(heard, files, gone, "not connected to the broker")
            _write(inbox.drain(), connection, files, heard, topics)
            if now - flushed >= FLUSH:
                files.flush()
                flushed = now
            heard.size = files.written + files.size
            on_look(heard)
            if seconds is not None and connects and now - begun >= seconds:
                break
        connection.stop_receiving()
        while len(inbox) and not files.full:
            _write(inbox.drain(), connection, files, heard, topics)
        if connects and absence.on:
            gone = absence.look(time.monotonic(), [], away=False)
            _gap(heard, files, gone, "not connected to the broker")
        files.close()
    except OSError as error:
        raise RecordingError(
            str(files.paths[-1]),
            f"cannot be written ({error.strerror or error})",
            "make room; what is there can be read",
        ) from None
    finally:
        connection.close()
        with contextlib.suppress(OSError):  # a full disk, which has been told
            files.close()
    heard.size = files.written + files.size
    return heard


def _refused(connection: Connection, options: BrokerOptions, filters: Sequence[str]) -> None:
    refused = connection.refused
    if refused and len(refused) >= len(set(filters)):
        name, reason = next(iter(refused.items()))
        raise BrokerError(
            f"{options.host}:{options.port}", f"refuses the subscription to {name} ({reason})", "check its access rules"
        )


def _gap(heard: Heard, files: Files, seconds: float, reason: str) -> None:
    now = time.time_ns() // 1_000_000
    files.write(recorded.word("gap", now, seconds=round(seconds, 3), reason=reason))
    heard.gap_count += 1
    heard.gap_seconds += seconds
    if len(heard.gaps) < KEPT:
        heard.gaps.append((now, seconds, reason))


def _write(drained: Drained, connection: Connection, files: Files, heard: Heard, topics: set[str]) -> None:
    if drained.shed:
        lost = sum(drained.shed.values())
        heard.shed += lost
        log.warning("%s messages were dropped: the disk is slower than the broker", f"{lost:,}")
        files.write(recorded.word("gap", time.time_ns() // 1_000_000, seconds=0, reason=f"{lost} messages dropped"))
    for message, token in zip(drained.messages, drained.tokens, strict=True):
        if not files.write(recorded.line(message, int(token is not None))):
            break
        heard.messages += 1
        if len(topics) < INBOX:
            topics.add(message.topic)
    heard.topics = len(topics)
    connection.acknowledge(token for token in drained.tokens if token is not None)
