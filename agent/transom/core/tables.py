"""Lines of a CSV to columns: times, and every numeric column as a channel. Text in, blocks of arrays out.

Opens nothing. A cell that is no number becomes NaN and is reported, never dropped in silence.
"""

import csv
import itertools
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
    file's order; bad: filled while the blocks are read."""

    names: tuple[str, ...]
    blocks: Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]
    bad: BadCells


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
    wanted = [i for i, c in enumerate(header) if i and c not in set(exclude) and _is_numeric(head, i)]
    if not wanted:
        raise RecordingError(name, "has no numeric column beside the time", f"its columns: {', '.join(header)[:200]}")
    bad = BadCells()
    names = tuple(header[i] for i in wanted)
    read_time = _date_or_instant if _are_dates([row[0] for _, row in head if row]) else _instant
    return Table(names, _blocks(itertools.chain(head, rows), wanted, header, name, bad, read_time), bad)


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


def _is_numeric(rows: list[tuple[int, list[str]]], column: int) -> bool:
    """At least half of the cells that hold something hold a number."""
    cells = [row[column].strip() for _, row in rows if len(row) > column]
    cells = [c for c in cells if c.lower() not in EMPTY]
    return not cells or 2 * sum(_number(c) is not None for c in cells) >= len(cells)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= 3.4e38 and "_" not in text else None


def _blocks(
    rows: Iterable[tuple[int, list[str]]], wanted: list[int], header: list[str], name: str, bad: BadCells,
    read_time: Callable[[str], int],
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
                values.append([_cell(row, i, line, header, bad) for i in wanted])
        except csv.Error as error:
            raise RecordingError(name, f"cannot be read as CSV ({error})", "is it a text file?") from None
        if not times:
            first = next(source, None)
            if first is None:
                return
            source = itertools.chain([first], source)
            continue
        yield np.array(times, np.int64), np.array(values, np.float64).reshape(len(times), len(wanted))


def _cell(row: list[str], column: int, line: int, header: list[str], bad: BadCells) -> float:
    text = row[column].strip() if column < len(row) else ""
    if text.lower() in EMPTY:
        return np.nan
    value = _number(text)
    if value is None:
        bad.add(line, header[column], text)
        return np.nan
    return value
