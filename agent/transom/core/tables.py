"""Lines of a CSV to columns: times, and every numeric column as a channel. Text in, blocks of arrays out.

Opens nothing. A cell that is no number becomes NaN and is reported, never dropped in silence.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date

import numpy as np
from numpy.typing import NDArray

from transom.core.times import instant
from transom.core.values import PayloadError
from transom.errors import RecordingError

TIME_NAMES = ("timestamp", "time", "datetime", "date")
BLOCK = 4096  # rows
KEPT = 20  # bad cells that are kept with their place
SNIFFED = 50  # rows that decide which columns are numeric, and whether 20140701 is a date
YEARS = range(1900, 2200)  # of a date in eight digits
SHOWN = 60  # characters of a bad cell
HEAD = 8192  # bytes of a file from which its encoding is found
LEFT = 5  # columns without numbers that are told by name
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+(?:[eE][+-]?[0-9]+)?")  # a number with a decimal comma
EMPTY = ("", "na", "nan", "null", "none", "-")  # ways to write "no value"


@dataclass(frozen=True, slots=True)
class BadCell:
    """line: from 1, the header's; column: its name; text: what stands there."""

    line: int
    column: str
    text: str


@dataclass(slots=True)
class BadCells:
    """How many cells were no number or time, and the first of them."""

    count: int = 0
    cells: list[BadCell] = field(default_factory=list)

    def add(self, line: int, column: str, text: str) -> None:
        self.count += 1
        if len(self.cells) < KEPT:
            self.cells.append(BadCell(line, column, text[:SHOWN]))


@dataclass(frozen=True, slots=True)
class Table:
    """names: the numeric columns; blocks: (times int64 µs [n], values float64 [n, C], NaN where missing) in the
    file's order; bad: filled while the blocks are read; left: a first cell of each column that holds no numbers."""

    names: tuple[str, ...]
    blocks: Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]
    bad: BadCells
    left: tuple[BadCell, ...] = ()

    @property
    def left_out(self) -> str:
        """Those columns in words, empty where there are none."""
        more = len(self.left) - LEFT
        told = [f"{c.column!r} ({c.text!r})" for c in self.left[:LEFT]]
        return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def encoding(head: bytes) -> str:
    """Of a file that begins so: UTF-8, or what spreadsheets write in Western Europe where its header is no UTF-8."""
    try:
        head.partition(b"\n")[0].decode()
    except UnicodeDecodeError as error:
        return "utf-8-sig" if error.reason == "unexpected end of data" else "cp1252"  # a long header, cut
    return "utf-8-sig"


def read_table(lines: Iterable[str], name: str, exclude: Iterable[str] = ()) -> Table:
    """name: for errors; exclude: columns that are no channels. Raises RecordingError for a file that is no table."""
    source = iter(lines)
    header_line = next(source, "")
    if not header_line.strip():
        raise RecordingError(name, "is empty", "give a CSV with a header")
    separator = _separator(header_line)
    header = [cell.strip() for cell in next(csv.reader([header_line], delimiter=separator))]
    if header[0].lower() not in TIME_NAMES:
        known = ", ".join(TIME_NAMES)
        raise RecordingError(
            f"{name}:1", f"the first column is {header[0][:60]!r}, not a time", f"name it one of {known}"
        )
    doubled = [c for c in header if header.count(c) > 1]
    if doubled:
        raise RecordingError(f"{name}:1", f"has two columns {doubled[0]!r}", "name each column once")
    reader = csv.reader(map(_whole, source), delimiter=separator)
    rows = ((reader.line_num + 1, row) for row in reader)  # a quoted cell may span lines
    head = list(itertools.islice(rows, SNIFFED))
    if not head:
        raise RecordingError(name, "has a header and no rows", "give a CSV with rows")
    number = _comma_number if separator != "," and _have_commas(head) else _number
    columns = [i for i, c in enumerate(header) if i and c not in set(exclude)]
    wanted = [i for i in columns if _is_numeric(head, i, number)]
    if not wanted:
        raise RecordingError(name, "has no numeric column beside the time", f"its columns: {', '.join(header)[:200]}")
    left = tuple(_first(head, i, header[i]) for i in columns if i not in wanted)
    bad = BadCells()
    names = tuple(header[i] for i in wanted)
    read_time = _date_or_instant if _are_dates([row[0] for _, row in head if row]) else _instant
    blocks = _blocks(itertools.chain(head, rows), wanted, header, name, bad, read_time, number)
    return Table(names, blocks, bad, left)


def _whole(line: str) -> str:
    """The line, or for one that holds a NUL (a disk that lost power) one cell that is no time: so it is counted."""
    if "\0" not in line:
        return line
    start = line[: SHOWN - 1].rstrip("\r\n").replace('"', "'")
    return f'"{start}\0"\n'


def _are_dates(cells: list[str]) -> bool:
    """Whether eight digits in this column are ISO 8601 basic dates: nearly all of them could be. A count of seconds
    leaves the calendar after 31 of them, and as times of 1970 they would be no more likely."""
    digits = [c.strip() for c in cells if _eight_digits(c)]
    return bool(digits) and 10 * sum(map(_is_date, digits)) >= 9 * len(digits)


def _eight_digits(text: str) -> bool:
    text = text.strip()
    return len(text) == 8 and text.isascii() and text.isdigit()


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).year in YEARS
    except ValueError:
        return False


def _instant(text: str) -> int:
    return instant(text, "auto", UTC, 0)


def _date_or_instant(text: str) -> int:
    return instant(text, "iso" if _eight_digits(text) else "auto", UTC, 0)


def _separator(header: str) -> str:
    return max((";", ",", "\t", "|"), key=header.count)


def _have_commas(rows: list[tuple[int, list[str]]]) -> bool:
    """Whether numbers are written with a decimal comma: some are, and none with a point."""
    cells = [cell.strip() for _, row in rows for cell in row[1:]]
    return any(map(_COMMA.fullmatch, cells)) and not any("." in c and _number(c) is not None for c in cells)


def _is_numeric(rows: list[tuple[int, list[str]]], column: int, number: Callable[[str], float | None]) -> bool:
    """At least half of the cells that hold something hold a number."""
    cells = [row[column].strip() for _, row in rows if len(row) > column]
    cells = [c for c in cells if c.lower() not in EMPTY]
    return not cells or 2 * sum(number(c) is not None for c in cells) >= len(cells)


def _first(rows: list[tuple[int, list[str]]], column: int, name: str) -> BadCell:
    """The first cell of a column that holds something."""
    cells = ((line, row[column].strip()) for line, row in rows if len(row) > column)
    line, text = next((line, text) for line, text in cells if text.lower() not in EMPTY)
    return BadCell(line, name, text[:SHOWN])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= 3.4e38 and "_" not in text else None


def _comma_number(text: str) -> float | None:
    """A point beside decimal commas may group thousands: such a cell is no number here, rather than the wrong one."""
    return None if "." in text else _number(text.replace(",", ".", 1))


def _blocks(
    rows: Iterable[tuple[int, list[str]]], wanted: list[int], header: list[str], name: str, bad: BadCells,
    read_time: Callable[[str], int], number: Callable[[str], float | None],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:  # fmt: skip
    source = iter(rows)
    while True:
        times: list[int] = []
        values: list[list[float]] = []
        try:
            for line, row in itertools.islice(source, BLOCK):
                if not row:
                    continue
                try:
                    time = read_time(row[0])
                except PayloadError:
                    bad.add(line, header[0], row[0])
                    continue
                times.append(time)
                values.append([_cell(row, i, line, header, bad, number) for i in wanted])
        except csv.Error as error:
            raise RecordingError(name, f"cannot be read as CSV ({error})", "is it a text file?") from None
        if not times:
            first = next(source, None)
            if first is None:
                return
            source = itertools.chain([first], source)
            continue
        yield np.array(times, np.int64), np.array(values, np.float64).reshape(len(times), len(wanted))


def _cell(
    row: list[str], column: int, line: int, header: list[str], bad: BadCells, number: Callable[[str], float | None]
) -> float:
    text = row[column].strip() if column < len(row) else ""
    if text.lower() in EMPTY:
        return np.nan
    value = number(text)
    if value is None:
        bad.add(line, header[column], text)
        return np.nan
    return value
