"""Recordings on disk to messages: CSV tables and our own recordings (one JSON object a line), plain or gzip.

Files in, batches of messages in order of time out; several CSV files advance side by side. No payload is decoded here.
"""

import gzip
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Message, Turn
from transom.core.recorded import Recorded, begin_of, turns
from transom.core.stream import StreamSpec
from transom.core.tables import HEAD, Table, encoding, read_table
from transom.core.values import ChannelSpec
from transom.errors import RecordingError

ROWS = 64  # rows of a file at a time
OPEN = 64  # files that advance side by side
TOPIC = "replay/{series}"
SUFFIXES = (".csv", ".tsv", ".txt")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Source:
    """An open recording: its name, and how many bytes of `size` have been read."""

    path: Path
    name: str
    size: int
    raw: BinaryIO
    lines: Iterator[str]
    done: int = 0

    def advance(self) -> None:
        """Notes how far the file has been read; reading to the end has closed it."""
        self.done = self.size if self.raw.closed else self.raw.tell()


def is_table(path: Path) -> bool:
    """True for a CSV, False for a recording of ours; by the name without .gz, else by the first character."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        return False
    if name.endswith(SUFFIXES):
        return True
    source = open_source(path)
    try:
        return not next(source.lines, "").lstrip().startswith("{")
    finally:
        source.raw.close()


def series_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The series of each CSV: the file's name without its endings, with its folder's where two files share a name.

    Raises RecordingError when two would still be the same.
    """
    stems = {path: path.name.removesuffix(".gz") for path in paths}
    stems = {path: name.rpartition(".")[0] or name for path, name in stems.items()}
    shared = Counter(stems.values())
    names = {p: name if shared[name] == 1 else f"{p.absolute().parent.name}.{name}" for p, name in stems.items()}
    for name, count in Counter(names.values()).items():
        if count > 1 or len(names) < len(paths):
            raise RecordingError(name, "is the name of several files, and the file's name is the series", "rename one")
    return names


def open_source(path: Path, name: str = "", *, cut: bool = False) -> Source:
    """cut: a .gz may lack its end. Raises RecordingError when the file cannot be opened."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise RecordingError(str(path), error.strerror or str(error), "give a CSV file or a recording") from None
    stream: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
    return Source(path, name, path.stat().st_size, raw, _lines(stream, path, cut=cut))


def _lines(stream: Any, path: Path, *, cut: bool) -> Iterator[str]:
    try:
        with io.TextIOWrapper(stream, encoding(stream.peek(HEAD)), errors="replace", newline="") as text:
            yield from text
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        if cut and isinstance(error, EOFError):  # a recorder that was killed
            return
        raise RecordingError(str(path), f"cannot be read to its end ({error})", "is it whole?") from None


# --- tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenTable:
    source: Source
    table: Table

    @property
    def shape(self) -> str | None:
        """The only column's name, or None for several: what `table_stream` depends on."""
        return self.table.names[0] if len(self.table.names) == 1 else None


def open_table(path: Path, name: str) -> OpenTable:
    source = open_source(path, name)
    return OpenTable(source, read_table(source.lines, str(path)))


def table_stream(spec: StreamSpec, column: str | None) -> StreamSpec:
    """The stream as configured, fed by rows of a table instead of its topics. column: as `OpenTable.shape`."""
    channels = spec.payload.channels
    if column is not None and not any(column in (c.name, c.path) for c in channels):
        channels = (ChannelSpec(column),)
    kind: Any = "json" if column is not None else "object"
    payload = PayloadSpec(format=kind, value=column, time="time", time_unit="us", channels=channels, max_bytes=1 << 24)
    return replace(spec, topic=TOPIC, series=(), payload=payload, grid=replace(spec.grid, max_ahead=None))


def table_messages(tables: Sequence[OpenTable]) -> Iterator[list[tuple[OpenTable, list[Message]]]]:
    """Batches of a few rows of each table; a row is a message that arrives at its own time."""
    waiting = list(tables)
    running: list[tuple[OpenTable, Iterator[list[Message]]]] = []
    while waiting or running:
        while waiting and len(running) < OPEN:
            table = waiting.pop(0)
            running.append((table, _rows(table)))
        batch, still = [], []
        for table, rows in running:
            messages = next(rows, None)
            table.source.advance()
            if messages is None:
                table.source.raw.close()
                continue
            batch.append((table, messages))
            still.append((table, rows))
        running = still
        if batch:
            yield batch


def _rows(table: OpenTable) -> Iterator[list[Message]]:
    topic, names = f"replay/{table.source.name}", table.table.names
    newest = 0
    for times, values in table.table.blocks:
        present = np.isfinite(values)
        whole: list[bool] = np.all(present, axis=1).tolist()
        for begin in range(0, len(times), ROWS):
            messages = []
            for i in range(begin, min(begin + ROWS, len(times))):
                row = dict(zip(names, values[i].tolist(), strict=True))
                if not whole[i]:
                    row = {n: v for n, v, there in zip(names, row.values(), present[i], strict=True) if there}
                    if not row:
                        continue
                time = int(times[i])
                newest = max(newest, time // 1000)
                messages.append(Message(topic, _encode({"time": time, **row}), newest))
            yield messages


# --- our own recordings -------------------------------------------------------------------------------------------


def beginning(path: Path) -> Recorded | None:
    """What the recorder said of the topics it listened to, None in a recording that does not say."""
    source = open_source(path, cut=True)
    try:
        return begin_of(next(source.lines, ""))
    finally:
        source.raw.close()


def recorded_turns(source: Source, after: int | None = None) -> Iterator[Turn]:
    """The turns of a recording as they happened. after: as for `turns`. Raises RecordingError naming the line."""
    for turn in turns(source.lines, str(source.path), after):
        source.advance()
        yield turn
    source.done = source.size
    source.raw.close()
